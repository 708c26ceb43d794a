"""The events of one log in their order: the newest in memory, all of them on disk.

On disk an index of fixed-size entries says for each event where its bytes are: in the journal of
a stream (output) or in the journal of JSON records (everything else). The index begins with a
header that names the log and the codec of its records.
"""

import struct
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from enum import IntEnum
from functools import partial
from typing import Generic, NamedTuple, TypeVar, cast

from headrace.engine.journal import Journal, read_pieces
from headrace.engine.log_files import Bounds, LogFiles, Run
from headrace.model.errors import ExecutionNotFoundError
from headrace.model.events import OutputWritten, Stream
from headrace.model.records import EventCodec

E = TypeVar("E")

HEADER = struct.Struct("<8s16s104s")
"""The beginning of an index: magic number with version, name of the codec, id of the log."""
MAGIC = b"HRLOG\0\0\1"
ENTRY = struct.Struct("<BxHIQdQ")
"""One event: kind, unused, unused, length, offset, timestamp, sequence number."""

_BATCH_EVENTS = 512
_BATCH_BYTES = 256 * 1024
_LOOKUPS = 100


class Kind(IntEnum):
    """Where the bytes of an event are; END is the record of the terminal event."""

    RECORD = 0
    STDOUT = 1
    STDERR = 2
    PTY = 3
    END = 4


KINDS = {Stream.STDOUT: Kind.STDOUT, Stream.STDERR: Kind.STDERR, Stream.PTY: Kind.PTY}
_STREAMS = {int(kind): stream for stream, kind in KINDS.items()}


class Entry(NamedTuple):
    """One event as the index has it."""

    kind: int
    length: int
    offset: int
    timestamp: float
    seq: int


def pack_header(codec: str, log_id: str) -> bytes:
    """Give the beginning of an index."""
    return HEADER.pack(MAGIC, codec.encode("ascii"), log_id.encode("ascii"))


def unpack_header(data: bytes) -> tuple[str, str]:
    """Read the codec's name and the log's id; raises ValueError if this is no index of ours."""
    if len(data) < HEADER.size or not data.startswith(MAGIC):
        raise ValueError("not an event log, or one of another version")
    _, codec, log_id = HEADER.unpack_from(data)
    return codec.rstrip(b"\0").decode("ascii"), log_id.rstrip(b"\0").decode("ascii")


def pack_entry(kind: int, length: int, offset: int, timestamp: float, seq: int) -> bytes:
    """Give an entry's 32 bytes."""
    return ENTRY.pack(kind, 0, length, offset, timestamp, seq)


def unpack_entries(data: bytes) -> list[Entry]:
    """Read consecutive entries."""
    return [Entry(kind, *rest) for kind, _, *rest in ENTRY.iter_unpack(data)]


