"""Reading and writing regular files, done inside the sandbox like `files`.

Bytes go between file and pipe inside the kernel. A file that is written is complete or as it
was: nothing shows before the host said that all was sent.
"""
# pathlib does not take bytes:
# ruff: noqa: PTH104, PTH108, PTH115, PTH116

import contextlib
import errno
import os
import posixpath
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass

from headrace_guest import attributes
from headrace_guest.attributes import Attributes
from headrace_guest.files import join, make_parents, write_all
from headrace_guest.protocol import Json
from headrace_guest.spawn import OperationError, operation_error, show

_CHUNK = 1024 * 1024
_SPOOLS = b"/tmp"
_OPEN = os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NO_PLACE = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_REPLACEMENT = (*_NO_PLACE, errno.EBUSY, errno.EXDEV)
_TEMPORARY = re.compile(rb"\.headrace-[0-9a-f]{16}")
_NOT_SUPPORTED = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def read_file(path: bytes, offset: int, length: int | None, data: int) -> dict[str, Json]:
    """Send a range of a regular file into the pipe; it may be shorter than what was asked."""
    try:
        fd = os.open(path, os.O_RDONLY | _OPEN)
    except OSError as error:
        raise operation_error(error, show(path)) from error
    size = _check_regular(path, os.fstat(fd)).st_size
    try:
        sent = copy_bytes(fd, data, offset, length)
    except BrokenPipeError as error:
        raise OperationError("failed", f"{show(path)}: the reader went away") from error
    except OSError as error:
        raise operation_error(error, show(path)) from error
    return {"size": size, "sent": sent}


def _check_regular(path: bytes, status: os.stat_result) -> os.stat_result:
    if stat.S_ISDIR(status.st_mode):
        raise OperationError("is_a_directory", f"{show(path)} is a directory")
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        kind = kinds.get(stat.S_IFMT(status.st_mode), "a device")
        raise OperationError("invalid", f"{show(path)} is {kind}, not a regular file")
    return status


def copy_bytes(source: int, target: int, offset: int, length: int | None = None) -> int:
    """Copy from a regular file to where another descriptor stands; gives how many bytes."""
    done = 0
    can_send = True
    while length is None or done < length:
        size = _CHUNK if length is None else min(_CHUNK, length - done)
        if can_send:
            try:
                moved = os.sendfile(target, source, offset + done, size)
            except OSError as error:
                if error.errno not in _NOT_SUPPORTED:
                    raise
                can_send = False
                continue
        else:
            moved = _copy_piece(source, target, offset + done, size)
        if moved == 0:
            break
        done += moved
    return done


def _copy_piece(source: int, target: int, offset: int, size: int) -> int:
    piece = os.pread(source, size, offset)
    view = memoryview(piece)
    while view:
        view = view[os.write(target, view) :]
    return len(piece)


@dataclass(frozen=True, slots=True)
class WriteRequest:
    """What is to be written; without ``mode`` a file keeps its own, and a new one gets 0644.

    Without ``attributes`` a file keeps those that users noted; with ``keeps_owner`` its owner, else
    a file that can be replaced becomes the writer's.
    """

    path: bytes
    mode: int | None = None
    create_parents: bool = False
    append: bool = False
    attributes: Attributes | None = None
    keeps_owner: bool = True


def write_file(request: WriteRequest, data: int, may_commit: Callable[[], None]) -> dict[str, Json]:
    """Make a file of what the pipe brings until its end, all of it or nothing.

    The bytes wait in a file without a name. ``may_commit`` returns when they may become the
    file, or raises. A symbolic link is followed; the mode of an existing file is kept.
    Appending goes to the file itself, so that others who hold it open see it grow. Where the
    directory does not let a file be replaced, the file's content is.

    Attributes become the file's together with its bytes. If its file system can hold none, the
    file is written all the same, and `not_supported` says so.
    """
    target = _follow(request.path)
    before = _look_at(target)
    try:
        spool = _Spool(target, before, create_parents=request.create_parents)
    except OSError as error:
        raise operation_error(error, show(posixpath.dirname(target))) from error
    try:
        _receive(data, spool.fd)
        may_commit()
        size = spool.append(request) if request.append else spool.replace(request)
    except OSError as error:
        raise operation_error(error, show(request.path)) from error
    finally:
        spool.close()
    if spool.lacks_attributes:
        raise attributes.unsupported(request.path, was_written=True)
    return {"size": size}


def _follow(path: bytes) -> bytes:
    """Give where a symbolic link leads, whether or not something stands there."""
    for _ in range(40):
        try:
            link = os.readlink(path)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return path
            raise operation_error(error, show(path)) from error
        path = posixpath.join(posixpath.dirname(path), link)
    raise OperationError("invalid", f"{show(path)}: too many levels of symbolic links")


def _look_at(path: bytes) -> os.stat_result | None:
    """Give what is known of a file to be written, if there is one and it may be."""
    try:
        status = _check_regular(path, os.stat(path))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise operation_error(error, show(path)) from error
    if not os.access(path, os.W_OK):
        raise OperationError("permission_denied", f"{show(path)} may not be written")
    return status


def _receive(data: int, target: int) -> None:
    """Move everything that the pipe brings until its end into a file."""
    can_splice = True
    while True:
        try:
            if can_splice:
                if os.splice(data, target, _CHUNK) == 0:
                    return
                continue
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise
            can_splice = False
        piece = os.read(data, _CHUNK)
        if not piece:
            return
        write_all(target, piece)


