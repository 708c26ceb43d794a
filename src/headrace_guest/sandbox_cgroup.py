"""The control groups of one sandbox: its limits, and freezing, killing and measuring it.

A sandbox has one directory in each hierarchy that is used; `headrace_guest.cgroups` says which.
Nothing here waits for a process.
"""

import contextlib
import errno
from collections.abc import Iterable
from dataclasses import dataclass

from headrace_guest.cgroup_files import CgroupFiles, parse_field, parse_number, parse_pids

LIMITS = frozenset({"memory", "processes", "cpu"})
"""The abilities of a hierarchy that bound something; the others are freeze, kill, cpu_time."""

_PERIOD_US = 100_000
_SHORTEST_QUOTA_US = 1_000


@dataclass(frozen=True, slots=True)
class CgroupLimits:
    """The bounds of one sandbox. ``memory`` and ``disk`` are one limit here: tmpfs is memory."""

    memory: int
    disk: int
    processes: int
    cpus: float

    def __post_init__(self) -> None:
        if self.memory <= 0 or self.disk < 0 or self.processes <= 0 or not 0 < self.cpus < 2**20:
            raise ValueError(f"limits must be positive: {self}")


@dataclass(frozen=True, slots=True)
class Stats:
    """What a sandbox uses; None is not known here. ``processes`` counts threads, as its limit."""

    memory: int | None = None
    memory_peak: int | None = None
    cpu_seconds: float | None = None
    processes: int | None = None
    oom_kills: int | None = None


# --- deciding what to write -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Setting:
    """A control file and its new content; ``tolerated`` are the errnos that do no harm."""

    file: str
    text: str
    tolerated: tuple[int, ...] = ()


def plan_limits(version: int, abilities: Iterable[str], limits: CgroupLimits) -> list[Setting]:
    """List what to write for those of the limits that a hierarchy has; the main file is last."""
    settings: list[Setting] = []
    for ability in sorted(LIMITS.intersection(abilities)):
        if ability == "processes":
            settings.append(Setting("pids.max", str(limits.processes)))
        elif ability == "memory":
            settings += _plan_memory(version, limits.memory + limits.disk)
        else:
            settings += _plan_cpu(version, limits.cpus)
    return settings


