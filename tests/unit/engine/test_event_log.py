"""Event logs: order, numbers, limits, readers, and exactly one end."""

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from headrace.engine.event_log import EventLog
from headrace.engine.log_files import Bounds
from headrace.engine.log_store import LogStore
from headrace.model.errors import (
    InvalidRequestError,
    OutputTooLargeError,
    WrongStateError,
)
from headrace.model.events import (
    ExecutionEvent,
    ExecutionFinished,
    FileChange,
    FileChanged,
    FinishReason,
    InputRequested,
    OutputDropped,
    OutputWritten,
    Stream,
    WatchEnded,
)
from headrace.model.records import EXECUTION_CODEC, PROCESS_CODEC, WATCH_CODEC, RecordError
from tests.support.logs import (
    FakeDisk,
    join_output,
    make_finished,
    make_input,
    read_all,
    sum_dropped,
)

Log = EventLog[ExecutionEvent]
OUT, ERR = Stream.STDOUT, Stream.STDERR
NOW = 1_700_000_000.25


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
async def store(tmp_path: Path, disk: FakeDisk) -> AsyncIterator[LogStore]:
    """A store that spills at 800 bytes, keeps five events in memory and soon loses patience."""
    bounds = Bounds(staging=800, tail_events=5, patience=0.02, retry=0.001, unwritten=6000)
    async with LogStore(
        tmp_path / "run",
        tmp_path / "state",
        spill_at=800,
        clock=lambda: NOW,
        bounds=bounds,
        disk=disk.calls,
    ) as store:
        yield store


@pytest.fixture
async def log(store: LogStore) -> Log:
    return store.create("log", EXECUTION_CODEC, max_output=10_000)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def outputs(events: list[ExecutionEvent]) -> list[tuple[Stream, bytes]]:
    return [(event.stream, event.data) for event in events if isinstance(event, OutputWritten)]


def markers(events: list[ExecutionEvent]) -> list[tuple[int, Stream, int, str]]:
    found = [event for event in events if isinstance(event, OutputDropped)]
    return [(event.seq, event.stream, event.dropped, event.reason) for event in found]


# --- numbers, order, the end ------------------------------------------------------------------


async def test_events_get_numbers_from_1_and_the_hosts_time(log: Log) -> None:
    assert log.append(make_input) == InputRequested(1, NOW, "name? ", False)
    log.write(OUT, b"x")
    assert log.finish(make_finished) == ExecutionFinished(3, NOW, FinishReason.OK, 0.5)
    assert await read_all(log) == [
        InputRequested(1, NOW, "name? ", False),
        OutputWritten(2, NOW, OUT, b"x"),
        ExecutionFinished(3, NOW, FinishReason.OK, 0.5),
    ]
    assert (log.last_seq, log.is_finished, log.output_bytes) == (3, True, 1)


async def test_what_two_streams_and_the_log_get_stays_in_that_order(
    log: Log, pipe: tuple[int, int]
) -> None:
    os.write(pipe[1], b"1")
    log.receive(OUT, pipe[0])
    os.write(pipe[1], b"2")
    log.receive(ERR, pipe[0])
    log.append(make_input)
    os.write(pipe[1], b"3")
    log.receive(OUT, pipe[0])
    log.finish(make_finished)
    kinds = [type(event) for event in await read_all(log)]
    assert kinds == [
        OutputWritten,
        OutputWritten,
        InputRequested,
        OutputWritten,
        ExecutionFinished,
    ]
    assert outputs(await read_all(log)) == [(OUT, b"1"), (ERR, b"2"), (OUT, b"3")]


async def test_nothing_comes_after_the_end(log: Log, pipe: tuple[int, int]) -> None:
    log.finish(make_finished)
    with pytest.raises(WrongStateError, match="log is finished"):
        log.finish(make_finished)
    with pytest.raises(WrongStateError):
        log.append(make_input)
    with pytest.raises(WrongStateError):
        log.write(OUT, b"x")
    with pytest.raises(WrongStateError):
        log.drop(OUT, 1, "why")
    with pytest.raises(WrongStateError):
        log.receive(OUT, pipe[0])
    assert log.last_seq == 1


