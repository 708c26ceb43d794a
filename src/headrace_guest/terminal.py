"""The agent's side of a command's terminal: its size and the relay to the host's pipes."""

import fcntl
import os
import select
import struct
import termios
import time
from collections.abc import Callable, Sequence

from headrace_guest.loop import Loop

_BUFFER = 64 * 1024
_FLUSH_SECONDS = 2.0
_FLUSH_SECONDS_IN_ALL = 10.0
_MAX_FLUSH = 1024 * 1024


def set_terminal_size(fd: int, size: tuple[int, int]) -> None:
    """Set a terminal's columns and rows; its foreground processes get SIGWINCH."""
    cols, rows = size
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


class PtyRelay:
    """Passes bytes between a terminal and two pipes, with at most 64 KiB in each direction.

    It holds the terminal's other end open as long as the process lives, so that a process that
    closes its own descriptors for a while does not look like one that ended. The end of the
    input pipe means nothing: a client may come back with another one.
    """

    def __init__(self, loop: Loop, terminal: Sequence[int], pipes: tuple[int, int]) -> None:
        self._loop = loop
        self._master, self._slave = terminal
        self._source, self._sink = pipes
        self._to_master = bytearray()
        self._to_sink = bytearray()
        self._finished: Callable[[], None] | None = None
        self._latest = 0.0
        self._flushable = _MAX_FLUSH
        self._is_master_empty = False
        for fd in (self._master, self._source, self._sink):
            os.set_blocking(fd, False)
        self._update()

    def resize(self, size: tuple[int, int]) -> None:
        """Change the terminal's size."""
        if self._master >= 0:
            set_terminal_size(self._master, size)

    def finish(self, finished: Callable[[], None]) -> None:
        """Pass on what is left, then close everything and call ``finished``.

        A reader that takes nothing for two seconds, or not all within ten, loses the rest. A
        terminal holds far less than the 1 MiB that is passed on at most; more can only come from
        somebody who opened it anew.
        """
        self._finished = finished
        self._latest = time.monotonic() + _FLUSH_SECONDS_IN_ALL
        self._slave = self._close(self._slave)
        self._source = self._close(self._source)
        self._loop.after(_FLUSH_SECONDS, self, self._end)
        self._drain()

    def _update(self) -> None:
        """Ask for exactly what can be dealt with: a full buffer is not read into."""
        wants_output = len(self._to_sink) < _BUFFER and self._finished is None
        master = select.EPOLLIN if wants_output else 0
        master |= select.EPOLLOUT if self._to_master and self._finished is None else 0
        source = select.EPOLLIN if len(self._to_master) < _BUFFER else 0
        self._watch(self._master, master, self._serve_master)
        self._watch(self._source, source, self._serve_source)
        self._watch(self._sink, select.EPOLLOUT if self._to_sink else 0, self._serve_sink)

    def _watch(self, fd: int, mask: int, handler: Callable[[], None]) -> None:
        if fd >= 0:
            self._loop.watch(fd, mask, handler)

    def _serve_master(self) -> None:
        self._write_master()
        if len(self._to_sink) < _BUFFER:
            self._read_master()
            self._write_sink()
        self._update()

    def _serve_source(self) -> None:
        if len(self._to_master) >= _BUFFER:
            return
        try:
            data = os.read(self._source, _BUFFER - len(self._to_master))
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._source = self._close(self._source)
        self._to_master += data
        self._write_master()
        self._update()

    def _serve_sink(self) -> None:
        if self._finished is not None:
            self._drain()
            return
        self._write_sink()
        self._update()

    def _drain(self) -> None:
        """Move what a dead process left until nothing is left or the reader is full."""
        moved = False
        while not self._is_master_empty and len(self._to_sink) < _BUFFER:
            self._read_master()
            moved = self._write_sink() or moved
        moved = self._write_sink() or moved
        if self._is_master_empty and not self._to_sink:
            self._end()
            return
        if moved:
            left = self._latest - time.monotonic()
            self._loop.after(max(0.0, min(_FLUSH_SECONDS, left)), self, self._end)
        self._update()

    def _read_master(self) -> None:
        try:
            data = os.read(self._master, _BUFFER - len(self._to_sink))
        except BlockingIOError:
            self._is_master_empty = self._finished is not None
            return
        except OSError:
            data = b""  # EIO: nobody holds the other end any more
        self._to_sink += data
        if self._finished is not None:
            self._flushable -= len(data)
            self._is_master_empty = not data or self._flushable <= 0
        elif not data:
            self._is_master_empty = True
            self._master = self._close(self._master)

    def _write_master(self) -> None:
        if not self._to_master:
            return
        try:
            del self._to_master[: os.write(self._master, self._to_master)]
        except BlockingIOError:
            return
        except OSError:
            self._to_master.clear()

    def _write_sink(self) -> bool:
        """Give bytes to the reader; without a reader they are thrown away."""
        if not self._to_sink:
            return False
        try:
            if self._sink >= 0:
                del self._to_sink[: os.write(self._sink, self._to_sink)]
                return True
        except BlockingIOError:
            return False
        except OSError:
            self._sink = self._close(self._sink)
        self._to_sink.clear()
        return True

    def _close(self, fd: int) -> int:
        if fd >= 0:
            self._loop.forget(fd)
            os.close(fd)
        return -1

    def _end(self) -> None:
        finished, self._finished = self._finished, None
        self._loop.cancel(self)
        self._master = self._close(self._master)
        self._slave = self._close(self._slave)
        self._source = self._close(self._source)
        self._sink = self._close(self._sink)
        if finished is not None:
            finished()
