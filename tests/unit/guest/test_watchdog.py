"""Memory is counted per pid namespace, and only what is over its limit is killed."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_guest.watchdog import (
    Watched,
    kill_over_limit,
    namespace_of,
    pids_by_namespace,
    proportional_size,
)

MIB = 1024 * 1024
EATER = (
    "import sys; keep = bytearray(b'x') * 64_000_000; print('ate', flush=True); sys.stdin.read()"
)


@pytest.fixture
def eater() -> Iterator[subprocess.Popen[bytes]]:
    """A process with 64 MB, as PID 2 of a pid namespace of its own."""
    flags = ["--user", "--map-root-user", "--pid", "--fork", "--kill-child"]
    process = subprocess.Popen(
        ["unshare", *flags, "sh", "-c", f'{sys.executable} -c "$0"; true', EATER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ate\n"
    yield process
    process.kill()
    process.communicate()


def inside(process: subprocess.Popen[bytes]) -> list[int]:
    """Give the pids in the process's namespace for children, its PID 1 first."""
    link = Path(f"/proc/{process.pid}/ns/pid_for_children").readlink()
    return sorted(pids_by_namespace()[str(link)])


def test_processes_are_grouped_by_their_namespace(eater: subprocess.Popen[bytes]) -> None:
    groups = pids_by_namespace()
    own = namespace_of(os.getpid())
    assert own is not None
    assert os.getpid() in groups[own]
    assert len(inside(eater)) == 2


def test_what_is_within_its_limit_lives(eater: subprocess.Popen[bytes]) -> None:
    agent = inside(eater)[0]
    assert kill_over_limit(iter([Watched(agent, 1024 * MIB)])) == []


def test_the_largest_process_over_the_limit_is_killed_but_never_the_agent(
    eater: subprocess.Popen[bytes],
) -> None:
    agent, large = inside(eater)
    assert proportional_size(large) > 60 * MIB
    group = os.getpgid(large)
    assert kill_over_limit(iter([Watched(agent, 32 * MIB)])) == [(agent, large, group)]
    assert eater.wait(10) == 0


def test_a_sandbox_of_one_process_is_left_to_its_end(eater: subprocess.Popen[bytes]) -> None:
    agent, large = inside(eater)
    os.kill(large, signal.SIGKILL)
    eater.wait(10)
    assert kill_over_limit(iter([Watched(agent, 1)])) == []


def test_a_process_that_is_gone_has_no_size() -> None:
    assert proportional_size(2**22 + 1) == 0
    assert namespace_of(2**22 + 1) is None
