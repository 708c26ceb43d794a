"""Pipes between the engine and a sandbox: never blocking, with back-pressure and deadlines."""

import asyncio
import fcntl
import os
import sys
import termios
from collections.abc import Iterable
from typing import Any

import anyio
import anyio.lowlevel

from headrace.engine.event_log import EventLog
from headrace.engine.output import OutputPump
from headrace.model.errors import DeadlineError, WrongStateError

CHUNK = 64 * 1024

_DRAIN_TIMEOUT = 15.0
"""How many seconds output may take at the end; more than a log waits for its disk by itself."""
_LOST_REASON = "log disk too slow"
_SINK_PAUSE = 0.05


def open_pipe() -> tuple[int, int]:
    """Open a pipe; gives its read end, then its write end."""
    return os.pipe2(os.O_CLOEXEC)


async def drain(pumps: Iterable[tuple[int, OutputPump]], log: EventLog[Any]) -> None:
    """Bring what is in the pipes of these pumps into their log, or note that it is lost."""
    for fd, pump in pumps:
        if not await pump.drain(_DRAIN_TIMEOUT):
            answer = fcntl.ioctl(fd, termios.FIONREAD, bytes(4))
            log.drop(pump.stream, int.from_bytes(answer, sys.byteorder), _LOST_REASON)


class PipeClosedError(WrongStateError):
    """The other end is closed, or ours is."""


class PipeWriter:
    """The write end of a pipe that a guest reads; one task writes at a time, the others wait."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._writing = anyio.Lock()

    async def write(self, data: bytes, *, timeout: float) -> None:  # noqa: ASYNC109 - see below
        """Write everything; waits while the guest does not read.

        Raises PipeClosedError when the guest has closed its end, DeadlineError if it has taken
        nothing for ``timeout`` seconds; ``written`` in its details says how much it took.
        """
        async with self._writing:
            written = 0
            view = memoryview(data)
            with anyio.move_on_after(timeout) as scope:
                while written < len(data):
                    written += await self._write_some(view[written : written + CHUNK])
                    scope.deadline = anyio.current_time() + timeout
                    # A guest that reads as fast as we write must not keep the loop for itself.
                    await anyio.lowlevel.checkpoint()
                return
        raise DeadlineError(
            f"after {written} of {len(data)} bytes nothing was taken for {timeout:g} s",
            written=written,
        )

    async def _write_some(self, data: memoryview) -> int:
        while self._fd >= 0:
            try:
                return os.write(self._fd, data)
            except BlockingIOError:
                try:
                    await anyio.wait_writable(self._fd)
                except anyio.ClosedResourceError:
                    break
            except BrokenPipeError as error:
                raise PipeClosedError("the reader has closed the pipe") from error
        raise PipeClosedError("the pipe is closed")

    def close(self) -> None:
        """Let the guest read the end of the file; safe to call twice and while others write."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            anyio.notify_closing(fd)
            os.close(fd)


class PipeReader:
    """The read end of a pipe that a guest writes."""

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd

    async def read(self, *, timeout: float) -> bytes:  # noqa: ASYNC109 - it becomes a DeadlineError
        """Give the next bytes, at most 64 KiB, nothing at the end of the file.

        Raises DeadlineError if nothing came for ``timeout`` seconds.
        """
        with anyio.move_on_after(timeout):
            # A guest that writes as fast as we read must not keep the loop for itself.
            await anyio.lowlevel.checkpoint()
            while self._fd >= 0:
                try:
                    return os.read(self._fd, CHUNK)
                except BlockingIOError:
                    await anyio.wait_readable(self._fd)
            raise PipeClosedError("the pipe is closed")
        raise DeadlineError(f"nothing came for {timeout:g} s")

    def close(self) -> None:
        """Close the pipe, upon which a guest that writes stops; safe to call twice."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            anyio.notify_closing(fd)
            os.close(fd)


class Sink:
    """Reads and forgets what is written after a process's end by those that it left behind.

    A server that a command put into the background would break at its next line of output if
    nobody held its pipe. It reads slowly, since nobody wants the output.
    """

    def __init__(self, fd: int) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._loop.add_reader(fd, self._read)

    @property
    def is_closed(self) -> bool:
        """Say whether the last writer is gone, or `close` was called."""
        return self._fd < 0

    def close(self) -> None:
        """Close the pipe; safe to call twice."""
        if self._timer is not None:
            self._timer.cancel()
        fd, self._fd = self._fd, -1
        if fd >= 0:
            self._loop.remove_reader(fd)
            os.close(fd)

    def _read(self) -> None:
        try:
            data = os.read(self._fd, CHUNK)
        except BlockingIOError:
            return
        if not data:
            self.close()
            return
        self._loop.remove_reader(self._fd)
        self._timer = self._loop.call_later(_SINK_PAUSE, self._read_on)

    def _read_on(self) -> None:
        self._loop.add_reader(self._fd, self._read)