async def test_the_end_is_told_from_other_events(log: Log) -> None:
    with pytest.raises(TypeError, match="ExecutionFinished is not for append"):
        log.append(make_finished)
    with pytest.raises(TypeError, match="OutputWritten is not for append"):
        log.append(lambda seq, timestamp: OutputWritten(seq, timestamp, OUT, b"x"))
    with pytest.raises(TypeError, match="InputRequested does not end a log of execution"):
        log.finish(make_input)
    assert (log.last_seq, log.is_finished) == (0, False)


async def test_an_event_that_cannot_be_kept_is_not_appended(log: Log) -> None:
    with pytest.raises(RecordError):
        log.append(lambda seq, timestamp: InputRequested(seq, timestamp, b"", False))  # type: ignore[arg-type]  # that is the point
    assert log.last_seq == 0


async def test_the_end_can_be_awaited_without_reading(log: Log) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(log.wait)
        await anyio.lowlevel.checkpoint()
        log.finish(make_finished)
    assert await log.wait() == log.terminal == make_finished(1, NOW)


async def test_a_process_has_a_terminal_and_a_watch_has_no_streams(store: LogStore) -> None:
    process = store.create("process", PROCESS_CODEC, max_output=100)
    process.write(Stream.PTY, b"$ ")
    watch = store.create("watch", WATCH_CODEC, max_output=100)
    watch.append(lambda seq, timestamp: FileChanged(seq, timestamp, FileChange.CREATED, "a"))
    watch.finish(lambda seq, timestamp: WatchEnded(seq, timestamp, FinishReason.KILLED))
    assert [event.seq async for event in watch.read()] == [1, 2]
    with pytest.raises(TypeError, match="a log of watch has no stream stdout"):
        store.create("other", WATCH_CODEC, max_output=100).write(OUT, b"x")


async def test_an_execution_has_no_terminal_stream(log: Log) -> None:
    with pytest.raises(TypeError, match="a log of execution has no stream pty"):
        log.write(Stream.PTY, b"x")


# --- UTF-8 ------------------------------------------------------------------------------------


async def test_an_emoji_in_two_halves_becomes_one_event(log: Log, pipe: tuple[int, int]) -> None:
    emoji = "🎉".encode()
    os.write(pipe[1], b"a" + emoji[:2])
    assert log.receive(OUT, pipe[0]) == 3
    assert log.last_seq == 1
    os.write(pipe[1], emoji[2:3])
    assert log.receive(OUT, pipe[0]) == 1
    assert log.last_seq == 1
    os.write(pipe[1], emoji[3:] + b"b")
    assert log.receive(OUT, pipe[0]) == 2
    log.finish(make_finished)
    assert outputs(await read_all(log)) == [(OUT, b"a"), (OUT, emoji + b"b")]


async def test_an_unfinished_character_is_passed_on_at_the_end(log: Log) -> None:
    log.write(OUT, b"a\xf0\x9f")
    log.write(ERR, b"\xe2\x82")
    log.finish(make_finished)
    assert outputs(await read_all(log)) == [(OUT, b"a"), (OUT, b"\xf0\x9f"), (ERR, b"\xe2\x82")]


async def test_bytes_that_are_not_text_are_passed_on_at_once(log: Log) -> None:
    log.write(OUT, b"\xff\xfe\x80")
    assert log.last_seq == 1


async def test_halves_of_different_streams_do_not_meet(log: Log) -> None:
    log.write(OUT, "ä".encode()[:1])
    log.write(ERR, "ö".encode()[:1])
    log.write(OUT, "ä".encode()[1:])
    log.write(ERR, "ö".encode()[1:])
    log.finish(make_finished)
    assert outputs(await read_all(log)) == [(OUT, "ä".encode()), (ERR, "ö".encode())]


# --- limits -----------------------------------------------------------------------------------


