"""Control groups: what this machine's really enforce, and where those of sandboxes are made.

One interface over cgroup v2, over whichever controllers of v1 there are (also beside a bare v2
tree) and over none; cgroups(7). `detect` tries every ability out before it is claimed. Made for
the single-threaded launcher: only `detect` and `clean_leftovers` wait for processes.
"""

import contextlib
import errno
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from headrace_guest.cgroup_files import CgroupFiles, Hierarchy, find_hierarchies, parse_pids
from headrace_guest.sandbox_cgroup import (
    FROZEN,
    KILL,
    LIMITS,
    NO_FORKS,
    THAWED,
    Cgroup,
    CgroupLimits,
    Place,
    Stats,
    apply,
    plan_limits,
    read_cpu_time,
)

__all__ = [
    "PREFIX",
    "Cgroup",
    "CgroupBackend",
    "CgroupLimits",
    "Stats",
    "clean_leftovers",
    "detect",
]

PREFIX = "headrace-"
"""Begins the name of every cgroup that belongs to an instance of the launcher."""

_CONTROLLERS = {
    "memory": "memory",
    "pids": "processes",
    "cpu": "cpu",
    "freezer": "freeze",
    "cpuacct": "cpu_time",
}
_V2_CONTROLLERS = ("memory", "pids", "cpu")
_BARE_V2 = frozenset({"freeze", "kill", "cpu_time"})
_LAUNCHER, _PROBE = "_launcher", "_probe"
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_MOST_GROUPS = 20_000
# So small that no group above has a smaller share.
_SAMPLE = CgroupLimits(memory=64 * 1024 * 1024, disk=0, processes=16, cpus=0.01)


# --- one instance of the launcher -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Tree:
    """The directory of an instance in one hierarchy, with the lock that says it is alive.

    ``home`` is the group to which the launcher has to return, if it had to leave its own.
    """

    base: str
    version: int
    abilities: frozenset[str]
    lock: int
    home: str | None = None

    @property
    def limits(self) -> frozenset[str]:
        return self.abilities & LIMITS


class CgroupBackend:
    """What this machine's control groups really enforce, and where new ones are made.

    ``version`` is "v2", "v1" (also for v1 limits beside a v2 tree that only freezes and kills)
    or "none". ``enforced`` holds those of "memory", "processes", "cpu", "freeze" and "kill"
    that were tried with success. ``notes`` are sentences on what was refused.
    """

    def __init__(self, trees: tuple[_Tree, ...], files: CgroupFiles, notes: Iterable[str]) -> None:
        self._trees = trees
        self._files = files
        abilities = frozenset[str]().union(*(tree.abilities for tree in trees))
        limiting = [tree for tree in trees if tree.limits] or trees
        self.version = f"v{min(tree.version for tree in limiting)}" if limiting else "none"
        # Without cgroup.kill the pids are killed one by one, which needs a way to stop forks.
        can_kill = abilities & {"kill", "processes", "freeze"}
        self.enforced = (abilities - {"cpu_time"}) | ({"kill"} if can_kill else set())
        self.notes = tuple(notes)

    def create(self, name: str, limits: CgroupLimits) -> Cgroup:
        """Make a sandbox's control groups; the caller kills and removes them.

        Raises FileExistsError when the name is taken, and OSError when a limit cannot be set;
        then nothing is left behind.
        """
        _check_name(name)
        places = tuple(
            Place(f"{tree.base}/{name}", tree.version, tree.abilities) for tree in self._trees
        )
        cgroup = Cgroup(name, places, self._files)
        made: list[str] = []
        try:
            for place in places:
                self._files.make(place.path)
                made.append(place.path)
            cgroup.update(limits)
        except OSError:
            # Only our own: a name that is taken belongs to a sandbox.
            for path in made:
                self._files.try_remove(path)
            raise
        return cgroup

    def close(self) -> bool:
        """Remove what is empty and return home; False if a sandbox still has processes."""
        is_gone = True
        for tree in self._trees:
            is_gone = _close_tree(self._files, tree) and is_gone
        return is_gone


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name for a cgroup: {name!r}")


def _close_tree(files: CgroupFiles, tree: _Tree) -> bool:
    with contextlib.suppress(OSError):
        for name in files.groups(tree.base):
            if name != _LAUNCHER:
                files.try_remove(f"{tree.base}/{name}")
    if tree.home is not None:
        _return_home(files, tree.base, tree.home)
    is_gone = files.remove_soon(tree.base)
    files.unlock(tree.lock)
    return is_gone


def _return_home(files: CgroupFiles, base: str, home: str) -> None:
    """Undo `_Detector._move_aside`; a group with processes may not have controllers below."""
    for directory in (base, home):
        for controller in _V2_CONTROLLERS:
            files.try_write(f"{directory}/cgroup.subtree_control", f"-{controller}")
    leaf = f"{base}/{_LAUNCHER}"
    for pid in files.try_read(f"{leaf}/cgroup.procs").split():
        files.try_write(f"{home}/cgroup.procs", pid)
    files.remove_soon(leaf)


# --- finding out ------------------------------------------------------------------------------


