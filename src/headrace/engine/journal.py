"""Byte journals: append-only sequences of bytes that begin in memory and move on to the disk.

Bytes arrive in segment files in a runtime directory (memory-backed on most machines), those of a
pipe by splice. Finished segments are copied, oldest first, to one file per journal in a state
directory; `headrace.engine.log_files` decides when.
"""

import contextlib
import errno
import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from headrace.model.specs import MIB

_COPY = 1 * MIB
_SECOND_BYTES = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F), 0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}


def unfinished_tail(data: bytes) -> int:
    """Count the bytes at the end (0 to 3) that begin a UTF-8 character and want for its rest.

    Bytes that can no longer become a character are not unfinished: they are passed on as they
    are. The ranges are those of table 3-7 of the Unicode standard.
    """
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if 0x80 <= byte < 0xC0:
            continue
        if not 0xC2 <= byte <= 0xF4:
            return 0
        needed = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
        if back >= needed or (back > 1 and not _may_follow(byte, data[1 - back])):
            return 0
        return back
    return 0


def _may_follow(lead: int, second: int) -> bool:
    low, high = {
        0xE0: (0xA0, 0xBF),
        0xED: (0x80, 0x9F),
        0xF0: (0x90, 0xBF),
        0xF4: (0x80, 0x8F),
    }.get(lead, (0x80, 0xBF))
    return low <= second <= high


class Segment(NamedTuple):
    """A finished piece of a journal in the runtime directory."""

    path: str
    start: int
    size: int


class Piece(NamedTuple):
    """Where some bytes of a journal are: in memory (``data``) or in a file."""

    data: bytes
    path: str = ""
    offset: int = 0
    size: int = 0
    is_slow: bool = False


class Move(NamedTuple):
    """Segments that shall follow one another in the journal's file in the state directory."""

    target: str
    segments: Sequence[Segment]


class Moved(NamedTuple):
    """How many segments of each move were copied, and what stopped the rest."""

    counts: Sequence[int]
    error: OSError | None


def read_pieces(pieces: Iterable[Piece]) -> bytes:
    """Read bytes from wherever they are; raises FileNotFoundError if a file went away."""
    return b"".join(piece.data or _read_file(piece) for piece in pieces)


