"""What the process service sends for the events of a process."""

from pathlib import Path

import pytest

from headrace.adapters.e2b.codec.processes import KEEPALIVE, ProcessEncoder, encode_start
from headrace.model.events import (
    FinishReason,
    OutputDropped,
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
    Stream,
)
from headrace.model.ids import ProcessId
from tests.support.golden import check_golden, show_envelopes

HERE = Path(__file__).parent
STARTED = ProcessStarted(1, 1.0, ProcessId("p"), 1234)


def exited(reason: FinishReason, **fields: object) -> ProcessExited:
    return ProcessExited(9, 2.0, reason, 1.0, **fields)  # type: ignore[arg-type]  # as they are given


EXCHANGES: dict[str, list[ProcessEvent]] = {
    "success": [
        STARTED,
        OutputWritten(2, 1.0, Stream.STDOUT, b"hello\n"),
        OutputWritten(3, 1.0, Stream.STDERR, "grüße\n".encode()),
        exited(FinishReason.OK, exit_code=0),
    ],
    "failure": [STARTED, exited(FinishReason.ERROR, exit_code=3)],
    "terminal": [
        STARTED,
        OutputWritten(2, 1.0, Stream.PTY, b"\x1b[1m$ \xff\x00\r\n"),
        exited(FinishReason.OK, exit_code=0),
    ],
    "killed": [STARTED, exited(FinishReason.KILLED, signal=9)],
    "crashed": [STARTED, exited(FinishReason.ERROR, signal=11)],
    "deadline": [
        STARTED,
        OutputWritten(2, 1.0, Stream.STDOUT, b"before"),
        exited(FinishReason.TIMEOUT, signal=9, limit="timeout", limit_value=1.5),
    ],
    "out_of_memory": [
        STARTED,
        exited(
            FinishReason.OOM,
            signal=9,
            limit="memory",
            limit_value=1024.0,
            detail="the sandbox ran out of memory",
        ),
    ],
    "output_limit": [
        STARTED,
        OutputWritten(2, 1.0, Stream.STDOUT, b"as much as fits"),
        OutputDropped(3, 1.0, Stream.STDOUT, 77, "output limit"),
        exited(FinishReason.OUTPUT_LIMIT, signal=9, limit="output", limit_value=1024.0),
    ],
    "lost_output": [
        STARTED,
        OutputDropped(2, 1.0, Stream.STDERR, 5, "log disk too slow"),
        exited(FinishReason.OK, exit_code=0),
    ],
}


@pytest.mark.parametrize("name", EXCHANGES)
def test_the_events_of_a_process_are_told_as_recorded(name: str) -> None:
    body = ProcessEncoder().encode(EXCHANGES[name])

    check_golden(HERE / f"process_{name}.txt", show_envelopes(body))


def test_a_process_that_is_joined_late_is_told_as_recorded() -> None:
    encoder = ProcessEncoder()
    output = OutputWritten(7, 1.0, Stream.STDOUT, b"late\n")
    body = encode_start(1234) + KEEPALIVE + encoder.encode([output])

    body += encoder.encode([exited(FinishReason.OK, exit_code=0)])

    check_golden(HERE / "process_joined.txt", show_envelopes(body))
