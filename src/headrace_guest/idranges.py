"""Ranges of host ids for sandboxes, and the user namespaces that map them (root mode).

Each sandbox has 65,536 host ids of its own. A launcher owns a block of ranges for as long as it
holds the lock on the block's file, so that several launchers on one machine never share an id,
and the next one can tell which blocks were left by a crash.
"""

import contextlib
import fcntl
import os
import signal
from pathlib import Path

from headrace_guest import linux
from headrace_guest.skeleton import USER_ID

FIRST_ID = 2_000_000_000
RANGE = 65_536
SLOTS = 256
BLOCKS = (2**32 - 1 - FIRST_ID) // (RANGE * SLOTS)
LOCKS = Path("/run/headrace/ids")
READY = 4


class NoRangeError(Exception):
    """All ranges are in use."""


class Block:
    """A block of ranges, owned until it is closed."""

    def __init__(self, number: int, lock: int) -> None:
        self.number = number
        self._lock = lock
        self._free = list(range(SLOTS - 1, -1, -1))

    @classmethod
    def claim(cls, locks: Path = LOCKS) -> "Block":
        """Take the first block that nobody owns; raises NoRangeError if there is none."""
        locks.mkdir(mode=0o700, parents=True, exist_ok=True)
        for number in range(BLOCKS):
            lock = _try_lock(locks / str(number))
            if lock is not None:
                return cls(number, lock)
        raise NoRangeError(f"all {BLOCKS} blocks of ids below {locks} are in use")

    @property
    def first(self) -> int:
        """The lowest host id of the block."""
        return FIRST_ID + self.number * SLOTS * RANGE

    @property
    def name(self) -> str:
        """The name of the launcher that owns the block, for its cgroups."""
        return f"b{self.number}"

    def take(self) -> int:
        """Take a range; gives its first host id."""
        if not self._free:
            raise NoRangeError(f"all {SLOTS} id ranges of this node are in use")
        return self.first + self._free.pop() * RANGE

    def give_back(self, base: int) -> None:
        """Return a range of which no process is left."""
        self._free.insert(0, (base - self.first) // RANGE)

    def close(self) -> None:
        """Let go of the block."""
        os.close(self._lock)


def is_alive(name: str, locks: Path = LOCKS) -> bool:
    """Say whether the launcher of that block name still runs."""
    path = locks / name.removeprefix("b")
    if not path.is_file():
        return False
    lock = _try_lock(path)
    if lock is None:
        return True
    os.close(lock)
    return False


def _try_lock(path: Path) -> int | None:
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    return lock


class NamespacePool:
    """User namespaces made ahead of time: making one takes a fork, over a millisecond.

    A namespace lives as long as its descriptor. Each sandbox needs one that maps all its ids,
    and one per owner of a user-writable layer that maps that owner to the sandbox's user.
    """

    def __init__(self, block: Block, owner: tuple[int, int]) -> None:
        self._block = block
        self._owner = owner
        self._ready: list[tuple[int, int, int]] = []
        self._is_exhausted = False

    @property
    def is_full(self) -> bool:
        """Say whether enough are ready, or no more can be made for now."""
        return self._is_exhausted or len(self._ready) >= READY

    def prepare(self) -> None:
        """Make one more ready, if a range is free."""
        try:
            self._ready.append(self._make())
        except NoRangeError:
            self._is_exhausted = True

    def give_back(self, base: int) -> None:
        """Return the range of a sandbox of which no process is left."""
        self._block.give_back(base)
        self._is_exhausted = False

    def take(self) -> tuple[int, int, int]:
        """Give the first host id and two descriptors; the caller closes them."""
        return self._ready.pop() if self._ready else self._make()

    def close(self) -> None:
        """Close what was not taken."""
        for _base, sandbox_ns, user_ns in self._ready:
            os.close(sandbox_ns)
            os.close(user_ns)
        self._ready.clear()

    def _make(self) -> tuple[int, int, int]:
        base = self._block.take()
        whole = f"0 {base} {RANGE}"
        user = base + USER_ID
        with contextlib.ExitStack() as undo:
            undo.callback(self._block.give_back, base)
            sandbox_ns = make_user_namespace(whole, whole, owner=base)
            undo.callback(os.close, sandbox_ns)
            user_ns = make_user_namespace(
                f"{self._owner[0]} {user} 1", f"{self._owner[1]} {user} 1"
            )
            undo.pop_all()
        return base, sandbox_ns, user_ns


def make_user_namespace(uid_map: str, gid_map: str, owner: int = 0) -> int:
    """Make a user namespace with these maps; gives its descriptor; user_namespaces(7).

    What the kernel counts per user (inotify instances, message queues) it counts for the owner
    of the namespace, too. With an owner of its own no sandbox can use up what others need.
    """
    started_read, started_write = os.pipe2(os.O_CLOEXEC)
    held_read, held_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.seteuid(owner)
            linux.unshare(linux.CLONE_NEWUSER)
            os.write(started_write, b"x")
            # Until it is killed, or nobody is left who could kill it.
            os.close(held_write)
            os.read(held_read, 1)
        finally:
            os._exit(1)
    os.close(started_write)
    os.close(held_read)
    try:
        if os.read(started_read, 1) != b"x":
            raise OSError("a helper could not make a user namespace")
        linux.write_file(f"/proc/{pid}/uid_map", uid_map)
        linux.write_file(f"/proc/{pid}/gid_map", gid_map)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(started_read)
        os.close(held_write)
        os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
