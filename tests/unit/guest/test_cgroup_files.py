"""Where the control groups are, and the calls on them."""

import errno
import os
import signal
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_guest.cgroup_files import (
    CgroupFiles,
    Hierarchy,
    find_hierarchies,
    parse_field,
    parse_number,
    parse_pids,
)

HYBRID_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:7 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID_GROUPS = """\
9:name=systemd:/a
4:memory:/process/own
3:cpu,cpuacct:/
0::/slice:with:colons
"""


def test_a_hybrid_machine_has_its_v2_tree_first() -> None:
    found = find_hierarchies(HYBRID_MOUNTS, HYBRID_GROUPS)
    top = "/sys/fs/cgroup"
    assert found == [
        Hierarchy(f"{top}/unified", f"{top}/unified/slice:with:colons", 2, frozenset()),
        Hierarchy(f"{top}/cpu,cpuacct", f"{top}/cpu,cpuacct", 1, frozenset({"cpu", "cpuacct"})),
        Hierarchy(f"{top}/memory", f"{top}/memory/process/own", 1, frozenset({"memory"})),
        Hierarchy(f"{top}/systemd", f"{top}/systemd/a", 1, frozenset({"name=systemd"})),
    ]


def mount_v2(root: str, point: str = "/cg") -> str:
    return f"41 31 0:38 {root} {point} rw - cgroup2 cgroup2 rw\n"


@pytest.mark.parametrize(
    ("root", "path", "own"),
    [
        ("/", "/", "/cg"),
        ("/", "/a/b", "/cg/a/b"),
        ("/a", "/a", "/cg"),
        ("/a", "/a/b", "/cg/b"),
        ("/docker/1", "/docker/1/x", "/cg/x"),
    ],
)
def test_a_mount_of_part_of_a_tree_is_understood(root: str, path: str, own: str) -> None:
    assert [one.own for one in find_hierarchies(mount_v2(root), f"0::{path}\n")] == [own]


@pytest.mark.parametrize(
    ("root", "path"), [("/a", "/b"), ("/a", "/ab"), ("/a", "/"), ("/", "/../x"), ("/..", "/")]
)
def test_a_group_that_a_mount_does_not_show_is_left_out(root: str, path: str) -> None:
    assert find_hierarchies(mount_v2(root), f"0::{path}\n") == []


def test_the_first_mount_that_shows_the_group_is_taken() -> None:
    mounts = mount_v2("/other", "/a") + mount_v2("/", "/b") + mount_v2("/", "/c")
    assert [one.mount for one in find_hierarchies(mounts, "0::/x\n")] == ["/b"]


def test_escapes_in_mount_points_are_read() -> None:
    found = find_hierarchies(mount_v2("/", "/a\\040b\\134"), "0::/\n")
    assert [one.own for one in found] == ["/a b\\"]


@pytest.mark.parametrize(
    "garbage", ["", "\n", "x", "1:2", "::", "0:", "0::relative", "a:b:/c", " - cgroup2 x rw", "\0"]
)
def test_garbage_names_no_hierarchy(garbage: str) -> None:
    assert find_hierarchies(garbage, "0::/\n4:memory:/\n") == []
    assert find_hierarchies(HYBRID_MOUNTS, garbage) == []


@given(st.text(), st.text())
def test_no_text_makes_the_readers_fail(first: str, second: str) -> None:
    find_hierarchies(first, second)
    find_hierarchies(HYBRID_MOUNTS, first)
    parse_pids(first)
    parse_number(first)
    parse_field(first, second)


def test_pids_that_must_not_be_signalled_are_left_out() -> None:
    text = f"0\n1\n77\n{os.getpid()}\n-5\n²\nx\n{10**30}\n78\n"
    assert parse_pids(text) == [77, 78]


@pytest.mark.parametrize(
    ("text", "number"),
    [("12\n", 12), ("max\n", None), ("-1", None), ("", None), ("9" * 9999, None)],
)
def test_a_counter_is_a_number_or_not_known(text: str, number: int | None) -> None:
    assert parse_number(text) == number


def test_a_field_is_found_by_its_whole_name() -> None:
    text = "oom 5\noom_kill 2\nfrozen x\n"
    assert parse_field(text, "oom_kill") == 2
    assert parse_field(text, "oom_k") is None
    assert parse_field(text, "frozen") is None


def test_what_cannot_be_done_is_said_without_an_exception(tmp_path: Path) -> None:
    files = CgroupFiles()
    missing = str(tmp_path / "missing")
    assert files.try_read(missing) == ""
    assert not files.try_write(missing, "1")
    assert files.try_remove(missing)
    (tmp_path / "full" / "below").mkdir(parents=True)
    assert not files.try_remove(str(tmp_path / "full"))
    assert not files.remove_soon(str(tmp_path / "full"))
    assert files.groups(str(tmp_path)) == ["full"]
    assert files.is_ours(str(tmp_path))


def test_a_lock_keeps_others_out_until_it_is_given_back(tmp_path: Path) -> None:
    files, path = CgroupFiles(), str(tmp_path)
    lock = files.lock(path)
    with pytest.raises(BlockingIOError):
        files.lock(path)
    files.unlock(lock)
    files.unlock(files.lock(path))


def test_what_is_not_there_cannot_be_locked(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        CgroupFiles().lock(str(tmp_path / "missing"))


def test_a_directory_that_was_made_anew_is_not_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "group"
    place.mkdir()

    def replace(fd: int, operation: int) -> None:
        place.rename(tmp_path / "gone")
        place.mkdir()

    monkeypatch.setattr("fcntl.flock", replace)
    with pytest.raises(FileNotFoundError):
        CgroupFiles().lock(str(place))


def test_only_listed_processes_are_killed(tmp_path: Path) -> None:
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(3)]
    listing = tmp_path / "cgroup.procs"
    listing.write_text("".join(f"{child.pid}\n" for child in children[:2]) + f"0\n{os.getpid()}\n")
    try:
        assert CgroupFiles().kill_members(str(listing)) == {child.pid for child in children[:2]}
        assert [child.wait(10) for child in children[:2]] == [-signal.SIGKILL] * 2
        assert children[2].poll() is None
    finally:
        for child in children:
            child.kill()
            child.wait(10)


def test_a_pid_that_left_the_list_meanwhile_is_spared(tmp_path: Path) -> None:
    listings = iter([f"{os.getppid()}\n", ""])

    class Changing(CgroupFiles):
        def read(self, path: str) -> str:
            return next(listings)

    assert Changing().kill_members(str(tmp_path)) == set()


def test_more_processes_than_descriptors_are_killed_in_turns(tmp_path: Path) -> None:
    children = [subprocess.Popen(["sleep", "60"]) for _ in range(70)]
    listing = tmp_path / "cgroup.procs"
    listing.write_text("".join(f"{child.pid}\n" for child in children))
    try:
        assert len(CgroupFiles().kill_members(str(listing))) == 70
    finally:
        for child in children:
            child.kill()
            child.wait(10)


def test_a_process_to_try_things_on_comes_and_goes() -> None:
    files = CgroupFiles()
    pid = files.start_process()
    os.kill(pid, 0)
    files.end_process(pid)
    with pytest.raises(ProcessLookupError) as caught:
        os.kill(pid, 0)
    assert caught.value.errno == errno.ESRCH
