"""Memory limits where the machine offers no memory cgroup: watch, and kill the largest.

It looks ten times a second, so a process may pass the limit for a moment: the report says
``memory: watchdog``, which is weaker than a cgroup. Memory that no process has mapped (a memfd,
files on tmpfs) is not seen; tmpfs has its own bound.
"""

import contextlib
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

INTERVAL = 0.1
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True)
class Watched:
    """A sandbox as the watchdog sees it: its PID 1, and the bytes that it may use."""

    agent: int
    limit: int


def pids_by_namespace() -> dict[str, list[int]]:
    """Group all processes in sight by their pid namespace."""
    groups: dict[str, list[int]] = {}
    for name in os.listdir("/proc"):  # noqa: PTH208 - ten times a second
        if name.isdigit():
            with contextlib.suppress(OSError):
                groups.setdefault(os.readlink(f"/proc/{name}/ns/pid"), []).append(int(name))  # noqa: PTH115
    return groups


def namespace_of(pid: int) -> str | None:
    """Name the pid namespace of a process, or None if it is gone."""
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")  # noqa: PTH115 - ten times a second
    except OSError:
        return None


def kill_over_limit(watched: Iterator[Watched]) -> list[tuple[int, int, int]]:
    """Kill the largest process of each sandbox over its limit.

    Gives agent, killed process and its group: an interpreter takes its kernel with it.

    The resident size counts shared pages in full and is cheap to read. Only where even that
    sum passes the limit is the proportional size read, which is exact and slow.
    """
    groups = pids_by_namespace()
    killed = []
    for sandbox in watched:
        pids = groups.get(namespace_of(sandbox.agent) or "", [])
        if sum(_resident(pid) for pid in pids) <= sandbox.limit:
            continue
        sizes = {pid: proportional_size(pid) for pid in pids}
        if sum(sizes.values()) <= sandbox.limit:
            continue
        victims = [pid for pid in pids if pid != sandbox.agent]
        if victims:
            victim = max(victims, key=sizes.__getitem__)
            with contextlib.suppress(ProcessLookupError):
                group = os.getpgid(victim)
                os.kill(victim, signal.SIGKILL)
                killed.append((sandbox.agent, victim, group))
    return killed


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0


def proportional_size(pid: int) -> int:
    """Give the bytes of memory that a process accounts for, shared pages divided; 0 if gone."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except (OSError, IndexError):
        return 0
    return 0
