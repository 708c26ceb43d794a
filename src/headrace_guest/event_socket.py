"""The kernel's end of the event socket: whole frames both ways, from one process only."""

import contextlib
import fcntl
import io
import os
import select
import signal
import termios
import threading
from collections import deque
from collections.abc import Mapping
from typing import Any

from headrace_guest.capture import Fence, identify, move_high
from headrace_guest.protocol import (
    MAX_GUEST_FRAME,
    MAX_HOST_FRAME,
    FrameReader,
    decode_body,
    encode_frame,
)

_read = os.read
_getpid = os.getpid
_ioctl = fcntl.ioctl
_FIONREAD = termios.FIONREAD
_set_wakeup = signal.set_wakeup_fd
_NOTHING = bytes(4)
_CHUNK = 64 * 1024


class EventSocket:
    """Sends and receives frames; owns the descriptor.

    Any thread may send. A frame that a signal handler of user code cut short is finished before
    the next one, so the stream stays whole. Only the process that made this object speaks.
    """

    def __init__(self, fd: int, fence: Fence) -> None:
        os.set_blocking(fd, True)
        self._fd = fd
        self._fence = fence
        self._process = _getpid()
        self._reader = FrameReader(MAX_HOST_FRAME)
        self._frames: deque[dict[str, Any]] = deque()
        self._poll = select.poll()
        self._poll.register(fd, select.POLLIN)
        # A signal that comes just before poll() would not wake it; Python's C handler writes here.
        wakes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wake_reader, self._wake_writer = map(move_high, wakes)
        for low in wakes:
            os.close(low)
        self._poll.register(self._wake_reader, select.POLLIN)
        self._identities = {fd: identify(fd) for fd in (fd, self._wake_reader, self._wake_writer)}
        self._unfinished: io.BufferedWriter[io.FileIO] | None = None
        self.lock = threading.RLock()

    @property
    def is_mine(self) -> bool:
        """Say whether this process may speak; a forked child may not."""
        return self._fd >= 0 and _getpid() == self._process

    @property
    def is_intact(self) -> bool:
        """Say whether the descriptors are what they were, and not closed or reused."""
        return all(identify(fd) == identity for fd, identity in self._identities.items())

    def disown(self) -> None:
        """Close the descriptor in a forked child, so that the host sees when the kernel ends."""
        for fd in self._identities:
            with contextlib.suppress(OSError):
                os.close(fd)
        self._fd = -1

    def has_input(self) -> bool:
        """Say whether something of the host waits to be read or taken."""
        if self._frames or not self._reader.is_empty:
            return True
        try:
            return _ioctl(self._fd, _FIONREAD, _NOTHING) != _NOTHING
        except OSError:
            return True  # reading will tell

    @property
    def has_frame(self) -> bool:
        """Say whether `receive` gives a frame without reading."""
        return bool(self._frames)

    def wait(self) -> None:
        """Wait until there is a frame to take or bytes (or the end) to read.

        Only for the main thread. Handlers of signals run at once, and may raise.
        """
        former = _set_wakeup(self._wake_writer, warn_on_full_buffer=False)
        try:
            while not self._frames and not self._poll_once():
                pass
        finally:
            with contextlib.suppress(ValueError, OSError):  # user code closed its own
                _set_wakeup(former)

    def _poll_once(self) -> bool:
        for fd, _event in self._poll.poll():
            if fd == self._fd:
                return True
            _read(self._wake_reader, _CHUNK)
        return False

    def receive(self) -> dict[str, Any] | None:
        """Take a frame if a whole one is there; raises EOFError when the host has closed."""
        if not self._frames:
            data = _read(self._fd, _CHUNK)
            if not data:
                raise EOFError("the host closed the event socket")
            self._frames.extend(map(decode_body, self._reader.feed(data)))
        return self._frames.popleft() if self._frames else None

    def send(self, message: Mapping[str, Any]) -> None:
        """Send one message after the fence; raises OSError when the host has closed.

        An exception of a signal handler may come out; the message is then sent later or, if it
        had not been put together yet, never.
        """
        frame = encode_frame(message, MAX_GUEST_FRAME)
        with self.lock:
            if not self.is_mine:
                return
            self._finish()
            self._fence.before_event()
            self._fence.has_sent = True
            # The C code of BufferedWriter keeps the position exactly, even if a handler raises
            # between two partial writes. The whole frame fits its buffer.
            raw = io.FileIO(self._fd, "wb", closefd=False)
            self._unfinished = writer = io.BufferedWriter(raw, len(frame))
            writer.write(frame)
            self._finish()

    def _finish(self) -> None:
        if self._unfinished is not None:
            self._unfinished.flush()
            self._unfinished = None
