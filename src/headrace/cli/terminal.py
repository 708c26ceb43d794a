"""Our own standard streams: bytes out exactly and in order, lines in, never stopping the loop."""

import contextlib
import errno
import os
import select
import stat
import termios
from collections.abc import Iterator

import anyio

from headrace.model.errors import HeadraceError, LimitExceededError

MAX_LINE = 1024 * 1024
_TURN = 64 * 1024
_READ = 64 * 1024


class ReaderGoneError(Exception):
    """Whoever read our output closed it; there is nobody left to run for."""


class OutputFailedError(HeadraceError):
    """Our own output cannot be written, for instance because the disk is full."""

    code = "output_failed"


class Cursor:
    """Whether the next byte begins a line; two sinks on one terminal share one."""

    def __init__(self) -> None:
        self.is_at_line_start = True


class ByteSink:
    """Writes to a descriptor that others share, which must therefore stay in blocking mode.

    A pipe that polls as writable takes ``PIPE_BUF`` bytes without blocking, so that is what a
    write gets; between writes the event loop stays alive however slow the reader is.
    """

    def __init__(self, fd: int, cursor: Cursor) -> None:
        self._fd = fd
        self._cursor = cursor
        self._poll = select.poll()
        self._poll.register(fd, select.POLLOUT)
        mode = os.fstat(fd).st_mode
        self._piece = _TURN if stat.S_ISREG(mode) else select.PIPE_BUF
        self._gone = {errno.EPIPE, errno.EIO} if stat.S_ISCHR(mode) else {errno.EPIPE}

    @property
    def is_at_line_start(self) -> bool:
        """Say whether the next byte begins a line."""
        return self._cursor.is_at_line_start

    async def write(self, data: bytes) -> None:
        """Write everything; raises ReaderGoneError if nobody will ever read it.

        Any other failure is an OutputFailedError.
        """
        if not data:
            return
        view = memoryview(data)
        turn = 0
        while view:
            if not self._poll.poll(0):
                await anyio.wait_writable(self._fd)
            written = self._write(view[: self._piece])
            view = view[written:]
            turn += written
            if turn >= _TURN:
                turn = 0
                await anyio.lowlevel.checkpoint()
        self._cursor.is_at_line_start = data.endswith(b"\n")

    def _write(self, piece: memoryview) -> int:
        try:
            return os.write(self._fd, piece)
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno in self._gone:
                raise ReaderGoneError from error
            raise OutputFailedError(
                f"cannot write to descriptor {self._fd}: {error.strerror}"
            ) from error


def open_outputs() -> tuple[ByteSink, ByteSink]:
    """Give our stdout and stderr; they share a cursor if they lead to the same place."""
    cursor = Cursor()
    is_same = os.path.samestat(os.fstat(1), os.fstat(2))
    return ByteSink(1, cursor), ByteSink(2, cursor if is_same else Cursor())


class LineSource:
    """Reads lines for ``input()`` from a descriptor, when they are asked for and not before."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    async def read_line(self) -> str | None:
        """Give the next line without its end, or None at the end of the file."""
        searched = 0
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > MAX_LINE:
                raise LimitExceededError(f"a line of standard input has more than {MAX_LINE} bytes")
            chunk = await self._read()
            if not chunk:
                return self._take(len(self._buffer)) if self._buffer else None
            self._buffer += chunk
        return self._take(end + 1)

    def _take(self, count: int) -> str:
        line = bytes(self._buffer[:count])
        del self._buffer[:count]
        return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "replace")

    async def _read(self) -> bytes:
        # A regular file and /dev/null cannot be waited for: they are always ready.
        with contextlib.suppress(PermissionError):
            await anyio.wait_readable(self._fd)
        try:
            return os.read(self._fd, _READ)
        except OSError as error:
            if error.errno == errno.EIO:
                return b""
            raise

    @contextlib.contextmanager
    def without_echo(self) -> Iterator[None]:
        """Keep a terminal from showing what is typed, for passwords."""
        if not os.isatty(self._fd):
            yield
            return
        before = termios.tcgetattr(self._fd)
        silent = [*before[:3], before[3] & ~termios.ECHO, *before[4:]]
        termios.tcsetattr(self._fd, termios.TCSANOW, silent)
        try:
            yield
        finally:
            termios.tcsetattr(self._fd, termios.TCSANOW, before)
