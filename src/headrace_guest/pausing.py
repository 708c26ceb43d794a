"""Stopping a sandbox where it stands and letting it go on: by its cgroup, else by signals.

Stopping takes a moment, in which the launcher does other things: `Pauser.work` looks again. By
signals, parents stop before their children and go on after them, so that no shell inside sees
its job stop. What was stopped already by somebody inside stays so.
"""

import contextlib
import os
import signal
import time
from collections.abc import Callable

from headrace_guest import watchdog
from headrace_guest.guestlist import Guest, RefusedError

INTERVAL = 0.002
PATIENCE = 5.0
"""How many seconds a sandbox may take to stand still; a process that waits for a disk may."""

_SPIN = 0.1
"""How many seconds all looking at one process may take per sandbox, in the launcher's loop."""
_AT_REST = frozenset("TtZX")
_SIGNALLED = "Tt"

Reply = Callable[..., None]


class Pauser:
    """All sandboxes that are paused or about to be."""

    def __init__(self, *, can_freeze: bool) -> None:
        self._can_freeze = can_freeze
        self._stops: dict[str, SignalStop] = {}
        self._pending: dict[str, tuple[float, Guest, Reply]] = {}

    @property
    def next_look(self) -> float | None:
        """When `work` wants to be called; None if nothing is being stopped."""
        return time.monotonic() + INTERVAL if self._pending else None

    def pause(self, guest: Guest, reply: Reply) -> None:
        """Stop a sandbox; ``reply`` is called when everything in it stands."""
        if guest.agent is None or guest.is_ending:
            raise RefusedError("wrong_state", f"sandbox {guest.name} is not running")
        if guest.name in self._pending:
            raise RefusedError("wrong_state", f"sandbox {guest.name} is being paused")
        if guest.cgroup is not None and self._can_freeze:
            guest.cgroup.freeze()
        else:
            self._stops.setdefault(guest.name, SignalStop(guest.agent.pid))
        self._pending[guest.name] = (time.monotonic() + PATIENCE, guest, reply)
        self._look(guest.name)

    def resume(self, guest: Guest) -> None:
        """Let a sandbox go on; nothing happens to one that was not paused."""
        self._answer(guest.name, error="wrong_state", detail="the sandbox was resumed meanwhile")
        if guest.cgroup is not None and self._can_freeze:
            guest.cgroup.thaw()
        elif (stop := self._stops.pop(guest.name, None)) is not None:
            stop.resume()

    def release(self, guest: Guest) -> None:
        """Let a sandbox die that was killed: what a freezer of version 1 holds would not."""
        self.forget(guest)
        if guest.cgroup is not None and self._can_freeze:
            guest.cgroup.thaw()

    def forget(self, guest: Guest) -> None:
        """Let go of what is known of a sandbox that is gone."""
        self._answer(guest.name, error="wrong_state", detail="the sandbox ended meanwhile")
        self._stops.pop(guest.name, None)

    def work(self) -> None:
        """See whether what is being stopped stands by now."""
        for name in list(self._pending):
            self._look(name)

    def _look(self, name: str) -> None:
        deadline, guest, _reply = self._pending[name]
        stop = self._stops.get(name)
        if stop is not None:
            is_at_rest = stop.advance()
        else:
            is_at_rest = guest.cgroup is None or guest.cgroup.is_frozen()
        if is_at_rest:
            self._answer(name)
        elif time.monotonic() > deadline:
            detail = f"sandbox {name} did not stand still within {PATIENCE:g} s"
            self._answer(name, error="failed", detail=detail)
            self.resume(guest)

    def _answer(self, name: str, **fields: object) -> None:
        pending = self._pending.pop(name, None)
        if pending is not None:
            pending[2](**fields)


class SignalStop:
    """The processes of one sandbox, stopped by SIGSTOP; ``agent`` is its PID 1, seen from here."""

    def __init__(self, agent: int) -> None:
        self._agent = agent
        self._spin = _SPIN
        self._sent: set[tuple[int, int]] = set()
        self._left_alone: set[tuple[int, int]] = set()

    def advance(self) -> bool:
        """Stop what runs; True if nothing did, so that nothing can start anything any more."""
        is_at_rest = True
        for start, pid in self._processes():
            if _is_at_rest(pid):
                if (pid, start) not in self._sent and _state(pid) in _SIGNALLED:
                    self._left_alone.add((pid, start))
                continue
            is_at_rest = False
            self._sent.add((pid, start))
            self._left_alone.discard((pid, start))
            self._signal(pid, signal.SIGSTOP)
            self._await_rest(pid)
        return is_at_rest

    def resume(self) -> None:
        """Let go on what was stopped, children first: then it was as if they never stopped."""
        for start, pid in reversed(self._processes()):
            if (pid, start) not in self._left_alone:
                self._signal(pid, signal.SIGCONT)

    def _await_rest(self, pid: int) -> None:
        """Wait until it stands: a parent that waits is told of a child that stopped earlier."""
        begun = now = time.monotonic()
        while not _is_at_rest(pid) and now - begun < self._spin:
            os.sched_yield()
            now = time.monotonic()
        self._spin -= now - begun

    def _processes(self) -> list[tuple[int, int]]:
        """List start time and pid of each, the oldest first; parents are older than children."""
        namespace = watchdog.namespace_of(self._agent)
        pids = watchdog.pids_by_namespace().get(namespace, []) if namespace else []
        return sorted((_start_time(pid), pid) for pid in pids)

    def _signal(self, pid: int, number: int) -> None:
        """Signal a process if its pid still means one of this sandbox."""
        with contextlib.suppress(OSError):
            pidfd = os.pidfd_open(pid)
            try:
                if watchdog.namespace_of(pid) == watchdog.namespace_of(self._agent):
                    signal.pidfd_send_signal(pidfd, number)
            finally:
                os.close(pidfd)


def _is_at_rest(pid: int) -> bool:
    """Say whether no thread of a process runs; the first one may have ended before the others."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - in the launcher's loop
    except OSError:
        return True
    return all(_state(f"{pid}/task/{thread}") in _AT_REST for thread in threads)


def _fields(process: int | str) -> list[str]:
    """Read what the kernel says of a process or thread after its name; [] if it is gone."""
    try:
        with open(f"/proc/{process}/stat", "rb") as file:  # noqa: PTH123 - in the launcher's loop
            return file.read().rpartition(b")")[2].decode("ascii").split()
    except OSError:
        return []


def _state(process: int | str) -> str:
    fields = _fields(process)
    return fields[0] if fields else "X"


def _start_time(pid: int) -> int:
    fields = _fields(pid)
    return int(fields[19]) if len(fields) > 19 else 0
