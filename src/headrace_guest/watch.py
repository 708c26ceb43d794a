"""Watching a directory, done inside the sandbox by a child of the agent, with inotify(7).

One line of JSON per change, ``{"started": true}`` first. A directory that appears is watched
before it is looked into, and what is found in it then is told as created; what the kernel
queued about the same entries meanwhile is not told twice. When the kernel's queue ran over,
``{"overflow": true}`` says that changes were lost and the tree is looked at anew.

Our own way to write a file must look like anybody's: what happens to files that have no name yet,
or one of ours, is not told, and one that takes a name with all its content was written, too. With
``tells_modes`` it also got its mode, as it did.
"""
# pathlib does not take bytes:
# ruff: noqa: PTH116

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import posixpath
import re
import select
import stat
import struct
import termios
from collections.abc import Iterator

from headrace_guest.contents import is_temporary
from headrace_guest.files import join, tell, write_all
from headrace_guest.protocol import Json
from headrace_guest.spawn import OperationError, operation_error, show

MAX_DIRECTORIES = 32_768

_MODIFY = 0x2
_ATTRIB = 0x4
_MOVED_FROM = 0x40
_MOVED_TO = 0x80
_CREATE = 0x100
_DELETE = 0x200
_DELETE_SELF = 0x400
_MOVE_SELF = 0x800
_UNMOUNT = 0x2000
_OVERFLOW = 0x4000
_IGNORED = 0x8000
_ONLYDIR = 0x0100_0000
_DONT_FOLLOW = 0x0200_0000
_EXCL_UNLINK = 0x0400_0000
_ISDIR = 0x4000_0000

_ENTRIES = _MODIFY | _ATTRIB | _MOVED_FROM | _MOVED_TO | _CREATE | _DELETE
_MASK = _ENTRIES | _DELETE_SELF | _MOVE_SELF | _ONLYDIR | _EXCL_UNLINK
_PARENT_MASK = _MOVED_FROM | _DELETE | _ONLYDIR
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG)
_EVENT = struct.Struct("iIII")
_NAMELESS = re.compile(rb"#([0-9]{1,20})")
_MAX_NAMELESS = 1000
_BATCH = 64 * 1024

_libc = ctypes.CDLL(None, use_errno=True)
_libc.inotify_add_watch.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]


def watch(path: bytes, *, recursive: bool, data: int, tells_modes: bool = False) -> dict[str, Json]:
    """Tell changes until nobody reads any more or the directory is gone; gives which it was."""
    watcher = _Watcher(path, recursive=recursive, data=data, tells_modes=tells_modes)
    try:
        return {"ended": watcher.run()}
    finally:
        watcher.close()


