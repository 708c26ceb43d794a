"""The bounded, replayable record of what happened during an execution, a process or a watch.

A log numbers its events and keeps them on disk (`headrace.engine.journal`), the newest of them
also in memory. Any number of readers follow it, each with a position of its own; none of them
delays the writer. A store and its logs belong to the event loop that opened the store.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

from headrace.engine.event_index import ENTRY, EventIndex, EventReader
from headrace.engine.journal import Journal, unfinished_tail
from headrace.engine.log_files import Bounds, LogFiles
from headrace.model.errors import (
    InvalidRequestError,
    LimitExceededError,
    OutputTooLargeError,
    UnavailableError,
    WrongStateError,
)
from headrace.model.events import OutputDropped, OutputWritten, Stream

E = TypeVar("E")
T = TypeVar("T")

TURN = 64 * 1024
"""The most bytes that are taken from a pipe at once, and the size of the largest output event."""
LIMIT_REASON = "output limit"

_WORKERS = 4
_CLOSING = 5.0


@dataclass(slots=True)
class _Output:
    """One stream of a log; events were made of its journal's first ``indexed`` bytes."""

    stream: Stream
    journal: Journal
    indexed: int = 0

    @property
    def tail(self) -> int:
        """The length of the unfinished character at the end."""
        return self.journal.end - self.indexed


