"""Pumps: from a pipe to a log, live, in order, without loss, and never blocking anybody."""

import fcntl
import os
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from headrace.engine.event_log import EventLog
from headrace.engine.log_files import Bounds
from headrace.engine.log_store import LogStore
from headrace.engine.output import OutputPump, Pace
from headrace.model.errors import WrongStateError
from headrace.model.events import ExecutionEvent, OutputDropped, OutputWritten, Stream
from headrace.model.records import EXECUTION_CODEC
from tests.support.logs import (
    PATIENCE,
    FakeDisk,
    count_descriptors,
    join_output,
    make_finished,
    read_all,
    sum_dropped,
    wait_until,
)

Log = EventLog[ExecutionEvent]
OUT = Stream.STDOUT


@dataclass
class Guest:
    """The other end of a pump's pipe."""

    pump: OutputPump
    end: int

    def write(self, data: bytes) -> None:
        assert os.write(self.end, data) == len(data)

    def close(self) -> None:
        if self.end >= 0:
            os.close(self.end)
            self.end = -1


@pytest.fixture
def disk() -> FakeDisk:
    return FakeDisk()


@pytest.fixture
async def store(tmp_path: Path, disk: FakeDisk) -> AsyncIterator[LogStore]:
    bounds = Bounds(staging=1 << 20, patience=0.3, retry=0.001)
    directories = tmp_path / "run", tmp_path / "state"
    async with LogStore(*directories, spill_at=1 << 20, bounds=bounds, disk=disk.calls) as store:
        yield store


@pytest.fixture
async def log(store: LogStore) -> Log:
    return store.create("log", EXECUTION_CODEC, max_output=1 << 30)


@pytest.fixture
async def guest() -> AsyncIterator[Guest]:
    reader, writer = os.pipe()
    guest = Guest(OutputPump(reader, OUT, keep=100), writer)
    yield guest
    guest.close()
    await guest.pump.aclose()


async def turn() -> None:
    """Let the loop look for readable pipes once."""
    for _ in range(3):
        await anyio.lowlevel.checkpoint()


async def test_output_is_in_the_log_one_turn_of_the_loop_later(guest: Guest, log: Log) -> None:
    guest.pump.attach(log)
    for number in range(10):
        guest.write(b"line %d\n" % number)
        await turn()
        assert log.last_seq == number + 1


async def test_a_reader_gets_each_line_as_it_is_written(guest: Guest, log: Log) -> None:
    guest.pump.attach(log)
    reader = log.read()
    with anyio.fail_after(PATIENCE):
        for number in range(10):
            guest.write(b"line %d\n" % number)
            event = await anext(reader)
            assert isinstance(event, OutputWritten)
            assert event.data == b"line %d\n" % number


async def test_output_written_between_executions_comes_first_in_the_next(
    guest: Guest, log: Log, store: LogStore
) -> None:
    guest.pump.attach(log)
    guest.write(b"first")
    assert await guest.pump.drain(PATIENCE)
    guest.pump.detach()
    log.finish(make_finished)
    guest.write(b"between")
    await turn()
    second = store.create("second", EXECUTION_CODEC, max_output=100)
    guest.pump.attach(second)
    guest.write(b"second")
    assert await guest.pump.drain(PATIENCE)
    second.finish(make_finished)
    assert join_output(await read_all(log), OUT) == b"first"
    assert join_output(await read_all(second), OUT) == b"betweensecond"


async def test_too_much_output_between_executions_is_said_to_be_lost(
    guest: Guest, log: Log
) -> None:
    guest.write(b"x" * 90)
    await turn()
    guest.write(b"y" * 90)
    await turn()
    guest.write(b"z" * 5)
    await turn()
    guest.pump.attach(log)
    guest.write(b"after")
    assert await guest.pump.drain(PATIENCE)
    log.finish(make_finished)
    events = await read_all(log)
    assert join_output(events, OUT) == b"x" * 90 + b"y" * 10 + b"after"
    dropped = [event for event in events if isinstance(event, OutputDropped)]
    assert [(event.seq, event.dropped, event.reason) for event in dropped] == [
        (2, 85, "written between executions")
    ]


async def test_a_guest_without_a_log_is_never_blocked(guest: Guest) -> None:
    data = b"x" * 300_000
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(anyio.to_thread.run_sync, os.write, guest.end, data)
    assert await guest.pump.drain(PATIENCE)
    assert guest.pump.taken == len(data)


async def test_what_a_guest_writes_after_the_end_belongs_to_the_next_log(
    guest: Guest, log: Log, store: LogStore
) -> None:
    guest.pump.attach(log)
    log.finish(make_finished)
    guest.write(b"late")
    await turn()
    guest.pump.detach()
    second = store.create("second", EXECUTION_CODEC, max_output=100)
    guest.pump.attach(second)
    second.finish(make_finished)
    assert join_output(await read_all(second), OUT) == b"late"


async def test_a_pump_has_one_log_at_a_time(guest: Guest, log: Log, store: LogStore) -> None:
    guest.pump.attach(log)
    with pytest.raises(WrongStateError, match="detach it first"):
        guest.pump.attach(store.create("second", EXECUTION_CODEC, max_output=100))


