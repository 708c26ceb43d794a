"""The events of an execution as the interpreter's lines of JSON; pure.

Every line is ASCII: clients of this dialect decode each piece of the network by itself, and split
lines at characters such as U+2028.
"""

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias, assert_never

from headrace.adapters.e2b.codec.output import OutputLines
from headrace.model.events import (
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ResultDisplayed,
    Stream,
)
from headrace.model.results import Json, Result
from headrace.model.specs import Language
from headrace.wire.ndjson import encode_json

_KEEPALIVE = b'{"type":"keepalive"}\n'
_END = b'{"type":"end_of_execution"}\n'
RESTARTED = "the context was restarted"
"""What the engine says of an execution that a restart ended."""

Record: TypeAlias = dict[str, Any]
ToldEvent: TypeAlias = (
    ExecutionStarted
    | ResultDisplayed
    | CodeRaised
    | OutputDropped
    | InputRequested
    | ExecutionFinished
)
"""The events that are told one by one."""

_TEXTS: Mapping[str, str] = {
    "text/plain": "text",
    "text/html": "html",
    "text/markdown": "markdown",
    "image/svg+xml": "svg",
    "image/png": "png",
    "image/jpeg": "jpeg",
    "application/pdf": "pdf",
    "text/latex": "latex",
    "application/javascript": "javascript",
}
_OBJECTS: Mapping[str, str] = {
    "application/vnd.headrace.data+json": "data",
    "application/vnd.headrace.chart+json": "chart",
    # What code that was written for the vendor's kernels shows by itself.
    "e2b/data": "data",
    "e2b/chart": "chart",
}
_MICROSECONDS = 26


class ExecutionEncoder:
    """Encodes the events of one execution, in their order.

    An error of the code is held back until the end is known, because there may be only one: a
    bound that was hit says more than the interrupt that the code saw. The vendor's Java kernel
    writes the end of a line by itself, and clients compare what comes with that. R writes what it
    prints word by word, and clients expect lines.
    """

    def __init__(self, language: Language = Language.PYTHON) -> None:
        self._raised: CodeRaised | None = None
        self._output = OutputLines(
            ends_apart=language is Language.JAVA, comes_in_parts=language is Language.R
        )

    def encode(self, events: Iterable[ExecutionEvent]) -> bytes:
        """Give the lines that tell of these events."""
        lines: list[bytes] = []
        for event in events:
            if isinstance(event, OutputWritten):
                lines += [_encode_output(*piece) for piece in self._output.take(event)]
            else:
                lines.append(self._release())
                lines.append(self._encode(event))
        return b"".join(lines)

    def holds(self) -> bool:
        """Say whether output is held back, which `keepalive` gives."""
        return self._output.holds

    def keepalive(self) -> bytes:
        """Give what is to be sent after a silence."""
        return self._release() + _KEEPALIVE

    def _release(self) -> bytes:
        return b"".join([_encode_output(*piece) for piece in self._output.release()])

    def _encode(self, event: ToldEvent) -> bytes:
        match event:
            case ExecutionStarted():
                return _encode_count(event.execution_count)
            case ResultDisplayed():
                return _encode_result(event)
            case CodeRaised():
                self._raised = event
                return b""
            case OutputDropped():
                note = f"[{event.dropped} bytes of output are missing here: {event.reason}]\n"
                return _encode_output(event.stream, note, event.timestamp)
            case InputRequested():
                # Nobody could answer it: executions of this dialect accept no input.
                return b""
            case ExecutionFinished():
                return self._encode_end(event)
            case _:
                assert_never(event)

    def _encode_end(self, event: ExecutionFinished) -> bytes:
        raised, self._raised = self._raised, None
        lines = []
        if event.state_lost and event.reason in (FinishReason.OK, FinishReason.ERROR):
            note = f"[the state of the context was lost: {event.detail}]\n"
            lines.append(_encode_output(Stream.STDERR, note, event.timestamp))
        error = _describe_error(event, raised)
        if error is not None:
            lines.append(_encode_record(error))
        return b"".join((*lines, _END))


# --- lines ----------------------------------------------------------------------------------------


def _encode_output(stream: Stream, text: str, timestamp: float) -> bytes:
    # By hand, as there may be a hundred thousand of them a second.
    line = f'{{"type":"{stream}","text":{json.dumps(text)},"timestamp":"{_format(timestamp)}"}}\n'
    return line.encode("ascii")


def _encode_count(count: int) -> bytes:
    # What never began has no number.
    return b'{"type":"number_of_executions","execution_count":%d}\n' % count if count else b""


def _encode_result(event: ResultDisplayed) -> bytes:
    result = event.result
    line = _encode_record(describe_result(result))
    notes = [
        _encode_output(
            Stream.STDERR,
            f"[{mime} of {size} bytes is too large to be shown and was left out]\n",
            event.timestamp,
        )
        for mime, size in result.omitted.items()
    ]
    return b"".join((line, *notes))


