"""The files of a log: moving to the disk, and disks that are slow or full."""

import errno
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from headrace.engine.event_index import ENTRY, HEADER, Entry, Kind, unpack_entries, unpack_header
from headrace.engine.event_log import EventLog
from headrace.engine.log_files import Bounds, LogDirectories
from headrace.engine.log_store import LogStore
from headrace.model.errors import ExecutionNotFoundError, LimitExceededError, WrongStateError
from headrace.model.events import (
    ExecutionEvent,
    InputRequested,
    OutputDropped,
    OutputWritten,
    Stream,
)
from headrace.model.records import EXECUTION_CODEC
from tests.support.logs import (
    PATIENCE,
    FakeDisk,
    count_descriptors,
    join_output,
    make_finished,
    make_input,
    read_all,
    receive,
    wait_until,
)

Log = EventLog[ExecutionEvent]
OUT = Stream.STDOUT
NOW = 1_700_000_000.25


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
async def store(tmp_path: Path, disk: FakeDisk) -> AsyncIterator[LogStore]:
    """A store that spills at 800 bytes and soon loses patience."""
    bounds = Bounds(staging=800, tail_events=5, patience=0.1, retry=0.001, unwritten=6000)
    directories = tmp_path / "run", tmp_path / "state"
    async with LogStore(*directories, spill_at=800, bounds=bounds, disk=disk.calls) as store:
        yield store


@pytest.fixture
async def log(store: LogStore) -> Log:
    return store.create("log", EXECUTION_CODEC, max_output=100_000)


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


async def test_a_log_on_disk_says_how_it_is_to_be_read(tmp_path: Path) -> None:
    async with LogStore(tmp_path / "run", tmp_path / "state", clock=lambda: NOW) as store:
        log = store.create("log", EXECUTION_CODEC, max_output=100)
        log.write(OUT, b"hello")
        log.append(make_input)
        log.finish(make_finished)
        await anyio.lowlevel.checkpoint()
        files = {path.name: path.read_bytes() for path in (tmp_path / "run" / "log").iterdir()}
    assert sorted(files) == ["index.0", "records.0", "stdout.0"]
    index, records = files["index.0"], files["records.0"]
    assert files["stdout.0"] == b"hello"
    assert unpack_header(index) == ("execution", "log")
    assert len(index) == HEADER.size + 3 * ENTRY.size
    output, record, end = unpack_entries(index[HEADER.size :])
    assert output == Entry(Kind.STDOUT, 5, 0, NOW, 1)
    assert record == Entry(Kind.RECORD, record.length, 0, NOW, 2)
    assert EXECUTION_CODEC.decode(2, NOW, records[: record.length]) == make_input(2, NOW)
    assert end == Entry(Kind.END, len(records) - record.length, record.length, NOW, 3)


async def test_a_log_above_its_bound_moves_to_the_state_directory(log: Log, tmp_path: Path) -> None:
    for number in range(1000):
        log.write(OUT, b"%09d\n" % number)
        if number % 20 == 0:
            await wait_until(lambda: log.files.held <= 1000)
    log.finish(make_finished)
    await wait_until(lambda: log.files.held <= 800)
    assert (tmp_path / "state" / "log" / "stdout").stat().st_size > 9_000
    sizes = [path.stat().st_size for path in (tmp_path / "run" / "log").iterdir()]
    assert sum(sizes) <= 800
    expected = b"".join(b"%09d\n" % number for number in range(1000))
    assert join_output(await read_all(log), OUT) == expected


async def test_a_finished_log_has_no_open_files(log: Log) -> None:
    before = count_descriptors()
    log.write(OUT, b"x")
    log.append(make_input)
    await anyio.lowlevel.checkpoint()
    assert count_descriptors() == before + 3
    log.finish(make_finished)
    await anyio.lowlevel.checkpoint()
    assert count_descriptors() == before
    log.index.forget_tail()
    assert len(await read_all(log)) == 3
    assert count_descriptors() == before


async def test_a_slow_disk_holds_up_only_output_and_only_until_it_has_caught_up(
    log: Log, pipe: tuple[int, int], disk: FakeDisk
) -> None:
    disk.is_state_full = True
    log.write(OUT, b"x" * 2000)
    os.write(pipe[1], b"more")
    assert log.receive(OUT, pipe[0]) is None
    log.append(make_input)
    woken = anyio.Event()
    log.files.when_room(woken.set)
    disk.is_state_full = False
    with anyio.fail_after(PATIENCE):
        await woken.wait()
    assert await receive(log, OUT, pipe[0]) == 4
    log.finish(make_finished)
    assert join_output(await read_all(log), OUT) == b"x" * 2000 + b"more"


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "log disk full"),
        (errno.EDQUOT, "log disk full"),
        (errno.EIO, "log disk failed"),
    ],
)
async def test_a_disk_that_stays_full_loses_output_but_says_how_much(
    log: Log, pipe: tuple[int, int], disk: FakeDisk, number: int, reason: str
) -> None:
    disk.is_runtime_full = disk.is_state_full = True
    disk.error = number
    os.write(pipe[1], b"lost")
    assert log.receive(OUT, pipe[0]) is None
    assert await receive(log, OUT, pipe[0]) == 4
    os.write(pipe[1], b"lost, too")
    assert log.receive(OUT, pipe[0]) == 9
    disk.is_runtime_full = False
    os.write(pipe[1], b"kept")
    assert log.receive(OUT, pipe[0]) == 4
    log.finish(make_finished)
    events = await read_all(log)
    assert markers(events) == [(1, OUT, 13, reason)]
    assert outputs(events) == [(OUT, b"kept")]


