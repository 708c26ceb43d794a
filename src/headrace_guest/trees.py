"""Moving and removing files and whole trees, done inside the sandbox like `files`.

A tree may be deeper than any path can say and change while it is walked: it is removed from
within, with one directory at a time as the working directory, and no symbolic link is followed.
"""
# pathlib does not take bytes:
# ruff: noqa: PTH101, PTH102, PTH104, PTH106, PTH108, PTH115, PTH116, PTH211

import contextlib
import errno
import itertools
import os
import posixpath
import stat

from headrace_guest import attributes
from headrace_guest.contents import copy_bytes, temporary_name
from headrace_guest.files import Stopped, describe, join, make_parents
from headrace_guest.protocol import Json
from headrace_guest.spawn import OperationError, operation_error, show

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BATCH = 1000


def remove(path: bytes, *, recursive: bool, missing_ok: bool) -> dict[str, Json]:
    """Remove a file, a symbolic link or a directory, with what is in it if asked."""
    _refuse_special(path)
    try:
        status = os.lstat(path)
    except FileNotFoundError as error:
        if missing_ok:
            return {"removed": False}
        raise operation_error(error, show(path)) from error
    except OSError as error:
        raise operation_error(error, show(path)) from error
    _remove(path, status, recursive=recursive)
    return {"removed": True}


def _refuse_special(path: bytes) -> None:
    if posixpath.basename(path) in (b"", b".", b".."):
        raise OperationError("invalid", f"{show(path)} cannot be moved or removed")


def _remove(path: bytes, status: os.stat_result, *, recursive: bool, unlocks: bool = False) -> None:
    """Remove what ``status`` says is there; ``unlocks`` makes directories writable first."""
    try:
        if not stat.S_ISDIR(status.st_mode):
            os.unlink(path)
            return
        if recursive:
            _empty(path, unlocks=unlocks)
        os.rmdir(path)
    except OSError as error:
        raise operation_error(error, show(path)) from error


def _empty(path: bytes, *, unlocks: bool) -> None:
    """Remove what is in a directory; the working directory is the same afterwards."""
    home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    trail: list[bytes] = []
    try:
        _descend(path, unlocks=unlocks)
        _empty_here(trail, unlocks=unlocks)
    except OSError as error:
        where = b"/".join([path, *trail])
        raise operation_error(error, show(where[:4096])) from error
    finally:
        os.fchdir(home)
        os.close(home)


def _empty_here(trail: list[bytes], *, unlocks: bool) -> None:
    """Remove everything in the working directory; ``trail`` is where below it we are."""
    above: list[tuple[int, int]] = []
    while True:
        name = _remove_entries()
        if name is not None:
            above.append(_identity())
            trail.append(name)
            _descend(name, unlocks=unlocks)
        elif above:
            os.chdir(b"..")
            if _identity() != above.pop():
                where = show(b"/".join(trail)[:4096])
                raise OperationError("failed", f"{where} was moved while it was removed")
            _remove_directory(trail.pop())
        else:
            return


def _remove_entries() -> bytes | None:
    """Remove the working directory's entries; stop at a directory with something in it."""
    while True:
        with os.scandir(b".") as entries:
            batch = list(itertools.islice(entries, _BATCH))
        if not batch:
            return None
        for entry in batch:
            if entry.is_dir(follow_symlinks=False):
                if not _remove_directory(entry.name):
                    return entry.name
                continue
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name)


def _remove_directory(name: bytes) -> bool:
    """Remove an empty directory; False if it has entries (again)."""
    try:
        os.rmdir(name)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise
    return True


def _descend(name: bytes, *, unlocks: bool) -> None:
    fd = os.open(name, _DIRECTORY)
    try:
        if unlocks:
            with contextlib.suppress(PermissionError):
                os.fchmod(fd, 0o700)
        os.fchdir(fd)
    finally:
        os.close(fd)


def _identity() -> tuple[int, int]:
    status = os.stat(b".")
    return status.st_dev, status.st_ino


# --- moving ---------------------------------------------------------------------------------


def move(source: bytes, destination: bytes, *, create_parents: bool) -> dict[str, Json]:
    """Give something another path, as rename(2) does: a file in the way is replaced.

    Across file systems (an overlay counts as several) it is copied beside the destination
    first, so that the destination is either as it was or complete.
    """
    for path in (source, destination):
        _refuse_special(path)
    parent = posixpath.dirname(destination)
    try:
        status = os.lstat(source)
    except OSError as error:
        raise operation_error(error, show(source)) from error
    try:
        if create_parents:
            make_parents(parent)
        os.stat(parent)
    except OSError as error:
        raise operation_error(error, show(parent)) from error
    try:
        _rename(source, destination, status)
        return describe(destination)
    except OSError as error:
        what = f"moving {show(source)} to {show(destination)}"
        raise operation_error(error, what) from error


def _rename(source: bytes, destination: bytes, status: os.stat_result) -> None:
    try:
        os.rename(source, destination)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _move_across(source, destination, status)


def _move_across(source: bytes, destination: bytes, status: os.stat_result) -> None:
    inside = posixpath.realpath(source) + b"/"
    if (posixpath.realpath(posixpath.dirname(destination)) + b"/").startswith(inside):
        raise OperationError("invalid", f"{show(destination)} is inside of {show(source)}")
    temporary = temporary_name(posixpath.dirname(destination))
    try:
        _copy_tree(source, temporary, status)
        os.rename(temporary, destination)
    except (Exception, Stopped):
        with contextlib.suppress(OSError, OperationError):
            _remove(temporary, os.lstat(temporary), recursive=True, unlocks=True)
        raise
    _remove(source, status, recursive=True, unlocks=True)


def _copy_tree(source: bytes, target: bytes, status: os.stat_result) -> None:
    """Copy with modes, times, what users noted and, where allowed, owners.

    Directories get theirs last: one that may not be written has to be filled first.
    """
    directories: list[tuple[bytes, bytes, os.stat_result]] = []
    pending = [(source, target, status)]
    while pending:
        source, target, status = pending.pop()
        if not stat.S_ISDIR(status.st_mode):
            _copy_one(source, target, status)
            continue
        os.mkdir(target, 0o700)
        directories.append((source, target, status))
        with os.scandir(source) as entries:
            for entry in entries:
                item = (entry.path, join(target, entry.name), entry.stat(follow_symlinks=False))
                if entry.is_dir(follow_symlinks=False):
                    pending.append(item)
                else:
                    _copy_one(*item)
    for source, target, status in reversed(directories):
        attributes.copy(source, target)
        _restore(target, status)


def _copy_one(source: bytes, target: bytes, status: os.stat_result) -> None:
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISREG(status.st_mode):
        _copy_file(source, target)
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(target, 0o600)
    else:
        detail = f"{show(source)} is a device or a socket; it cannot leave its file system"
        raise OperationError("failed", detail)
    _restore(target, status)


def _copy_file(source: bytes, target: bytes) -> None:
    reading = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        writing = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            copy_bytes(reading, writing, 0)
            attributes.copy(reading, writing)
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _restore(path: bytes, status: os.stat_result) -> None:
    with contextlib.suppress(PermissionError):
        os.chown(path, status.st_uid, status.st_gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(path, stat.S_IMODE(status.st_mode))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)