async def test_a_finished_log_takes_no_pump_and_nothing_is_lost(
    guest: Guest, log: Log, store: LogStore
) -> None:
    guest.write(b"kept")
    await turn()
    log.finish(make_finished)
    with pytest.raises(WrongStateError):
        guest.pump.attach(log)
    second = store.create("second", EXECUTION_CODEC, max_output=100)
    guest.pump.attach(second)
    second.finish(make_finished)
    assert join_output(await read_all(second), OUT) == b"kept"


async def test_draining_brings_everything_that_was_written_before(guest: Guest, log: Log) -> None:
    guest.pump.attach(log)
    guest.write(b"x" * 65_536)
    assert await guest.pump.drain(PATIENCE)
    assert log.output_bytes == 65_536


async def test_pulling_brings_everything_at_once(guest: Guest, log: Log) -> None:
    guest.pump.attach(log)
    assert guest.pump.pull()
    guest.write(b"x" * 60_000)
    assert guest.pump.pull()
    assert log.output_bytes == 60_000


async def test_draining_ends_although_the_guest_writes_for_ever(guest: Guest, log: Log) -> None:
    guest.pump.attach(log)
    stop = threading.Event()

    def flood() -> None:
        while not stop.is_set():
            os.write(guest.end, b"y" * 4096)

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for _ in range(20):
            assert await guest.pump.drain(PATIENCE)
            assert guest.pump.pull()
    finally:
        stop.set()
        await anyio.to_thread.run_sync(thread.join)
    assert await guest.pump.drain(PATIENCE)
    assert log.output_bytes == guest.pump.taken > 0


async def test_a_flood_lets_others_have_their_turn(guest: Guest, log: Log) -> None:
    fcntl.fcntl(guest.end, fcntl.F_SETPIPE_SZ, 1 << 19)
    guest.pump.attach(log)
    guest.write(b"x" * (1 << 19))
    steps = set()
    with anyio.fail_after(PATIENCE):
        while guest.pump.taken < 1 << 19:
            before = guest.pump.taken
            await anyio.lowlevel.checkpoint()
            steps.add(guest.pump.taken - before)
    assert max(steps) == 65_536


async def test_the_end_of_file_is_told_once_after_all_bytes(guest: Guest, log: Log) -> None:
    ends: list[int] = []
    guest.pump.on_eof = lambda: ends.append(log.output_bytes)
    guest.pump.attach(log)
    guest.write(b"last words")
    guest.close()
    await wait_until(lambda: guest.pump.is_eof)
    await turn()
    assert ends == [10]
    assert await guest.pump.drain(PATIENCE)


async def test_the_end_of_file_is_noticed_without_a_log(guest: Guest) -> None:
    guest.close()
    await wait_until(lambda: guest.pump.is_eof)


async def test_a_full_disk_holds_the_guest_up_and_loses_nothing_when_it_recovers(
    guest: Guest, log: Log, disk: FakeDisk
) -> None:
    guest.pump.attach(log)
    disk.is_runtime_full = disk.is_state_full = True
    guest.write(b"waiting")
    await turn()
    assert not guest.pump.pull()
    assert guest.pump.taken == 0
    assert not await guest.pump.drain(0)
    disk.is_runtime_full = False
    assert await guest.pump.drain(PATIENCE)
    log.finish(make_finished)
    assert join_output(await read_all(log), OUT) == b"waiting"


async def test_a_disk_that_stays_full_does_not_hold_the_guest_up_for_ever(
    guest: Guest, log: Log, disk: FakeDisk
) -> None:
    guest.pump.attach(log)
    disk.is_runtime_full = disk.is_state_full = True
    guest.write(b"x" * 5000)
    assert await guest.pump.drain(PATIENCE)
    guest.write(b"y" * 5000)
    assert await guest.pump.drain(PATIENCE)
    disk.is_runtime_full = False
    guest.write(b"kept")
    assert await guest.pump.drain(PATIENCE)
    log.finish(make_finished)
    events = await read_all(log)
    assert (join_output(events, OUT), sum_dropped(events, OUT)) == (b"kept", 10_000)


async def test_a_log_that_waits_for_its_disk_holds_up_no_other(
    guest: Guest, log: Log, store: LogStore, disk: FakeDisk
) -> None:
    guest.pump.attach(log)
    disk.is_runtime_full = disk.is_state_full = True
    guest.write(b"waiting")
    await turn()
    disk.is_runtime_full = False
    other = store.create("other", EXECUTION_CODEC, max_output=100)
    other.write(OUT, b"x")
    assert other.last_seq == 1


async def test_a_pump_that_waits_for_a_disk_can_be_detached(
    guest: Guest, log: Log, disk: FakeDisk
) -> None:
    guest.pump.attach(log)
    disk.is_runtime_full = disk.is_state_full = True
    guest.write(b"waiting")
    await turn()
    guest.pump.detach()
    assert await guest.pump.drain(PATIENCE)
    assert (guest.pump.taken, log.last_seq) == (7, 0)


