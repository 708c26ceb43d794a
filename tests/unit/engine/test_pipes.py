"""Pipes to and from guests: complete, bounded in time, safe to close while in use."""

import os
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from headrace.engine.event_log import EventLog
from headrace.engine.output import OutputPump
from headrace.engine.pipes import (
    PipeClosedError,
    PipeReader,
    PipeWriter,
    Sink,
    drain,
    open_pipe,
)
from headrace.model.errors import DeadlineError
from headrace.model.events import Stream
from tests.support.logs import count_descriptors, wait_until


async def test_more_than_a_pipe_holds_arrives_complete() -> None:
    read_end, write_end = open_pipe()
    reader, writer = PipeReader(read_end), PipeWriter(write_end)
    data, received = os.urandom(1_000_000), bytearray()

    async def write() -> None:
        await writer.write(data, timeout=5.0)
        writer.close()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        while chunk := await reader.read(timeout=5.0):
            received += chunk
    reader.close()
    assert bytes(received) == data


async def test_a_guest_that_does_not_read_is_given_up_and_what_it_took_is_said() -> None:
    read_end, write_end = open_pipe()
    writer = PipeWriter(write_end)
    with pytest.raises(DeadlineError) as caught:
        await writer.write(b"x" * 1_000_000, timeout=0.01)
    assert caught.value.details["written"] == 65536
    writer.close()
    os.close(read_end)


async def test_a_slow_guest_is_not_given_up() -> None:
    read_end, write_end = open_pipe()
    writer = PipeWriter(write_end)

    async def read_slowly() -> None:
        count = 0
        while count < 400_000:
            await anyio.sleep(0.01)
            count += len(os.read(read_end, 65536))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read_slowly)
        await writer.write(b"x" * 400_000, timeout=0.045)
    writer.close()
    os.close(read_end)


async def test_a_pipe_whose_reader_is_gone_is_closed() -> None:
    read_end, write_end = open_pipe()
    os.close(read_end)
    writer = PipeWriter(write_end)
    with pytest.raises(PipeClosedError):
        await writer.write(b"x", timeout=1.0)
    writer.close()


async def test_closing_wakes_a_writer() -> None:
    read_end, write_end = open_pipe()
    writer = PipeWriter(write_end)

    async def write() -> None:
        with pytest.raises(PipeClosedError):
            await writer.write(b"x" * 1_000_000, timeout=5.0)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(write)
        await anyio.wait_all_tasks_blocked()
        writer.close()
        writer.close()
    os.close(read_end)


async def test_nothing_that_comes_is_a_deadline() -> None:
    read_end, write_end = open_pipe()
    reader = PipeReader(read_end)
    with pytest.raises(DeadlineError, match=r"0\.01 s"):
        await reader.read(timeout=0.01)
    reader.close()
    os.close(write_end)
    with pytest.raises(PipeClosedError):
        await reader.read(timeout=1.0)


async def test_a_sink_lets_writers_go_on_and_ends_with_the_last_one() -> None:
    before = count_descriptors()
    read_end, write_end = open_pipe()
    sink = Sink(read_end)
    os.set_blocking(write_end, False)
    os.write(write_end, b"x" * 65536)
    await wait_until(lambda: _accepts(write_end))
    assert not sink.is_closed
    os.close(write_end)
    await wait_until(lambda: sink.is_closed)
    assert count_descriptors() == before


async def test_a_sink_can_be_closed_at_any_time() -> None:
    read_end, write_end = open_pipe()
    sink = Sink(read_end)
    os.write(write_end, b"x")
    await anyio.lowlevel.checkpoint()
    sink.close()
    sink.close()
    with pytest.raises(BrokenPipeError):
        os.write(write_end, b"x")
    os.close(write_end)


def _accepts(fd: int) -> bool:
    try:
        os.write(fd, b"y")
    except BlockingIOError:
        return False
    return True


async def test_output_that_finds_no_room_in_time_is_noted_as_lost() -> None:
    class StuckPump:
        stream = Stream.STDOUT

        async def drain(self, _seconds: float) -> bool:
            return False

    class Log:
        def __init__(self) -> None:
            self.drops: list[tuple[Stream, int, str]] = []

        def drop(self, stream: Stream, count: int, reason: str) -> None:
            self.drops.append((stream, count, reason))

    read_end, write_end = open_pipe()
    os.write(write_end, b"x" * 123)
    log = Log()
    await drain([(read_end, cast("OutputPump", StuckPump()))], cast("EventLog[Any]", log))
    assert log.drops == [(Stream.STDOUT, 123, "log disk too slow")]
    os.close(read_end)
    os.close(write_end)
