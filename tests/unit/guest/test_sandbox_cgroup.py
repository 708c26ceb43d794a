"""The control groups of one sandbox, over a tree in memory."""

import errno
import os

import pytest

from headrace_guest.cgroup_files import CgroupFiles
from headrace_guest.sandbox_cgroup import Cgroup, CgroupLimits, Place, Stats, plan_limits
from tests.support.fake_cgroups import MOUNT, FakeCgroups

LIMITS = CgroupLimits(memory=1000, disk=24, processes=9, cpus=1.5)
ALL = frozenset({"memory", "processes", "cpu", "freeze", "kill", "cpu_time"})
PID = 4_500_000
AT = f"{MOUNT}/box"


class V1Files(CgroupFiles):
    """Three v1 directories: memory, pids and freezer. It logs writes and fails as told."""

    def __init__(self) -> None:
        self.log: list[tuple[str, str]] = []
        self.failing: dict[str, int] = {}
        self.content: dict[str, str] = {}
        self.pids: list[int] = []
        self.kept: set[str] = set()

    def read(self, path: str) -> str:
        if path.endswith("/cgroup.procs"):
            return "".join(f"{pid}\n" for pid in self.pids)
        return self.content[path] if path in self.content else super().read(path)

    def write(self, path: str, text: str) -> None:
        self.log.append((path, text))
        if path in self.failing:
            raise OSError(self.failing[path], path)

    def remove(self, path: str) -> None:
        if path in self.kept:
            raise OSError(errno.EBUSY, path)

    def kill_members(self, path: str) -> set[int]:
        killed = set(self.pids)
        self.log.append((path, "killed"))
        self.pids = []
        return killed


V1_PLACES = (
    Place("/m", 1, frozenset({"memory"})),
    Place("/p", 1, frozenset({"processes"})),
    Place("/f", 1, frozenset({"freeze"})),
)


@pytest.fixture
def v2() -> FakeCgroups:
    files = FakeCgroups("/own")
    files.give(MOUNT, "memory pids cpu")
    files.make(AT)
    files.groups_by_path[f"{MOUNT}/own"].pids.append(PID)
    return files


@pytest.fixture
def box(v2: FakeCgroups) -> Cgroup:
    return Cgroup("box", (Place(AT, 2, ALL),), v2)


@pytest.fixture
def v1() -> V1Files:
    return V1Files()


@pytest.fixture
def old_box(v1: V1Files) -> Cgroup:
    return Cgroup("box", V1_PLACES, v1)


def planned(version: int, *abilities: str) -> list[tuple[str, str]]:
    return [(one.file, one.text) for one in plan_limits(version, abilities, LIMITS)]


def test_memory_and_disk_are_one_limit_without_swap() -> None:
    assert planned(2, "memory") == [("memory.swap.max", "0"), ("memory.max", "1024")]
    assert planned(1, "memory") == [
        ("memory.oom_control", "0"),
        ("memory.swappiness", "0"),
        ("memory.kmem.tcp.limit_in_bytes", "128"),
        ("memory.memsw.limit_in_bytes", "1024"),
        ("memory.limit_in_bytes", "1024"),
        ("memory.memsw.limit_in_bytes", "1024"),
    ]


def test_cores_become_a_share_of_a_period() -> None:
    assert planned(2, "cpu") == [("cpu.max", "150000 100000")]
    assert planned(1, "cpu") == [
        ("cpu.cfs_quota_us", "-1"),
        ("cpu.cfs_period_us", "100000"),
        ("cpu.cfs_quota_us", "150000"),
    ]


def test_a_tiny_share_is_the_smallest_that_the_kernel_takes() -> None:
    tiny = CgroupLimits(memory=1, disk=0, processes=1, cpus=0.000001)
    assert plan_limits(2, {"cpu"}, tiny)[0].text == "1000 100000"


def test_only_what_a_hierarchy_has_is_written() -> None:
    assert planned(2, "freeze", "kill", "cpu_time") == []
    assert planned(1, "processes") == planned(2, "processes") == [("pids.max", "9")]


@pytest.mark.parametrize(
    ("memory", "disk", "processes", "cpus"),
    [(0, 0, 1, 1.0), (1, -1, 1, 1.0), (1, 0, 0, 1.0), (1, 0, 1, 0.0), (1, 0, 1, float("nan"))],
)
def test_limits_that_mean_nothing_are_refused(
    memory: int, disk: int, processes: int, cpus: float
) -> None:
    with pytest.raises(ValueError, match="positive"):
        CgroupLimits(memory=memory, disk=disk, processes=processes, cpus=cpus)


