"""Whatever is written, in whatever pieces: every reader sees the same, and nothing is lost."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.event_log import EventLog
from headrace.engine.log_files import Bounds
from headrace.engine.log_store import LogStore
from headrace.model.events import (
    ExecutionEvent,
    ExecutionFinished,
    InputRequested,
    OutputDropped,
    OutputWritten,
    Stream,
)
from headrace.model.records import EXECUTION_CODEC
from tests.support.logs import (
    join_output,
    make_finished,
    make_input,
    read_all,
    receive,
    sum_dropped,
)

OUT, ERR = Stream.STDOUT, Stream.STDERR
STREAMS = (OUT, ERR)


@dataclass(frozen=True)
class Write:
    """Bytes that come through a pipe, or from memory."""

    stream: Stream
    data: bytes
    through_pipe: bool


@dataclass(frozen=True)
class Drop:
    """Bytes that were lost elsewhere."""

    stream: Stream
    count: int


@dataclass(frozen=True)
class Append:
    """An event that is not output."""


@dataclass(frozen=True)
class Rest:
    """A turn for readers and workers."""


@dataclass(frozen=True)
class Follow:
    """A new reader behind the event of that number."""

    after: int


TEXT = st.text(max_size=30).map(lambda text: text.encode("utf-8", "surrogatepass"))
# Pieces of characters are what matters, so most bytes come from few characters.
PIECES = st.lists(
    st.sampled_from([b"\xf0", b"\x9f", b"\x8e", b"\x89", b"\xc3", b"\xa4", b"\xed", b"\xff", b"a"]),
    max_size=8,
).map(b"".join)
DATA = TEXT | PIECES | st.binary(max_size=300)
WRITE = st.builds(Write, st.sampled_from(STREAMS), DATA, st.booleans())
DROP = st.builds(Drop, st.sampled_from(STREAMS), st.integers(0, 50))
OTHERS = [st.just(Append()), st.just(Rest()), st.builds(Follow, st.integers(0, 40))]
BOUNDS = st.builds(
    Bounds,
    staging=st.sampled_from([1, 100, 1 << 20]),
    tail_events=st.integers(1, 6),
    tail_bytes=st.sampled_from([1, 50, 1 << 20]),
    retry=st.just(0.001),
)
SPILL = st.sampled_from([1, 64, 500, 1 << 20])
PLENTY = 1 << 30


@dataclass
class Run:
    """A log that was written to, and what its readers saw while that went on."""

    log: EventLog[ExecutionEvent]
    seen: dict[int, list[ExecutionEvent]] = field(default_factory=dict)
    events: list[ExecutionEvent] = field(default_factory=list)


Step = Write | Drop | Append | Rest | Follow


@asynccontextmanager
async def run(steps: list[Step], bounds: Bounds, spill_at: int, limit: int) -> AsyncIterator[Run]:
    """Write a log as the steps say, with a pipe for each stream, and read it to its end."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory)
        store = LogStore(path / "run", path / "state", spill_at=spill_at, bounds=bounds)
        pipes = {stream: os.pipe2(os.O_NONBLOCK) for stream in STREAMS}
        try:
            async with store, asyncio.TaskGroup() as tasks:
                one = Run(store.create("log", EXECUTION_CODEC, max_output=limit))
                for step in steps:
                    await take(step, one, pipes, tasks)
                one.log.finish(make_finished)
                one.events = await read_all(one.log)
                yield one
        finally:
            for pipe in pipes.values():
                os.close(pipe[0])
                os.close(pipe[1])


async def take(
    step: Step, one: Run, pipes: dict[Stream, tuple[int, int]], tasks: asyncio.TaskGroup
) -> None:
    match step:
        case Write(stream, data, through_pipe=True):
            os.write(pipes[stream][1], data)
            rest = len(data)
            while rest:
                rest -= await receive(one.log, stream, pipes[stream][0])
        case Write(stream, data):
            one.log.write(stream, data)
        case Drop(stream, count):
            one.log.drop(stream, count, "elsewhere")
        case Append():
            one.log.append(make_input)
        case Rest():
            await asyncio.sleep(0.001)
        case Follow(after):
            tasks.create_task(follow(one, after))


