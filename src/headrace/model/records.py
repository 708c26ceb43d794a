"""Events as JSON records, the form in which an event log keeps them.

A record has everything but the sequence number and the timestamp, which the log's index holds.
There is one codec per union of events; a codec's name is written into the log, so that a log on
disk says how it is to be read.
"""

import base64
import binascii
import dataclasses
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headrace.model.errors import HeadraceError
from headrace.model.events import (
    ChangesDropped,
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FileChange,
    FileChanged,
    FinishReason,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
    ResultDisplayed,
    Stream,
    WatchEnded,
    WatchEvent,
    WatchStarted,
)
from headrace.model.results import Json, Result

E = TypeVar("E")

_JSON = json.JSONEncoder(separators=(",", ":"))


class RecordError(HeadraceError):
    """These bytes are not a record of this codec."""


@dataclass(frozen=True)
class EventCodec(Generic[E]):
    """Turns the events of one union into bytes and back.

    ``streams`` are the streams that a log of these events may have, ``terminal`` is the class of
    the event that ends it.
    """

    name: str
    streams: frozenset[Stream]
    terminal: type
    forms: Mapping[str, "_Form"]

    def encode(self, event: E) -> bytes:
        """Give the record of an event; raises RecordError if it is not of this union."""
        for name, form in self.forms.items():
            if type(event) is form.event:
                record = {"type": name} | form.write(event)
                break
        else:
            raise RecordError(f"{type(event).__name__} is no event of the codec {self.name}")
        try:
            return _JSON.encode(record).encode("ascii")
        except (TypeError, ValueError, RecursionError) as error:
            raise RecordError(f"{type(event).__name__} is not JSON: {error}") from error

    def decode(self, seq: int, timestamp: float, data: bytes) -> E:
        """Read a record back; raises RecordError that says what is wrong with it."""
        try:
            record = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise RecordError(f"event {seq} is not JSON: {error}") from error
        if not isinstance(record, dict):
            raise RecordError(f"event {seq} is {type(record).__name__}, expected an object")
        kind = record.pop("type", None)
        form = self.forms.get(kind) if isinstance(kind, str) else None
        if form is None:
            raise RecordError(f"event {seq} has the type {kind!r}, unknown to {self.name}")
        try:
            event: E = form.read(seq, timestamp, record)
        except (KeyError, TypeError, ValueError) as error:
            raise RecordError(f"event {seq} is not a valid {kind}: {error!r}") from error
        return event


Reader = Callable[[Any], Any]
Writer = Callable[[Any], Json]


@dataclass(frozen=True)
class _Form:
    """How one class of events is written: a reader per field and, where needed, a writer."""

    event: type
    readers: Mapping[str, Reader]
    writers: Mapping[str, Writer] = dataclasses.field(default_factory=dict)

    def write(self, event: object) -> dict[str, Json]:
        fields = {name: getattr(event, name) for name in self.readers}
        return fields | {name: write(fields[name]) for name, write in self.writers.items()}

    def read(self, seq: int, timestamp: float, record: Mapping[str, Json]) -> Any:  # noqa: ANN401 - the class is data
        unknown = record.keys() - self.readers.keys()
        if unknown:
            raise ValueError(f"unknown fields {sorted(unknown)}")
        fields = {name: read(record[name]) for name, read in self.readers.items()}
        return self.event(seq, timestamp, **fields)


def _exactly(*kinds: type) -> Reader:
    def read(value: object) -> object:
        if type(value) not in kinds:
            raise TypeError(f"expected {kinds}, got {type(value).__name__}")
        return value

    return read


_text = _exactly(str)
_whole = _exactly(int)
_number = _exactly(float, int)
_flag = _exactly(bool)
_maybe_text = _exactly(str, type(None))
_maybe_whole = _exactly(int, type(None))
_maybe_number = _exactly(float, int, type(None))


def _write_bytes(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _read_bytes(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def _write_result(result: Result) -> Json:
    return {
        "bundle": dict(result.bundle),
        "is_main": result.is_main,
        "omitted": dict(result.omitted),
        "display_id": result.display_id,
        "is_update": result.is_update,
    }


def _read_result(record: Mapping[str, Any]) -> Result:
    return Result(
        bundle=_exactly(dict)(record["bundle"]),
        is_main=_flag(record["is_main"]),
        omitted={mime: _whole(size) for mime, size in record["omitted"].items()},
        display_id=_maybe_text(record["display_id"]),
        is_update=_flag(record["is_update"]),
    )


def _write_error(error: CodeError) -> Json:
    return {
        "name": error.name,
        "value": error.value,
        "traceback": error.traceback,
        "parts": [_write_error(part) for part in error.parts],
    }


def _read_error(record: Mapping[str, Any]) -> CodeError:
    return CodeError(
        name=_text(record["name"]),
        value=_text(record["value"]),
        traceback=_text(record["traceback"]),
        parts=tuple(_read_error(part) for part in record["parts"]),
    )


_ENDING: dict[str, Reader] = {
    "reason": FinishReason,
    "duration": _number,
    "exit_code": _maybe_whole,
    "signal": _maybe_whole,
    "limit": _maybe_text,
    "limit_value": _maybe_number,
    "detail": _maybe_text,
}

_OUTPUT = {
    "output_written": _Form(
        OutputWritten, {"stream": Stream, "data": _read_bytes}, {"data": _write_bytes}
    ),
    "output_dropped": _Form(OutputDropped, {"stream": Stream, "dropped": _whole, "reason": _text}),
}

EXECUTION_CODEC: EventCodec[ExecutionEvent] = EventCodec(
    name="execution",
    streams=frozenset({Stream.STDOUT, Stream.STDERR}),
    terminal=ExecutionFinished,
    forms=_OUTPUT
    | {
        "execution_started": _Form(
            ExecutionStarted,
            {"execution_id": _text, "context_id": _text, "execution_count": _whole},
        ),
        "result_displayed": _Form(
            ResultDisplayed, {"result": _read_result}, {"result": _write_result}
        ),
        "code_raised": _Form(CodeRaised, {"error": _read_error}, {"error": _write_error}),
        "input_requested": _Form(InputRequested, {"prompt": _text, "is_password": _flag}),
        "execution_finished": _Form(ExecutionFinished, _ENDING | {"state_lost": _flag}),
    },
)

PROCESS_CODEC: EventCodec[ProcessEvent] = EventCodec(
    name="process",
    streams=frozenset(Stream),
    terminal=ProcessExited,
    forms=_OUTPUT
    | {
        "process_started": _Form(ProcessStarted, {"process_id": _text, "pid": _whole}),
        "process_exited": _Form(ProcessExited, _ENDING),
    },
)

WATCH_CODEC: EventCodec[WatchEvent] = EventCodec(
    name="watch",
    streams=frozenset(),
    terminal=WatchEnded,
    forms={
        "watch_started": _Form(WatchStarted, {"watch_id": _text, "path": _text}),
        "file_changed": _Form(FileChanged, {"change": FileChange, "path": _text}),
        "changes_dropped": _Form(ChangesDropped, {"detail": _text}),
        "watch_ended": _Form(WatchEnded, {"reason": FinishReason, "detail": _maybe_text}),
    },
)

CODECS: Mapping[str, EventCodec[Any]] = {
    codec.name: codec for codec in (EXECUTION_CODEC, PROCESS_CODEC, WATCH_CODEC)
}
"""Every codec by the name that a log on disk carries."""