class EventLog(Generic[E]):
    """The events of one execution, process or watch; made by `LogStore.create`.

    ``on_limit`` is called once, when the log's output passes ``max_output`` or its other events
    become too many. Output that is lost is counted, and said by one `OutputDropped` per stream and
    reason: before the next event, or for the output limit at the end, so that a count that was
    read never changes.
    """

    def __init__(
        self,
        files: LogFiles,
        index: EventIndex[E],
        bounds: Bounds,
        clock: Callable[[], float],
    ) -> None:
        self.log_id = index.log_id
        self.codec = index.codec
        self.files = files
        self.index = index
        self.on_limit: Callable[[], None] | None = None
        self.on_finish: Callable[[EventLog[E]], None] | None = None
        self.output_bytes = 0
        self.finished_at: float | None = None
        self.terminal: E | None = None
        self._bounds = bounds
        self._clock = clock
        self._outputs: dict[Stream, _Output] = {}
        self._drops: dict[tuple[Stream, str], int] = {}
        self._taken = 0
        self._record_bytes = 0
        self._is_full = False
        self._is_abandoned = False
        self._changed: anyio.Event | None = None

    @property
    def last_seq(self) -> int:
        """The number of the newest event; 0 if there is none yet."""
        return self.index.last_seq

    @property
    def is_finished(self) -> bool:
        """Say whether the terminal event was appended."""
        return self.terminal is not None

    @property
    def is_open(self) -> bool:
        """Say whether events may be appended."""
        return self.terminal is None and not self._is_abandoned

    # --- writing ----------------------------------------------------------------------------

    def append(self, make: Callable[[int, float], E]) -> E:
        """Append an event that is neither output nor terminal; it gets its number and time.

        Raises WrongStateError after the end, OutputTooLargeError if the log may take no more
        records, LimitExceededError if the disk is full and too many wait, RecordError if the
        event cannot be kept. Nothing was appended then.
        """
        self._check_open()
        self._flush_drops()
        timestamp = self._clock()
        event = make(self.last_seq + 1, timestamp)
        if isinstance(event, OutputWritten | OutputDropped | self.codec.terminal):
            raise TypeError(f"{type(event).__name__} is not for append()")
        data = self.codec.encode(event)
        self._check_record(len(data) + ENTRY.size)
        self.index.add_record(event, data, timestamp)
        self._wake()
        return event

    def finish(self, make: Callable[[int, float], E]) -> E:
        """Append the terminal event, after unfinished characters and the markers of lost output.

        Raises WrongStateError if the log is finished already.
        """
        self._check_open()
        self._flush_drops()
        for output in self._outputs.values():
            if output.tail:
                self._emit(output, self._unindexed(output))
        self._flush_drops(final=True)
        timestamp = self._clock()
        event = make(self.last_seq + 1, timestamp)
        if not isinstance(event, self.codec.terminal):
            raise TypeError(f"{type(event).__name__} does not end a log of {self.codec.name}")
        self.index.add_record(event, self.codec.encode(event), timestamp, is_end=True)
        self.terminal = event
        self.finished_at = timestamp
        self._wake()
        self.files.close_soon()
        if self.on_finish is not None:
            self.on_finish(self)
        return event

    def receive(self, stream: Stream, fd: int, maximum: int = TURN) -> int | None:
        """Take at most ``maximum`` bytes from a pipe; says how many, 0 at its end of file.

        None means that the disk has no room: try again when ``files.when_room`` calls back. Raises
        BlockingIOError if the pipe is empty. Above the limit bytes are counted and thrown away.
        """
        self._check_open()
        output = self._output(stream)
        room = self._room
        if not room:
            return self._discard(output, fd, maximum, LIMIT_REASON)
        error = None
        if self.files.has_room:
            try:
                count = output.journal.splice(fd, min(maximum, room))
            except BlockingIOError:
                raise
            except OSError as caught:
                error = caught
            else:
                self._taken += count
                self.files.relieved()
                self._index_output(output)
                return count
        if self.files.stall(error):
            return self._discard(output, fd, maximum, self.files.reason)
        return None

    def write(self, stream: Stream, data: bytes) -> None:
        """Append output that is in memory; the caller bounds how much that is."""
        self._check_open()
        output = self._output(stream)
        kept = min(self._room, len(data))
        for start in range(0, kept, TURN):
            chunk = data[start : min(start + TURN, kept)]
            output.journal.append(chunk)
            self._taken += len(chunk)
            self.files.flush(output.journal)
            self._index_output(output)
        if kept < len(data):
            self._lose(output, len(data) - kept, LIMIT_REASON)

    def drop(self, stream: Stream, count: int, reason: str) -> None:
        """Note that ``count`` bytes of a stream were lost; markers side by side become one."""
        self._check_open()
        if count > 0:
            self._lose(self._output(stream), count, reason)

    @property
    def _room(self) -> int:
        return 0 if self._is_full else self._bounds.output - self._taken

    def _output(self, stream: Stream) -> _Output:
        output = self._outputs.get(stream)
        if output is None:
            if stream not in self.codec.streams:
                raise TypeError(f"a log of {self.codec.name} has no stream {stream}")
            output = _Output(stream, self.files.journal(stream.value))
            self._outputs[stream] = output
        return output

    def _discard(self, output: _Output, fd: int, maximum: int, reason: str) -> int:
        count = len(os.read(fd, maximum))
        if count:
            self._lose(output, count, reason)
        return count

    def _lose(self, output: _Output, count: int, reason: str) -> None:
        # The beginning of a character whose rest is lost is lost, too.
        self._taken -= output.tail
        key = (output.stream, reason)
        self._drops[key] = self._drops.get(key, 0) + count + output.tail
        output.indexed = output.journal.end
        if reason == LIMIT_REASON:
            self._exceed()

    def _exceed(self) -> None:
        if not self._is_full:
            self._is_full = True
            if self.on_limit is not None:
                self.on_limit()

    def _unindexed(self, output: _Output) -> bytes:
        return output.journal.read(output.indexed, output.tail)

    def _index_output(self, output: _Output) -> None:
        data = self._unindexed(output)
        unfinished = unfinished_tail(data)
        if unfinished:
            data = data[:-unfinished]
        if data:
            self._flush_drops()
            self._emit(output, data)
            self._wake()

    def _emit(self, output: _Output, data: bytes) -> None:
        timestamp = self._clock()
        event = OutputWritten(self.last_seq + 1, timestamp, output.stream, data)
        offset = output.indexed
        output.indexed += len(data)
        self.output_bytes += len(data)
        self._record_bytes += ENTRY.size
        # A codec that has streams has OutputWritten and OutputDropped among its events.
        self.index.add_output(cast("E", event), output.stream, offset, len(data), timestamp)
        if self._record_bytes > self._bounds.records:
            self._exceed()

    def _flush_drops(self, *, final: bool = False) -> None:
        if not self._drops:
            return
        for stream, reason in list(self._drops):
            if final or reason != LIMIT_REASON:
                count = self._drops.pop((stream, reason))
                timestamp = self._clock()
                event = cast(
                    "E", OutputDropped(self.last_seq + 1, timestamp, stream, count, reason)
                )
                self.index.add_record(event, self.codec.encode(event), timestamp)

    def _check_record(self, size: int) -> None:
        if self._record_bytes + size > self._bounds.records:
            self._exceed()
            raise OutputTooLargeError(
                f"the log {self.log_id} has more than {self._bounds.records} bytes of records",
                limit=self._bounds.records,
            )
        if self.files.unwritten > self._bounds.unwritten:
            self.files.flush_all()
        if self.files.unwritten > self._bounds.unwritten:
            raise LimitExceededError(f"the log {self.log_id} cannot be written: the disk is full")
        self._record_bytes += size

    def _check_open(self) -> None:
        if not self.is_open:
            raise WrongStateError(f"the log {self.log_id} is finished", id=self.log_id)

    def _wake(self) -> None:
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def abandon(self) -> None:
        """Close the files without a terminal event; readers get UnavailableError."""
        self._is_abandoned = True
        self.files.abandon()
        self.index.forget_tail()
        self._wake()

    # --- reading ----------------------------------------------------------------------------

    def read(self, after: int = 0) -> EventReader[E]:
        """Give every event behind number ``after``, as they come, until the terminal one."""
        if after < 0:
            raise InvalidRequestError(f"events are numbered from 1, got after={after}", after=after)
        return EventReader(self.next_batch, after)

    async def wait(self) -> E:
        """Wait for the terminal event."""
        while self.terminal is None:
            await self._wait()
        return self.terminal

    async def next_batch(self, position: int) -> list[E]:
        """Give some of the events behind ``position``, at least one; none means the end.

        Raises ExecutionNotFoundError if the log is past its retention, UnavailableError if its
        store was closed before the log was finished.
        """
        if position < self.last_seq:
            # A reader that always finds something must let the writer have its turn.
            await anyio.lowlevel.checkpoint()
        while position >= self.last_seq:
            if self.terminal is not None:
                return []
            await self._wait()
        return await self.index.batch(position)

    async def _wait(self) -> None:
        if self._is_abandoned:
            raise UnavailableError(f"the log {self.log_id} was closed before it was finished")
        if self._changed is None:
            self._changed = anyio.Event()
        await self._changed.wait()
