"""Outcomes collected from events, and their bound."""

from headrace.client._shared.outcome import CommandCollector, ExecutionCollector
from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    OutputDropped,
    OutputWritten,
    ProcessExited,
    ProcessStarted,
    ResultDisplayed,
    Stream,
)
from headrace.model.ids import ContextId, ExecutionId, ProcessId
from headrace.model.results import Result

ID = ExecutionId("e")
STARTED = ExecutionStarted(1, 1.0, ID, ContextId("c"), 4)
FINISHED = ExecutionFinished(9, 2.0, FinishReason.ERROR, 0.5, exit_code=3)


def out(text: bytes, stream: Stream = Stream.STDOUT) -> OutputWritten:
    return OutputWritten(2, 1.0, stream, text)


def shown(text: str, is_main: bool = False) -> ResultDisplayed:
    return ResultDisplayed(3, 1.0, Result({"text/plain": text}, is_main=is_main))


def collect(*events: ExecutionEvent, maximum: int = 1000) -> ExecutionCollector:
    collector = ExecutionCollector(maximum)
    for event in events:
        collector.add(event)
    return collector


def test_everything_is_collected() -> None:
    error = CodeError("E", "v", "t")
    dropped = OutputDropped(4, 1.0, Stream.STDERR, 7, "limit")
    outcome = collect(
        STARTED,
        out(b"a\xc3"),
        out(b"e", Stream.STDERR),
        out(b"\xa9b"),
        shown("first"),
        shown("last", is_main=True),
        CodeRaised(5, 1.0, error),
        dropped,
    ).finish(ID, FINISHED)

    assert (outcome.stdout, outcome.stderr, outcome.text) == ("aéb", "e", "last")
    assert outcome.error == error
    assert outcome.dropped == (dropped,)
    assert (outcome.context_id, outcome.execution_count) == ("c", 4)
    assert (outcome.reason, outcome.exit_code, outcome.last_seq) == (FinishReason.ERROR, 3, 9)
    assert outcome.not_kept == 0
    assert not outcome.is_ok


def test_code_that_never_began_has_an_outcome() -> None:
    outcome = collect().finish(ID, FINISHED)

    assert (outcome.id, outcome.context_id, outcome.execution_count) == ("e", None, None)
    assert (outcome.stdout, outcome.text) == ("", None)


def test_what_is_too_much_is_counted_and_not_kept() -> None:
    outcome = collect(out(b"12345"), out(b"678901"), out(b"x"), shown("y" * 20), maximum=10).finish(
        ID, FINISHED
    )

    assert outcome.stdout == "12345"
    assert outcome.results == ()
    assert outcome.not_kept == 6 + 1 + len("text/plain") + 20


def test_a_result_counts_with_all_its_forms() -> None:
    big = Result({"image/png": "x" * 500, "application/json": {"a": ["b" * 500]}})
    outcome = collect(ResultDisplayed(1, 1.0, big), maximum=1000).finish(ID, FINISHED)

    assert outcome.results == ()
    assert outcome.not_kept > 1000


def test_a_command_is_ok_if_it_ended_with_status_0() -> None:
    collector = CommandCollector()
    collector.add(ProcessStarted(1, 1.0, ProcessId("p"), 7))
    collector.add(out(b"shown", Stream.PTY))

    ended = collector.finish(ProcessId("p"), ProcessExited(2, 1.0, FinishReason.OK, 0.1, 0))
    failed = collector.finish(ProcessId("p"), ProcessExited(2, 1.0, FinishReason.ERROR, 0.1, 1))

    assert (ended.pid, ended.stdout, ended.is_ok) == (7, "shown", True)
    assert not failed.is_ok