class EventIndex(Generic[E]):
    """All events of a log; the caller sees to their order and to its limits."""

    def __init__(
        self, log_id: str, codec: EventCodec[E], files: LogFiles, bounds: Bounds, run: Run[bytes]
    ) -> None:
        self.last_seq = 0
        self.tail_bytes = 0
        self.log_id = log_id
        self.codec = codec
        self._files = files
        self._bounds = bounds
        self._run = run
        self._entries = files.journal("index")
        self._records = files.journal("records")
        self._entries.append(pack_header(codec.name, log_id))
        self._tail: deque[E] = deque()
        self._weights: deque[int] = deque()

    def add_record(self, event: E, data: bytes, timestamp: float, *, is_end: bool = False) -> None:
        """Add an event that is kept as the record ``data``."""
        offset = self._records.end
        self._records.append(data)
        kind = Kind.END if is_end else Kind.RECORD
        self._add(event, kind, len(data), offset, timestamp)

    def add_output(
        self, event: E, stream: Stream, offset: int, length: int, timestamp: float
    ) -> None:
        """Add an event whose bytes are in the journal of ``stream`` already."""
        self._add(event, KINDS[stream], length, offset, timestamp)

    def _add(self, event: E, kind: int, length: int, offset: int, timestamp: float) -> None:
        self.last_seq += 1
        self._entries.append(pack_entry(kind, length, offset, timestamp, self.last_seq))
        self._files.flush_soon()
        self._remember(event, length)
        self._files.balance()

    def _remember(self, event: E, weight: int) -> None:
        self._tail.append(event)
        self._weights.append(weight)
        self.tail_bytes += weight
        while len(self._tail) > 1 and (
            len(self._tail) > self._bounds.tail_events or self.tail_bytes > self._bounds.tail_bytes
        ):
            self._tail.popleft()
            self.tail_bytes -= self._weights.popleft()

    def forget_tail(self) -> None:
        """Keep no event in memory any more; they are read from disk."""
        self._tail.clear()
        self._weights.clear()
        self.tail_bytes = 0

    async def batch(self, position: int) -> list[E]:
        """Give some of the events behind ``position``, at least one; there must be one.

        Raises ExecutionNotFoundError if the log was deleted meanwhile.
        """
        behind = self.last_seq - position
        tail = self._tail
        if behind == len(tail):
            return list(tail)
        if behind < len(tail):
            return [tail[index] for index in range(-behind, 0)]
        return await self._read(position, behind - len(tail))

    async def _read(self, position: int, count: int) -> list[E]:
        offset = HEADER.size + ENTRY.size * position
        data = await self._fetch(self._entries, offset, ENTRY.size * min(count, _BATCH_EVENTS))
        entries = _first_bytes(unpack_entries(data), _BATCH_BYTES)
        ranges: dict[int, tuple[int, int]] = {}
        for entry in entries:
            kind = _journal_of(entry.kind)
            low, high = ranges.get(kind, (entry.offset, 0))
            ranges[kind] = min(low, entry.offset), max(high, entry.offset + entry.length)
        parts = {}
        for kind, (low, high) in ranges.items():
            parts[kind] = (low, await self._fetch(self._journal(kind), low, high - low))
        return [self._make(entry, *parts[_journal_of(entry.kind)]) for entry in entries]

    def _make(self, entry: Entry, start: int, data: bytes) -> E:
        part = data[entry.offset - start : entry.offset - start + entry.length]
        stream = _STREAMS.get(entry.kind)
        if stream is None:
            return self.codec.decode(entry.seq, entry.timestamp, part)
        # Only logs whose union of events has OutputWritten have streams.
        return cast("E", OutputWritten(entry.seq, entry.timestamp, stream, part))

    def _journal(self, kind: int) -> Journal:
        stream = _STREAMS.get(kind)
        return self._records if stream is None else self._files.journal(stream.value)

    async def _fetch(self, journal: Journal, offset: int, size: int) -> bytes:
        # Files move to the disk while they are read; then their new place is looked up.
        for _ in range(_LOOKUPS):
            pieces = journal.locate(offset, size)
            try:
                if any(piece.is_slow for piece in pieces):
                    return await self._run(partial(read_pieces, pieces))
                return read_pieces(pieces)
            except FileNotFoundError:
                if self._files.is_deleted:
                    break
        raise ExecutionNotFoundError(
            f"the log of {self.log_id} is past its retention", id=self.log_id
        )


class EventReader(AsyncIterator[E]):
    """Follows a log; ``position`` is the number of the last event that was handed out.

    It holds nothing that must be closed. Cancelling a wait for the next event loses none: the
    iteration may go on afterwards.
    """

    def __init__(self, next_batch: Callable[[int], Awaitable[list[E]]], after: int) -> None:
        self.position = after
        self._next_batch = next_batch
        self._ready: deque[E] = deque()

    async def __anext__(self) -> E:
        if not self._ready:
            self._ready.extend(await self._next_batch(self.position))
            if not self._ready:
                raise StopAsyncIteration
        self.position += 1
        return self._ready.popleft()

    async def batch(self) -> list[E]:
        """Give all that can be had at once, at least one event; none means the end."""
        batch = list(self._ready) or await self._next_batch(self.position)
        self._ready.clear()
        self.position += len(batch)
        return batch


def _first_bytes(entries: Sequence[Entry], maximum: int) -> list[Entry]:
    taken: list[Entry] = []
    total = 0
    for entry in entries:
        total += entry.length
        if taken and total > maximum:
            break
        taken.append(entry)
    return taken


def _journal_of(kind: int) -> int:
    return Kind.RECORD if kind == Kind.END else kind
