"""The outcome has everything that the events had, within its bound."""

import json

import pytest

from headrace.adapters.native.outcome import Outcome
from headrace.model.errors import OutputTooLargeError
from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    OutputDropped,
    OutputWritten,
    ProcessExited,
    ProcessStarted,
    ResultDisplayed,
    Stream,
    WatchStarted,
)
from headrace.model.ids import ContextId, ExecutionId, ProcessId, WatchId
from headrace.model.results import Result

STARTED = ExecutionStarted(1, 100.0, ExecutionId("x"), ContextId("c"), 2)


def test_an_execution_is_told_completely() -> None:
    outcome = Outcome("x", 1000)
    raised = CodeRaised(5, 100.3, CodeError("E", "v", "t"))

    outcome.take([STARTED, OutputWritten(2, 100.1, Stream.STDOUT, b"a\xc3")])
    outcome.take([OutputWritten(3, 100.2, Stream.STDOUT, b"\xa4b")])
    outcome.take([ResultDisplayed(4, 100.2, Result({"text/plain": "2"})), raised])
    outcome.take([OutputDropped(6, 100.4, Stream.STDERR, 5, "limit")])
    outcome.take([ExecutionFinished(7, 100.5, FinishReason.ERROR, 0.5)])

    assert json.loads(outcome.encode()) == {
        "id": "x",
        "context_id": "c",
        "execution_count": 2,
        "reason": "error",
        "duration": 0.5,
        "exit_code": None,
        "signal": None,
        "state_lost": False,
        "limit": None,
        "limit_value": None,
        "detail": None,
        "stdout": "aäb",
        "stderr": "",
        "results": [
            {
                "type": "result",
                "seq": 4,
                "timestamp": 100.2,
                "text": "2",
                "is_main": False,
                "bundle": {"text/plain": "2"},
                "omitted": {},
                "display_id": None,
                "is_update": False,
            }
        ],
        "error": {
            "type": "error",
            "seq": 5,
            "timestamp": 100.3,
            "name": "E",
            "value": "v",
            "traceback": "t",
            "parts": [],
        },
        "dropped": [
            {
                "type": "output_dropped",
                "seq": 6,
                "timestamp": 100.4,
                "stream": "stderr",
                "dropped": 5,
                "reason": "limit",
            }
        ],
        "last_seq": 7,
    }
    assert (outcome.started_at, outcome.first_at, outcome.ended_at) == (100.0, 100.1, 100.5)


def test_output_that_is_not_utf8_is_there_exactly_too() -> None:
    outcome = Outcome("x", 1000)

    outcome.take([STARTED, OutputWritten(2, 100.1, Stream.STDERR, b"a\xff")])
    outcome.take([ExecutionFinished(3, 100.5, FinishReason.OK, 0.5)])

    told = json.loads(outcome.encode())
    assert told["stderr"] == "a\ufffd"
    assert told["stderr_base64"] == "Yf8="
    assert "stdout_base64" not in told


def test_a_process_with_a_terminal_has_one_stream() -> None:
    outcome = Outcome("p", 1000, (Stream.PTY,), is_process=True)

    outcome.take([ProcessStarted(1, 100.0, ProcessId("p"), 9)])
    outcome.take([OutputWritten(2, 100.1, Stream.PTY, b"$ ")])
    outcome.take([ProcessExited(3, 100.5, FinishReason.OK, 0.5, 0)])

    assert json.loads(outcome.encode()) == {
        "id": "p",
        "pid": 9,
        "reason": "ok",
        "duration": 0.5,
        "exit_code": 0,
        "signal": None,
        "limit": None,
        "limit_value": None,
        "detail": None,
        "pty": "$ ",
        "dropped": [],
        "last_seq": 3,
    }


def test_output_above_the_bound_is_refused_and_names_the_execution() -> None:
    outcome = Outcome("x", 10)
    outcome.take([STARTED, OutputWritten(2, 100.1, Stream.STDOUT, b"x" * 10)])

    with pytest.raises(OutputTooLargeError, match="more than 10 bytes") as caught:
        outcome.take([OutputWritten(3, 100.1, Stream.STDERR, b"x")])

    assert caught.value.details == {"id": "x", "maximum": 10}


@pytest.mark.parametrize(
    "event",
    [
        ResultDisplayed(2, 1.0, Result({"image/png": "A" * 200})),
        CodeRaised(2, 1.0, CodeError("E", "v" * 200, "")),
    ],
)
def test_results_and_errors_count_too(event: ResultDisplayed | CodeRaised) -> None:
    with pytest.raises(OutputTooLargeError):
        Outcome("x", 200).take([event])


def test_a_huge_number_in_a_result_gets_through() -> None:
    outcome = Outcome("x", 1000)

    outcome.take([STARTED, ResultDisplayed(2, 1.0, Result({"application/json": 10**30}))])

    assert json.loads(outcome.encode())["results"][0]["bundle"]["application/json"] == 10**30


def test_the_events_of_a_watch_have_no_outcome() -> None:
    with pytest.raises(TypeError, match="WatchStarted"):
        Outcome("x", 10).take([WatchStarted(1, 1.0, WatchId("w"), "/a")])