class _Spool:
    """Bytes that wait to become a file, or a part of one.

    They wait where the file will be, so that no copy is needed. If that directory may not be
    written but the file may, they wait elsewhere and are copied.
    """

    def __init__(
        self, target: bytes, before: os.stat_result | None, *, create_parents: bool
    ) -> None:
        self._target = target
        self._before = before
        self._parent = posixpath.dirname(target) or b"/"
        self._directory = _nearest(self._parent) if create_parents else self._parent
        self._name: bytes | None = None
        self._is_in_place = False
        self.lacks_attributes = False
        """Whether the file was to get attributes and its file system cannot hold any."""
        try:
            self.fd = self._open()
        except OSError as error:
            if before is None or error.errno not in _NO_PLACE:
                raise
            self._is_in_place = True
            self._directory = _SPOOLS
            self.fd = self._open()

    def _open(self) -> int:
        flags = os.O_RDWR | os.O_CLOEXEC
        try:
            return os.open(self._directory, flags | os.O_TMPFILE, 0o600)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
                raise
        self._name = temporary_name(self._directory)
        return os.open(self._name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)

    def close(self) -> None:
        """Forget the bytes, unless they became a file."""
        os.close(self.fd)
        if self._name is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._name)

    def replace(self, request: WriteRequest) -> int:
        """Put the bytes in the file's place; gives its size."""
        if not self._is_in_place:
            try:
                self._put_in_place(request)
            except OSError as error:
                if self._before is None or error.errno not in _NO_REPLACEMENT:
                    raise
            else:
                return os.fstat(self.fd).st_size
        return self._overwrite(request)

    def _put_in_place(self, request: WriteRequest) -> None:
        before, own = self._before, os.fstat(self.fd)
        if before is None:
            mode = 0o644
            if request.create_parents:
                make_parents(self._parent)
        else:
            mode = stat.S_IMODE(before.st_mode)
            owners = (before.st_uid, before.st_gid)
            if request.keeps_owner and owners != (own.st_uid, own.st_gid):
                os.fchown(self.fd, *owners)
            attributes.copy(self._target, self.fd)
        os.fchmod(self.fd, mode if request.mode is None else request.mode)
        self._note(self.fd, request)
        if self._name is None:
            if before is None and self._take_free_name():
                return
            name = temporary_name(self._parent)
            self._link(name)
            self._name = name
        os.rename(self._name, self._target)
        self._name = None

    def _note(self, fd: int, request: WriteRequest) -> None:
        wanted = request.attributes
        self.lacks_attributes = wanted is not None and not attributes.replace(fd, wanted)

    def _take_free_name(self) -> bool:
        """Become the file at once if nothing has its name by now."""
        try:
            self._link(self._target)
        except FileExistsError:
            return False
        return True

    def _link(self, path: bytes) -> None:
        # The descriptor given makes Python call linkat(2), which can follow a link of /proc.
        os.link(b"/proc/self/fd/%d" % self.fd, path, src_dir_fd=self.fd, follow_symlinks=True)

    def _overwrite(self, request: WriteRequest) -> int:
        """Change the file itself; there is room for all of it before any byte changes."""
        size = os.fstat(self.fd).st_size
        fd = os.open(self._target, os.O_WRONLY | _OPEN)
        try:
            before = _check_regular(self._target, os.fstat(fd)).st_size
            if request.mode is not None:
                os.fchmod(fd, request.mode)
            reserve(fd, before, size)
            self._note(fd, request)
            copy_bytes(self.fd, fd, 0)
            os.ftruncate(fd, size)
        finally:
            os.close(fd)
        return size

    def append(self, request: WriteRequest) -> int:
        """Put the bytes at the end of the file; gives its size."""
        if request.create_parents:
            make_parents(self._parent)
        flags = os.O_WRONLY | os.O_APPEND | _OPEN | (0 if self._before else os.O_CREAT)
        fd = os.open(self._target, flags, 0o644)
        try:
            before = _check_regular(self._target, os.fstat(fd)).st_size
            if request.mode is not None:
                os.fchmod(fd, request.mode)
            self._note(fd, request)
            _append_bytes(self.fd, fd, before)
            return os.fstat(fd).st_size
        finally:
            os.close(fd)


def _append_bytes(source: int, target: int, before: int) -> None:
    try:
        copy_bytes(source, target, 0)
    except OSError:
        os.ftruncate(target, before)
        raise


def reserve(fd: int, before: int, size: int) -> None:
    """Make room for ``size`` bytes, where the file system can; otherwise nothing changes."""
    try:
        if size > before:
            os.posix_fallocate(fd, 0, size)
    except OSError as error:
        if error.errno not in _NOT_SUPPORTED:
            os.ftruncate(fd, before)
            raise


def _nearest(path: bytes) -> bytes:
    """Give the nearest directory above that exists."""
    while path != b"/" and not posixpath.exists(path):
        path = posixpath.dirname(path)
    return path


def temporary_name(directory: bytes) -> bytes:
    """Give a path that nothing has."""
    return join(directory, b".headrace-" + os.urandom(8).hex().encode("ascii"))


def is_temporary(name: bytes) -> bool:
    """Say whether a name is one that `temporary_name` makes."""
    return _TEMPORARY.fullmatch(name) is not None