async def test_the_limit_keeps_exactly_that_much_and_counts_the_rest(
    store: LogStore, pipe: tuple[int, int]
) -> None:
    log = store.create("small", EXECUTION_CODEC, max_output=10)
    calls: list[int] = []
    log.on_limit = lambda: calls.append(log.last_seq)
    os.write(pipe[1], b"0123456789abc")
    assert log.receive(OUT, pipe[0]) == 10
    assert calls == []
    assert log.receive(OUT, pipe[0]) == 3
    os.write(pipe[1], b"defg")
    assert log.receive(OUT, pipe[0]) == 4
    log.write(ERR, b"late")
    log.append(make_input)
    log.finish(make_finished)
    events = await read_all(log)
    assert outputs(events) == [(OUT, b"0123456789")]
    assert markers(events) == [(3, OUT, 7, "output limit"), (4, ERR, 4, "output limit")]
    assert calls == [1]


async def test_output_that_fills_the_limit_exactly_loses_nothing(store: LogStore) -> None:
    log = store.create("small", EXECUTION_CODEC, max_output=10)
    log.on_limit = lambda: pytest.fail("the limit was not exceeded")
    log.write(OUT, b"01234567\xf0\x9f")
    log.finish(make_finished)
    assert outputs(await read_all(log)) == [(OUT, b"01234567"), (OUT, b"\xf0\x9f")]


async def test_the_limit_cuts_between_characters(store: LogStore) -> None:
    log = store.create("small", EXECUTION_CODEC, max_output=10)
    log.write(OUT, "01234567🎉!".encode())
    log.write(OUT, b"x")
    log.finish(make_finished)
    events = await read_all(log)
    assert outputs(events) == [(OUT, b"01234567")]
    assert sum_dropped(events, OUT) == 6


async def test_too_many_records_are_an_exceeded_limit_too(tmp_path: Path) -> None:
    async with LogStore(tmp_path / "a", tmp_path / "b", bounds=Bounds(records=250)) as store:
        log = store.create("log", EXECUTION_CODEC, max_output=100)
        calls: list[bool] = []
        log.on_limit = lambda: calls.append(True)
        log.append(make_input)
        log.append(make_input)
        for _ in range(2):
            with pytest.raises(OutputTooLargeError, match="more than 250 bytes of records"):
                log.append(make_input)
        log.write(OUT, b"late")
        log.finish(make_finished)
        events = await read_all(log)
    assert calls == [True]
    assert markers(events) == [(3, OUT, 4, "output limit")]
    assert len(events) == 4


async def test_endless_tiny_pieces_of_output_are_an_exceeded_limit_too(tmp_path: Path) -> None:
    async with LogStore(tmp_path / "a", tmp_path / "b", bounds=Bounds(records=320)) as store:
        log = store.create("log", EXECUTION_CODEC, max_output=300)
        for _ in range(20):
            log.write(OUT, b"x")
        log.finish(make_finished)
        events = await read_all(log)
    assert (join_output(events, OUT), sum_dropped(events, OUT)) == (b"x" * 11, 9)


async def test_markers_side_by_side_become_one(log: Log) -> None:
    log.drop(OUT, 5, "why")
    log.drop(OUT, 0, "nothing")
    log.drop(OUT, 2, "why")
    log.drop(ERR, 1, "why")
    log.append(make_input)
    log.drop(OUT, 3, "why")
    log.finish(make_finished)
    assert markers(await read_all(log)) == [
        (1, OUT, 7, "why"),
        (2, ERR, 1, "why"),
        (4, OUT, 3, "why"),
    ]


async def test_the_beginning_of_a_lost_character_is_lost_too(log: Log) -> None:
    log.write(OUT, b"ab\xf0\x9f")
    log.drop(OUT, 10, "why")
    log.write(OUT, b"cd")
    log.finish(make_finished)
    events = await read_all(log)
    assert outputs(events) == [(OUT, b"ab"), (OUT, b"cd")]
    assert markers(events) == [(2, OUT, 12, "why")]


async def test_a_marker_stands_before_what_came_after_the_loss(log: Log) -> None:
    log.drop(OUT, 10, "why")
    log.write(OUT, b"\xf0")
    log.finish(make_finished)
    kinds = [type(event) for event in await read_all(log)]
    assert kinds == [OutputDropped, OutputWritten, ExecutionFinished]


