"""Forms with files, multipart/form-data (RFC 7578), read in pieces as they come.

The parser is a library's; here its callbacks become events in order, and what it lets pass is
refused: a body that ends before its last boundary.
"""

import logging
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from headrace.model.errors import InvalidRequestError

FORM = b"multipart/form-data"
MAX_PARTS = 10_000
_MAX_HEADERS = 16
_MAX_HEADER = 8 * 1024
_SILENT = logging.Logger("forms", logging.CRITICAL + 1)  # noqa: LOG001 - in no tree, on purpose
"""What a client sends must not fill the log: the parser would warn of every fault."""


@dataclass(frozen=True, slots=True)
class PartBegan:
    """A part: the field it is for, and its file's name as it was sent, directories included."""

    name: str
    filename: str | None


@dataclass(frozen=True, slots=True)
class PartData:
    """A piece of a part."""

    data: bytes


@dataclass(frozen=True, slots=True)
class PartEnded:
    """A part is complete."""


@dataclass(frozen=True, slots=True)
class FormEnded:
    """The form is complete; what follows means nothing."""


FormEvent = PartBegan | PartData | PartEnded | FormEnded


def read_boundary(content_type: str) -> bytes:
    """Give the boundary that a Content-Type names; raises InvalidRequestError if there is none."""
    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary", b"")
    if not boundary:
        raise InvalidRequestError("multipart/form-data needs a boundary")
    return boundary


class FormParser:
    """Turns the pieces of a form into events, however it was cut.

    Raises InvalidRequestError for what is no form; it is of no more use then.
    """

    def __init__(self, boundary: bytes) -> None:
        self._events: list[FormEvent] = []
        self._headers: dict[bytes, bytes] = {}
        self._name = self._value = b""
        self._parts = 0
        self._is_complete = False
        try:
            self._parser = MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin_part,
                    "on_header_field": self._add_name,
                    "on_header_value": self._add_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._end_headers,
                    "on_part_data": self._add_data,
                    "on_part_end": self._end_part,
                    "on_end": self._end,
                },
                max_header_count=_MAX_HEADERS,
                max_header_size=_MAX_HEADER,
            )
        except FormParserError as error:
            raise InvalidRequestError(f"the form cannot be read: {error}") from error
        self._parser.logger = _SILENT

    def feed(self, data: bytes) -> list[FormEvent]:
        """Give the events of the next piece."""
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise InvalidRequestError(f"the form cannot be read: {error}") from error
        events, self._events = self._events, []
        return events

    def end(self) -> None:
        """Note the end of the body; raises InvalidRequestError if the form is not complete."""
        if not self._is_complete:
            raise InvalidRequestError("the form ended before its last boundary")

    def _begin_part(self) -> None:
        self._parts += 1
        if self._parts > MAX_PARTS:
            raise InvalidRequestError(f"the form has more than {MAX_PARTS} parts")
        self._headers = {}
        self._name = self._value = b""

    def _add_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _end_header(self) -> None:
        self._headers.setdefault(self._name.lower(), self._value)
        self._name = self._value = b""

    def _end_headers(self) -> None:
        kind, options = parse_options_header(
            self._headers.get(b"content-disposition", b"").decode("latin-1")
        )
        if kind != b"form-data":
            raise InvalidRequestError("a part of the form does not say which field it is for")
        name, filename = options.get(b"name", b""), options.get(b"filename")
        try:
            began = PartBegan(name.decode(), None if filename is None else filename.decode())
        except UnicodeDecodeError as error:
            raise InvalidRequestError("a name in the form is not UTF-8") from error
        self._events.append(began)

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        if end > start:
            self._events.append(PartData(data[start:end]))

    def _end_part(self) -> None:
        self._events.append(PartEnded())

    def _end(self) -> None:
        self._is_complete = True
        self._events.append(FormEnded())


@dataclass(slots=True)
class FormReader:
    """Reads a form part by part: `next_part`, then `content` of it to its end, and again.

    ``body`` are its pieces. Every method raises InvalidRequestError for what is no form, and what
    reading the body raises.
    """

    boundary: bytes
    body: AsyncIterator[bytes]
    _parser: FormParser = field(init=False)
    _events: deque[FormEvent] = field(init=False, default_factory=deque)

    def __post_init__(self) -> None:
        self._parser = FormParser(self.boundary)

    async def next_part(self) -> PartBegan | None:
        """Give the next part, passing over what is left of this one; None at the form's end."""
        while True:
            event = await self._peek()
            if isinstance(event, FormEnded):
                return None
            self._events.popleft()
            if isinstance(event, PartBegan):
                return event

    async def content(self) -> AsyncIterator[bytes]:
        """Give the pieces of the part that has begun.

        They end only when it is certain that the form goes on, or ends, as it must: a form that
        breaks off behind a file has not brought that file.
        """
        while True:
            event = await self._peek()
            match event:
                case PartData():
                    self._events.popleft()
                    yield event.data
                case PartEnded():
                    self._events.popleft()
                    await self._peek()
                    return
                case _:
                    raise InvalidRequestError("a part of the form has no end")

    async def _peek(self) -> FormEvent:
        while not self._events:
            try:
                data = await anext(self.body)
            except StopAsyncIteration:
                self._parser.end()
                raise InvalidRequestError("the form ended before its last boundary") from None
            self._events.extend(self._parser.feed(data))
        return self._events[0]