def _encode_record(record: Record) -> bytes:
    try:
        line = encode_json(record)
    except ValueError:
        # Infinity beside a huge integer; a hostile kernel sends it as 1e999.
        line = encode_json(json.loads(json.dumps(record), parse_constant=_as_null))
    if not line.isascii():
        # The fast encoder has made null of infinities, which this one cannot.
        line = json.dumps(json.loads(line), separators=(",", ":")).encode("ascii")
    return line + b"\n"


def _as_null(_constant: str) -> None:
    """Give what JSON has for numbers that are none."""


def _format(timestamp: float) -> str:
    moment = datetime.fromtimestamp(timestamp, UTC)
    return moment.isoformat(timespec="microseconds")[:_MICROSECONDS] + "Z"


# --- results --------------------------------------------------------------------------------------


def describe_result(result: Result) -> Record:
    """Give a result as clients see it.

    A form that is not of the type that its field has is in ``extra``, as all that have no field.
    """
    record: Record = {"type": "result"}
    extra: dict[str, Json] = {}
    for mime, value in result.bundle.items():
        field = _field_of(mime, value)
        if field is None or field in record:
            extra[mime] = value
        else:
            record[field] = value
    if "text" in record:
        record["text"] = _strip_quotes(record["text"])
    record["extra"] = extra
    record["is_main_result"] = result.is_main
    if result.omitted:
        record["omitted"] = dict(result.omitted)
    if result.display_id is not None:
        record["display_id"] = result.display_id
        record["is_update"] = result.is_update
    return record


def _field_of(mime: str, value: Json) -> str | None:
    if isinstance(value, str):
        return _TEXTS.get(mime)
    if isinstance(value, dict) and mime in _OBJECTS:
        return _OBJECTS[mime]
    if isinstance(value, dict | list) and mime == "application/json":
        return "json"
    return None


def _strip_quotes(text: str) -> str:
    """Take one pair of quotes off, as the vendor does."""
    if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"":
        return text[1:-1]
    return text


# --- errors ---------------------------------------------------------------------------------------

_NAMES: Mapping[FinishReason, str] = {
    FinishReason.INTERRUPTED: "ExecutionInterrupted",
    FinishReason.TIMEOUT: "ExecutionTimeout",
    FinishReason.OUTPUT_LIMIT: "OutputLimitExceeded",
    FinishReason.OOM: "UnexpectedEndOfExecution",
    FinishReason.KERNEL_DIED: "UnexpectedEndOfExecution",
    FinishReason.KILLED: "UnexpectedEndOfExecution",
    FinishReason.NODE_LOST: "UnexpectedEndOfExecution",
}
_CAUSES: Mapping[FinishReason, str] = {
    FinishReason.INTERRUPTED: "the execution was interrupted",
    FinishReason.TIMEOUT: "the execution took more time than its limit",
    FinishReason.OUTPUT_LIMIT: "the execution wrote more output than its limit",
    FinishReason.OOM: "the sandbox ran out of memory",
    FinishReason.KERNEL_DIED: "the kernel ended",
    FinishReason.KILLED: "the execution was ended from outside",
    FinishReason.NODE_LOST: "the service went away",
}
_SAID_BY_DETAIL = frozenset({FinishReason.KERNEL_DIED, FinishReason.KILLED})
_UNITS: Mapping[str, str] = {"timeout": " s", "output": " bytes", "memory": " bytes"}


def _describe_error(event: ExecutionFinished, raised: CodeRaised | None) -> Record | None:
    match event.reason:
        case FinishReason.OK | FinishReason.ERROR | FinishReason.INTERRUPTED if raised is not None:
            error = raised.error
            return _make_error(error.name, error.value, error.traceback)
        case FinishReason.OK:
            return None
        case FinishReason.ERROR:
            # Code without exceptions, such as bash: its status is the value.
            status = str(event.exit_code)
            return _make_error("ExitStatus", status, f"exit status {status}")
        case _:
            name, cause = _NAMES[event.reason], _explain(event)
            if event.reason is FinishReason.KILLED and event.detail == RESTARTED:
                name = "ContextRestarting"
            return _make_error(name, cause, raised.error.traceback if raised else cause)


def _explain(event: ExecutionFinished) -> str:
    """Say what ended an execution that did not end by itself."""
    cause = _CAUSES[event.reason]
    if event.limit is not None and event.limit_value is not None:
        cause += f" ({event.limit}: {event.limit_value:.15g}{_UNITS.get(event.limit, '')})"
    parts = [cause] if event.detail is None else [cause, event.detail]
    if event.detail is not None and event.reason in _SAID_BY_DETAIL and event.limit is None:
        parts = [event.detail]
    if event.state_lost:
        parts.append("the state of the context is lost")
    return "; ".join(parts)


def _make_error(name: str, value: str, traceback: str) -> Record:
    return {"type": "error", "name": name, "value": value, "traceback": traceback}