async def test_patience_begins_anew_when_there_was_room_in_between(
    log: Log, pipe: tuple[int, int], disk: FakeDisk
) -> None:
    for _ in range(2):
        disk.is_runtime_full = True
        os.write(pipe[1], b"x")
        assert log.receive(OUT, pipe[0]) is None
        await anyio.sleep(0.11)
        disk.is_runtime_full = False
        assert log.receive(OUT, pipe[0]) == 1


async def test_a_full_runtime_directory_makes_room_on_the_disk(
    log: Log, pipe: tuple[int, int], disk: FakeDisk
) -> None:
    log.write(OUT, b"x" * 50)
    disk.is_runtime_full = True
    os.write(pipe[1], b"more")
    assert log.receive(OUT, pipe[0]) is None
    await wait_until(lambda: log.files.journal("stdout").moved == 50)
    disk.is_runtime_full = False
    assert log.receive(OUT, pipe[0]) == 4


async def test_records_that_find_no_room_wait_in_memory(log: Log, disk: FakeDisk) -> None:
    disk.is_runtime_full = True
    log.append(make_input)
    log.append(make_input)
    assert log.files.unwritten > 100
    log.finish(make_finished)
    log.index.forget_tail()
    assert [event.seq for event in await read_all(log)] == [1, 2, 3]
    disk.is_runtime_full = False
    await wait_until(lambda: log.files.unwritten == 0)
    assert [event.seq for event in await read_all(log)] == [1, 2, 3]


async def test_not_too_many_records_wait_in_memory(log: Log, disk: FakeDisk) -> None:
    disk.is_runtime_full = True
    for _ in range(60):
        log.append(make_input)
    log.append(lambda seq, timestamp: InputRequested(seq, timestamp, "x" * 2000, False))
    with pytest.raises(LimitExceededError, match="the disk is full"):
        log.append(make_input)
    log.finish(make_finished)
    assert len(await read_all(log)) == 62


async def test_an_error_of_ours_is_not_taken_for_a_full_disk(log: Log) -> None:
    with pytest.raises(OSError, match="Bad file descriptor"):
        log.receive(OUT, 1_000_000)


async def test_a_deleted_log_tells_its_reader(log: Log) -> None:
    for _ in range(10):
        log.append(make_input)
    reader = log.read()
    assert (await anext(reader)).seq == 1
    log.abandon()
    log.files.delete()
    with pytest.raises(ExecutionNotFoundError, match="the log of log is past its retention"):
        await log.read().batch()


async def test_an_abandoned_log_is_not_written_any_more(log: Log, tmp_path: Path) -> None:
    log.write(OUT, b"x" * 2000)
    log.append(make_input)
    log.abandon()
    await log.files.settle()
    log.files.delete()
    await anyio.sleep(0.005)
    assert not (tmp_path / "run" / "log").exists()
    assert not (tmp_path / "state" / "log").exists()


# --- the two directories ----------------------------------------------------------------------


@pytest.fixture
def directories(tmp_path: Path) -> Iterator[LogDirectories]:
    directories = LogDirectories(tmp_path / "run" / "logs", tmp_path / "state")
    yield directories
    directories.close()


def test_the_directories_are_made_for_their_owner_only(directories: LogDirectories) -> None:
    directories.open()
    assert directories.runtime.stat().st_mode & 0o777 == 0o700
    assert directories.state.stat().st_mode & 0o777 == 0o700


def test_directories_in_use_are_refused(directories: LogDirectories, tmp_path: Path) -> None:
    directories.open()
    before = count_descriptors()
    other = LogDirectories(tmp_path / "elsewhere", directories.state)
    with pytest.raises(WrongStateError, match="state is in use by another log store"):
        other.open()
    assert count_descriptors() == before
    directories.close()
    other.open()
    other.close()


def test_one_directory_cannot_be_both(tmp_path: Path) -> None:
    with pytest.raises(WrongStateError, match="in use"):
        LogDirectories(tmp_path, tmp_path).open()


def test_what_an_earlier_owner_left_is_deleted_and_nothing_else(
    directories: LogDirectories, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    for place in (directories.runtime, directories.state):
        (place / "abc-def").mkdir(parents=True)
        (place / "abc-def" / "index.0").write_bytes(b"x")
        (place / "file").write_bytes(b"x")
        (place / "Not an id").mkdir()
        (place / "link").symlink_to(tmp_path / "outside")
    directories.open()
    for place in (directories.runtime, directories.state):
        assert sorted(path.name for path in place.iterdir()) == ["Not an id", "file", "link"]
    assert (tmp_path / "outside").is_dir()


def test_directories_in_use_keep_their_logs(directories: LogDirectories, tmp_path: Path) -> None:
    directories.open()
    (directories.state / "abc").mkdir()
    (tmp_path / "elsewhere" / "abc").mkdir(parents=True)
    with pytest.raises(WrongStateError):
        LogDirectories(tmp_path / "elsewhere", directories.state).open()
    assert (directories.state / "abc").is_dir()
    assert (tmp_path / "elsewhere" / "abc").is_dir()
