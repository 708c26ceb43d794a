"""Standard output and error of user code: live, one write per print, in order with the events.

Three channels lead to the host: the pipes at descriptors 1 and 2 and the event socket. They have
no common order, so a fence makes one: before anything is written to one channel, and before a
child that may write is started, the others must have been read empty.
"""

import _posixsubprocess
import builtins
import contextlib
import ctypes
import fcntl
import functools
import io
import os
import resource
import select
import subprocess
import sys
import termios
from collections.abc import Callable
from time import sleep
from typing import Any, TypeVar

# Bound once: user code may replace the functions in their modules.
_write = os.write
_close = os.close
_dup2 = os.dup2
_fstat = os.fstat
_get_blocking = os.get_blocking
_set_blocking = os.set_blocking
_select = select.select
_ioctl = fcntl.ioctl
_yield = os.sched_yield
_print = builtins.print

_FIONREAD = termios.FIONREAD
_SIOCOUTQ = termios.TIOCOUTQ
_NOTHING = bytes(4)

# How to wait, attempt by attempt; a count bounds it, since user code may fake the clock. The host
# usually reads within 50 microseconds. On a busy machine it may take it long to get its turn, so
# the wait is then up to 0.1 s; a host that does not read at all gets 5 ms each time after that.
_YIELDS = [0.0] * 60
_BRIEF = _YIELDS + [0.0001] * 27
_PATIENT = _BRIEF + [0.001] * 90

_HIGH_DESCRIPTOR = 200

Function = TypeVar("Function", bound=Callable[..., Any])


