"""The records that logs keep of events."""

import json
from typing import get_args

import pytest

from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    FileChange,
    FileChanged,
    FinishReason,
    OutputDropped,
    OutputWritten,
    ProcessEvent,
    ResultDisplayed,
    Stream,
    WatchEvent,
)
from headrace.model.records import (
    CODECS,
    EXECUTION_CODEC,
    PROCESS_CODEC,
    WATCH_CODEC,
    EventCodec,
    RecordError,
)
from headrace.model.results import Json, Result


@pytest.mark.parametrize(
    ("codec", "union"),
    [(EXECUTION_CODEC, ExecutionEvent), (PROCESS_CODEC, ProcessEvent), (WATCH_CODEC, WatchEvent)],
    ids=["execution", "process", "watch"],
)
def test_every_event_of_a_union_has_a_record(codec: EventCodec[object], union: object) -> None:
    assert {form.event for form in codec.forms.values()} == set(get_args(union))
    assert codec.terminal in get_args(union)


def test_codecs_are_found_by_their_names() -> None:
    assert {name: codec.name for name, codec in CODECS.items()} == {
        "execution": "execution",
        "process": "process",
        "watch": "watch",
    }


def test_a_record_has_neither_number_nor_time() -> None:
    event = OutputDropped(7, 12.5, Stream.STDERR, 99, "output limit")
    assert json.loads(EXECUTION_CODEC.encode(event)) == {
        "type": "output_dropped",
        "stream": "stderr",
        "dropped": 99,
        "reason": "output limit",
    }


def test_the_log_gives_number_and_time_back() -> None:
    event = FileChanged(7, 12.5, FileChange.RENAMED, "a/b")
    assert WATCH_CODEC.decode(8, 13.5, WATCH_CODEC.encode(event)) == FileChanged(
        8, 13.5, FileChange.RENAMED, "a/b"
    )


def test_output_of_any_bytes_survives() -> None:
    event = OutputWritten(1, 2.0, Stream.STDOUT, bytes(range(256)))
    assert EXECUTION_CODEC.decode(1, 2.0, EXECUTION_CODEC.encode(event)) == event


def test_a_result_survives_with_all_that_it_says() -> None:
    bundle: dict[str, Json] = {"text/plain": "1\ud800", "application/json": {"a": [1, None, 2.5]}}
    event = ResultDisplayed(1, 2.0, Result(bundle, True, {"image/png": 10**9}, "plot", True))
    assert EXECUTION_CODEC.decode(1, 2.0, EXECUTION_CODEC.encode(event)) == event


def test_the_parts_of_an_error_survive() -> None:
    parts = (CodeError("KeyError", "'a'", "…"), CodeError("ValueError", "b", "", ()))
    event = CodeRaised(1, 2.0, CodeError("ExceptionGroup", "two", "Traceback\n", parts))
    assert EXECUTION_CODEC.decode(1, 2.0, EXECUTION_CODEC.encode(event)) == event


def test_a_record_is_pure_ascii() -> None:
    event = FileChanged(1, 2.0, FileChange.CREATED, "ä\n🎉")
    assert WATCH_CODEC.encode(event).isascii()


def test_an_event_of_another_union_is_refused() -> None:
    event = ExecutionFinished(1, 2.0, FinishReason.OK, 0.5)
    with pytest.raises(RecordError, match="ExecutionFinished is no event of the codec process"):
        PROCESS_CODEC.encode(event)  # type: ignore[arg-type]  # that is the point


def test_a_value_that_is_not_json_is_refused() -> None:
    event = ResultDisplayed(1, 2.0, Result({"text/plain": object()}))  # type: ignore[dict-item]
    with pytest.raises(RecordError, match="ResultDisplayed is not JSON"):
        EXECUTION_CODEC.encode(event)


@pytest.mark.parametrize(
    ("record", "complaint"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "expected an object"),
        (b"{}", "unknown to execution"),
        (b'{"type": []}', "unknown to execution"),
        (b'{"type": "process_started"}', "unknown to execution"),
        (b'{"type": "output_dropped", "stream": "stdout", "dropped": 1}', "reason"),
        (b'{"type": "output_dropped", "stream": "x", "dropped": 1, "reason": ""}', "'x'"),
        (b'{"type": "output_dropped", "stream": "pty", "dropped": true, "reason": ""}', "bool"),
        (b'{"type": "input_requested", "prompt": "", "is_password": false, "x": 1}', "unknown"),
        (b'{"type": "output_written", "stream": "stdout", "data": "*"}', "base64"),
        (b'{"type": "code_raised", "error": 1}', "not a valid code_raised"),
        (b'{"type": "result_displayed", "result": {"bundle": []}}', "list"),
    ],
)
def test_what_is_not_a_record_is_refused_with_a_reason(record: bytes, complaint: str) -> None:
    with pytest.raises(RecordError, match="event 5") as caught:
        EXECUTION_CODEC.decode(5, 1.0, record)
    assert complaint in str(caught.value)
