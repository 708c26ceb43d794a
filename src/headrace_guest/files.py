"""File operations, done inside the sandbox by a child of the agent with its caller's own ids.

This module says what is there and makes directories; `contents` reads and writes, `trees` moves
and removes.

Names are bytes here: a file's name need not be text. Where one is told, the bytes that are not
UTF-8 are lone surrogates (U+DC80 to U+DCFF), which JSON carries as escapes, and such a name is
understood again when it comes back. Nothing here waits for a FIFO, a device or a terminal.
"""
# pathlib does not take bytes:
# ruff: noqa: PTH101, PTH102, PTH103, PTH115

import errno
import itertools
import json
import os
import posixpath
import signal
import stat
from collections.abc import Iterator, Mapping
from types import FrameType
from typing import NoReturn

from headrace_guest import attributes
from headrace_guest.protocol import Json
from headrace_guest.spawn import OperationError, operation_error, show

_LINES = 64 * 1024
_SORTED = 10_000
_MAX_DATABASE = 1024 * 1024
_OPEN = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class Stopped(BaseException):
    """SIGTERM came: the operation undoes what it began and ends."""


def accept_stop() -> None:
    """Let SIGTERM undo this process's operation, and a broken pipe be an error."""
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)


def _stop(_number: int, _frame: FrameType | None) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Stopped


# --- what is there --------------------------------------------------------------------------


class Names:
    """Users and groups of the sandbox, read by hand: nothing is loaded to find them."""

    def __init__(self, users: str = "/etc/passwd", groups: str = "/etc/group") -> None:
        self._users = _read_database(users)
        self._groups = _read_database(groups)

    def user(self, number: int) -> str:
        """Give a user's name, or the number as text."""
        return self._users.get(number, str(number))

    def group(self, number: int) -> str:
        """Give a group's name, or the number as text."""
        return self._groups.get(number, str(number))


def _read_database(path: str) -> dict[int, str]:
    names: dict[int, str] = {}
    try:
        fd = os.open(path, os.O_RDONLY | _OPEN)
    except OSError:
        return names
    try:
        is_regular = stat.S_ISREG(os.fstat(fd).st_mode)
        text = os.read(fd, _MAX_DATABASE).decode("utf-8", "replace") if is_regular else ""
    finally:
        os.close(fd)
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isascii() and fields[2].isdigit():
            names.setdefault(int(fields[2][:12]), fields[0])
    return names


def describe(path: bytes, prefix: bytes | None = None) -> dict[str, Json]:
    """Give one entry, not following a symbolic link; raises OSError.

    It has attributes if it is said what their names begin with.
    """
    return _entry(path, os.lstat(path), Names(), prefix)


def stat_path(path: bytes, prefix: bytes | None = None) -> dict[str, Json]:
    """Give one entry; raises OperationError that names the path."""
    try:
        return describe(path, prefix)
    except OSError as error:
        raise operation_error(error, show(path)) from error


def _entry(
    path: bytes, status: os.stat_result, names: Names, prefix: bytes | None
) -> dict[str, Json]:
    target, reached = _target(path) if stat.S_ISLNK(status.st_mode) else (None, None)
    entry: dict[str, Json] = {
        "path": tell(path),
        "name": tell(posixpath.basename(path) or path),
        "type": _type(status.st_mode),
        "size": status.st_size,
        "mode": stat.S_IMODE(status.st_mode),
        "owner": names.user(status.st_uid),
        "group": names.group(status.st_gid),
        "modified": status.st_mtime,
        "target": target,
        "target_type": None if reached is None else _type(reached),
        "target_mode": None if reached is None else stat.S_IMODE(reached),
    }
    if prefix is not None:
        entry["attributes"] = dict[str, Json](attributes.read(path, prefix))
    return entry


def tell(name: bytes) -> str:
    """Give a name as text; bytes that are not UTF-8 become lone surrogates."""
    return name.decode("utf-8", "surrogateescape")


def _type(mode: int) -> str:
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    return "symlink" if stat.S_ISLNK(mode) else "other"


def _target(path: bytes) -> tuple[str | None, int | None]:
    """Give where a symbolic link finally leads, and the mode of what is there.

    The kernel follows it, with its own limits.
    """
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return None, None
    try:
        return tell(os.readlink(b"/proc/self/fd/%d" % fd)), os.fstat(fd).st_mode
    except OSError:
        return None, None
    finally:
        os.close(fd)