def move_high(fd: int) -> int:
    """Duplicate a descriptor to where user code will not stumble over it; closed on exec."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    lowest = _HIGH_DESCRIPTOR
    if limit != resource.RLIM_INFINITY:
        lowest = max(3, min(lowest, limit - 16))
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, lowest)


class Fence:
    """Waits, within a bound, until the host has read the other channels.

    The descriptors are the fence's own duplicates of the pipes' write ends and the event socket.
    ``has_sent`` is set by whoever sends an event; while it is unset the socket is not asked.
    """

    def __init__(self, stdout: int, stderr: int, events: int) -> None:
        self._stdout = (stdout, _FIONREAD)
        self._stderr = (stderr, _FIONREAD)
        self._events = (events, _SIOCOUTQ)
        self.has_sent = False
        self._is_stalled = False

    def before_stdout(self) -> None:
        """Let what was written to stderr and sent as events arrive first."""
        if self.has_sent or _is_pending(*self._stderr):
            self._wait(self._stderr, self._events)

    def before_stderr(self) -> None:
        """Let what was written to stdout and sent as events arrive first."""
        if self.has_sent or _is_pending(*self._stdout):
            self._wait(self._stdout, self._events)

    def before_event(self) -> None:
        """Let what was written to both pipes arrive first."""
        if _is_pending(*self._stdout) or _is_pending(*self._stderr):
            self._wait(self._stdout, self._stderr)

    def before_child(self) -> None:
        """Let everything arrive before a child process can write."""
        self._wait(self._stdout, self._stderr, self._events)

    def become_ordinary(self) -> None:
        """In a forked child, use what it has: descriptors 1 and 2 and no event socket."""
        self._stdout = (1, _FIONREAD)
        self._stderr = (2, _FIONREAD)
        self._events = (-1, _SIOCOUTQ)
        self.has_sent = False

    def _wait(self, *channels: tuple[int, int]) -> None:
        for seconds in _BRIEF if self._is_stalled else _PATIENT:
            if not any(_is_pending(*channel) for channel in channels):
                if self._events in channels:
                    self.has_sent = False
                self._is_stalled = False
                return
            if seconds:
                sleep(seconds)
            else:
                _yield()
        self._is_stalled = True


def _is_pending(fd: int, request: int) -> bool:
    try:
        return _ioctl(fd, request, _NOTHING) != _NOTHING
    except OSError:
        return False  # closed by user code: nothing to wait for


class OutputBuffer(io.BufferedIOBase):
    """The binary side of a standard stream: writes at once, never closes its descriptor."""

    closed = False

    def __init__(self, fd: int, name: str, before: Callable[[], None]) -> None:
        self._fd = fd
        self._before = before
        self.name = name
        self.mode = "wb"

    def write(self, data: Any, /) -> int:  # noqa: ANN401 - any bytes-like object
        """Write everything, after the fence; one system call unless the pipe is full."""
        self._before()
        size = len(data) if type(data) is bytes else memoryview(data).nbytes
        written = self._write_some(data)
        if written < size:
            with memoryview(data).cast("B") as rest:
                while written < size:
                    written += self._write_some(rest[written:])
        return size

    def _write_some(self, data: Any) -> int:  # noqa: ANN401 - any bytes-like object
        while True:
            try:
                return _write(self._fd, data)
            except BlockingIOError:  # user code made the pipe non-blocking
                _select([], [self._fd], [])

    def fileno(self) -> int:
        return self._fd

    def writable(self) -> bool:
        return True

    def close(self) -> None:
        """Do nothing: a wrapper that user code drops must not take the stream with it."""


class OutputStream(io.TextIOWrapper):
    """A standard stream of user code. Every ``write`` reaches the pipe at once."""

    def __init__(self, buffer: OutputBuffer, errors: str) -> None:
        super().__init__(buffer, "utf-8", errors, newline="\n", write_through=True)

    def close(self) -> None:
        """Do nothing; see `OutputBuffer.close`."""

    def detach(self) -> Any:  # noqa: ANN401 - the base class says so
        """Give the buffer, but stay usable."""
        return self.buffer


def make_streams(fence: Fence) -> tuple[OutputStream, OutputStream]:
    """Make ``sys.stdout`` and ``sys.stderr`` over descriptors 1 and 2."""
    stdout = OutputBuffer(1, "<stdout>", fence.before_stdout)
    stderr = OutputBuffer(2, "<stderr>", fence.before_stderr)
    return OutputStream(stdout, "surrogateescape"), OutputStream(stderr, "backslashreplace")


def print_at_once(
    *values: object,
    sep: Any = " ",  # noqa: ANN401 - the built-in function refuses what is no text
    end: Any = "\n",  # noqa: ANN401 - likewise
    file: Any = None,  # noqa: ANN401 - whatever has a write method
    flush: bool = False,
) -> None:
    """Print like the built-in function, but with a single write per call to our streams.

    The built-in one writes each value and separator for itself, which on a stream that writes at
    once would be as many system calls and as many events.
    """
    if file is None:
        file = sys.stdout
    if type(file) is OutputStream:
        if sep is None:
            sep = " "
        if end is None:
            end = "\n"
        if isinstance(sep, str) and isinstance(end, str):
            file.write(sep.join(map(str, values)) + end)
            return
    elif _wraps_ours(file):
        flush = True  # it shall stay live
    _print(*values, sep=sep, end=end, file=file, flush=flush)


def _wraps_ours(stream: object) -> bool:
    """Say whether user code put a text layer of its own over one of our streams."""
    if type(stream) is not io.TextIOWrapper:
        return False
    return isinstance(getattr(stream, "buffer", None), OutputBuffer)


def install(fence: Fence) -> None:
    """Replace ``print``, fence direct writes and the start of children, for this process."""
    print_at_once.__name__ = print_at_once.__qualname__ = "print"
    print_at_once.__module__ = "builtins"
    print_at_once.__doc__ = _print.__doc__
    builtins.print = print_at_once
    os.write = _fence_writes(os.write, fence)
    os.writev = _fence_writes(os.writev, fence)
    os.register_at_fork(before=fence.before_child)
    os.system = _fence_start(os.system, fence)
    os.posix_spawn = _fence_start(os.posix_spawn, fence)
    os.posix_spawnp = _fence_start(os.posix_spawnp, fence)
    # An audit hook would be the documented way, but it makes every id() five times slower.
    fork_exec = _fence_start(_posixsubprocess.fork_exec, fence)
    _posixsubprocess.fork_exec = fork_exec
    subprocess._fork_exec = fork_exec  # type: ignore[attr-defined]


def _fence_writes(function: Function, fence: Fence) -> Function:
    @functools.wraps(function)
    def write(fd: int, data: Any, /) -> int:  # noqa: ANN401 - bytes-like or a sequence of them
        if fd == 1:
            fence.before_stdout()
        elif fd == 2:
            fence.before_stderr()
        return function(fd, data)  # type: ignore[no-any-return]

    return write  # type: ignore[return-value]


def _fence_start(function: Function, fence: Fence) -> Function:
    @functools.wraps(function)
    def start(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - passed on
        fence.before_child()
        return function(*args, **kwargs)

    return start  # type: ignore[return-value]


class CStandardOutput:
    """The C library's ``stdout``, which C code in this process prints to."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None)
        self._stdout = ctypes.c_void_p.in_dll(self._libc, "stdout")
        self._libc.setvbuf(self._stdout, None, 1, 0)  # _IOLBF: lines appear at once

    def flush(self) -> None:
        """Write out an unfinished line."""
        self._libc.fflush(self._stdout)


class StandardDescriptors:
    """Keeps descriptors 0 to 2 what they were, whatever user code does to them."""

    def __init__(self) -> None:
        self._kept = {fd: move_high(fd) for fd in range(3)}
        self._identity = {fd: identify(fd) for fd in range(3)}

    def kept(self, fd: int) -> int:
        """Give the duplicate of a standard descriptor that user code does not know."""
        return self._kept[fd]

    def become_ordinary(self) -> None:
        """In a forked child, let go of the duplicates: the host waits for the pipes to close."""
        for fd in self._kept.values():
            with contextlib.suppress(OSError):
                _close(fd)

    def restore(self) -> None:
        """Put back what was closed, replaced or made non-blocking.

        Raises OSError if that is not possible, because the duplicate is gone as well.
        """
        for fd, identity in self._identity.items():
            if identify(fd) != identity:
                _dup2(self._kept[fd], fd)
            elif not _get_blocking(fd):
                _set_blocking(fd, True)


def identify(fd: int) -> tuple[int, int] | None:
    """Say what is open at a descriptor, as device and inode; None if nothing is."""
    try:
        status = _fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino
