"""The file system side of control groups: where the hierarchies are, and the calls on them.

Reading is pure and takes garbage for "not known"; `CgroupFiles` holds every system call that
`headrace_guest.cgroups` makes, so that a test can give another one.
"""

import contextlib
import fcntl
import os
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass

from headrace_guest import linux

_MAX_FILE = 4 * 1024 * 1024
_ESCAPED = re.compile(r"\\([0-7]{3})")
_REAP_WITHIN = 1.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted tree of control groups.

    ``mount`` is its mount point, ``own`` the directory of the process that reads, ``version`` 1
    or 2, and ``controllers`` those of v1; those of v2 differ from group to group.
    """

    mount: str
    own: str
    version: int
    controllers: frozenset[str]


def find_hierarchies(mountinfo: str, membership: str) -> list[Hierarchy]:
    """Read /proc/self/mountinfo (proc(5)) and /proc/self/cgroup (cgroups(7)); v2 comes first.

    A hierarchy is left out where the process's own group cannot be seen through the mount.
    """
    paths = dict(_read_membership(membership))
    found: dict[frozenset[str], Hierarchy] = {}
    for root, mount, kind, options in _read_mounts(mountinfo):
        version = 2 if kind == "cgroup2" else 1
        keys = [key for key in paths if key <= options and bool(key) == (version == 1)]
        for key in keys:
            own = _locate(mount, root, paths[key])
            if own is not None and key not in found:
                found[key] = Hierarchy(mount, own, version, key)
    return sorted(found.values(), key=lambda hierarchy: -hierarchy.version)


def _read_membership(text: str) -> Iterator[tuple[frozenset[str], str]]:
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, separator, path = rest.partition(":")
        if number.isdecimal() and separator and path.startswith("/"):
            yield frozenset(filter(None, controllers.split(","))), path


def _read_mounts(text: str) -> Iterator[tuple[str, str, str, frozenset[str]]]:
    for line in text.splitlines():
        left, separator, right = line.partition(" - ")
        before, after = left.split(" "), right.split(" ")
        if separator and len(before) >= 6 and len(after) == 3 and after[0] in ("cgroup", "cgroup2"):
            yield (
                _unescape(before[3]),
                _unescape(before[4]),
                after[0],
                frozenset(after[2].split(",")),
            )


def _unescape(text: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), text)


def _locate(mount: str, root: str, path: str) -> str | None:
    """Find a group's directory; None if the mount shows another part of the hierarchy."""
    if ".." in path.split("/") or ".." in root.split("/"):
        return None
    if root != "/":
        if path != root and not path.startswith(root + "/"):
            return None
        path = path[len(root) :]
    return (mount.rstrip("/") + path).rstrip("/")


def parse_pids(text: str) -> list[int]:
    """Read cgroup.procs, without what must never be signalled.

    0 is a process of a pid namespace that we do not see, and to kill(2) our own group.
    """
    numbers = [int(word) for word in text.split() if word.isdecimal() and len(word) < 20]
    return [number for number in numbers if number > 1 and number != os.getpid()]


def parse_number(text: str) -> int | None:
    """Read a counter that fills a file; None if it is not one."""
    word = text.strip()
    return int(word) if word.isdecimal() and len(word) < 20 else None


def parse_field(text: str, key: str) -> int | None:
    """Read one counter of a file of names and numbers; None if it is not there."""
    for line in text.splitlines():
        name, _, value = line.partition(" ")
        if name == key:
            return parse_number(value)
    return None


class CgroupFiles:
    """The system calls; each raises OSError."""

    def read(self, path: str) -> str:
        """Read a small file."""
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            blocks: list[bytes] = []
            while sum(map(len, blocks)) < _MAX_FILE and (block := os.read(fd, 65536)):
                blocks.append(block)
        finally:
            os.close(fd)
        return b"".join(blocks).decode("ascii", "replace")

    def write(self, path: str, text: str) -> None:
        """Write a control file with one system call."""
        linux.write_file(path, text)

    def try_read(self, path: str) -> str:
        """Read a small file; nothing if it cannot be read."""
        try:
            return self.read(path)
        except OSError:
            return ""

    def try_write(self, path: str, text: str) -> bool:
        """Write a control file if that is possible."""
        try:
            self.write(path, text)
        except OSError:
            return False
        return True

    def try_remove(self, path: str) -> bool:
        """Remove a control group if that is possible; True if it is gone."""
        try:
            self.remove(path)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        return True

    def remove_soon(self, path: str) -> bool:
        """Remove a group whose last process was just reaped: the kernel may lag behind a bit."""
        for _attempt in range(10):
            if self.try_remove(path):
                return True
            time.sleep(0.001)
        return False

    def make(self, path: str) -> None:
        """Make a directory, that is, a control group."""
        os.mkdir(path, 0o755)  # noqa: PTH102 - hot path, plain calls

    def remove(self, path: str) -> None:
        """Remove a control group; EBUSY while a process or another group is in it."""
        os.rmdir(path)  # noqa: PTH106 - hot path, plain calls

    def groups(self, path: str) -> list[str]:
        """List the names of the groups directly in a group."""
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]

    def is_ours(self, path: str) -> bool:
        """Tell whether a group was made by this user."""
        return os.stat(path).st_uid == os.geteuid()  # noqa: PTH116 - plain calls

    def lock(self, path: str) -> int:
        """Lock a group for as long as the process lives; give what `unlock` wants.

        Raises BlockingIOError when somebody else holds it, and FileNotFoundError when it was
        removed meanwhile. No file is needed for it: flock(2) works on the directory itself.
        """
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.stat(path).st_ino != os.fstat(fd).st_ino:  # noqa: PTH116 - plain calls
                raise FileNotFoundError(f"{path} was made anew")
        except OSError:
            os.close(fd)
            raise
        return fd

    def unlock(self, lock: int) -> None:
        """Give a lock back."""
        os.close(lock)

    def kill_members(self, path: str) -> set[int]:
        """Kill the processes that a cgroup.procs file lists; give their pids.

        A pid may have a new owner by the time it is used. So handles are taken first, and only
        those whose pids are still listed afterwards are killed; pidfd_open(2).
        """
        killed: set[int] = set()
        pids = parse_pids(self.read(path))
        for start in range(0, len(pids), 64):
            killed |= self._kill_listed(path, pids[start : start + 64])
        return killed

    def _kill_listed(self, path: str, pids: list[int]) -> set[int]:
        handles: dict[int, int] = {}
        try:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    handles[pid] = os.pidfd_open(pid)
            listed = handles.keys() & set(parse_pids(self.read(path)))
            for pid in listed:
                with contextlib.suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handles[pid], signal.SIGKILL)
        finally:
            for handle in handles.values():
                os.close(handle)
        return listed

    def start_process(self) -> int:
        """Start a process that does nothing, to try things out on; `end_process` ends it."""
        pid = os.fork()
        if pid == 0:
            try:
                linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
                time.sleep(10)
            finally:
                os._exit(0)
        return pid

    def end_process(self, pid: int) -> None:
        """Kill and reap a process of `start_process`."""
        os.kill(pid, signal.SIGKILL)
        deadline = time.monotonic() + _REAP_WITHIN
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and time.monotonic() < deadline:
            time.sleep(0.0005)
