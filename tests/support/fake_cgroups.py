"""A cgroup v2 tree in memory that refuses what the kernel refuses; cgroups(7)."""

import errno
import os
from dataclasses import dataclass, field
from itertools import count

from headrace_guest.cgroup_files import CgroupFiles

MOUNT = "/sys/fs/cgroup"
_FILES = {
    "memory": {
        "memory.max": "max",
        "memory.swap.max": "max",
        "memory.current": "4096\n",
        "memory.peak": "8192\n",
        "memory.events": "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\noom_group_kill 0\n",
    },
    "pids": {"pids.max": "max", "pids.current": "2\n"},
    "cpu": {"cpu.max": "max 100000"},
}
_CORE = {
    "cgroup.freeze": "0\n",
    "cgroup.events": "populated 0\nfrozen 0\n",
    "cpu.stat": "usage_usec 1500000\nuser_usec 1\nsystem_usec 1\n",
}


@dataclass
class FakeGroup:
    """One directory of the tree."""

    controllers: set[str]
    subtree: set[str] = field(default_factory=set)
    pids: list[int] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)


class FakeCgroups(CgroupFiles):
    """The tree; ``own`` is the group of this process, and the groups above it exist, too.

    ``refused`` holds the groups that this user may not change, ``foreign`` those of others and
    ``locked`` those that another process holds. With ``is_namespace`` the top is not the real
    root, so the rule against processes in inner groups holds for it as well.
    """

    def __init__(self, own: str, *, given: str = "cpu memory pids", is_namespace: bool = False):
        self.membership = f"0::{own}\n"
        self.mountinfo = f"31 23 0:28 / {MOUNT} rw,nosuid shared:9 - cgroup2 cgroup2 rw\n"
        self.refused: set[str] = set()
        self.foreign: set[str] = set()
        self.locked: set[str] = set()
        self.log: list[tuple[str, str]] = []
        self.is_namespace = is_namespace
        self.groups_by_path = {MOUNT: FakeGroup(set(given.split()))}
        path = MOUNT
        for name in filter(None, own.split("/")):
            path = f"{path}/{name}"
            self.make(path)
        self.own = path
        self.groups_by_path[path].pids.append(os.getpid())
        self._pids = count(4_000_000)

    def give(self, path: str, controllers: str) -> None:
        """Turn controllers on for the children of a group, as its owner would have."""
        group = self.groups_by_path[path]
        group.subtree |= set(controllers.split())
        for child, below in self.groups_by_path.items():
            if child.rpartition("/")[0] == path:
                below.controllers |= group.subtree
                self._fill(below)

    def read(self, path: str) -> str:
        if path == "/proc/self/mountinfo":
            return self.mountinfo
        if path == "/proc/self/cgroup":
            return self.membership
        group, name = self._find(path)
        if name == "cgroup.procs":
            return "".join(f"{pid}\n" for pid in group.pids)
        if name == "cgroup.controllers":
            return " ".join(sorted(group.controllers)) + "\n"
        if name == "cgroup.subtree_control":
            return " ".join(sorted(group.subtree)) + "\n"
        if name not in group.files:
            raise FileNotFoundError(errno.ENOENT, path)
        return group.files[name]

    def write(self, path: str, text: str) -> None:
        self._check_permission(path.rpartition("/")[0])
        self.log.append((path, text))
        group, name = self._find(path)
        if name == "cgroup.procs":
            self._move(path.rpartition("/")[0], group, int(text))
        elif name == "cgroup.subtree_control":
            self._control(path.rpartition("/")[0], group, text)
        elif name == "cgroup.kill":
            group.pids.clear()
        elif name in group.files:
            group.files[name] = text
        else:
            raise FileNotFoundError(errno.ENOENT, path)

    def make(self, path: str) -> None:
        parent = path.rpartition("/")[0]
        self._check_permission(parent)
        if parent not in self.groups_by_path:
            raise FileNotFoundError(errno.ENOENT, path)
        if path in self.groups_by_path:
            raise FileExistsError(errno.EEXIST, path)
        group = FakeGroup(set(self.groups_by_path[parent].subtree))
        self._fill(group)
        self.groups_by_path[path] = group

    def remove(self, path: str) -> None:
        if path not in self.groups_by_path:
            raise FileNotFoundError(errno.ENOENT, path)
        self._check_permission(path.rpartition("/")[0])
        if self.groups_by_path[path].pids or self.groups(path):
            raise OSError(errno.EBUSY, path)
        del self.groups_by_path[path]

    def groups(self, path: str) -> list[str]:
        if path not in self.groups_by_path:
            raise FileNotFoundError(errno.ENOENT, path)
        parts = (other.rpartition("/") for other in self.groups_by_path)
        return [name for parent, _, name in parts if parent == path]

    def is_ours(self, path: str) -> bool:
        return path not in self.foreign

    def lock(self, path: str) -> int:
        if path in self.locked:
            raise BlockingIOError(errno.EAGAIN, path)
        if path not in self.groups_by_path:
            raise FileNotFoundError(errno.ENOENT, path)
        return 0

    def unlock(self, lock: int) -> None:
        return

    def kill_members(self, path: str) -> set[int]:
        group, _ = self._find(path)
        killed = set(group.pids)
        group.pids.clear()
        return killed

    def start_process(self) -> int:
        pid = next(self._pids)
        holder = next(one for one in self.groups_by_path.values() if os.getpid() in one.pids)
        holder.pids.append(pid)
        return pid

    def end_process(self, pid: int) -> None:
        for group in self.groups_by_path.values():
            group.pids[:] = [other for other in group.pids if other != pid]

    def _find(self, path: str) -> tuple[FakeGroup, str]:
        directory, _, name = path.rpartition("/")
        if directory not in self.groups_by_path:
            raise FileNotFoundError(errno.ENOENT, path)
        return self.groups_by_path[directory], name

    def _check_permission(self, path: str) -> None:
        if path in self.refused:
            raise PermissionError(errno.EACCES, path)

    def _fill(self, group: FakeGroup) -> None:
        group.files = dict(_CORE) | group.files
        for controller in group.controllers:
            group.files = _FILES[controller] | group.files

    def _may_mix(self, path: str) -> bool:
        return path == MOUNT and not self.is_namespace

    def _move(self, path: str, group: FakeGroup, pid: int) -> None:
        if group.subtree and not self._may_mix(path):
            raise OSError(errno.EBUSY, path)
        holder = next((one for one in self.groups_by_path.values() if pid in one.pids), None)
        if holder is None:
            raise ProcessLookupError(errno.ESRCH, str(pid))
        holder.pids.remove(pid)
        group.pids.append(pid)

    def _control(self, path: str, group: FakeGroup, text: str) -> None:
        name = text[1:]
        below = [one for at, one in self.groups_by_path.items() if at.rpartition("/")[0] == path]
        if text[0] == "-":
            if any(name in one.subtree for one in below):
                raise OSError(errno.EBUSY, path)
            group.subtree.discard(name)
            for one in below:
                one.controllers.discard(name)
            return
        if name not in group.controllers:
            raise FileNotFoundError(errno.ENOENT, path)
        if group.pids and not self._may_mix(path):
            raise OSError(errno.EBUSY, path)
        self.give(path, name)
