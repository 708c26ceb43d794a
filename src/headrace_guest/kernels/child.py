"""The interpreter as a child process: its start, its channel, its end."""

import os
import select
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace

from headrace_guest.capture import move_high
from headrace_guest.kernels.interpreter import Ends, Interpreter
from headrace_guest.kernels.messages import LineReader
from headrace_guest.protocol import ProtocolError

_CHUNK = 256 * 1024
_END_WAIT = 1.0


class Child:
    """A running interpreter; the driver's ends of its channel and order file.

    Its descriptors 1 and 2 are the kernel's own pipes. ``pidfd`` becomes readable at its end.
    """

    def __init__(self, interpreter: Interpreter) -> None:
        self.channel, channel = _make_pair()
        os.set_blocking(self.channel, False)
        self._order = _make_file("order", b"")
        self._alarm: int | None = None
        self._lines = LineReader()
        self._count = 0
        ends = Ends(channel, self._order)
        if interpreter.program:
            ends = replace(ends, program=_make_file("program", interpreter.program))
        if interpreter.has_alarm:
            self._alarm, alarm = _make_pair()
            os.set_blocking(self._alarm, False)
            ends = replace(ends, alarm=alarm)
        theirs = [fd for fd in (ends.channel, ends.program, ends.alarm) if fd is not None]
        try:
            # No preexec_fn: it would copy the page tables of this process.
            process = subprocess.Popen(  # noqa: S603 - the program that was found at the start
                interpreter.command(ends),
                stdin=subprocess.DEVNULL,
                pass_fds=[ends.order, *theirs],
            )
        finally:
            for fd in theirs:
                os.close(fd)
        process.returncode = 0  # it is reaped here
        self.pid = process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def hand_over(self, content: bytes) -> None:
        """Let the interpreter run what ``content`` says."""
        self._count += 1
        os.ftruncate(self._order, 0)
        _write(self._order, content)
        self.tell(b"go\n")

    def tell(self, line: bytes) -> None:
        """Write a short line; raises ProtocolError if many were left unread.

        An interpreter that has just ended is told nothing; `pidfd` says that it has.
        """
        with suppress(BrokenPipeError, ConnectionResetError):
            try:
                os.write(self.channel, line)
            except BlockingIOError as error:
                raise ProtocolError("it does not read its channel") from error

    def read(self) -> Iterator[bytes]:
        """Give the lines that have come; raises ProtocolError for an endless one.

        Also if the channel was closed by an interpreter that does not end.
        """
        try:
            data = os.read(self.channel, _CHUNK)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data and not self._ends_soon():
            raise ProtocolError("it closed its channel")
        yield from self._lines.feed(data)

    def interrupt(self) -> None:
        """Send SIGINT to everything in the kernel's process group, and raise the alarm."""
        os.killpg(0, signal.SIGINT)
        self.raise_alarm()

    def raise_alarm(self) -> None:
        """Write to the alarm, if the interpreter has one and reads it, which order is to end."""
        if self._alarm is not None:
            with suppress(OSError):
                os.write(self._alarm, b"stop %d\n" % self._count)

    @property
    def has_ended(self) -> bool:
        """Say whether the interpreter's process is gone and waits to be reaped."""
        return bool(select.select([self.pidfd], [], [], 0)[0])

    def _ends_soon(self) -> bool:
        return bool(select.select([self.pidfd], [], [], _END_WAIT)[0])

    def move(self, pid: int) -> None:
        """Follow the interpreter's state into another process, and end the former one.

        Raises ProtocolError unless that is a descendant of the interpreter: then it becomes our
        child as soon as its parent has ended, since this process is a subreaper.
        """
        try:
            pidfd = os.pidfd_open(pid)
        except (OSError, OverflowError) as error:
            raise ProtocolError(f"it moved to {pid}: {error}") from error
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        try:
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError as error:
            os.close(pidfd)
            raise ProtocolError(f"it moved to {pid}, which is not its own") from error
        os.close(self.pidfd)
        self.pid, self.pidfd = pid, pidfd

    def reap(self) -> int:
        """Give the wait status of the interpreter, which has ended."""
        return os.waitpid(self.pid, 0)[1]

    def read_order(self) -> bytes:
        """Give what the order file holds."""
        return os.pread(self._order, os.fstat(self._order).st_size, 0)

    def close(self) -> None:
        """End the interpreter; a kernel does not need that, since it ends itself."""
        signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)
        self.reap()
        for fd in (self.channel, self._order, self._alarm, self.pidfd):
            if fd is not None:
                os.close(fd)


def _make_pair() -> tuple[int, int]:
    ours, theirs = socket.socketpair()
    return _move_high(ours.detach()), _move_high(theirs.detach())


def _make_file(name: str, content: bytes) -> int:
    fd = _move_high(os.memfd_create(name, os.MFD_CLOEXEC))
    _write(fd, content)
    return fd


def _write(fd: int, content: bytes) -> None:
    view = memoryview(content)
    written = 0
    while written < len(content):
        written += os.pwrite(fd, view[written:], written)


def _move_high(fd: int) -> int:
    try:
        return move_high(fd)
    finally:
        os.close(fd)
