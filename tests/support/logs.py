"""What the tests of event logs share: events, a disk that can be full, and readers."""

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio

from headrace.engine.event_log import EventLog
from headrace.engine.journal import Disk, Move, Moved, copy_segments
from headrace.model.events import (
    ExecutionEvent,
    ExecutionFinished,
    FinishReason,
    InputRequested,
    OutputDropped,
    OutputWritten,
    Stream,
)

PATIENCE = 5.0


def make_finished(seq: int, timestamp: float) -> ExecutionFinished:
    """The terminal event of an execution that went well."""
    return ExecutionFinished(seq, timestamp, FinishReason.OK, 0.5)


def make_input(seq: int, timestamp: float) -> InputRequested:
    """Some event that is neither output nor terminal."""
    return InputRequested(seq, timestamp, "name? ", is_password=False)


async def read_all(log: EventLog[ExecutionEvent], after: int = 0) -> list[ExecutionEvent]:
    """Read a log to its end, which must come soon."""
    with anyio.fail_after(PATIENCE):
        return [event async for event in log.read(after)]


def join_output(events: Sequence[ExecutionEvent], stream: Stream) -> bytes:
    """Put the output of one stream together."""
    outputs = [event for event in events if isinstance(event, OutputWritten)]
    return b"".join(event.data for event in outputs if event.stream == stream)


def sum_dropped(events: Sequence[ExecutionEvent], stream: Stream) -> int:
    """Count the output of one stream that was lost."""
    markers = [event for event in events if isinstance(event, OutputDropped)]
    return sum(event.dropped for event in markers if event.stream == stream)


async def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for something that a worker thread or a timer brings about soon."""
    with anyio.fail_after(PATIENCE):
        while not condition():  # noqa: ASYNC110 - nothing else tells
            await anyio.sleep(0.001)


async def receive(log: EventLog[ExecutionEvent], stream: Stream, fd: int) -> int:
    """Take bytes from a pipe as soon as there is room, or they are given up."""
    counts: list[int | None] = []

    def has_taken() -> bool:
        counts.append(log.receive(stream, fd))
        return counts[-1] is not None

    await wait_until(has_taken)
    return counts[-1] or 0


def count_descriptors() -> int:
    """Count the open descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


@dataclass
class FakeDisk:
    """A real disk that can be told to be full in either place, with calls counted."""

    is_runtime_full: bool = False
    is_state_full: bool = False
    error: int = errno.ENOSPC
    copies: list[Sequence[Move]] = field(default_factory=list)

    @property
    def calls(self) -> Disk:
        """The calls that a store is given."""
        return Disk(self._splice, self._write, self._copy)

    def _splice(self, source: int, target: int, count: int, offset: int) -> int:
        self._check(is_full=self.is_runtime_full)
        return os.splice(source, target, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)

    def _write(self, fd: int, data: bytearray, offset: int) -> int:
        self._check(is_full=self.is_runtime_full)
        return os.pwrite(fd, data, offset)

    def _copy(self, moves: Sequence[Move]) -> Moved:
        self.copies.append(moves)
        if self.is_state_full:
            return Moved([0] * len(moves), OSError(self.error, os.strerror(self.error)))
        return copy_segments(moves)

    def _check(self, *, is_full: bool) -> None:
        if is_full:
            raise OSError(self.error, os.strerror(self.error))