def test_limits_are_written_and_changed(v2: FakeCgroups, box: Cgroup) -> None:
    box.update(LIMITS)
    files = v2.groups_by_path[AT].files
    assert (files["memory.max"], files["memory.swap.max"]) == ("1024", "0")
    assert (files["pids.max"], files["cpu.max"]) == ("9", "150000 100000")
    box.update(CgroupLimits(memory=1, disk=1, processes=2, cpus=1.0))
    assert (files["memory.max"], files["pids.max"]) == ("2", "2")


def test_a_machine_without_swap_accounting_is_fine(v2: FakeCgroups, box: Cgroup) -> None:
    del v2.groups_by_path[AT].files["memory.swap.max"]
    box.update(LIMITS)
    assert v2.groups_by_path[AT].files["memory.max"] == "1024"


def test_a_limit_that_cannot_be_set_is_an_error(v2: FakeCgroups, box: Cgroup) -> None:
    v2.refused.add(AT)
    with pytest.raises(PermissionError):
        box.update(LIMITS)


def test_a_smaller_share_above_is_no_error(v1: V1Files) -> None:
    v1.failing["/c/cpu.cfs_quota_us"] = errno.EINVAL
    with pytest.raises(OSError, match=r"cfs_quota"):
        Cgroup("box", (Place("/c", 1, frozenset({"cpu"})),), v1).update(LIMITS)
    tolerated = [one for one in plan_limits(1, {"cpu"}, LIMITS) if one.tolerated]
    assert [(one.text, one.tolerated) for one in tolerated] == [("150000", (errno.EINVAL,))]


def test_processes_come_in_and_are_listed(v2: FakeCgroups, box: Cgroup) -> None:
    box.add(PID)
    assert box.processes() == [PID]


@pytest.mark.parametrize("pid", [0, 1, -1, -4])
def test_a_pid_that_means_something_else_is_refused(box: Cgroup, pid: int) -> None:
    with pytest.raises(ValueError, match="not the pid"):
        box.add(pid)


def test_a_process_that_is_gone_is_said_to_be(box: Cgroup) -> None:
    with pytest.raises(ProcessLookupError):
        box.add(PID + 1)


def test_a_v1_process_joins_every_hierarchy(v1: V1Files, old_box: Cgroup) -> None:
    old_box.add(PID)
    assert v1.log == [(f"/{name}/cgroup.procs", str(PID)) for name in "mpf"]


def test_the_wait_for_a_move_is_taken_once_for_all_hierarchies(
    v1: V1Files, old_box: Cgroup
) -> None:
    old_box.expect_add(PID)
    assert v1.log == [("/m/cgroup.procs", str(PID))]


def test_a_member_that_is_gone_is_no_harm_to_the_wait(v2: FakeCgroups, box: Cgroup) -> None:
    box.expect_add(PID + 1)
    assert box.processes() == []
    Cgroup("box", (), v2).expect_add(PID)


@pytest.mark.parametrize("pid", [0, 1, -1])
def test_a_wait_by_a_pid_that_means_something_else_is_refused(box: Cgroup, pid: int) -> None:
    with pytest.raises(ValueError, match="not the pid"):
        box.expect_add(pid)


def test_freezing_is_asked_for_and_seen(v2: FakeCgroups, box: Cgroup) -> None:
    box.freeze()
    assert v2.groups_by_path[AT].files["cgroup.freeze"] == "1"
    assert not box.is_frozen()
    v2.groups_by_path[AT].files["cgroup.events"] = "populated 1\nfrozen 1\n"
    assert box.is_frozen()
    box.thaw()
    assert v2.groups_by_path[AT].files["cgroup.freeze"] == "0"


def test_v1_freezing_is_asked_for_and_seen(v1: V1Files, old_box: Cgroup) -> None:
    old_box.freeze()
    old_box.thaw()
    assert v1.log == [("/f/freezer.state", "FROZEN"), ("/f/freezer.state", "THAWED")]
    v1.content["/f/freezer.state"] = "FREEZING\n"
    assert not old_box.is_frozen()
    v1.content["/f/freezer.state"] = "FROZEN\n"
    assert old_box.is_frozen()


def test_freezing_without_a_freezer_is_an_error(v1: V1Files) -> None:
    box = Cgroup("box", V1_PLACES[:2], v1)
    for action in (box.freeze, box.thaw, box.is_frozen):
        with pytest.raises(OSError, match="freeze") as caught:
            action()
        assert caught.value.errno == errno.ENOTSUP