class _Watcher:
    def __init__(self, root: bytes, *, recursive: bool, data: int, tells_modes: bool) -> None:
        self._root = root
        self._recursive = recursive
        self._tells_modes = tells_modes
        self._data = data
        try:
            status = os.stat(root)
        except OSError as error:
            raise operation_error(error, show(root)) from error
        if not stat.S_ISDIR(status.st_mode):
            raise OperationError("not_a_directory", f"{show(root)} is not a directory")
        self._identity = (status.st_dev, status.st_ino)
        self._ended: str | None = None
        self._is_running = False
        self._lines = bytearray()
        self._last_line = b""
        self._nameless: dict[int, None] = {}
        self._cookie = 0
        self._begin()

    def _begin(self) -> None:
        """Watch the tree as it is now; what happens until that is done is part of it."""
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "inotify")
        self._paths: dict[int, bytes] = {}
        self._told: dict[int, set[bytes]] = {}
        self._repeats = 0
        self._is_silent = True
        self._parent = self._watch_parent()
        self._watch_tree(b"")
        pending = self._queued()
        while pending > 0 and self._ended is None:
            pending -= self._read_events()
        self._is_silent = False

    def close(self) -> None:
        os.close(self._fd)

    def run(self) -> str:
        """Tell changes until there is a reason to end."""
        self._is_running = True
        self._tell({"started": True})
        while self._ended is None:
            self._flush()
            poll = select.poll()
            poll.register(self._fd, select.POLLIN)
            poll.register(self._data, 0)  # only to hear that its reader closed it
            if self._data in [fd for fd, _ in poll.poll()]:
                return "closed"
            self._read_events()
        self._flush()
        return self._ended

    def _tell(self, line: dict[str, Json]) -> None:
        encoded = json.dumps(line, separators=(",", ":")).encode("ascii") + b"\n"
        if self._is_silent or encoded == self._last_line:
            return
        self._lines += encoded
        self._last_line = encoded
        if len(self._lines) >= _BATCH:
            self._flush()

    def _tell_change(self, change: str, path: bytes) -> None:
        self._tell({"change": change, "path": tell(path)})

    def _flush(self) -> None:
        try:
            write_all(self._data, self._lines)
        except OperationError:
            self._ended = "closed"
        self._lines.clear()
        self._last_line = b""

    # --- what the kernel says -----------------------------------------------------------

    def _read_events(self) -> int:
        """Handle one batch of events; gives its size in bytes."""
        try:
            batch = os.read(self._fd, _BATCH)
        except BlockingIOError:
            return 0
        self._repeats -= len(batch)
        for watch_id, mask, cookie, name in _parse(batch):
            if mask & _OVERFLOW:
                self._begin_anew()
                break
            self._handle(watch_id, mask, cookie, name)
            if self._ended is not None:
                break
        if self._repeats <= 0:
            self._told.clear()
        return len(batch)

    def _begin_anew(self) -> None:
        os.close(self._fd)
        self._begin()
        self._tell({"overflow": True})

    def _handle(self, watch_id: int, mask: int, cookie: int, name: bytes) -> None:
        if watch_id == self._parent:
            if name == posixpath.basename(self._root) and not self._is_here():
                self._ended = "removed"
            return
        directory = self._paths.get(watch_id)
        if directory is None:
            return
        if not name:
            self._handle_directory(watch_id, mask)
            return
        path = join(directory, name) if directory else name
        if not self._handle_unfinished(mask, cookie, path):
            self._handle_entry(watch_id, mask, path)

    def _handle_unfinished(self, mask: int, cookie: int, path: bytes) -> bool:
        """Take note of what happens to a file on its way to its name; False if it has one."""
        name = posixpath.basename(path)
        if is_temporary(name):
            if mask & _MOVED_FROM:
                self._cookie = cookie
            return True
        if mask & (_MODIFY | _ATTRIB):
            return self._is_nameless(path, name)
        if mask & _MOVED_TO and cookie == self._cookie and self._was_nameless(path):
            # It has taken the place of the file that was there.
            self._tell_change("written", path)
            return True
        return False

    def _handle_entry(self, watch_id: int, mask: int, path: bytes) -> None:
        if mask & (_CREATE | _MOVED_TO):
            self._handle_new(watch_id, mask, path)
        elif mask & (_MOVED_FROM | _DELETE):
            self._told.get(watch_id, set()).discard(posixpath.basename(path))
            self._tell_change("renamed" if mask & _MOVED_FROM else "removed", path)
            if mask & _MOVED_FROM and mask & _ISDIR:
                self._forget_tree(path)
        elif mask & _MODIFY:
            self._tell_change("written", path)
        elif mask & _ATTRIB:
            self._tell_change("chmod", path)

    def _handle_directory(self, watch_id: int, mask: int) -> None:
        """Take note of what happened to a watched directory itself."""
        if mask & (_IGNORED | _DELETE_SELF | _UNMOUNT | _MOVE_SELF):
            if self._paths[watch_id] == b"":
                self._ended = "removed"
            elif mask & _IGNORED:
                del self._paths[watch_id]

    def _handle_new(self, watch_id: int, mask: int, path: bytes) -> None:
        name = posixpath.basename(path)
        told = self._told.get(watch_id, set())
        if name in told:
            told.discard(name)
            if mask & _MOVED_TO:
                # Perhaps it took the place of what was told of.
                self._tell_change("written", path)
            return
        self._tell_change("created", path)
        if mask & _ISDIR and self._recursive:
            self._watch_tree(path, tells=True)
        elif not mask & _ISDIR and self._was_nameless(path):
            if self._tells_modes:
                self._tell_change("chmod", path)
            self._tell_change("written", path)

    def _is_nameless(self, path: bytes, name: bytes) -> bool:
        """Say whether the kernel made a name up for a file of O_TMPFILE, and remember it."""
        found = _NAMELESS.fullmatch(name)
        if found is None or posixpath.lexists(self._absolute(path)):
            return False
        self._nameless[int(found[1])] = None
        if len(self._nameless) > _MAX_NAMELESS:
            del self._nameless[next(iter(self._nameless))]
        return True

    def _was_nameless(self, path: bytes) -> bool:
        """Say whether what is at a path got its content before this name; asked once."""
        if not self._nameless:
            return False
        try:
            number = os.lstat(self._absolute(path)).st_ino
        except OSError:
            return False
        return self._nameless.pop(number, False) is None

    def _is_here(self) -> bool:
        try:
            status = os.stat(self._root)
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    # --- what is watched ----------------------------------------------------------------

    def _watch_parent(self) -> int:
        """Hear of the directory's own removal even if somebody still holds it open."""
        parent = posixpath.dirname(self._root)
        if parent == self._root:
            return -1
        watch_id: int = _libc.inotify_add_watch(self._fd, parent, _PARENT_MASK)
        return watch_id

    def _watch_tree(self, path: bytes, *, tells: bool = False) -> None:
        """Watch a directory and those below it; with ``tells`` its entries are new."""
        pending = [path]
        while pending:
            directory = pending.pop()
            watch_id = self._watch_directory(directory)
            if watch_id is None or not self._recursive:
                continue
            found: set[bytes] = set()
            # What is gone or may not be seen is left out.
            with contextlib.suppress(OSError), os.scandir(self._absolute(directory)) as entries:
                for entry in entries:
                    if is_temporary(entry.name):
                        continue
                    below = join(directory, entry.name) if directory else entry.name
                    if tells:
                        found.add(entry.name)
                        self._tell_change("created", below)
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(below)
            if tells:
                self._told[watch_id] = found
        self._repeats = self._queued()

    def _watch_directory(self, path: bytes) -> int | None:
        mask = _MASK if path == b"" else _MASK | _DONT_FOLLOW
        if len(self._paths) >= MAX_DIRECTORIES:
            self._say_incomplete(f"more than {MAX_DIRECTORIES} directories")
            return None
        watch_id: int = _libc.inotify_add_watch(self._fd, self._absolute(path), mask)
        if watch_id >= 0:
            self._paths[watch_id] = path
            return watch_id
        number = ctypes.get_errno()
        if number == errno.ENOSPC:
            self._say_incomplete("no more watches are allowed (fs.inotify.max_user_watches)")
        elif path == b"" and self._is_running:
            self._ended = "removed"
        elif path == b"" or number not in _GONE:
            raise operation_error(OSError(number, ""), show(self._absolute(path)))
        return None

    def _say_incomplete(self, reason: str) -> None:
        """Refuse a watch that cannot see everything; one that runs says that it lost changes."""
        if not self._is_running:
            raise OperationError("too_large", f"watching {show(self._root)}: {reason}")
        self._tell({"overflow": True})

    def _forget_tree(self, path: bytes) -> None:
        """Stop watching what was moved away; at its new place it is new."""
        below = path + b"/"
        for watch_id, directory in list(self._paths.items()):
            if directory == path or directory.startswith(below):
                _libc.inotify_rm_watch(self._fd, watch_id)
                del self._paths[watch_id]
                self._told.pop(watch_id, None)

    def _absolute(self, path: bytes) -> bytes:
        return join(self._root, path) if path else self._root

    def _queued(self) -> int:
        (size,) = struct.unpack("i", fcntl.ioctl(self._fd, termios.FIONREAD, bytes(4)))
        return int(size)


def _checked(result: int, what: str) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    if number == errno.EMFILE:
        raise OperationError("too_large", "too many watches run (fs.inotify.max_user_instances)")
    raise operation_error(OSError(number, ""), what)


def _parse(batch: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    offset = 0
    while offset < len(batch):
        watch_id, mask, cookie, length = _EVENT.unpack_from(batch, offset)
        offset += _EVENT.size
        yield watch_id, mask, cookie, batch[offset : offset + length].rstrip(b"\0")
        offset += length