def detect(
    instance: str, *, companions: Iterable[int] = (), files: CgroupFiles | None = None
) -> CgroupBackend:
    """Try out what the control groups of this machine can enforce for this process.

    It makes a directory for the instance in each hierarchy that is used: in the process's own
    group or, as v2 wants groups with processes to have no limited ones below, in the nearest
    group above that gives more. A process that is alone in its own v2 group moves into a leaf
    and turns controllers on; ``companions`` are pids that may be there and move along.
    Raises BlockingIOError if the instance is in use; what is refused only goes to the notes.
    """
    _check_name(instance)
    files = files or CgroupFiles()
    detector = _Detector(files, instance, frozenset({os.getpid(), *companions}))
    missing = set(LIMITS | _BARE_V2)
    trees: list[_Tree] = []
    try:
        for hierarchy in _read_hierarchies(files):
            tree = detector.open(hierarchy, missing)
            if tree is not None:
                trees.append(tree)
                missing -= tree.abilities
    except OSError:
        for tree in trees:
            _close_tree(files, tree)
        raise
    return CgroupBackend(tuple(trees), files, detector.notes)


def _read_hierarchies(files: CgroupFiles) -> list[Hierarchy]:
    """Find the hierarchies that have anything for us; v2 comes first."""
    mountinfo = files.try_read("/proc/self/mountinfo")
    found = find_hierarchies(mountinfo, files.try_read("/proc/self/cgroup"))
    return [one for one in found if one.version == 2 or one.controllers & _CONTROLLERS.keys()]


class _Detector:
    """Tries hierarchies out for one instance and collects why something was refused."""

    def __init__(self, files: CgroupFiles, instance: str, movable: frozenset[int]) -> None:
        self._files = files
        self._name = PREFIX + instance
        self._movable = movable
        self.notes: list[str] = []

    def open(self, hierarchy: Hierarchy, missing: set[str]) -> _Tree | None:
        """Take what of the missing abilities a hierarchy has; None if that is nothing."""
        if hierarchy.version == 2:
            return self._open_v2(hierarchy)
        wanted = missing & {_CONTROLLERS.get(name, "") for name in hierarchy.controllers}
        base = f"{hierarchy.own}/{self._name}"
        lock = self._claim(base) if wanted else None
        return None if lock is None else self._keep(base, 1, wanted, lock, None)

    def _open_v2(self, hierarchy: Hierarchy) -> _Tree | None:
        best: _Tree | None = None
        for parent in _upwards(hierarchy.own, hierarchy.mount):
            tree = self._try_v2(parent, hierarchy)
            if tree is None:
                continue
            if best is None or len(tree.limits) > len(best.limits):
                best, tree = tree, best
            if tree is not None:
                _close_tree(self._files, tree)
            if best.limits == LIMITS:
                break
        return best

    def _try_v2(self, parent: str, hierarchy: Hierarchy) -> _Tree | None:
        base = f"{parent}/{self._name}"
        lock = self._claim(base)
        if lock is None:
            return None
        home = None
        # Groups in between belong to others (systemd): only what they already give is used.
        if parent in (hierarchy.own, hierarchy.mount) and not self._turn_on(parent):
            home = parent if parent == hierarchy.own and self._move_aside(parent, base) else None
            if home is not None:
                self._turn_on(home)
        self._turn_on(base)
        given = self._files.try_read(f"{base}/cgroup.subtree_control").split()
        wanted = _BARE_V2 | {_CONTROLLERS[name] for name in given if name in _CONTROLLERS}
        return self._keep(base, 2, wanted, lock, home)

    def _keep(
        self, base: str, version: int, wanted: Iterable[str], lock: int, home: str | None
    ) -> _Tree | None:
        abilities = self._probe(base, version, wanted)
        tree = _Tree(base, version, abilities, lock, home)
        if abilities:
            return tree
        _close_tree(self._files, tree)
        return None

    def _claim(self, base: str) -> int | None:
        for attempt in range(5):
            try:
                with contextlib.suppress(FileExistsError):
                    self._files.make(base)
                return self._files.lock(base)
            except (BlockingIOError, FileNotFoundError) as error:
                # Another launcher, which clears away what it takes for a leftover, or is us.
                if attempt == 4 and isinstance(error, BlockingIOError):
                    raise
                time.sleep(0.001)
            except OSError as error:
                self._note(base, error)
                return None
        return None

    def _turn_on(self, group: str) -> bool:
        """Give a v2 group's children what it has itself; False if its processes are in the way."""
        available = self._files.try_read(f"{group}/cgroup.controllers").split()
        active = self._files.try_read(f"{group}/cgroup.subtree_control").split()
        for name in _V2_CONTROLLERS:
            if name in available and name not in active:
                try:
                    self._files.write(f"{group}/cgroup.subtree_control", f"+{name}")
                except OSError as error:
                    if error.errno == errno.EBUSY:
                        return False
                    self._note(f"{group}: {name}", error)
        return True

    def _move_aside(self, home: str, base: str) -> bool:
        """Empty a group that only we are in, so that it may have limited ones below."""
        pids = self._files.try_read(f"{home}/cgroup.procs").split()
        if not {int(pid) for pid in pids if pid.isdecimal()} <= self._movable:
            self.notes.append(f"{home}: other processes are in it; give the service its own group")
            return False
        leaf = f"{base}/{_LAUNCHER}"
        try:
            with contextlib.suppress(FileExistsError):
                self._files.make(leaf)
            for pid in pids:
                self._files.write(f"{leaf}/cgroup.procs", pid)
        except OSError as error:
            self._note(leaf, error)
            _return_home(self._files, base, home)
            return False
        return True

    def _probe(self, base: str, version: int, wanted: Iterable[str]) -> frozenset[str]:
        """Try abilities out on a group of its own that holds a live process."""
        place = f"{base}/{_PROBE}"
        try:
            self._files.make(place)
        except OSError as error:
            self._note(place, error)
            return frozenset()
        try:
            found = frozenset(name for name in sorted(wanted) if self._can(place, version, name))
            return found if found and self._holds_process(place) else frozenset()
        finally:
            self._files.remove_soon(place)

    def _can(self, place: str, version: int, ability: str) -> bool:
        if ability == "cpu_time":
            return read_cpu_time(self._files, place, version) is not None
        if ability == "freeze":
            settings = [FROZEN[version], THAWED[version]]
        elif ability == "kill":
            settings = [KILL]
        else:
            settings = plan_limits(version, {ability}, _SAMPLE)
        try:
            apply(self._files, place, settings)
            main = settings[-1]
            is_write_only = ability in ("freeze", "kill")
            return is_write_only or self._files.read(f"{place}/{main.file}").strip() == main.text
        except OSError as error:
            self._note(f"{place}: {ability}", error)
            return False

    def _holds_process(self, place: str) -> bool:
        pid = self._files.start_process()
        try:
            self._files.write(f"{place}/cgroup.procs", str(pid))
            return pid in parse_pids(self._files.read(f"{place}/cgroup.procs"))
        except OSError as error:
            self._note(f"{place}: moving a process", error)
            return False
        finally:
            self._files.end_process(pid)

    def _note(self, what: str, error: OSError) -> None:
        self.notes.append(f"{what}: {os.strerror(error.errno or 0)}")