async def follow(one: Run, after: int) -> None:
    one.seen[after] = await read_all(one.log, after)


def written(steps: list[Step], stream: Stream) -> bytes:
    return b"".join(
        step.data for step in steps if isinstance(step, Write) and step.stream == stream
    )


def lost(steps: list[Step], stream: Stream) -> int:
    return sum(step.count for step in steps if isinstance(step, Drop) and step.stream == stream)


def parts(events: list[ExecutionEvent], stream: Stream) -> list[bytes]:
    outputs = [event for event in events if isinstance(event, OutputWritten)]
    return [event.data for event in outputs if event.stream == stream]


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(WRITE, WRITE, *OTHERS), max_size=40), BOUNDS, SPILL)
def test_output_arrives_whole_and_in_order(
    steps: list[Step], bounds: Bounds, spill_at: int
) -> None:
    async def check() -> None:
        async with run(steps, bounds, spill_at, PLENTY) as one:
            for stream in STREAMS:
                data = written(steps, stream)
                assert join_output(one.events, stream) == data
                together = b"".join(parts(one.events, stream)).decode("utf-8", "replace")
                apart = [part.decode("utf-8", "replace") for part in parts(one.events, stream)]
                assert "".join(apart) == together
            others = [event for event in one.events if isinstance(event, InputRequested)]
            assert len(others) == sum(isinstance(step, Append) for step in steps)
            assert one.log.output_bytes == sum(len(written(steps, stream)) for stream in STREAMS)

    asyncio.run(check())


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(WRITE, WRITE, DROP, *OTHERS), max_size=40), BOUNDS, SPILL)
def test_every_reader_sees_the_same_events(
    steps: list[Step], bounds: Bounds, spill_at: int
) -> None:
    async def check() -> None:
        async with run(steps, bounds, spill_at, 500) as one:
            events = one.events
            assert [event.seq for event in events] == list(range(1, len(events) + 1))
            ends = [event for event in events if isinstance(event, ExecutionFinished)]
            assert ends == [events[-1]]
            for after in range(len(events) + 2):
                assert await read_all(one.log, after) == events[after:]
            one.log.index.forget_tail()
            assert await read_all(one.log) == events
        assert all(seen == events[after:] for after, seen in one.seen.items())
        assert set(one.seen) == {step.after for step in steps if isinstance(step, Follow)}

    asyncio.run(check())


@settings(deadline=None, max_examples=150)
@given(st.lists(st.one_of(WRITE, WRITE, DROP, *OTHERS), max_size=40), BOUNDS, SPILL, st.data())
def test_every_byte_is_kept_or_counted(
    steps: list[Step], bounds: Bounds, spill_at: int, data: st.DataObject
) -> None:
    total = sum(len(written(steps, stream)) for stream in STREAMS)
    limit = data.draw(st.integers(0, total + 1))

    async def check() -> None:
        async with run(steps, bounds, spill_at, limit) as one:
            kept = 0
            for stream in STREAMS:
                output = join_output(one.events, stream)
                dropped = sum_dropped(one.events, stream)
                kept += len(output)
                assert len(output) + dropped == len(written(steps, stream)) + lost(steps, stream)
                if not any(isinstance(step, Drop) for step in steps):
                    assert written(steps, stream).startswith(output)
            assert kept <= limit
            limited = [event for event in one.events if isinstance(event, OutputDropped)]
            limited = [event for event in limited if event.reason == "output limit"]
            assert len({event.stream for event in limited}) == len(limited)
            if limited and not any(isinstance(step, Drop) for step in steps):
                assert kept > limit - 4 * len(STREAMS)

    asyncio.run(check())
