"""What `detect` claims is true on this machine: with the rights, and the groups, that we have here.

What is not claimed here, because the machine or its user lacks it, must not be reported either.
"""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from headrace_guest.cgroup_files import CgroupFiles, find_hierarchies
from headrace_guest.cgroups import Cgroup, CgroupBackend, CgroupLimits, clean_leftovers, detect

MIB = 1024 * 1024
LIMITS = CgroupLimits(memory=48 * MIB, disk=16 * MIB, processes=12, cpus=0.2)


class WithoutV2(CgroupFiles):
    """This machine as if it had no v2 tree."""

    def read(self, path: str) -> str:
        lines = super().read(path).splitlines(keepends=True)
        if path == "/proc/self/mountinfo":
            lines = [line for line in lines if " - cgroup2 " not in line]
        return "".join(lines)


class WithoutKill(CgroupFiles):
    """This machine as if its kernel had no cgroup.kill."""

    def write(self, path: str, text: str) -> None:
        if path.endswith("/cgroup.kill"):
            raise FileNotFoundError(2, path)
        super().write(path, text)


_numbers = itertools.count()


def new_instance() -> str:
    return f"test-{os.getpid()}-{next(_numbers)}"


@pytest.fixture(params=[CgroupFiles, WithoutV2, WithoutKill])
def backend(request: pytest.FixtureRequest) -> Iterator[CgroupBackend]:
    instance = new_instance()
    backend = detect(instance, files=request.param())
    yield backend
    assert backend.close()
    assert find_groups(instance) == []


@pytest.fixture
def box(backend: CgroupBackend) -> Iterator[Cgroup]:
    box = backend.create("box", LIMITS)
    yield box
    box.kill()
    assert wait_until(box.remove)


