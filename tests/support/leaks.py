"""What the processes below this one hold: to be counted before, during and after a test.

Only what descends from this process is counted, so that other programs, and other test runs on
the same machine, do not disturb.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import anyio

_LOGS = "logs"
_SETTLING = 15.0
_STEADY = 0.7


class Process(NamedTuple):
    """A process, told from a later one with the same pid by its start time."""

    pid: int
    started: int


@dataclass(frozen=True)
class Footprint:
    """What this process and its descendants hold at one moment.

    ``mounts`` counts the mounts of each mount namespace, ``descriptors`` the open ones of each
    process (where they may be read), ``cgroups`` and ``paths`` are directories and files. Logs
    are not among the paths: they outlive their sandbox on purpose.
    """

    processes: frozenset[Process]
    mounts: Mapping[str, Counter[str]]
    cgroups: frozenset[str]
    paths: frozenset[str]
    descriptors: Mapping[Process, int]


def take_footprint(*directories: Path) -> Footprint:
    """Count everything now; ``directories`` are those of the engine."""
    own = find_process(os.getpid())
    assert own is not None
    processes = frozenset(_descendants()) | {own}
    mounts: dict[str, Counter[str]] = {}
    descriptors: dict[Process, int] = {}
    cgroups: set[str] = set()
    for process in processes:
        mounts.update(_read_mounts(process))
        descriptors.update(_count_descriptors(process))
        cgroups.update(_read_cgroups(process))
    paths = frozenset(path for directory in directories for path in _walk(directory))
    return Footprint(processes, mounts, frozenset(cgroups), paths, descriptors)


async def take_steady_footprint(*directories: Path) -> Footprint:
    """Count when nothing changes any more; another engine may still be filling its pool."""
    last = take_footprint(*directories)
    with anyio.fail_after(_SETTLING):
        while True:
            await anyio.sleep(_STEADY)
            now = take_footprint(*directories)
            if now == last:
                return now
            last = now


def list_leftovers(before: Footprint, during: Footprint, *directories: Path) -> list[str]:
    """Name what is there now, was not ``before``, and what of ``during`` has not gone."""
    after = take_footprint(*directories)
    alive = {process for process in during.processes if find_process(process.pid) == process}
    found = [
        f"process {process.pid}: {_command_line(process.pid)}"
        for process in (alive | after.processes) - before.processes
    ]
    found += [
        f"mount in {namespace}: {line}"
        for namespace, lines in after.mounts.items()
        for line in (lines - before.mounts.get(namespace, Counter())).elements()
    ]
    found += [f"cgroup {path}" for path in during.cgroups - before.cgroups if Path(path).exists()]
    found += [f"path {path}" for path in after.paths - before.paths]
    found += [
        f"{count - before.descriptors[process]} descriptors of process {process.pid}"
        for process, count in after.descriptors.items()
        if count > before.descriptors.get(process, count)
    ]
    return found


async def assert_nothing_left(before: Footprint, during: Footprint, *directories: Path) -> None:
    """Assert that all of it goes, at once or as soon as the launcher is idle again."""
    left = list_leftovers(before, during, *directories)
    with anyio.move_on_after(_SETTLING):
        while left:
            await anyio.sleep(0.2)
            left = list_leftovers(before, during, *directories)
    assert not left, left


def find_process(pid: int) -> Process | None:
    """Give the process that has that pid now, or None; a zombie counts as a process."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Process(pid, int(fields[19]))


def _descendants() -> Iterator[Process]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    waiting = [os.getpid()]
    while waiting:
        for pid in children.get(waiting.pop(), []):
            process = find_process(pid)
            if process is not None:
                waiting.append(pid)
                yield process


def _read_mounts(process: Process) -> dict[str, Counter[str]]:
    at = Path(f"/proc/{process.pid}")
    try:
        namespace = str((at / "ns/mnt").readlink())
        lines = (at / "mountinfo").read_text().splitlines()
    except OSError:
        return {}
    # The first two fields number the mount and its parent.
    return {namespace: Counter(line.split(" ", 2)[2] for line in lines)}


def _count_descriptors(process: Process) -> dict[Process, int]:
    try:
        return {process: sum(1 for _ in Path(f"/proc/{process.pid}/fd").iterdir())}
    except OSError:
        return {}


def _read_cgroups(process: Process) -> Iterator[str]:
    try:
        lines = Path(f"/proc/{process.pid}/cgroup").read_text().splitlines()
    except OSError:
        return
    places = _cgroup_mounts()
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers in places and path != "/":
            yield places[controllers] + path


def _cgroup_mounts() -> dict[str, str]:
    """Map what /proc/PID/cgroup calls a hierarchy to where it is mounted; cgroups(7)."""
    places: dict[str, str] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, target, kind, options, *_ = line.split()
        if kind == "cgroup2":
            places[""] = target
        elif kind == "cgroup":
            words = options.split(",")
            flags = {"rw", "ro", "relatime", "nosuid", "nodev", "noexec", "xattr"}
            places[",".join(word for word in words if word not in flags)] = target
    return places


def _walk(directory: Path) -> Iterable[str]:
    for top, directories, files in os.walk(directory):
        if _LOGS in directories:
            directories.remove(_LOGS)
        yield from (f"{top}/{name}" for name in (*directories, *files))


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
    except OSError:
        return "gone"
