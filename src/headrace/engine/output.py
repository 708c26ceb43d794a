"""From a guest's pipe to an event log, live.

Bytes are spliced and appended in the callback in which the pipe became readable; under load small
pieces are collected for at most two milliseconds. This uses the event loop's readers directly:
a task per pipe would cost more than the work itself.
"""

import asyncio
import fcntl
import os
import stat
import sys
import termios
from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from headrace.engine.event_log import TURN, EventLog
from headrace.model.errors import WrongStateError
from headrace.model.events import Stream
from headrace.model.specs import MIB

BETWEEN_REASON = "written between executions"

_LARGE = 8 * 1024


class Pace:
    """Decides whether to read now or to wait a little, so that many small pieces become one.

    Reading is free as long as a pipe is read less than ``rate`` times per second (and ``burst``
    times at once), or if a lot is waiting; otherwise it waits ``delay`` seconds. Without that
    every byte of a flood would cost an index entry and a turn of the loop.
    """

    def __init__(self, burst: float = 1000.0, rate: float = 2000.0, delay: float = 0.002) -> None:
        self.delay = delay
        self._burst = burst
        self._rate = rate
        self._credit = burst
        self._refilled_at = 0.0

    def may_read(self, now: float, available: Callable[[], int]) -> bool:
        """Say whether to read now; ``available`` is only asked when it matters."""
        credit = self._credit + (now - self._refilled_at) * self._rate
        self._refilled_at = now
        self._credit = min(self._burst, credit)
        if self._credit >= 1.0:
            self._credit -= 1.0
            return True
        return available() >= _LARGE

    def note_useless_delay(self) -> None:
        """Note that nothing came while we waited: the guest waits for us, so stop delaying."""
        self._credit = self._burst


class OutputPump:
    """Owns the read end of a guest's pipe and brings what comes to the attached log.

    Reading never stops: without a log (between executions) up to ``keep`` bytes are kept for the
    next one and the rest is counted. Only a full log disk holds the guest up. ``on_eof`` is called
    once, when the last writer has closed the pipe; ``taken`` counts all bytes that came.
    """

    def __init__(
        self, fd: int, stream: Stream, *, keep: int = MIB, pace: Pace | None = None
    ) -> None:
        if not stat.S_ISFIFO(os.fstat(fd).st_mode):
            raise ValueError(f"descriptor {fd} is not a pipe")
        os.set_blocking(fd, False)
        self.stream = stream
        self.taken = 0
        self.is_eof = False
        self.on_eof: Callable[[], None] | None = None
        self._fd = fd
        self._keep = keep
        self._kept = bytearray()
        self._lost = 0
        self._log: EventLog[Any] | None = None
        self._pace = pace or Pace()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._is_waiting = False
        self._resumed: anyio.Event | None = None
        self._loop.add_reader(fd, self._on_readable)

    def attach(self, log: EventLog[Any]) -> None:
        """Deliver to ``log`` from now on, first what came while there was none."""
        if self._log is not None:
            raise WrongStateError("the pump has a log already; detach it first")
        log.write(self.stream, bytes(self._kept))
        log.drop(self.stream, self._lost, BETWEEN_REASON)
        self._kept.clear()
        self._lost = 0
        self._log = log

    def detach(self) -> None:
        """Deliver to nobody from now on; what is still in the pipe belongs to the next log."""
        log, self._log = self._log, None
        if log is not None and self._is_waiting:
            log.files.forget(self._resume)
            self._resume()

    def pull(self) -> bool:
        """Take what is in the pipe at this moment; says whether all of it found room.

        Call this before appending something that happened after that output.
        """
        goal = self.taken + self._available()
        while self.taken < goal and self._turn():
            pass
        return self.taken >= goal

    async def drain(self, timeout: float) -> bool:  # noqa: ASYNC109 - a scope around this would lose the answer
        """Wait until all that is in the pipe at the call has arrived; says whether it has.

        More can only be missing when the log disk has no room for ``timeout`` seconds.
        """
        goal = self.taken + self._available()
        with anyio.move_on_after(timeout):
            while self.taken < goal:
                if self._turn():
                    await anyio.lowlevel.checkpoint()
                elif self._is_waiting:
                    await self._wait_for_room()
                else:
                    break
        return self.taken >= goal

    async def aclose(self) -> None:
        """Close the pipe; what is still in it is lost. Safe to call twice."""
        if self._fd < 0:
            return
        self.detach()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_reader(self._fd)
        os.close(self._fd)
        self._fd = -1

    def _on_readable(self) -> None:
        if self._pace.may_read(self._loop.time(), self._available):
            self._turn()
            return
        self._loop.remove_reader(self._fd)
        self._timer = self._loop.call_later(self._pace.delay, self._end_delay, self._available())

    def _end_delay(self, before: int) -> None:
        self._timer = None
        if self._available() == before:
            self._pace.note_useless_delay()
        if not self._is_waiting and not self.is_eof:
            self._loop.add_reader(self._fd, self._on_readable)
            self._turn()

    def _turn(self) -> bool:
        """Take at most 64 KiB; says whether anything came."""
        if self._fd < 0 or self.is_eof:
            return False
        try:
            count = self._receive()
        except BlockingIOError:
            return False
        except BaseException:
            # The loop would call again at once, for ever.
            self._loop.remove_reader(self._fd)
            raise
        if count:
            self.taken += count
            return True
        if count is None:
            self._wait()
        else:
            self._end()
        return False

    def _receive(self) -> int | None:
        log = self._log
        if log is not None and log.is_open:
            return log.receive(self.stream, self._fd)
        data = os.read(self._fd, TURN)
        room = self._keep - len(self._kept) if not self._lost else 0
        self._kept += data[:room]
        self._lost += max(0, len(data) - room)
        return len(data)

    def _wait(self) -> None:
        if not self._is_waiting and self._log is not None:
            self._is_waiting = True
            self._loop.remove_reader(self._fd)
            self._log.files.when_room(self._resume)

    def _resume(self) -> None:
        self._is_waiting = False
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None
        if self._fd >= 0 and not self.is_eof and self._timer is None:
            self._loop.add_reader(self._fd, self._on_readable)

    async def _wait_for_room(self) -> None:
        if self._resumed is None:
            self._resumed = anyio.Event()
        await self._resumed.wait()

    def _end(self) -> None:
        self.is_eof = True
        self._loop.remove_reader(self._fd)
        if self.on_eof is not None:
            self.on_eof()

    def _available(self) -> int:
        if self._fd < 0:
            return 0
        answer = fcntl.ioctl(self._fd, termios.FIONREAD, b"\0\0\0\0")
        return int.from_bytes(answer, sys.byteorder)
