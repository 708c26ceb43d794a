"""Stopping by signals: everything, parents first, and nothing that was stopped before."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from headrace_guest import pausing, watchdog
from headrace_guest.guestlist import Guest, GuestLimits, GuestProcess, RefusedError
from headrace_guest.pausing import Pauser, SignalStop

LIMITS = GuestLimits(2**30, 2**30, 1000, 64, 64, 1.0)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def descendants(pid: int) -> list[int]:
    """List a process and all below it."""
    found = [pid]
    for each in found:
        try:
            below = Path(f"/proc/{each}/task/{each}/children").read_text()
        except OSError:
            continue
        found += map(int, below.split())
    return found


def states(pids: list[int]) -> str:
    """Give the letter of each process."""
    return "".join(
        Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids
    )


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], int]]:
    """Start a script that plays the sandbox: it and its descendants are all that is in sight."""
    started: list[subprocess.Popen[bytes]] = []

    def run(script: str) -> int:
        process = subprocess.Popen(
            ["bash", "-c", script], stdout=subprocess.PIPE, start_new_session=True
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        monkeypatch.setattr(watchdog, "namespace_of", lambda _pid: "sandbox")
        monkeypatch.setattr(
            watchdog, "pids_by_namespace", lambda: {"sandbox": descendants(process.pid)}
        )
        return process.pid

    yield run
    for process in started:
        # The whole group at once: what is listed one by one may end before its turn.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def stop_all(agent: int) -> SignalStop:
    stop = SignalStop(agent)
    wait_until(stop.advance)
    return stop


def test_everything_stops_and_goes_on(start: Callable[[str], int]) -> None:
    agent = start("sleep 100 & sleep 100 & echo ready; wait")
    stop = stop_all(agent)
    assert states(descendants(agent)) == "TTT"
    stop.resume()
    wait_until(lambda: "T" not in states(descendants(agent)))


def test_what_was_stopped_before_stays_so(start: Callable[[str], int]) -> None:
    agent = start("sleep 100 & kill -STOP $!; sleep 100 & echo ready; wait")
    _, stopped, running = descendants(agent)
    wait_until(lambda: states([stopped]) == "T")
    stop_all(agent).resume()
    wait_until(lambda: states([running]) == "S")
    assert states([stopped]) == "T"


def test_nothing_is_started_any_more_by_what_starts_without_end(
    start: Callable[[str], int],
) -> None:
    agent = start("while :; do (sleep 0.001 & sleep 0.001); done & echo ready; wait")
    for _ in range(20):
        stop = stop_all(agent)
        assert not set(states(descendants(agent))) - set("TZX")
        stop.resume()


def test_a_thread_that_goes_on_alone_is_stopped_too(start: Callable[[str], int]) -> None:
    program = (
        "import threading, time, ctypes\n"
        "threading.Thread(target=time.sleep, args=(100,)).start()\n"
        "print('ready', flush=True)\n"
        "ctypes.CDLL(None).pthread_exit(0)"
    )
    agent = start(f'exec {sys.executable} -c "{program}"')
    wait_until(lambda: states([agent]) == "Z")
    assert not pausing._is_at_rest(agent)
    stop_all(agent)
    threads = [f"{agent}/task/{path.name}" for path in Path(f"/proc/{agent}/task").iterdir()]
    assert sorted(pausing._state(thread) for thread in threads) == ["T", "Z"]


def test_a_shell_does_not_notice(start: Callable[[str], int], tmp_path: Path) -> None:
    told = tmp_path / "told"
    script = f"set -m; trap 'jobs -s >>{told}' CHLD; (echo ready; sleep 100) ; echo end >>{told}"
    agent = start(script)
    for _ in range(20):
        stop = stop_all(agent)
        assert set(states(descendants(agent))) == {"T"}
        stop.resume()
        wait_until(lambda: "T" not in states(descendants(agent)))
    assert not told.exists() or told.read_text() == ""


@dataclass
class FakeCgroup:
    """Freezes after some looks."""

    looks: int
    did: list[str] = field(default_factory=list)

    def freeze(self) -> None:
        self.did.append("freeze")

    def thaw(self) -> None:
        self.did.append("thaw")

    def is_frozen(self) -> bool:
        self.looks -= 1
        return self.looks < 0


@dataclass
class Asked:
    """A pauser with one sandbox, and what was answered."""

    looks: int
    answers: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.cgroup = FakeCgroup(self.looks)
        agent = GuestProcess(os.getpid(), -1, None)
        cgroup: Any = self.cgroup
        self.guest = Guest("s", LIMITS, cgroup=cgroup, agent=agent)
        self.pauser = Pauser(can_freeze=True)
        self.pauser.pause(self.guest, lambda **fields: self.answers.append(fields))


def test_the_answer_comes_when_everything_stands() -> None:
    asked = Asked(looks=2)
    looks = [asked.pauser.next_look]
    asked.pauser.work()
    assert asked.answers == []
    asked.pauser.work()
    assert asked.answers == [{}]
    looks.append(asked.pauser.next_look)
    assert [look is None for look in looks] == [False, True]
    asked.pauser.resume(asked.guest)
    assert asked.cgroup.did == ["freeze", "thaw"]


def test_what_does_not_stand_still_in_time_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pausing, "PATIENCE", -1.0)
    asked = Asked(looks=10)
    assert asked.answers[0]["error"] == "failed"
    assert asked.cgroup.did == ["freeze", "thaw"]
    assert asked.pauser.next_look is None


@pytest.mark.parametrize("end", ["resume", "release", "forget"])
def test_who_waits_hears_of_a_change_of_mind(end: str) -> None:
    asked = Asked(looks=10)
    getattr(asked.pauser, end)(asked.guest)
    asked.pauser.work()
    assert [answer["error"] for answer in asked.answers] == ["wrong_state"]


def test_a_sandbox_that_ends_or_is_being_paused_is_refused() -> None:
    asked = Asked(looks=10)
    with pytest.raises(RefusedError, match="is being paused"):
        asked.pauser.pause(asked.guest, lambda **_fields: None)
    other = Guest("t", LIMITS, agent=None)
    with pytest.raises(RefusedError, match="is not running"):
        asked.pauser.pause(other, lambda **_fields: None)
