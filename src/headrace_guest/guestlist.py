"""What the launcher knows of each sandbox, and how it checks what the engine asks."""

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace_guest import cgroups

MAX_SANDBOXES = 4096
MAX_KERNELS = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_FLOORS = {"memory": 2**20, "disk": 2**16, "inodes": 100, "processes": 4, "open_files": 16}
_CEILING = 2**50


class RefusedError(Exception):
    """The launcher will not do that; ``code`` is for programs."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True)
class GuestLimits:
    """The bounds of one sandbox, as the engine asked for them; sizes are bytes."""

    memory: int
    disk: int
    inodes: int
    processes: int
    open_files: int
    cpus: float

    def for_cgroup(self) -> cgroups.CgroupLimits:
        """Give the part that a cgroup enforces."""
        return cgroups.CgroupLimits(self.memory, self.disk, self.processes, self.cpus)


@dataclass(frozen=True)
class GuestProcess:
    """A process of a sandbox that the launcher watches: its PID 1 or a kernel."""

    pid: int
    pidfd: int
    kernel: str | None


@dataclass
class Guest:
    """One sandbox. It ends when ``is_ending`` is set and no process and no fork is left."""

    name: str
    limits: GuestLimits
    base: int | None = None
    cgroup: cgroups.Cgroup | None = None
    agent: GuestProcess | None = None
    kernels: dict[str, GuestProcess] = field(default_factory=dict)
    forking: int = 0
    is_ending: bool = False
    oom_seen: int = 0
    watchdog_kills: int = 0
    watchdog_victims: dict[int, float] = field(default_factory=dict)
    waiting: list[Callable[[], None]] = field(default_factory=list)

    def processes(self) -> list[GuestProcess]:
        """Give all watched processes that have not been reaped."""
        return [*self.kernels.values(), *([self.agent] if self.agent else [])]


class Guests:
    """All sandboxes, by name and by the pids of their watched processes."""

    def __init__(self) -> None:
        self._by_name: dict[str, Guest] = {}
        self._by_pid: dict[int, tuple[Guest, GuestProcess]] = {}

    def __len__(self) -> int:
        return len(self._by_name)

    def __iter__(self) -> Iterator[Guest]:
        return iter(self._by_name.values())

    def add(self, name: str, limits: GuestLimits) -> Guest:
        """Enter a new sandbox; refuses a name that is taken."""
        if name in self._by_name:
            raise RefusedError("already_exists", f"there is a sandbox {name}")
        if len(self._by_name) >= MAX_SANDBOXES:
            raise RefusedError("quota", f"there are {MAX_SANDBOXES} sandboxes, the most possible")
        guest = Guest(name, limits)
        self._by_name[name] = guest
        return guest

    def get(self, name: str) -> Guest | None:
        """Give the sandbox of that name, or None."""
        return self._by_name.get(name)

    def find(self, name: str) -> Guest:
        """Give the sandbox of that name; refuses if there is none."""
        guest = self._by_name.get(name)
        if guest is None:
            raise RefusedError("not_found", f"there is no sandbox {name}")
        return guest

    def remove(self, guest: Guest) -> None:
        """Forget a sandbox; safe to run twice."""
        if self._by_name.get(guest.name) is guest:
            del self._by_name[guest.name]

    def own(self, guest: Guest, pid: int, pidfd: int, kernel: str | None) -> None:
        """Enter a new process, and take its pidfd over."""
        process = GuestProcess(pid, pidfd, kernel)
        if kernel is None:
            guest.agent = process
        else:
            guest.kernels[kernel] = process
        self._by_pid[pid] = (guest, process)

    def disown(self, pid: int) -> tuple[Guest, str | None] | None:
        """Forget a process that was reaped; gives its sandbox and kernel, or None if unknown."""
        found = self._by_pid.pop(pid, None)
        if found is None:
            return None
        guest, process = found
        os.close(process.pidfd)
        if process.kernel is None:
            guest.agent = None
        else:
            del guest.kernels[process.kernel]
        return guest, process.kernel


def take_name(request: Mapping[str, Any], key: str) -> str:
    """Read a name that is safe as a directory's name."""
    value = request.get(key)
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise RefusedError("invalid", f"{key} {value!r} is not a name of [a-z0-9-]")
    return value


def read_limits(value: object) -> GuestLimits:
    """Read a sandbox's limits; each must be there and within what makes sense."""
    if not isinstance(value, dict):
        raise RefusedError("invalid", "limits must be an object")
    numbers: dict[str, int] = {}
    for name, floor in _FLOORS.items():
        number = value.get(name)
        if type(number) is not int or not floor <= number <= _CEILING:
            raise RefusedError("invalid", f"limit {name} must be at least {floor}, got {number!r}")
        numbers[name] = number
    cpus = value.get("cpus")
    if isinstance(cpus, bool) or not isinstance(cpus, int | float) or not 0 < cpus <= 1024:
        raise RefusedError("invalid", f"limit cpus must be above 0 and at most 1024, got {cpus!r}")
    return GuestLimits(cpus=float(cpus), **numbers)
