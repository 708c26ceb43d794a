"""Each event has the fields that docs/http-api.md names, in both framings."""

import json

import pytest

from headrace.adapters.native.codec import Event, describe, encode_ndjson, encode_sse
from headrace.model.events import (
    ChangesDropped,
    CodeError,
    CodeRaised,
    ExecutionFinished,
    ExecutionStarted,
    FileChange,
    FileChanged,
    FinishReason,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ProcessExited,
    ProcessStarted,
    ResultDisplayed,
    Stream,
    WatchEnded,
    WatchStarted,
)
from headrace.model.ids import ContextId, ExecutionId, ProcessId, WatchId
from headrace.model.results import Result

AT = 1700000000.1234567
END = {
    "duration": 0.5,
    "exit_code": 3,
    "signal": None,
    "limit": "timeout",
    "limit_value": 2.0,
    "detail": "why",
}

EVENTS: list[tuple[Event, dict[str, object]]] = [
    (
        ExecutionStarted(1, AT, ExecutionId("x"), ContextId("c"), 7),
        {"type": "started", "id": "x", "context_id": "c", "execution_count": 7},
    ),
    (
        OutputWritten(2, AT, Stream.STDOUT, "grüße\n".encode()),
        {"type": "stdout", "text": "grüße\n"},
    ),
    (OutputWritten(2, AT, Stream.STDERR, b"a"), {"type": "stderr", "text": "a"}),
    (
        OutputWritten(2, AT, Stream.PTY, b"a\xff"),
        {"type": "pty", "text": "a\ufffd", "base64": "Yf8="},
    ),
    (
        OutputDropped(3, AT, Stream.STDOUT, 10, "output limit"),
        {"type": "output_dropped", "stream": "stdout", "dropped": 10, "reason": "output limit"},
    ),
    (
        ResultDisplayed(4, AT, Result({"text/plain": "2"}, True, {"image/png": 9}, "d", True)),
        {
            "type": "result",
            "text": "2",
            "is_main": True,
            "bundle": {"text/plain": "2"},
            "omitted": {"image/png": 9},
            "display_id": "d",
            "is_update": True,
        },
    ),
    (
        ResultDisplayed(4, AT, Result({"image/png": "AA=="})),
        {
            "type": "result",
            "text": None,
            "is_main": False,
            "bundle": {"image/png": "AA=="},
            "omitted": {},
            "display_id": None,
            "is_update": False,
        },
    ),
    (
        CodeRaised(5, AT, CodeError("E", "v", "t", (CodeError("F", "w", "u"),))),
        {
            "type": "error",
            "name": "E",
            "value": "v",
            "traceback": "t",
            "parts": [{"name": "F", "value": "w", "traceback": "u", "parts": []}],
        },
    ),
    (
        InputRequested(6, AT, "name? ", True),
        {"type": "input_requested", "prompt": "name? ", "is_password": True},
    ),
    (
        ExecutionFinished(7, AT, FinishReason.TIMEOUT, 0.5, 3, None, True, "timeout", 2.0, "why"),
        {"type": "finished", "reason": "timeout", "state_lost": True, **END},
    ),
    (ProcessStarted(1, AT, ProcessId("p"), 9), {"type": "started", "id": "p", "pid": 9}),
    (
        ProcessExited(2, AT, FinishReason.ERROR, 0.5, 3, None, "timeout", 2.0, "why"),
        {"type": "exited", "reason": "error", **END},
    ),
    (WatchStarted(1, AT, WatchId("w"), "/a"), {"type": "started", "id": "w", "path": "/a"}),
    (
        FileChanged(2, AT, FileChange.CREATED, "b"),
        {"type": "changed", "change": "created", "path": "b"},
    ),
    (ChangesDropped(3, AT, "many"), {"type": "changes_dropped", "detail": "many"}),
    (
        WatchEnded(4, AT, FinishReason.KILLED, "gone"),
        {"type": "ended", "reason": "killed", "detail": "gone"},
    ),
]


@pytest.mark.parametrize(("event", "fields"), EVENTS, ids=lambda each: type(each).__name__)
def test_an_event_has_exactly_the_fields_of_its_type(
    event: Event, fields: dict[str, object]
) -> None:
    assert describe(event) == {"seq": event.seq, "timestamp": 1700000000.123457, **fields}


def test_every_class_of_events_is_tested_above() -> None:
    assert {type(event) for event, _ in EVENTS} == set(Event.__args__)


def test_lines_are_the_same_objects() -> None:
    events = [event for event, _ in EVENTS]

    lines = encode_ndjson(events).split(b"\n")

    assert lines.pop() == b""
    assert [json.loads(line) for line in lines] == [describe(event) for event in events]


def test_a_server_sent_event_has_number_type_and_object() -> None:
    started, fields = EVENTS[0]
    written, _ = EVENTS[1]

    first, second, rest = encode_sse([started, written]).split(b"\n\n")

    assert rest == b""
    assert first.startswith(b"id: 1\nevent: started\ndata: {")
    assert second.startswith(b"id: 2\nevent: stdout\ndata: {")
    data = json.loads(first.partition(b"data: ")[2])
    assert data == {"seq": 1, "timestamp": 1700000000.123457, **fields}


def test_a_value_that_the_fast_encoder_refuses_still_gets_through() -> None:
    huge = 10**40
    event = ResultDisplayed(1, AT, Result({"application/json": huge, "text/plain": "\ud800"}))

    data = json.loads(encode_ndjson([event]))

    assert data["bundle"] == {"application/json": huge, "text/plain": "\ud800"}