def _read_file(piece: Piece) -> bytes:
    fd = os.open(piece.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        return _read_fully(fd, piece.size, piece.offset)
    finally:
        os.close(fd)


def _read_fully(fd: int, size: int, offset: int) -> bytes:
    data = os.pread(fd, size, offset)
    while len(data) < size:
        more = os.pread(fd, size - len(data), offset + len(data))
        if not more:
            raise OSError(errno.EIO, f"a journal ends {size - len(data)} bytes early")
        data += more
    return data


def copy_segments(moves: Sequence[Move]) -> Moved:
    """Copy segments into the state directory, in order, until all are there or one fails.

    Copying a segment again is harmless: its place in the target is fixed.
    """
    counts = [0] * len(moves)
    try:
        for number, (target, segments) in enumerate(moves):
            os.makedirs(os.path.dirname(target), 0o700, exist_ok=True)  # noqa: PTH103, PTH120 - str paths here
            fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                for segment in segments:
                    _copy(segment, fd)
                    counts[number] += 1
            finally:
                os.close(fd)
    except OSError as error:
        return Moved(counts, error)
    return Moved(counts, None)


def _copy(segment: Segment, target: int) -> None:
    os.lseek(target, segment.start, os.SEEK_SET)
    source = os.open(segment.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        done = 0
        while done < segment.size:
            count = os.sendfile(target, source, done, min(_COPY, segment.size - done))
            if not count:
                raise OSError(errno.EIO, f"a segment ends {segment.size - done} bytes early")
            done += count
    finally:
        os.close(source)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - str paths here


def _splice(source: int, target: int, count: int, offset: int) -> int:
    return os.splice(source, target, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)


@dataclass(frozen=True)
class Disk:
    """The calls that can find the disk full; a seam for tests."""

    splice: Callable[[int, int, int, int], int] = _splice
    write: Callable[[int, bytearray, int], int] = os.pwrite
    copy: Callable[[Sequence[Move]], Moved] = copy_segments


class Journal:
    """One append-only sequence of bytes.

    ``[0, moved)`` is in the state directory, ``[moved, written)`` in segments in the runtime
    directory and ``[written, end)`` in memory. The newest segment is kept open; it is finished
    when something is to be written behind its full size.
    """

    def __init__(self, runtime: str, state: str, name: str, segment: int, disk: Disk) -> None:
        self.moved = 0
        self.written = 0
        self.end = 0
        self.sealed: deque[Segment] = deque()
        self.target = f"{state}/{name}"
        self._runtime = runtime
        self._name = name
        self._segment = segment
        self._disk = disk
        self._pending = bytearray()
        self._fd = -1
        self._start = 0

    @property
    def unwritten(self) -> int:
        """The number of bytes that are in memory only."""
        return len(self._pending)

    def append(self, data: bytes) -> None:
        """Take bytes into memory; `flush` brings them to the file."""
        self._pending += data
        self.end += len(data)

    def flush(self) -> None:
        """Write what is in memory; raises OSError and keeps the rest if the disk is full."""
        while self._pending:
            fd = self._open_segment()
            count = self._disk.write(fd, self._pending, self.written - self._start)
            del self._pending[:count]
            self.written += count

    def splice(self, source: int, maximum: int) -> int:
        """Move bytes from a pipe to the end; 0 is the pipe's end of file.

        Raises BlockingIOError if the pipe is empty and another OSError if the disk is full; the
        bytes are then still in the pipe.
        """
        self.flush()
        fd = self._open_segment()
        count = self._disk.splice(source, fd, maximum, self.written - self._start)
        self.written += count
        self.end = self.written
        return count

    def read(self, offset: int, size: int) -> bytes:
        """Read bytes that were appended a moment ago, without a detour."""
        if self._fd >= 0 and self._start <= offset and offset + size <= self.written:
            data = os.pread(self._fd, size, offset - self._start)
            if len(data) == size:
                return data
        return read_pieces(self.locate(offset, size))

    def locate(self, offset: int, size: int) -> list[Piece]:
        """Say where these bytes are now; each piece is in one place."""
        stop = min(offset + size, self.end)
        regions = [(0, self.moved, self.target, True)]
        regions += [(part.start, part.start + part.size, part.path, False) for part in self.sealed]
        regions.append((self._start, self.written, self._path(self._start), False))
        pieces = []
        for first, last, path, is_slow in regions:
            low, high = max(first, offset), min(last, stop)
            if low < high:
                pieces.append(Piece(b"", path, low - first, high - low, is_slow))
        low = max(offset, self.written)
        if low < stop:
            pieces.append(Piece(bytes(self._pending[low - self.written : stop - self.written])))
        return pieces

    def seal(self, *, only_full: bool = False) -> None:
        """Finish the newest segment, so that it can be moved, and close it."""
        size = self.written - self._start
        if self._fd < 0 or (only_full and size < self._segment):
            return
        os.close(self._fd)
        self._fd = -1
        if size:
            self.sealed.append(Segment(self._path(self._start), self._start, size))
            self._start = self.written
        else:
            _remove(self._path(self._start))

    def release(self, count: int) -> None:
        """Delete the oldest ``count`` segments, which are in the state directory now."""
        for _ in range(count):
            segment = self.sealed.popleft()
            self.moved += segment.size
            _remove(segment.path)

    def _path(self, start: int) -> str:
        return f"{self._runtime}/{self._name}.{start}"

    def _open_segment(self) -> int:
        if self._fd >= 0 and self.written - self._start >= self._segment:
            self.seal()
        if self._fd < 0:
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
            try:
                self._fd = os.open(self._path(self._start), flags, 0o600)
            except FileNotFoundError:
                os.mkdir(self._runtime, 0o700)  # noqa: PTH102 - str paths here
                self._fd = os.open(self._path(self._start), flags, 0o600)
        return self._fd
