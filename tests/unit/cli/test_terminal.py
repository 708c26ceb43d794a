"""Bytes to our standard streams and lines from them, over real pipes and terminals."""

import os
import pty
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from headrace.cli import terminal
from headrace.cli.terminal import ByteSink, Cursor, LineSource, OutputFailedError, ReaderGoneError
from headrace.model.errors import LimitExceededError


@contextmanager
def pipe() -> Iterator[list[int]]:
    """Give both ends of a pipe; a test that closes one puts -1 in its place."""
    ends = list(os.pipe())
    try:
        yield ends
    finally:
        for fd in ends:
            if fd >= 0:
                os.close(fd)


def close(ends: list[int], index: int) -> None:
    os.close(ends[index])
    ends[index] = -1


async def test_bytes_arrive_exactly() -> None:
    with pipe() as ends:
        await ByteSink(ends[1], Cursor()).write(b"a\xff\x00\r\n\x1b[1m")

        assert os.read(ends[0], 100) == b"a\xff\x00\r\n\x1b[1m"


async def test_a_slow_reader_stops_neither_the_loop_nor_the_bytes() -> None:
    data = os.urandom(500_000)
    received = bytearray()

    with pipe() as ends:
        async with anyio.create_task_group() as tasks:

            async def write() -> None:
                await ByteSink(ends[1], Cursor()).write(data)
                close(ends, 1)

            tasks.start_soon(write)
            while True:
                await anyio.wait_readable(ends[0])
                chunk = os.read(ends[0], 10_000)
                if not chunk:
                    break
                received += chunk

    assert bytes(received) == data


async def test_a_write_that_nobody_reads_can_be_cancelled() -> None:
    with pipe() as ends, anyio.move_on_after(0.01) as scope:
        await ByteSink(ends[1], Cursor()).write(bytes(1_000_000))

    assert scope.cancelled_caught


async def test_a_reader_that_is_gone_is_told_apart() -> None:
    with pipe() as ends:
        close(ends, 0)

        with pytest.raises(ReaderGoneError):
            await ByteSink(ends[1], Cursor()).write(b"x")


async def test_a_reader_that_goes_while_we_wait_is_told_apart() -> None:
    with pipe() as ends:
        sink = ByteSink(ends[1], Cursor())

        async def leave() -> None:
            await anyio.wait_all_tasks_blocked()
            close(ends, 0)

        with pytest.RaisesGroup(ReaderGoneError):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(leave)
                await sink.write(bytes(1_000_000))


async def test_a_full_disk_is_an_error_of_its_own() -> None:
    fd = os.open("/dev/full", os.O_WRONLY)
    try:
        with pytest.raises(OutputFailedError, match=f"descriptor {fd}: No space"):
            await ByteSink(fd, Cursor()).write(b"x")
    finally:
        os.close(fd)


async def test_a_file_is_written(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    try:
        await ByteSink(fd, Cursor()).write(b"x" * 200_000)
    finally:
        os.close(fd)

    assert (tmp_path / "out").stat().st_size == 200_000


async def test_the_line_start_is_known() -> None:
    with pipe() as ends:
        sink = ByteSink(ends[1], Cursor())
        seen = [sink.is_at_line_start]
        for data in (b"half", b"", b" line\n"):
            await sink.write(data)
            seen.append(sink.is_at_line_start)

        assert seen == [True, False, False, True]


async def test_two_sinks_on_one_terminal_share_the_line() -> None:
    with pipe() as ends:
        cursor = Cursor()
        out, err = ByteSink(ends[1], cursor), ByteSink(ends[1], cursor)
        await out.write(b"half")

        assert not err.is_at_line_start


async def test_lines_come_one_at_a_time_and_then_the_end() -> None:
    with pipe() as ends:
        os.write(ends[1], "eins\r\nzwei ü\n\nrest".encode())
        close(ends, 1)
        source = LineSource(ends[0])

        assert [await source.read_line() for _ in range(6)] == [
            "eins",
            "zwei ü",
            "",
            "rest",
            None,
            None,
        ]


async def test_a_line_may_come_in_pieces() -> None:
    with pipe() as ends:
        source = LineSource(ends[0])
        os.write(ends[1], b"ab")
        with anyio.move_on_after(0.01):
            await source.read_line()
        os.write(ends[1], b"cd\n")

        assert await source.read_line() == "abcd"


async def test_nothing_is_read_before_it_is_asked_for() -> None:
    with pipe() as ends:
        os.write(ends[1], b"for somebody else\n")
        LineSource(ends[0])

        assert os.read(ends[0], 100) == b"for somebody else\n"


async def test_bytes_that_are_no_text_are_replaced() -> None:
    with pipe() as ends:
        os.write(ends[1], b"a\xffb\n")

        assert await LineSource(ends[0]).read_line() == "a\ufffdb"


@pytest.mark.parametrize("content", [b"", b"line\n"])
async def test_a_file_can_be_the_input(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "in").write_bytes(content)
    fd = os.open(tmp_path / "in", os.O_RDONLY)
    try:
        assert await LineSource(fd).read_line() == (content.decode().strip() or None)
    finally:
        os.close(fd)


async def test_an_endless_line_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(terminal, "MAX_LINE", 1000)
    fd = os.open("/dev/zero", os.O_RDONLY)
    try:
        with pytest.raises(LimitExceededError, match="more than 1000 bytes"):
            await LineSource(fd).read_line()
    finally:
        os.close(fd)


async def test_a_password_is_not_shown_and_the_terminal_is_put_back() -> None:
    main, side = pty.openpty()
    try:
        source = LineSource(side)
        with source.without_echo():
            assert not termios.tcgetattr(side)[3] & termios.ECHO
            os.write(main, b"secret\n")
            assert await source.read_line() == "secret"
        assert termios.tcgetattr(side)[3] & termios.ECHO
    finally:
        os.close(main)
        os.close(side)