async def test_bulk_output_with_a_live_reader_arrives_complete(guest: Guest, log: Log) -> None:
    data = os.urandom(1 << 20)
    guest.pump.attach(log)
    live: list[ExecutionEvent] = []

    async def follow() -> None:
        live.extend(await read_all(log))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        for _ in range(8):
            await anyio.to_thread.run_sync(os.write, guest.end, data)
        assert await guest.pump.drain(PATIENCE)
        log.finish(make_finished)
    assert join_output(live, OUT) == data * 8
    assert await read_all(log) == live


async def test_something_that_is_no_pipe_is_refused(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(ValueError, match="is not a pipe"):
            OutputPump(fd, OUT)
    finally:
        os.close(fd)


async def test_closing_twice_closes_once() -> None:
    before = count_descriptors()
    reader, writer = os.pipe()
    pump = OutputPump(reader, OUT)
    await pump.aclose()
    await pump.aclose()
    os.close(writer)
    assert count_descriptors() == before
    assert pump.pull()


@pytest.fixture
async def paced() -> AsyncIterator[Guest]:
    """A guest that has credit for one small piece only."""
    reader, writer = os.pipe()
    guest = Guest(OutputPump(reader, OUT, pace=Pace(burst=1, rate=0, delay=0.05)), writer)
    yield guest
    guest.close()
    await guest.pump.aclose()


async def test_many_small_pieces_become_one(paced: Guest, log: Log) -> None:
    paced.pump.attach(log)
    for piece in (b"a", b"b", b"c"):
        paced.write(piece)
        await turn()
    assert log.last_seq == 1
    await wait_until(lambda: log.last_seq == 2)
    log.finish(make_finished)
    data = [event.data for event in await read_all(log) if isinstance(event, OutputWritten)]
    assert data == [b"a", b"bc"]


async def test_a_guest_that_waits_for_its_reader_is_not_delayed_again(
    paced: Guest, log: Log
) -> None:
    paced.pump.attach(log)
    paced.write(b"a")
    await turn()
    paced.write(b"b")
    await wait_until(lambda: log.last_seq == 2)
    paced.write(b"c")
    await turn()
    assert log.last_seq == 3


async def test_nobody_waits_for_pieces_that_are_being_collected(paced: Guest, log: Log) -> None:
    paced.pump.attach(log)
    for number in range(10):
        paced.write(b"a")
        await turn()
        assert paced.pump.pull()
        assert log.output_bytes == number + 1


async def test_pieces_may_be_collected_when_the_pipe_ends_or_is_closed(
    paced: Guest, log: Log
) -> None:
    paced.pump.attach(log)
    for _ in range(2):
        paced.write(b"a")
        await turn()
    paced.close()
    await wait_until(lambda: paced.pump.is_eof)
    assert log.output_bytes == 2


async def test_a_pump_is_closed_while_pieces_are_collected(paced: Guest, log: Log) -> None:
    paced.pump.attach(log)
    for _ in range(2):
        paced.write(b"a")
        await turn()
    await paced.pump.aclose()
    assert log.output_bytes == 1


async def test_a_drain_ends_when_its_pump_is_closed(guest: Guest, log: Log, disk: FakeDisk) -> None:
    guest.pump.attach(log)
    disk.is_runtime_full = disk.is_state_full = True
    guest.write(b"waiting")
    await turn()
    answers: list[bool] = []

    async def drain() -> None:
        answers.append(await guest.pump.drain(PATIENCE))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(drain)
        await anyio.lowlevel.checkpoint()
        await guest.pump.aclose()
    assert answers == [False]


async def test_a_failure_of_ours_stops_the_pump_and_is_not_hidden(
    guest: Guest, store: LogStore
) -> None:
    log = store.create("tiny", EXECUTION_CODEC, max_output=1)

    def fail() -> None:
        raise RuntimeError("a bug")

    log.on_limit = fail
    guest.pump.attach(log)
    guest.write(b"abc")
    with pytest.raises(RuntimeError, match="a bug"):
        guest.pump.pull()


def test_reading_often_is_free_at_first_and_then_costs_a_delay() -> None:
    pace = Pace()
    assert all(pace.may_read(1.0, lambda: 1) for _ in range(1000))
    assert not pace.may_read(1.0, lambda: 1)


def test_credit_comes_back_with_time() -> None:
    pace = Pace()
    assert all(pace.may_read(1.0, lambda: 1) for _ in range(1000))
    assert all(pace.may_read(1.0 + number / 1000, lambda: 1) for number in range(1, 5000))


def test_a_lot_is_read_at_once() -> None:
    pace = Pace()
    assert all(pace.may_read(1.0, lambda: 8192) for _ in range(5000))


def test_a_delay_that_brought_nothing_gives_the_credit_back() -> None:
    pace = Pace()
    while pace.may_read(1.0, lambda: 1):
        pass
    pace.note_useless_delay()
    assert all(pace.may_read(1.0, lambda: 1) for _ in range(1000))