# --- readers ----------------------------------------------------------------------------------


async def test_readers_at_any_position_see_the_same_events(log: Log) -> None:
    for number in range(30):
        log.write(OUT, b"line %d\n" % number)
        log.append(make_input)
    log.finish(make_finished)
    events = await read_all(log)
    assert [event.seq for event in events] == list(range(1, 62))
    for after in range(65):
        assert await read_all(log, after) == events[after:]


async def test_a_reader_cannot_begin_before_the_beginning(log: Log) -> None:
    with pytest.raises(InvalidRequestError, match="after=-1"):
        log.read(-1)


async def test_ten_readers_follow_a_log_live(log: Log) -> None:
    seen: list[list[ExecutionEvent]] = []

    async def follow(after: int) -> None:
        seen.append(await read_all(log, after))

    async with anyio.create_task_group() as tasks:
        for after in range(10):
            tasks.start_soon(follow, after)
        for number in range(100):
            log.write(OUT, b"%d\n" % number)
            if number % 7 == 0:
                await anyio.lowlevel.checkpoint()
        log.finish(make_finished)
    events = await read_all(log)
    assert join_output(events, OUT) == b"".join(b"%d\n" % number for number in range(100))
    assert sorted(map(len, seen)) == list(range(92, 102))
    assert all(one == events[-len(one) :] for one in seen)


async def test_a_reader_sees_an_event_when_it_is_appended(log: Log) -> None:
    reader = log.read()
    for number in range(3):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anext, reader)
            await anyio.lowlevel.checkpoint()
            assert reader.position == number
            log.append(make_input)


async def test_a_wait_that_was_cancelled_loses_no_event(log: Log) -> None:
    reader = log.read()
    for number in range(1, 4):
        with anyio.move_on_after(0):
            await anext(reader)
        log.append(make_input)
        assert (await anext(reader)).seq == number


async def test_a_reader_cancelled_while_it_reads_from_disk_goes_on(log: Log) -> None:
    for _ in range(100):
        log.append(make_input)
    reader = log.read()
    seqs: list[int] = []
    while len(seqs) < 100:
        with anyio.move_on_after(0):
            await reader.batch()
        seqs += [event.seq for event in await reader.batch()]
        with anyio.move_on_after(0):
            seqs.append((await anext(reader)).seq)
    assert seqs == list(range(1, 101))


async def test_a_reader_that_lies_idle_delays_nobody(log: Log) -> None:
    idle = log.read()
    for number in range(100):
        log.write(OUT, b"%d\n" % number)
    log.finish(make_finished)
    assert len(await read_all(log)) == 101
    assert (await anext(idle)).seq == 1


async def test_only_the_newest_events_stay_in_memory(log: Log) -> None:
    for _ in range(100):
        log.write(OUT, b"x" * 10)
    assert log.index.tail_bytes == 50


async def test_a_large_event_displaces_the_others_from_memory(tmp_path: Path) -> None:
    async with LogStore(tmp_path / "a", tmp_path / "b", bounds=Bounds(tail_bytes=100)) as store:
        log = store.create("log", EXECUTION_CODEC, max_output=10_000)
        log.write(OUT, b"x" * 60)
        log.write(OUT, b"y" * 60)
        assert log.index.tail_bytes == 60
        log.write(OUT, b"z" * 200)
        assert log.index.tail_bytes == 200
        log.finish(make_finished)
        assert len(await read_all(log)) == 4


async def test_large_output_is_cut_into_events_of_64_kib(tmp_path: Path) -> None:
    data = os.urandom(1 << 20).hex().encode()
    async with LogStore(tmp_path / "a", tmp_path / "b") as store:
        log = store.create("log", EXECUTION_CODEC, max_output=1 << 30)
        log.write(OUT, data)
        log.finish(make_finished)
        events = await read_all(log)
    assert join_output(events, OUT) == data
    assert [len(part) for _, part in outputs(events)] == [1 << 16] * 32
