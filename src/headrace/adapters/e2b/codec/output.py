"""Output in pieces that clients can use one by one: lines; pure.

Clients read each piece as a whole, for instance as a JSON object. But a pipe knows no prints: those
that follow one another closely arrive together, and a long one in parts.
"""

from collections.abc import Iterator
from typing import NamedTuple

from headrace.model.events import OutputWritten, Stream

MAX_HELD = 4 * 1024 * 1024
"""So many characters of an unfinished line are held back at most."""

_PAGE = 4096
_LARGE = 8 * _PAGE
_LONGEST_CHARACTER = 4


class Piece(NamedTuple):
    """A line with its end, or what is there of one; ``timestamp`` is that of its last part."""

    stream: Stream
    text: str
    timestamp: float


class OutputLines:
    """Cuts output into lines, and joins those that the pipe has cut.

    What is no whole line goes on at once, unless it looks as if the pipe had been too small for
    it: then the rest is under way. If it is not, `release` gives what is held. With ``ends_apart``
    the end of a line is a piece of its own. With ``comes_in_parts`` every beginning of a line is
    held, because whoever writes writes lines in parts.
    """

    def __init__(self, *, ends_apart: bool = False, comes_in_parts: bool = False) -> None:
        self._ends_apart = ends_apart
        self._comes_in_parts = comes_in_parts
        self._held: list[str] = []
        self._size = 0
        self._stream = Stream.STDOUT
        self._timestamp = 0.0

    def take(self, event: OutputWritten) -> Iterator[Piece]:
        """Give what can go on now; iterate to the end."""
        stream, timestamp = event.stream, event.timestamp
        if self._held and stream is not self._stream:
            yield from self.release()
        *lines, rest = event.text.split("\n")
        for line in lines:
            whole = f"{line}\n"
            if self._held:
                whole = "".join((*self._held, whole))
                self._forget()
            if self._ends_apart and len(whole) > 1:
                yield Piece(stream, whole[:-1], timestamp)
                whole = "\n"
            yield Piece(stream, whole, timestamp)
        if rest:
            self._stream, self._timestamp = stream, timestamp
            self._held.append(rest)
            self._size += len(rest)
            is_more_due = self._comes_in_parts or _looks_cut(len(event.data))
            if self._size > MAX_HELD or not is_more_due:
                yield from self.release()

    @property
    def holds(self) -> bool:
        """Say whether something is held back."""
        return bool(self._held)

    def release(self) -> Iterator[Piece]:
        """Give what is held; iterate to the end."""
        if self._held:
            piece = Piece(self._stream, "".join(self._held), self._timestamp)
            self._forget()
            yield piece

    def _forget(self) -> None:
        self._held.clear()
        self._size = 0


def _looks_cut(size: int) -> bool:
    """Say whether so many bytes may be all that the pipe had room for.

    That is most of its 16 pages or, as a writer goes on when a page is free, some whole ones; a
    character at their end may have been left for the next piece.
    """
    pages, beyond = divmod(size + _LONGEST_CHARACTER - 1, _PAGE)
    return size >= _LARGE or (pages > 0 and beyond < 2 * _LONGEST_CHARACTER - 1)