def _upwards(own: str, mount: str) -> Iterator[str]:
    """Give a group's directory and those above it, up to the mount point."""
    while own.startswith(mount):
        yield own
        if own == mount:
            break
        own = own.rpartition("/")[0]


# --- after a crash ----------------------------------------------------------------------------


def clean_leftovers(
    is_alive: Callable[[str], bool], *, files: CgroupFiles | None = None, timeout: float = 2.0
) -> list[str]:
    """Kill and remove what launchers left behind that did not end well.

    An instance is dead if ``is_alive`` says so and nobody holds the lock of its directory, so a
    launcher with another state directory is safe, too; other users' are never touched. Waits
    at most ``timeout`` seconds for killed processes. Gives the directories that stayed.
    """
    files = files or CgroupFiles()
    deadline = time.monotonic() + timeout
    remaining = []
    for hierarchy in _read_hierarchies(files):
        for base in list(_find_instances(files, hierarchy.mount)):
            instance = base.rpartition("/")[2].removeprefix(PREFIX)
            is_around_us = f"{hierarchy.own}/".startswith(f"{base}/")
            if not is_around_us and not is_alive(instance) and not _clean(files, base, deadline):
                remaining.append(base)
    return remaining


def _find_instances(files: CgroupFiles, top: str) -> Iterator[str]:
    waiting = [top]
    for _visited in range(_MOST_GROUPS):
        if not waiting:
            return
        group = waiting.pop()
        names: list[str] = []
        with contextlib.suppress(OSError):
            names = files.groups(group)
        for name in names:
            if name.startswith(PREFIX) and _NAME.fullmatch(name.removeprefix(PREFIX)):
                yield f"{group}/{name}"
            else:
                waiting.append(f"{group}/{name}")


def _clean(files: CgroupFiles, base: str, deadline: float) -> bool:
    """Remove a dead instance's directory; True if it is gone, or not ours after all."""
    try:
        if not files.is_ours(base):
            return True
        lock = files.lock(base)
    except OSError:
        return True
    try:
        while not _clean_once(files, base):
            # What is left in the launcher's own leaf are no sandboxes: they are not killed.
            if time.monotonic() > deadline or files.groups(base) == [_LAUNCHER]:
                return False
            time.sleep(0.002)
    except FileNotFoundError:
        return True
    finally:
        files.unlock(lock)
    return True


def _clean_once(files: CgroupFiles, base: str) -> bool:
    for name in files.groups(base):
        place = f"{base}/{name}"
        if not files.try_remove(place) and name != _LAUNCHER:
            files.try_write(f"{place}/{NO_FORKS.file}", NO_FORKS.text)
            if not files.try_write(f"{place}/{KILL.file}", KILL.text):
                with contextlib.suppress(OSError):
                    files.kill_members(f"{place}/cgroup.procs")
            files.try_write(f"{place}/{THAWED[1].file}", THAWED[1].text)
    return files.try_remove(base)
