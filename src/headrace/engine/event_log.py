"""The bounded, replayable record of what happened during an execution, a process or a watch.

A log numbers its events and keeps them on disk (`headrace.engine.journal`), the newest of them
also in memory. Any number of readers follow it, each with a position of its own; none of them
delays the writer. A store and its logs belong to the event loop that opened the store.
"""

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

from headrace.engine.event_index import ENTRY, EventIndex, EventReader
from headrace.engine.journal import Disk, Journal, unfinished_tail
from headrace.engine.log_files import LOG_ID, Bounds, LogDirectories, LogFiles
from headrace.model.errors import (
    AlreadyExistsError,
    InvalidRequestError,
    LimitExceededError,
    OutputTooLargeError,
    UnavailableError,
    WrongStateError,
)
from headrace.model.events import OutputDropped, OutputWritten, Stream
from headrace.model.records import EventCodec
from headrace.model.specs import MIB

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


@dataclass(frozen=True)
class Retention:
    """How long finished logs are kept: seconds after their end, their bytes and their number.

    ``runtime_bytes`` bounds what all logs together keep in the runtime directory; the oldest
    finished ones move to the state directory first. ``tail_bytes`` bounds the events of finished
    logs that stay in memory.
    """

    seconds: float = 3600.0
    bytes: int = 4096 * MIB
    logs: int = 10_000
    runtime_bytes: int = 256 * MIB
    tail_bytes: int = 8 * MIB
    tails: int = 64


class LogStore:
    """All logs of a node, by their ids, and the two directories that they live in.

    The directories belong to one store at a time; what an earlier one left behind is deleted
    when the store opens. ``state`` may be slow, ``runtime`` should be in memory.
    """

    def __init__(
        self,
        runtime: Path,
        state: Path,
        *,
        spill_at: int = Bounds.spill_at,
        clock: Callable[[], float] = time.time,
        retention: Retention | None = None,
        bounds: Bounds | None = None,
        disk: Disk | None = None,
    ) -> None:
        self._directories = LogDirectories(runtime, state)
        self._clock = clock
        self._retention = retention or Retention()
        self._bounds = replace(bounds or Bounds(), spill_at=spill_at)
        self._disk = disk or Disk()
        self._pool: ThreadPoolExecutor | None = None
        self._logs: dict[str, EventLog[Any]] = {}
        self._live: dict[str, EventLog[Any]] = {}
        self._finished: dict[str, EventLog[Any]] = {}
        self._finished_bytes = 0
        self._in_memory: deque[EventLog[Any]] = deque()
        self._in_runtime: deque[EventLog[Any]] = deque()

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self._directories.open)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="headrace-log")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Delete all logs and let go of the directories; safe to call twice."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        logs = list(self._logs.values())
        for index in (self._logs, self._live, self._finished):
            index.clear()
        with anyio.move_on_after(_CLOSING, shield=True):
            await _delete(logs)
        pool.shutdown(wait=False)
        self._directories.close()

    def create(self, log_id: str, codec: EventCodec[E], *, max_output: int) -> EventLog[E]:
        """Begin a log that keeps at most ``max_output`` bytes of output.

        Raises AlreadyExistsError if there is one of that id.
        """
        if self._pool is None:
            raise UnavailableError("the log store is closed")
        if not LOG_ID.fullmatch(log_id):
            raise ValueError(f"not an id of ours: {log_id!r}")
        if log_id in self._logs:
            raise AlreadyExistsError(f"there is a log of {log_id} already", id=log_id)
        records = max(max_output, self._bounds.records)
        bounds = replace(self._bounds, output=max_output, records=records)
        runtime, state = self._directories.runtime / log_id, self._directories.state / log_id
        files = LogFiles(runtime, state, bounds, self._disk, self._run)
        log = EventLog(
            files, EventIndex(log_id, codec, files, bounds, self._run), bounds, self._clock
        )
        log.on_finish = self._note_finished
        self._logs[log_id] = self._live[log_id] = log
        return log

    def find(self, log_id: str) -> EventLog[Any] | None:
        """Give the log of that id; None if there never was one or its retention is over."""
        return self._logs.get(log_id)

    async def expire(self, now: float) -> None:
        """Delete the finished logs whose retention is over at ``now``; call this now and then."""
        self._relieve_runtime()
        await _delete(self._take_expired(now))

    def _take_expired(self, now: float) -> list[EventLog[Any]]:
        keep = self._retention
        expired = []
        # In the order of their ends, as a dictionary keeps the order of insertion.
        for log in list(self._finished.values()):
            is_old = log.finished_at is not None and log.finished_at + keep.seconds <= now
            is_over = self._finished_bytes > keep.bytes or len(self._finished) > keep.logs
            if not is_old and not is_over:
                break
            self._finished_bytes -= log.files.size
            del self._finished[log.log_id], self._logs[log.log_id]
            for queue in (self._in_memory, self._in_runtime):
                if queue and queue[0] is log:
                    queue.popleft()
            expired.append(log)
        return expired

    def _relieve_runtime(self) -> None:
        held = sum(log.files.held for log in (*self._live.values(), *self._in_runtime))
        while self._in_runtime and held > self._retention.runtime_bytes:
            oldest = self._in_runtime.popleft()
            held -= oldest.files.held
            oldest.files.move_all()

    def _note_finished(self, log: EventLog[Any]) -> None:
        del self._live[log.log_id]
        self._finished[log.log_id] = log
        self._finished_bytes += log.files.size
        self._in_runtime.append(log)
        self._in_memory.append(log)
        total = sum(log.index.tail_bytes for log in self._in_memory)
        while total > self._retention.tail_bytes or len(self._in_memory) > self._retention.tails:
            oldest = self._in_memory.popleft()
            total -= oldest.index.tail_bytes
            oldest.index.forget_tail()

    def _run(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        if self._pool is None:
            raise UnavailableError("the log store is closed")
        return asyncio.get_running_loop().run_in_executor(self._pool, function)


async def _delete(logs: list[EventLog[Any]]) -> None:
    for log in logs:
        log.abandon()
    for log in logs:
        await log.files.settle()
        await anyio.to_thread.run_sync(log.files.delete)
