"""Byte journals: where their bytes are, and how they move."""

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.engine.journal import (
    Disk,
    Journal,
    Move,
    Segment,
    copy_segments,
    read_pieces,
    unfinished_tail,
)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """A journal whose segments are full at ten bytes."""
    journal = Journal(str(tmp_path / "run"), str(tmp_path / "state"), "stdout", 10, Disk())
    yield journal
    journal.seal()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """A pipe whose read end does not block."""
    reader, writer = os.pipe2(os.O_NONBLOCK)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def move(journal: Journal, count: int) -> None:
    moved = copy_segments([Move(journal.target, list(journal.sealed)[:count])])
    assert moved == ([count], None)
    journal.release(count)


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 0),
        (b"abc", 0),
        ("ä".encode(), 0),
        ("€".encode(), 0),
        ("🎉".encode(), 0),
        ("ä".encode()[:1], 1),
        ("a€".encode()[:2], 1),
        ("a€".encode()[:3], 2),
        ("🎉".encode()[:1], 1),
        ("🎉".encode()[:2], 2),
        ("🎉".encode()[:3], 3),
        (b"\xe2\xe2", 1),
        (b"\x82\xe2\x82", 2),
    ],
)
def test_the_beginning_of_a_character_is_unfinished(data: bytes, count: int) -> None:
    assert unfinished_tail(data) == count


@pytest.mark.parametrize(
    "data",
    [
        b"\x80",
        b"\x9f\x8e\x89",
        b"\xc0",
        b"\xc1",
        b"\xf5",
        b"\xff",
        b"\xe0\x80",
        b"\xed\xa0",
        b"\xf0\x80",
        b"\xf4\x90",
        b"\xf0\x9fA",
        b"\xc3A",
    ],
)
def test_bytes_that_can_become_no_character_are_not_unfinished(data: bytes) -> None:
    assert unfinished_tail(data) == 0


def test_bytes_of_a_pipe_are_in_the_file_when_splice_returns(
    journal: Journal, pipe: tuple[int, int], tmp_path: Path
) -> None:
    os.write(pipe[1], b"hello")
    assert journal.splice(pipe[0], 100) == 5
    assert (tmp_path / "run" / "stdout.0").read_bytes() == b"hello"
    assert journal.read(1, 3) == b"ell"