def list_directory(
    path: bytes, depth: int, data: int, prefix: bytes | None = None
) -> dict[str, Json]:
    """Write one line of JSON per entry below ``path``, a directory before what is in it.

    Entries are sorted by name in directories of fewer than 10,000; memory is bounded by that
    number of names per level. What vanishes meanwhile is left out, and so is what the caller
    may not see below the directory itself.
    """
    names = Names()
    lines = _LineWriter(data)
    stack = [(path, _open_directory(path))]
    count = 0
    while stack:
        directory, entries = stack[-1]
        name = next(entries, None)
        if name is None:
            stack.pop()
            continue
        child = join(directory, name)
        try:
            status = os.lstat(child)
            lines.write(_entry(child, status, names, prefix))
            count += 1
            if stat.S_ISDIR(status.st_mode) and len(stack) < depth:
                stack.append((child, _names(child)))
        except (PermissionError, FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise operation_error(error, show(child)) from error
    lines.flush()
    return {"count": count}


def _open_directory(path: bytes) -> Iterator[bytes]:
    try:
        return _names(path)
    except OSError as error:
        raise operation_error(error, show(path)) from error


def _names(path: bytes) -> Iterator[bytes]:
    entries = os.scandir(path)
    first = [entry.name for entry in itertools.islice(entries, _SORTED)]
    if len(first) < _SORTED:
        entries.close()
        return iter(sorted(first))
    return itertools.chain(first, (entry.name for entry in entries))


def join(directory: bytes, name: bytes) -> bytes:
    """Give the path of an entry."""
    return directory.rstrip(b"/") + b"/" + name


class _LineWriter:
    """Gathers lines and writes them in large pieces."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def write(self, value: Mapping[str, Json]) -> None:
        self._buffer += json.dumps(value, separators=(",", ":")).encode("ascii") + b"\n"
        if len(self._buffer) >= _LINES:
            self.flush()

    def flush(self) -> None:
        write_all(self._fd, self._buffer)
        self._buffer.clear()


def write_all(fd: int, data: bytes | bytearray) -> None:
    """Write to the host's pipe; raises OperationError when nobody reads it any more."""
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(fd, view) :]
    except BrokenPipeError as error:
        raise OperationError("failed", "the reader went away") from error
    finally:
        view.release()


# --- directories and modes ------------------------------------------------------------------


def make_directory(
    path: bytes, *, mode: int | None, parents: bool, exist_ok: bool
) -> dict[str, Json]:
    """Make a directory (0755 unless ``mode`` says otherwise), and those above if asked.

    What is there already is `already_exists` if it is a directory, else `not_a_directory`.
    """
    try:
        if parents:
            make_parents(posixpath.dirname(path))
        os.mkdir(path, 0o755)
        if mode is not None:
            os.chmod(path, mode)
    except FileExistsError as error:
        if not posixpath.isdir(path):
            detail = f"{show(path)} exists and is not a directory"
            raise OperationError("not_a_directory", detail) from error
        if not exist_ok:
            raise OperationError("already_exists", f"{show(path)} exists") from error
        return {"created": False}
    except OSError as error:
        raise operation_error(error, show(path)) from error
    return {"created": True}


def make_parents(path: bytes) -> None:
    """Make a directory and those above it that are missing; they belong to who asked.

    Raises NotADirectoryError if something else is in the way, and any other OSError.
    """
    try:
        os.makedirs(path, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path) from error


def disk_usage() -> dict[str, Json]:
    """Give the size of the layer that the sandbox's files are written to, in bytes and in files.

    Root may write to all of it and so may the user: nothing is kept back.
    """
    status = os.statvfs("/")
    return {
        "total": status.f_blocks * status.f_frsize,
        "free": status.f_bavail * status.f_frsize,
        "inodes": status.f_files,
        "inodes_free": status.f_favail,
    }


def set_mode(path: bytes, mode: int) -> dict[str, Json]:
    """Set the permission bits of what stands at the path, symbolic links followed."""
    try:
        os.chmod(path, mode)
    except OSError as error:
        raise operation_error(error, show(path)) from error
    return {}
