"""The lines of whole executions, byte for byte as they were recorded."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from headrace.adapters.e2b.codec.execution import ExecutionEncoder
from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    OutputDropped,
    OutputWritten,
    ResultDisplayed,
    Stream,
)
from headrace.model.ids import ContextId, ExecutionId
from headrace.model.results import Json, Result
from tests.support.golden import check_golden

FILES = Path(__file__).parent / "interpreter"
AT = 1795230116.889582
STARTED = ExecutionStarted(1, AT, ExecutionId("x"), ContextId("c"), 1)
BAR: Json = {
    "type": "bar",
    "title": "Values by Category",
    "elements": [{"label": "Category A", "group": "Group 0", "value": 10.0}],
    "x_label": "Categories",
    "y_label": "Values",
    "x_unit": None,
    "y_unit": None,
}


def written(text: str | bytes, later: float = 0.0, stream: Stream = Stream.STDOUT) -> OutputWritten:
    data = text if isinstance(text, bytes) else text.encode()
    return OutputWritten(2, AT + later, stream, data)


def finished(reason: FinishReason = FinishReason.OK, **fields: object) -> ExecutionFinished:
    return ExecutionFinished(9, AT + 3, reason, 3.0, **fields)  # type: ignore[arg-type]  # as given


TRANSCRIPTS: Mapping[str, Sequence[ExecutionEvent]] = {
    "streams": (
        STARTED,
        written("This goes first to stdout\n"),
        written("This goes later to stderr\n", 1.000532, Stream.STDERR),
        written("This goes last\n", 2),
        finished(),
    ),
    "text": (
        STARTED,
        written('grüße "quoted" \\ \u2028\x85 😀\t\x1b[0m\r\n'),
        written(b"\xff\xfe"),
        OutputDropped(4, AT, Stream.STDOUT, 12, "the output limit"),
        finished(),
    ),
    "results": (
        STARTED,
        ResultDisplayed(
            2,
            AT,
            Result(
                {
                    "text/plain": "<Figure size 1000x600 with 1 Axes>",
                    "image/png": "iVBORw0",
                    "application/vnd.headrace.chart+json": BAR,
                }
            ),
        ),
        ResultDisplayed(
            3,
            AT,
            Result(
                {
                    "text/plain": "   a\n0  é",
                    "text/html": "<table></table>",
                    "application/vnd.headrace.data+json": {"a": ["é", None, 1.5]},
                    "application/x-other": [1],
                },
                is_main=True,
                omitted={"image/svg+xml": 9_000_000},
            ),
        ),
        finished(),
    ),
    "error": (
        STARTED,
        CodeRaised(2, AT, CodeError("ZeroDivisionError", "division by zero", "Traceback\n  1/0\n")),
        finished(FinishReason.ERROR),
    ),
    "death": (
        STARTED,
        written("before\n"),
        finished(
            FinishReason.KERNEL_DIED,
            exit_code=7,
            state_lost=True,
            detail="the kernel exited with status 7",
        ),
    ),
    "limit": (
        STARTED,
        CodeRaised(2, AT, CodeError("KeyboardInterrupt", "", "Traceback\nKeyboardInterrupt")),
        finished(FinishReason.OUTPUT_LIMIT, limit="output", limit_value=1048576),
    ),
}


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_an_execution_is_told_as_it_was_recorded(name: str) -> None:
    told = ExecutionEncoder().encode(TRANSCRIPTS[name])
    check_golden(FILES / f"{name}.ndjson", told.decode("ascii"))


def test_every_file_belongs_to_an_execution() -> None:
    assert {path.stem for path in FILES.iterdir()} == set(TRANSCRIPTS)
