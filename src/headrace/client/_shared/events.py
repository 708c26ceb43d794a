"""Events as the API writes them (docs/http-api.md) to those of `headrace.model.events`."""

import base64
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from headrace.client._shared.fields import FieldError, Fields
from headrace.client._shared.values import Ending
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
from headrace.model.ids import ContextId, ExecutionId, ProcessId, WatchId
from headrace.model.results import Result

E = TypeVar("E")

_MAX_DEPTH = 32

_Reader = Callable[[int, float, Fields], Any]


@dataclass(frozen=True)
class EventKind(Generic[E]):
    """One union of events: how each type is read, and which class ends the stream.

    ``header`` names the log in the answer that begins it, ``path`` is where logs are found.
    """

    name: str
    path: str
    header: str
    terminal: type
    readers: Mapping[str, _Reader]

    def read(self, record: Mapping[str, Any], seq: int) -> E | None:
        """Give the event with the number ``seq``, or None for a type that is newer than we are.

        Raises FieldError, or ValueError of the enums, for what is not as the API says.
        """
        kind = record.get("type")
        fields = Fields(f"the {kind} event {seq}", record)
        read = self.readers.get(kind) if isinstance(kind, str) else None
        if read is None:
            fields.text("type")
            return None
        event: E = read(seq, fields.number("timestamp"), fields)
        return event


def _written(stream: Stream) -> _Reader:
    def read(seq: int, timestamp: float, fields: Fields) -> OutputWritten:
        exact = fields.any("base64")
        if exact is None:
            data = fields.text("text").encode()
        else:
            data = base64.b64decode(fields.text("base64"), validate=True)
        return OutputWritten(seq, timestamp, stream, data)

    return read


def _dropped(seq: int, timestamp: float, fields: Fields) -> OutputDropped:
    stream = Stream(fields.text("stream"))
    return OutputDropped(seq, timestamp, stream, fields.whole("dropped"), fields.text("reason"))


def read_ending(fields: Fields) -> Ending:
    """Give the fields that every terminal event of executions and processes has."""
    return Ending(
        reason=FinishReason(fields.text("reason")),
        duration=fields.number("duration"),
        exit_code=fields.maybe("exit_code", fields.whole),
        signal=fields.maybe("signal", fields.whole),
        state_lost=fields.flag("state_lost", default=False),
        limit=fields.maybe("limit", fields.text),
        limit_value=fields.maybe("limit_value", fields.number),
        detail=fields.maybe("detail", fields.text),
    )


def _started(seq: int, timestamp: float, fields: Fields) -> ExecutionStarted:
    return ExecutionStarted(
        seq,
        timestamp,
        ExecutionId(fields.text("id")),
        ContextId(fields.text("context_id")),
        fields.whole("execution_count"),
    )


def _result(seq: int, timestamp: float, fields: Fields) -> ResultDisplayed:
    result = Result(
        bundle=fields.plain("bundle"),
        is_main=fields.flag("is_main"),
        omitted=fields.mapping("omitted", int),
        display_id=fields.maybe("display_id", fields.text),
        is_update=fields.flag("is_update"),
    )
    return ResultDisplayed(seq, timestamp, result)


def _code_error(fields: Fields, depth: int = 0) -> CodeError:
    if depth > _MAX_DEPTH:
        raise FieldError(f"an exception group is nested more than {_MAX_DEPTH} times")
    parts = (_code_error(Fields("a part", part), depth + 1) for part in fields.items("parts"))
    return CodeError(
        fields.text("name"), fields.text("value"), fields.text("traceback"), tuple(parts)
    )


def _raised(seq: int, timestamp: float, fields: Fields) -> CodeRaised:
    return CodeRaised(seq, timestamp, _code_error(fields))


def _input(seq: int, timestamp: float, fields: Fields) -> InputRequested:
    return InputRequested(seq, timestamp, fields.text("prompt"), fields.flag("is_password"))


def _finished(seq: int, timestamp: float, fields: Fields) -> ExecutionFinished:
    ending = read_ending(fields)
    return ExecutionFinished(
        seq,
        timestamp,
        reason=ending.reason,
        duration=ending.duration,
        exit_code=ending.exit_code,
        signal=ending.signal,
        state_lost=ending.state_lost,
        limit=ending.limit,
        limit_value=ending.limit_value,
        detail=ending.detail,
    )


def _process_started(seq: int, timestamp: float, fields: Fields) -> ProcessStarted:
    return ProcessStarted(seq, timestamp, ProcessId(fields.text("id")), fields.whole("pid"))


def _exited(seq: int, timestamp: float, fields: Fields) -> ProcessExited:
    ending = read_ending(fields)
    return ProcessExited(
        seq,
        timestamp,
        reason=ending.reason,
        duration=ending.duration,
        exit_code=ending.exit_code,
        signal=ending.signal,
        limit=ending.limit,
        limit_value=ending.limit_value,
        detail=ending.detail,
    )


def _watch_started(seq: int, timestamp: float, fields: Fields) -> WatchStarted:
    return WatchStarted(seq, timestamp, WatchId(fields.text("id")), fields.text("path"))


def _changed(seq: int, timestamp: float, fields: Fields) -> FileChanged:
    return FileChanged(seq, timestamp, FileChange(fields.text("change")), fields.text("path"))


def _changes_dropped(seq: int, timestamp: float, fields: Fields) -> ChangesDropped:
    return ChangesDropped(seq, timestamp, fields.text("detail"))


def _watch_ended(seq: int, timestamp: float, fields: Fields) -> WatchEnded:
    reason = FinishReason(fields.text("reason"))
    return WatchEnded(seq, timestamp, reason, fields.maybe("detail", fields.text))


EXECUTION: EventKind[ExecutionEvent] = EventKind(
    "execution",
    "/v1/executions",
    "headrace-execution-id",
    ExecutionFinished,
    {
        "started": _started,
        "stdout": _written(Stream.STDOUT),
        "stderr": _written(Stream.STDERR),
        "output_dropped": _dropped,
        "result": _result,
        "error": _raised,
        "input_requested": _input,
        "finished": _finished,
    },
)

PROCESS: EventKind[ProcessEvent] = EventKind(
    "process",
    "/v1/processes",
    "headrace-process-id",
    ProcessExited,
    {
        "started": _process_started,
        "stdout": _written(Stream.STDOUT),
        "stderr": _written(Stream.STDERR),
        "pty": _written(Stream.PTY),
        "output_dropped": _dropped,
        "exited": _exited,
    },
)

WATCH: EventKind[WatchEvent] = EventKind(
    "watch",
    "/v1/watches",
    "headrace-watch-id",
    WatchEnded,
    {
        "started": _watch_started,
        "changed": _changed,
        "changes_dropped": _changes_dropped,
        "ended": _watch_ended,
    },
)
