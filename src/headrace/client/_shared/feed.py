"""A stream of events out of the pieces of any number of connections: each once, in order."""

from collections import deque
from typing import Generic, TypeVar

from headrace.client._shared.events import EventKind
from headrace.client.errors import make_error
from headrace.model.errors import HeadraceError, InvalidRequestError
from headrace.wire.ndjson import LineDecoder

E = TypeVar("E")

MAX_LINE = 128 * 1024 * 1024
"""More than any event has; what is longer is no event."""


class BrokenFeedError(Exception):
    """What arrived cannot be the continuation; the connection is of no more use."""


class ServiceFailed(Exception):  # noqa: N818 - no failure of the feed, but news in it
    """The service says that it failed itself; ``error`` is what it said."""

    def __init__(self, error: HeadraceError) -> None:
        super().__init__(error.message)
        self.error = error


class Feed(Generic[E]):
    """Reads lines of JSON, checks that the numbers have no gap, and remembers the position.

    What goes wrong loses nothing: the events before it are in ``ready``, and a new connection
    begins behind ``last_seq``.
    """

    def __init__(self, kind: EventKind[E], after: int = 0, max_line: int = MAX_LINE) -> None:
        self.kind = kind
        self.last_seq = after
        self.is_finished = False
        self.ready: deque[E] = deque()
        self._max_line = max_line
        self._lines = LineDecoder(max_line)

    def restart(self) -> None:
        """Note that a new connection begins: the piece of a line from the old one is void."""
        self._lines = LineDecoder(self._max_line)

    def push(self, data: bytes) -> None:
        """Take bytes of the present connection.

        Raises BrokenFeedError if they cannot be right, and ServiceFailed if they say that.
        """
        try:
            for record in self._lines.feed(data):
                if self.is_finished:
                    raise BrokenFeedError("something follows the last event")
                self._take(record)
        except InvalidRequestError as error:  # the decoder's: no line of JSON
            raise BrokenFeedError(error.message) from error

    def _take(self, record: object) -> None:
        if not isinstance(record, dict):
            raise BrokenFeedError(f"a line is {type(record).__name__}, expected an object")
        seq = record.get("seq")
        if seq is None:
            self._take_unnumbered(record)
            return
        if type(seq) is not int or seq > self.last_seq + 1:
            raise BrokenFeedError(f"the number {seq!r:.50} follows {self.last_seq}")
        if seq <= self.last_seq:
            return
        try:
            event = self.kind.read(record, seq)
        except (ValueError, RecursionError) as error:
            raise BrokenFeedError(str(error)) from error
        self.last_seq = seq
        if event is not None:
            self.ready.append(event)
            self.is_finished = isinstance(event, self.kind.terminal)

    def _take_unnumbered(self, record: dict[str, object]) -> None:
        kind = record.get("type")
        if kind == "failed":
            raise ServiceFailed(make_error(record.get("error")))
        if not isinstance(kind, str):
            raise BrokenFeedError(f"a line has neither a number nor a type: {record!r:.100}")
