"""How facts about a machine are judged: texts and numbers in, checks out."""

from pathlib import Path

import pytest

from headrace.engine import probe
from headrace.engine.privileges import ServiceIds
from headrace.engine.probe import CgroupPlace, Check, Interpreter, State
from headrace.engine.trials import TrialError
from headrace.model.errors import IsolationError

V1_CGROUP = "3:memory:/user/ann\n2:cpu,cpuacct:/user/ann\n1:name=systemd:/user\n0::/user/ann\n"
V1_MOUNTS = """\
21 1 0:20 / / rw,relatime - ext4 /dev/sda rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""
V2_MOUNTS = """\
21 1 0:20 / / rw,relatime shared:1 - ext4 /dev/sda rw
30 21 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate
"""
MAPPED = "         0          0 4294967295\n"


@pytest.mark.parametrize(
    ("release", "state"),
    [
        ("6.18.44-fc", State.PASS),
        ("5.12.0", State.PASS),
        ("5.11.9-generic", State.FAIL),
        ("4.19", State.FAIL),
        ("strange", State.FAIL),
    ],
)
def test_a_kernel_is_judged_by_its_version(release: str, state: State) -> None:
    check = probe.check_kernel(release)

    assert check.state is state
    assert (check.remedy is None) is (state is State.PASS)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        (
            {"kernel.unprivileged_userns_clone": "0"},
            "sysctl -w kernel.unprivileged_userns_clone=1",
        ),
        ({"user.max_user_namespaces": "0"}, "sysctl -w user.max_user_namespaces=15000"),
        (
            {"kernel.apparmor_restrict_unprivileged_userns": "1"},
            "sysctl -w kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    ],
)
def test_the_setting_that_forbids_user_namespaces_is_named(
    settings: dict[str, str], remedy: str
) -> None:
    assert probe.userns_remedy(settings) == remedy


def test_without_a_setting_in_the_way_the_container_is() -> None:
    assert "seccomp profile" in probe.userns_remedy({"user.max_user_namespaces": "63000"})


def test_directories_of_version_1_are_found_by_their_controllers() -> None:
    assert probe.find_cgroups(V1_CGROUP, V1_MOUNTS) == [
        CgroupPlace(1, ("memory",), Path("/sys/fs/cgroup/memory/user/ann")),
        CgroupPlace(1, ("cpu", "cpuacct"), Path("/sys/fs/cgroup/cpu,cpuacct/user/ann")),
        CgroupPlace(1, ("name=systemd",), Path("/sys/fs/cgroup/systemd/user")),
        CgroupPlace(2, (), Path("/sys/fs/cgroup/unified/user/ann")),
    ]


def test_the_directory_of_version_2_is_found() -> None:
    assert probe.find_cgroups("0::/app.slice\n", V2_MOUNTS) == [
        CgroupPlace(2, (), Path("/sys/fs/cgroup/app.slice"))
    ]


def test_a_hierarchy_that_is_mounted_from_elsewhere_is_left_out() -> None:
    elsewhere = V2_MOUNTS.replace("0:26 /", "0:26 /other")

    assert probe.find_cgroups("0::/app.slice\n", elsewhere) == []


def test_a_mount_point_with_spaces_is_read() -> None:
    spaced = "30 21 0:26 / /my\\040cgroups rw - cgroup2 cgroup2 rw\n"

    assert probe.find_cgroups("0::/\n", spaced)[0].directory == Path("/my cgroups")


@pytest.mark.parametrize("line", ["", "rubbish", "1 2 3 - ", "30 21 0:26 / /x rw - cgroup2"])
def test_lines_that_are_no_mounts_are_passed_over(line: str) -> None:
    assert probe.find_cgroups("0::/\n", line) == []


def test_all_controllers_together_pass() -> None:
    check = probe.judge_cgroups({"memory": 2, "cpu": 2, "pids": 2}, is_root=False)

    assert check == Check("cgroups", State.PASS, "memory (v2), cpu (v2), pids (v2)")


def test_a_missing_controller_is_named_with_the_remedy_of_an_ordinary_user() -> None:
    check = probe.judge_cgroups({"memory": 1, "pids": 1}, is_root=False)

    assert check.state is State.WARN
    assert check.value == "memory (v1), pids (v1); not usable: cpu"
    assert check.remedy is not None
    assert "Delegate=yes" in check.remedy


@pytest.mark.parametrize(
    ("uid_map", "subuid", "users", "count"),
    [
        (MAPPED, "", [0, 1000, 65534], 35_018),
        (MAPPED, "ann:100000:65536\n", [], 35_018),
        (MAPPED, "ann:2000000000:65536\n", [], 35_017),
        (MAPPED, "ann:2000065535:2\n", [], 35_016),
        (MAPPED, "ann:1999999999:1\n", [], 35_018),
        (MAPPED, "# comment\nann:x:y\n", [], 35_018),
        (MAPPED, "", [2_000_000_001], 35_017),
        (MAPPED, "", [2**32 - 1], 35_018),
        ("0 100000 65536\n", "", [], 0),
        ("0 0 2000065536\n", "", [], 1),
        ("0 0 2000065535\n", "", [], 0),
        ("0 0 1\n2000000001 0 131072\n", "", [], 1),
    ],
)
def test_ranges_are_free_if_they_are_mapped_and_nobody_has_them(
    uid_map: str, subuid: str, users: list[int], count: int
) -> None:
    assert probe.count_free_ranges(uid_map, subuid, users) == count


@pytest.mark.parametrize(
    ("count", "state"),
    [(35_018, State.PASS), (256, State.PASS), (255, State.WARN), (0, State.FAIL)],
)
def test_a_machine_needs_ranges_for_its_sandboxes(count: int, state: State) -> None:
    assert probe.judge_ranges(count).state is state


def test_a_package_that_is_missing_has_its_remedy() -> None:
    check = probe.check_package("no-such-package-anywhere", State.FAIL)

    assert check.state is State.FAIL
    assert check.remedy == "pip install 'headrace[kernel]'"


def test_a_machine_without_the_service_id_has_the_command_that_makes_one() -> None:
    def find() -> ServiceIds:
        raise IsolationError("no uid")

    check = probe.check_service(find)

    assert (check.state, check.remedy) == (State.FAIL, "useradd --system headrace")


NODE = Interpreter("javascript", "node", "nodejs")


def test_a_language_that_is_missing_names_its_package() -> None:
    check = probe.judge_interpreter(NODE, None, "")

    assert (check.state, check.remedy) == (State.WARN, "apt-get install nodejs")


def test_a_language_that_is_there_shows_its_version() -> None:
    assert probe.judge_interpreter(NODE, "/usr/bin/node", "v20.1.0") == Check(
        "language javascript", State.PASS, "/usr/bin/node v20.1.0"
    )


def test_a_language_whose_interpreter_is_too_old_says_so() -> None:
    old = Interpreter("javascript", "node", "nodejs", least=(20, 12))
    check = probe.judge_interpreter(old, "/usr/bin/node", "v20.11.1")
    assert (check.state, check.value) == (State.WARN, "/usr/bin/node v20.11.1 is too old")
    assert "nodejs of at least version 20.12" in str(check.remedy)
    assert probe.judge_interpreter(old, "/usr/bin/node", "v20.12.0").state is State.PASS


def test_a_path_lies_on_the_innermost_mount() -> None:
    mounts = V2_MOUNTS + "50 21 0:40 / /run rw - tmpfs tmpfs rw\n"

    assert probe.file_system_of(Path("/run/headrace"), mounts) == "tmpfs"
    assert probe.file_system_of(Path("/runner"), mounts) == "ext4"


def test_of_two_mounts_on_one_point_the_later_counts() -> None:
    mounts = "1 0 0:1 / /run rw - ext4 x rw\n2 0 0:2 / /run rw - tmpfs x rw\n"

    assert probe.file_system_of(Path("/run/x"), mounts) == "tmpfs"


def test_a_runtime_directory_in_memory_passes_and_one_on_disk_warns() -> None:
    assert probe.judge_runtime(Path("/run"), "tmpfs", is_root=True).state is State.PASS
    assert probe.judge_runtime(Path("/run"), "ext4", is_root=True).state is State.WARN


def test_an_ordinary_user_is_not_told_to_mount() -> None:
    remedy = probe.judge_runtime(Path("/tmp/x"), "ext4", is_root=False).remedy

    assert remedy == "set XDG_RUNTIME_DIR to a directory of yours in memory"


@pytest.mark.parametrize(
    ("free_mib", "state"), [(4096, State.PASS), (1024, State.WARN), (100, State.FAIL)]
)
def test_the_state_directory_needs_room(free_mib: int, state: State) -> None:
    assert probe.judge_state(Path("/var"), free_mib * 1024 * 1024).state is state


def test_a_trial_that_works_passes_with_its_answer() -> None:
    assert probe.check_trial("x", lambda: "yes", "mend it") == Check("x", State.PASS, "yes")


def test_a_trial_that_is_refused_fails_with_the_reason_and_the_remedy() -> None:
    def refused() -> str:
        raise TrialError("not here")

    assert probe.check_trial("x", refused, "mend it", State.WARN) == Check(
        "x", State.WARN, "no: not here", "mend it"
    )
