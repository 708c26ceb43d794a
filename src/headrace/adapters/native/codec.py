"""Events of the engine to the events of the API; pure. docs/http-api.md has the fields."""

import base64
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias, assert_never

from headrace.model.events import (
    ChangesDropped,
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FileChanged,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
    ResultDisplayed,
    WatchEnded,
    WatchEvent,
    WatchStarted,
)
from headrace.model.results import Result
from headrace.wire import sse
from headrace.wire.ndjson import encode_json

Event: TypeAlias = ExecutionEvent | ProcessEvent | WatchEvent
Record: TypeAlias = dict[str, Any]
EncodeBatch: TypeAlias = Callable[[Iterable[Event]], bytes]

_DECIMALS = 6


def describe(event: Event) -> Record:
    """Give an event as the object that clients see."""
    record = {
        "type": name_of(event),
        "seq": event.seq,
        "timestamp": round(event.timestamp, _DECIMALS),
    }
    match event:
        case OutputWritten():
            record.update(describe_bytes("text", "base64", event.data))
        case OutputDropped():
            record.update(stream=event.stream, dropped=event.dropped, reason=event.reason)
        case ExecutionFinished() | ProcessExited():
            record.update(describe_end(event))
        case ProcessStarted():
            record.update(id=event.process_id, pid=event.pid)
        case WatchStarted() | FileChanged() | ChangesDropped() | WatchEnded():
            record.update(_describe_watched(event))
        case _:
            record.update(_describe_told(event))
    return record


def _describe_told(
    event: ExecutionStarted | ResultDisplayed | CodeRaised | InputRequested,
) -> Record:
    match event:
        case ExecutionStarted():
            return {
                "id": event.execution_id,
                "context_id": event.context_id,
                "execution_count": event.execution_count,
            }
        case ResultDisplayed():
            return _describe_result(event.result)
        case CodeRaised():
            return _describe_error(event.error)
        case InputRequested():
            return {"prompt": event.prompt, "is_password": event.is_password}
        case _:
            assert_never(event)


def _describe_watched(event: WatchEvent) -> Record:
    match event:
        case WatchStarted():
            return {"id": event.watch_id, "path": event.path}
        case FileChanged():
            return {"change": event.change, "path": event.path}
        case ChangesDropped():
            return {"detail": event.detail}
        case WatchEnded():
            return {"reason": event.reason, "detail": event.detail}
        case _:
            assert_never(event)


def name_of(event: Event) -> str:
    """Give the type of an event, as clients know it."""
    return event.stream if isinstance(event, OutputWritten) else _NAMES[type(event)]


_NAMES: Mapping[type, str] = {
    ExecutionStarted: "started",
    OutputDropped: "output_dropped",
    ResultDisplayed: "result",
    CodeRaised: "error",
    InputRequested: "input_requested",
    ExecutionFinished: "finished",
    ProcessStarted: "started",
    ProcessExited: "exited",
    WatchStarted: "started",
    FileChanged: "changed",
    ChangesDropped: "changes_dropped",
    WatchEnded: "ended",
}


def encode_sse(events: Iterable[Event]) -> bytes:
    """Give events as server-sent ones; each has its number as the id."""
    parts: list[bytes] = []
    for event in events:
        # Long output is copied once, by the join.
        begin = sse.begin_event(name_of(event), event.seq)
        parts += (begin, encode_json(describe(event)), sse.END)
    return b"".join(parts)


def encode_ndjson(events: Iterable[Event]) -> bytes:
    """Give events as lines of JSON."""
    lines = [encode_json(describe(event)) for event in events]
    lines.append(b"")
    return b"\n".join(lines)


def describe_end(event: ExecutionFinished | ProcessExited) -> Record:
    """Give why something ended, and what that cost."""
    record = {
        "reason": event.reason,
        "duration": round(event.duration, _DECIMALS),
        "exit_code": event.exit_code,
        "signal": event.signal,
        "limit": event.limit,
        "limit_value": event.limit_value,
        "detail": event.detail,
    }
    if isinstance(event, ExecutionFinished):
        record["state_lost"] = event.state_lost
    return record


def describe_bytes(text_name: str, exact_name: str, data: bytes) -> Record:
    """Give bytes as text and, if they are not UTF-8, also exactly."""
    try:
        return {text_name: data.decode()}
    except UnicodeDecodeError:
        exact = base64.b64encode(data).decode("ascii")
        return {text_name: data.decode("utf-8", "replace"), exact_name: exact}


def describe_time(seconds: float) -> float:
    """Give a point in time as clients see it."""
    return round(seconds, _DECIMALS)


def _describe_result(result: Result) -> Record:
    return {
        "text": result.text,
        "is_main": result.is_main,
        "bundle": dict(result.bundle),
        "omitted": dict(result.omitted),
        "display_id": result.display_id,
        "is_update": result.is_update,
    }


def _describe_error(error: CodeError) -> Record:
    return {
        "name": error.name,
        "value": error.value,
        "traceback": error.traceback,
        "parts": [_describe_error(part) for part in error.parts],
    }