def _plan_memory(version: int, size: int) -> list[Setting]:
    if version == 2:
        no_swap = Setting("memory.swap.max", "0", (errno.ENOENT,))
        return [no_swap, Setting("memory.max", str(size))]
    with_swap = "memory.memsw.limit_in_bytes"
    return [
        # Both are inherited, and a group without a killer would hang instead.
        Setting("memory.oom_control", "0", (errno.EINVAL,)),
        Setting("memory.swappiness", "0", (errno.ENOENT, errno.EINVAL)),
        # v1 does not count what waits in TCP connections, but can bound it.
        Setting("memory.kmem.tcp.limit_in_bytes", str(size // 8), (errno.ENOENT,)),
        # The limit with swap may never be the smaller one: when both grow it goes first, when
        # both shrink last; so it is written twice.
        Setting(with_swap, str(size), (errno.ENOENT, errno.EINVAL, errno.EBUSY)),
        Setting("memory.limit_in_bytes", str(size)),
        Setting(with_swap, str(size), (errno.ENOENT,)),
    ]


def _plan_cpu(version: int, cpus: float) -> list[Setting]:
    quota = max(_SHORTEST_QUOTA_US, int(cpus * _PERIOD_US))
    if version == 2:
        return [Setting("cpu.max", f"{quota} {_PERIOD_US}")]
    return [
        Setting("cpu.cfs_quota_us", "-1"),
        Setting("cpu.cfs_period_us", str(_PERIOD_US)),
        # EINVAL: a group above has a smaller share, which holds here as well.
        Setting("cpu.cfs_quota_us", str(quota), (errno.EINVAL,)),
    ]


FROZEN = {1: Setting("freezer.state", "FROZEN"), 2: Setting("cgroup.freeze", "1")}
THAWED = {1: Setting("freezer.state", "THAWED"), 2: Setting("cgroup.freeze", "0")}
KILL = Setting("cgroup.kill", "1")
NO_FORKS = Setting("pids.max", "0")

_MEMORY_FILES = {
    1: ("memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.oom_control"),
    2: ("memory.current", "memory.peak", "memory.events"),
}


def apply(files: CgroupFiles, path: str, settings: Iterable[Setting]) -> None:
    """Write settings of the group at ``path``; raises the first OSError that does harm."""
    for setting in settings:
        try:
            files.write(f"{path}/{setting.file}", setting.text)
        except OSError as error:
            if error.errno not in setting.tolerated:
                raise


def read_cpu_time(files: CgroupFiles, path: str, version: int) -> float | None:
    """Read the CPU seconds that a group has used; None if it does not count them."""
    if version == 2:
        used = parse_field(files.try_read(f"{path}/cpu.stat"), "usage_usec")
        return None if used is None else used / 1e6
    used = parse_number(files.try_read(f"{path}/cpuacct.usage"))
    return None if used is None else used / 1e9


# --- one sandbox ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Place:
    """A sandbox's directory in one hierarchy, and what it is used for there."""

    path: str
    version: int
    abilities: frozenset[str]


class Cgroup:
    """The control groups of one sandbox: one directory in each hierarchy that is used."""

    def __init__(self, name: str, places: tuple[Place, ...], files: CgroupFiles) -> None:
        self.name = name
        self._places = places
        self._files = files

    def add(self, pid: int) -> None:
        """Move a process, with all its threads, in; what it starts from now on is in, too.

        When no process of the machine was moved in the last 10 ms or so, the kernel waits for
        an RCU grace period (5 to 20 ms, unless mounted with favordynmods), see `expect_add`.
        Raises ProcessLookupError when it is gone.
        """
        if pid <= 1:
            raise ValueError(f"not the pid of a sandbox's process: {pid}")
        for place in self._places:
            self._files.write(f"{place.path}/cgroup.procs", str(pid))

    def expect_add(self, member: int) -> None:
        """Wait now, while the process for the next `add` is still being forked.

        Moving ``member``, which is in already, moves nothing, but waits as any move does. All
        hierarchies have one lock for it. It is no harm if that process is gone.
        """
        if member <= 1:
            raise ValueError(f"not the pid of a sandbox's process: {member}")
        for place in self._places[:1]:
            self._files.try_write(f"{place.path}/cgroup.procs", str(member))

    def processes(self) -> list[int]:
        """List the pids of all that is in it, as the launcher sees them."""
        pids: set[int] = set()
        for place in self._places:
            pids.update(parse_pids(self._files.try_read(f"{place.path}/cgroup.procs")))
        return sorted(pids)

    def update(self, limits: CgroupLimits) -> None:
        """Change the limits. Memory above a lower limit is reclaimed first, which may wait."""
        for place in self._places:
            apply(self._files, place.path, plan_limits(place.version, place.abilities, limits))

    def freeze(self) -> None:
        """Stop everything; see `is_frozen`. Raises OSError (ENOTSUP) where nothing can do it."""
        place = self._require("freeze")
        apply(self._files, place.path, [FROZEN[place.version]])

    def thaw(self) -> None:
        """Let everything go on; raises as `freeze` does."""
        place = self._require("freeze")
        apply(self._files, place.path, [THAWED[place.version]])

    def is_frozen(self) -> bool:
        """Tell whether the last process has stopped; that takes a moment after `freeze`."""
        place = self._require("freeze")
        if place.version == 2:
            return parse_field(self._read("freeze", "cgroup.events"), "frozen") == 1
        return self._read("freeze", "freezer.state").strip() == "FROZEN"

    def kill(self) -> bool:
        """Kill everything in it, for good: what joins it later can start nothing.

        Does not wait until the processes are gone. False: this backend cannot do it and the
        caller has to kill the sandbox's PID 1. Safe to run twice.
        """
        if not self._places:
            return False
        self._try_set("processes", NO_FORKS)
        if self._find("kill") is None:
            self._kill_each()
        else:
            self._try_set("kill", KILL)
        return True

    def _kill_each(self) -> None:
        # Nothing forks or even runs from here on, so the list of pids is complete. What a v1
        # freezer holds does not die before it is thawed.
        freezer = self._find("freeze")
        if freezer is not None:
            self._try_set("freeze", FROZEN[freezer.version])
        seen: set[int] = set()
        for _round in range(8):
            killed = self._kill_listed()
            if killed <= seen:
                break
            seen |= killed
        if freezer is not None:
            self._try_set("freeze", THAWED[freezer.version])

    def _kill_listed(self) -> set[int]:
        killed: set[int] = set()
        for place in self._places:
            with contextlib.suppress(OSError):
                killed |= self._files.kill_members(f"{place.path}/cgroup.procs")
        return killed

    def _try_set(self, ability: str, setting: Setting) -> None:
        place = self._find(ability)
        if place is not None:
            self._files.try_write(f"{place.path}/{setting.file}", setting.text)

    def stats(self) -> Stats:
        """Read the counters; they can be read until `remove`, also when nothing runs."""
        memory = self._find("memory")
        usage, peak, events = _MEMORY_FILES[memory.version if memory else 2]
        return Stats(
            memory=parse_number(self._read("memory", usage)),
            memory_peak=parse_number(self._read("memory", peak)),
            cpu_seconds=self._cpu_seconds(),
            processes=parse_number(self._read("processes", "pids.current")),
            oom_kills=parse_field(self._read("memory", events), "oom_kill"),
        )

    def _cpu_seconds(self) -> float | None:
        place = self._find("cpu_time")
        return None if place is None else read_cpu_time(self._files, place.path, place.version)

    def _read(self, ability: str, file: str) -> str:
        """Read a file of the place that has an ability; nothing where there is none."""
        place = self._find(ability)
        return "" if place is None else self._files.try_read(f"{place.path}/{file}")

    def remove(self) -> bool:
        """Remove the directories; False if a process is still in one: try again later."""
        is_gone = True
        for place in self._places:
            try:
                self._files.remove(place.path)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno != errno.EBUSY:
                    raise
                is_gone = False
        return is_gone

    def _find(self, ability: str) -> Place | None:
        return next((place for place in self._places if ability in place.abilities), None)

    def _require(self, ability: str) -> Place:
        place = self._find(ability)
        if place is None:
            raise OSError(errno.ENOTSUP, f"no cgroup here has the ability to {ability}")
        return place