def test_killing_is_one_write_where_the_kernel_can(v2: FakeCgroups, box: Cgroup) -> None:
    box.add(PID)
    v2.log.clear()
    assert box.kill()
    assert v2.log == [(f"{AT}/pids.max", "0"), (f"{AT}/cgroup.kill", "1")]
    assert box.processes() == []


def test_v1_killing_stops_forks_and_steps_first_and_thaws_last(
    v1: V1Files, old_box: Cgroup
) -> None:
    v1.pids = [PID]
    assert old_box.kill()
    assert v1.log[:2] == [("/p/pids.max", "0"), ("/f/freezer.state", "FROZEN")]
    assert ("/m/cgroup.procs", "killed") in v1.log
    assert v1.log[-1] == ("/f/freezer.state", "THAWED")


def test_killing_goes_on_while_new_processes_appear(v1: V1Files) -> None:
    v1.pids = [PID]
    rounds: list[set[int]] = []

    class Forking(V1Files):
        def kill_members(self, path: str) -> set[int]:
            rounds.append({PID + len(rounds)} if len(rounds) < 3 else set())
            return rounds[-1]

    assert Cgroup("box", V1_PLACES[:1], Forking()).kill()
    assert rounds == [{PID}, {PID + 1}, {PID + 2}, set()]


def test_killing_a_group_that_is_gone_is_harmless(box: Cgroup) -> None:
    assert box.remove()
    assert box.kill()
    assert box.kill()


def test_killing_gives_up_on_a_bomb_that_nothing_stops() -> None:
    rounds: list[int] = []

    class Bomb(V1Files):
        def kill_members(self, path: str) -> set[int]:
            rounds.append(PID + len(rounds))
            return {rounds[-1]}

    assert Cgroup("box", V1_PLACES[:1], Bomb()).kill()
    assert len(rounds) == 8


def test_removal_waits_for_the_last_process(v2: FakeCgroups, box: Cgroup) -> None:
    box.add(PID)
    assert not box.remove()
    box.kill()
    assert box.remove()
    assert box.remove()
    assert AT not in v2.groups_by_path


def test_what_can_be_removed_is_removed_beside_what_cannot(v1: V1Files, old_box: Cgroup) -> None:
    v1.kept.add("/p")
    assert not old_box.remove()
    v1.kept.clear()
    assert old_box.remove()


def test_a_removal_that_is_forbidden_is_an_error(v2: FakeCgroups, box: Cgroup) -> None:
    v2.refused.add(MOUNT)
    with pytest.raises(PermissionError):
        box.remove()


def test_counters_are_read(box: Cgroup) -> None:
    assert box.stats() == Stats(
        memory=4096, memory_peak=8192, cpu_seconds=1.5, processes=2, oom_kills=1
    )


def test_v1_counters_are_read(v1: V1Files) -> None:
    v1.content = {
        "/m/memory.usage_in_bytes": "7\n",
        "/m/memory.max_usage_in_bytes": "9\n",
        "/m/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 3\n",
        "/p/pids.current": "4\n",
        "/a/cpuacct.usage": "2500000000\n",
    }
    places = (*V1_PLACES, Place("/a", 1, frozenset({"cpu_time"})))
    assert Cgroup("box", places, v1).stats() == Stats(7, 9, 2.5, 4, 3)


@pytest.mark.parametrize("garbage", ["", "max", "-1\n", "1 2\n", "\0\0", "oom_kill\n", "9" * 5000])
def test_garbage_counters_are_not_known(v2: FakeCgroups, box: Cgroup, garbage: str) -> None:
    files = v2.groups_by_path[AT].files
    for name in ("memory.current", "memory.peak", "memory.events", "pids.current", "cpu.stat"):
        files[name] = garbage
    assert box.stats() == Stats()


def test_counters_that_the_kernel_does_not_have_are_not_known(v2: FakeCgroups, box: Cgroup) -> None:
    del v2.groups_by_path[AT].files["memory.peak"]
    assert box.stats() == Stats(memory=4096, cpu_seconds=1.5, processes=2, oom_kills=1)
    box.remove()
    assert box.stats() == Stats()


def test_without_any_hierarchy_nothing_is_done_and_nothing_is_claimed() -> None:
    box = Cgroup("box", (), CgroupFiles())
    box.update(LIMITS)
    box.add(os.getppid())
    assert box.processes() == []
    assert not box.kill()
    assert box.stats() == Stats()
    assert box.remove()