def find_groups(instance: str) -> list[str]:
    done = subprocess.run(
        ["find", "/sys/fs/cgroup", "-type", "d", "-name", f"*{instance}*"],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


def wait_until(is_true: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 10
    while not is_true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.001)
    return True


def start_in(box: Cgroup, code: str) -> subprocess.Popen[str]:
    """Run code in a cgroup: it waits for a line, so that it is in before it does anything."""
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", f"import os, sys, time\ninput()\n{code}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    box.add(child.pid)
    assert child.stdin is not None
    child.stdin.write("go\n")
    child.stdin.flush()
    return child


def finish(child: subprocess.Popen[str]) -> tuple[str, int]:
    out, _ = child.communicate(timeout=20)
    return out, child.returncode


def test_root_gets_every_limit_of_a_group_that_it_may_change() -> None:
    files = CgroupFiles()
    hierarchies = find_hierarchies(
        files.read("/proc/self/mountinfo"), files.read("/proc/self/cgroup")
    )
    names = {"memory": "memory", "pids": "processes", "cpu": "cpu", "freezer": "freeze"}
    expected = set()
    for one in hierarchies:
        if one.version == 1 and os.access(one.own, os.W_OK):
            expected |= {names[name] for name in one.controllers if name in names}
    backend = detect(new_instance())
    try:
        assert backend.enforced >= expected
        assert (backend.version == "none") == (not backend.enforced)
    finally:
        assert backend.close()


def test_a_user_without_delegation_is_told_that_nothing_is_enforced() -> None:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setgroups([])
                os.setresgid(54321, 54321, 54321)
                os.setresuid(54321, 54321, 54321)
            backend = detect(f"{new_instance()}-user")
            report = [backend.version, sorted(backend.enforced), list(backend.notes)]
            is_gone = backend.close()
            os.write(writer, json.dumps([*report, is_gone]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        version, enforced, notes, is_gone = json.loads(pipe.read())
    os.waitpid(child, 0)
    assert is_gone
    if os.geteuid() == 0:
        assert (version, enforced) == ("none", [])
        assert any("denied" in note or "Read-only" in note for note in notes)
    else:
        assert (version == "none") == (not enforced)


def test_a_claimed_memory_limit_kills_and_is_counted(backend: CgroupBackend, box: Cgroup) -> None:
    if "memory" not in backend.enforced:
        assert box.stats().oom_kills is None
        return
    child = start_in(box, "data = b'x' * (40 << 20); print('fits', flush=True); data += data")
    assert finish(child) == ("fits\n", -signal.SIGKILL)
    stats = box.stats()
    assert stats.oom_kills == 1
    assert stats.memory_peak is not None
    assert 40 * MIB < stats.memory_peak <= 64 * MIB


def test_a_changed_memory_limit_holds(backend: CgroupBackend, box: Cgroup) -> None:
    if "memory" not in backend.enforced:
        return
    box.update(CgroupLimits(memory=128 * MIB, disk=0, processes=12, cpus=1.0))
    assert finish(start_in(box, "data = b'x' * (80 << 20); print(len(data))"))[1] == 0
    box.update(CgroupLimits(memory=24 * MIB, disk=0, processes=12, cpus=1.0))
    assert finish(start_in(box, "data = b'x' * (40 << 20)"))[1] == -signal.SIGKILL


FORKS = """
made = 0
try:
    while made < 50:
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
        made += 1
except BlockingIOError:
    pass
print(made, flush=True)
"""


def test_a_claimed_process_limit_stops_forks(backend: CgroupBackend, box: Cgroup) -> None:
    if "processes" not in backend.enforced:
        assert box.stats().processes is None
        return
    child = start_in(box, FORKS + "time.sleep(60)")
    assert child.stdout is not None
    assert child.stdout.readline() == "11\n"
    assert box.stats().processes == 12
    assert len(box.processes()) == 12
    box.kill()
    finish(child)


def test_a_claimed_cpu_limit_holds_and_is_measured(backend: CgroupBackend, box: Cgroup) -> None:
    if "cpu" not in backend.enforced:
        return
    busy = "end = time.monotonic() + 0.3\nwhile time.monotonic() < end: pass\nprint('done')"
    assert finish(start_in(box, busy))[0] == "done\n"
    used = box.stats().cpu_seconds
    assert used is not None
    assert 0.01 < used < 0.15


def test_a_frozen_sandbox_does_nothing_until_it_is_thawed(
    backend: CgroupBackend, box: Cgroup
) -> None:
    if "freeze" not in backend.enforced:
        return
    child = start_in(box, "print('up', flush=True)\nfor line in sys.stdin: print(line, flush=True)")
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stdout.readline() == "up\n"
    box.freeze()
    assert wait_until(box.is_frozen)
    child.stdin.write("hello\n")
    child.stdin.flush()
    os.set_blocking(child.stdout.fileno(), False)
    time.sleep(0.02)
    with pytest.raises(BlockingIOError):
        os.read(child.stdout.fileno(), 1)
    os.set_blocking(child.stdout.fileno(), True)
    box.thaw()
    assert child.stdout.readline() == "hello\n"
    assert not box.is_frozen()
    assert finish(child)[1] == 0


@pytest.mark.parametrize("is_frozen", [False, True])
def test_killing_ends_everything_also_when_frozen(
    backend: CgroupBackend, box: Cgroup, is_frozen: bool
) -> None:
    if "kill" not in backend.enforced:
        assert not box.kill()
        return
    child = start_in(box, FORKS + "time.sleep(60)")
    assert child.stdout is not None
    child.stdout.readline()
    assert not box.remove()
    if is_frozen and "freeze" in backend.enforced:
        box.freeze()
    assert box.kill()
    assert finish(child)[1] == -signal.SIGKILL
    assert wait_until(lambda: box.processes() == [])
    assert wait_until(box.remove)


def test_nothing_can_be_started_in_a_killed_group(backend: CgroupBackend, box: Cgroup) -> None:
    if not {"kill", "processes"} <= backend.enforced:
        return
    box.kill()
    assert finish(start_in(box, FORKS))[0] == "0\n"


def test_a_crashed_launchers_sandbox_is_cleaned_away(backend: CgroupBackend) -> None:
    instance = new_instance()
    child = os.fork()
    if child == 0:
        try:
            box = detect(instance).create("box", LIMITS)
            sleeper = subprocess.Popen(["sleep", "60"], start_new_session=True)
            box.add(sleeper.pid)
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    if backend.enforced:
        assert find_groups(instance) != []
    assert clean_leftovers(lambda other: other != instance) == []
    assert find_groups(instance) == []


def test_a_living_launchers_sandbox_is_not_cleaned_away() -> None:
    instance = new_instance()
    backend = detect(instance)
    try:
        box = backend.create("box", LIMITS)
        assert clean_leftovers(lambda other: other != instance) == []
        assert backend.version == "none" or find_groups(instance) != []
        assert box.remove()
    finally:
        assert backend.close()