def test_an_empty_pipe_is_told_from_its_end(journal: Journal) -> None:
    reader, writer = os.pipe2(os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        journal.splice(reader, 100)
    os.close(writer)
    assert journal.splice(reader, 100) == 0
    os.close(reader)


def test_bytes_are_readable_before_they_are_written(journal: Journal, tmp_path: Path) -> None:
    journal.append(b"hello")
    assert not (tmp_path / "run").exists()
    assert (journal.unwritten, journal.end) == (5, 5)
    assert journal.read(0, 5) == b"hello"
    journal.flush()
    assert (journal.unwritten, journal.end) == (0, 5)
    assert journal.read(0, 5) == b"hello"


def test_what_is_pending_comes_before_what_is_spliced(
    journal: Journal, pipe: tuple[int, int]
) -> None:
    os.write(pipe[1], b"second")
    journal.append(b"first ")
    journal.splice(pipe[0], 100)
    assert journal.read(0, 12) == b"first second"


def test_a_full_segment_is_followed_by_another(journal: Journal, tmp_path: Path) -> None:
    for word in (b"0123456", b"789abc", b"def", b"g"):
        journal.append(word)
        journal.flush()
    assert names(tmp_path / "run") == ["stdout.0", "stdout.13"]
    assert list(journal.sealed) == [Segment(str(tmp_path / "run" / "stdout.0"), 0, 13)]
    assert journal.read(0, 17) == b"0123456789abcdefg"


def test_bytes_are_found_wherever_they_are(journal: Journal, tmp_path: Path) -> None:
    for word in (b"0123456789", b"abcdefghij", b"klmnopqrst", b"uvw"):
        journal.append(word)
        journal.flush()
    journal.append(b"xyz")
    move(journal, 1)
    assert names(tmp_path / "state") == ["stdout"]
    assert names(tmp_path / "run") == ["stdout.10", "stdout.20", "stdout.30"]
    pieces = journal.locate(5, 31)
    assert [piece.is_slow for piece in pieces] == [True, False, False, False, False]
    assert read_pieces(pieces) == b"56789abcdefghijklmnopqrstuvwxyz"


@pytest.mark.parametrize("moved", [0, 1, 2, 3])
def test_any_range_reads_the_same_however_much_has_moved(journal: Journal, moved: int) -> None:
    data = bytes(range(35))
    for start in range(0, 30, 10):
        journal.append(data[start : start + 10])
        journal.flush()
    journal.seal()
    journal.append(data[30:])
    move(journal, moved)
    for low in range(35):
        for high in range(low, 36):
            assert journal.read(low, high - low) == data[low:high]


def test_segments_that_follow_land_behind_one_another(journal: Journal, tmp_path: Path) -> None:
    for word in (b"0123456789", b"abcdefghij", b"klmnopqrst"):
        journal.append(word)
        journal.flush()
        journal.seal()
        move(journal, 1)
    assert (tmp_path / "state" / "stdout").read_bytes() == b"0123456789abcdefghijklmnopqrst"
    assert journal.moved == 30


def test_copying_again_after_a_crash_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.append(b"0123456789")
    journal.flush()
    journal.seal()
    for _ in range(2):
        copy_segments([Move(journal.target, list(journal.sealed))])
    assert (tmp_path / "state" / "stdout").read_bytes() == b"0123456789"


def test_copying_says_how_far_it_came(journal: Journal, tmp_path: Path) -> None:
    journal.append(b"0123456789")
    journal.flush()
    journal.seal()
    gone = Segment(str(tmp_path / "gone"), 10, 5)
    moved = copy_segments([Move(journal.target, [*journal.sealed, gone]), Move("/x", [gone])])
    assert moved.counts == [1, 0]
    assert moved.error is not None
    assert moved.error.errno == errno.ENOENT


def test_a_segment_that_is_too_short_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "short").write_bytes(b"abc")
    segment = Segment(str(tmp_path / "short"), 0, 5)
    moved = copy_segments([Move(str(tmp_path / "state" / "stdout"), [segment])])
    assert moved.counts == [0]
    assert "2 bytes early" in str(moved.error)


def test_a_file_that_is_too_short_is_an_error(journal: Journal, tmp_path: Path) -> None:
    journal.append(b"0123")
    journal.flush()
    os.truncate(tmp_path / "run" / "stdout.0", 3)
    with pytest.raises(OSError, match="1 bytes early"):
        journal.read(0, 4)


def test_a_short_write_is_continued(tmp_path: Path) -> None:
    def write_two(fd: int, data: bytearray, offset: int) -> int:
        return os.pwrite(fd, data[:2], offset)

    journal = Journal(str(tmp_path), str(tmp_path), "x", 10, Disk(write=write_two))
    journal.append(b"hello")
    journal.flush()
    journal.seal()
    assert (tmp_path / "x.0").read_bytes() == b"hello"


def test_a_segment_without_bytes_leaves_no_file(
    journal: Journal, pipe: tuple[int, int], tmp_path: Path
) -> None:
    with pytest.raises(BlockingIOError):
        journal.splice(pipe[0], 100)
    journal.seal()
    assert names(tmp_path / "run") == []
    assert not journal.sealed


def test_only_the_owner_can_read_the_files(journal: Journal, tmp_path: Path) -> None:
    journal.append(b"0123456789")
    journal.flush()
    journal.seal()
    copy_segments([Move(journal.target, list(journal.sealed))])
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {"run": 0o700, "state": 0o700, "stdout.0": 0o600, "stdout": 0o600}
