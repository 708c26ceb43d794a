"""How an execution's end becomes an exit status and a line for people."""

import pytest

from headrace.cli.exit_status import describe, exit_status, signal_name
from headrace.model.events import ExecutionFinished, FinishReason


def finished(reason: FinishReason, **fields: object) -> ExecutionFinished:
    return ExecutionFinished(seq=9, timestamp=1.0, reason=reason, duration=0.5, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("event", "status"),
    [
        (finished(FinishReason.OK), 0),
        (finished(FinishReason.OK, exit_code=0), 0),
        (finished(FinishReason.ERROR), 1),
        (finished(FinishReason.ERROR, exit_code=3), 3),
        (finished(FinishReason.ERROR, exit_code=255), 255),
        (finished(FinishReason.ERROR, exit_code=256), 1),
        (finished(FinishReason.ERROR, exit_code=-1), 255),
        (finished(FinishReason.KERNEL_DIED, exit_code=3), 3),
        (finished(FinishReason.KERNEL_DIED, exit_code=0), 0),
        (finished(FinishReason.KERNEL_DIED, signal=11), 139),
        (finished(FinishReason.KERNEL_DIED, signal=9), 137),
        (finished(FinishReason.KERNEL_DIED), 1),
        (finished(FinishReason.TIMEOUT, limit="timeout", limit_value=5.0), 124),
        (finished(FinishReason.OOM, signal=9), 137),
        (finished(FinishReason.KILLED), 137),
        (finished(FinishReason.OUTPUT_LIMIT), 137),
        (finished(FinishReason.INTERRUPTED), 130),
        (finished(FinishReason.NODE_LOST), 1),
    ],
)
def test_each_end_has_its_status(event: ExecutionFinished, status: int) -> None:
    assert exit_status(event) == status


@pytest.mark.parametrize("reason", list(FinishReason))
def test_every_reason_has_a_status_of_one_byte(reason: FinishReason) -> None:
    assert 0 <= exit_status(finished(reason)) <= 255


@pytest.mark.parametrize("reason", [FinishReason.OK, FinishReason.ERROR])
def test_nothing_is_said_where_the_program_said_it_itself(reason: FinishReason) -> None:
    assert describe(finished(reason, exit_code=3)) is None


@pytest.mark.parametrize(
    "reason", [reason for reason in FinishReason if reason not in {"ok", "error"}]
)
def test_every_other_reason_is_named(reason: FinishReason) -> None:
    said = describe(finished(reason))

    assert said is not None
    assert said.startswith(reason.value)


@pytest.mark.parametrize(
    ("event", "text"),
    [
        (
            finished(FinishReason.KERNEL_DIED, exit_code=3),
            "kernel_died: the program ended its process with exit code 3",
        ),
        (
            finished(FinishReason.KERNEL_DIED, signal=11),
            "kernel_died: the program was ended by SIGSEGV",
        ),
        (
            finished(FinishReason.TIMEOUT, limit="timeout", limit_value=2.5),
            "timeout: the limit timeout is 2.5 seconds",
        ),
        (
            finished(FinishReason.OOM, limit="memory", limit_value=1073741824.0),
            "oom: the limit memory is 1073741824 bytes",
        ),
        (finished(FinishReason.KILLED, detail="the agent died"), "killed: the agent died"),
        (
            finished(FinishReason.KERNEL_DIED, signal=11, detail="it had signal 11"),
            "kernel_died: it had signal 11",
        ),
    ],
)
def test_what_is_known_of_the_end_is_said(event: ExecutionFinished, text: str) -> None:
    assert describe(event) == text


def test_a_signal_without_a_name_is_given_by_its_number() -> None:
    assert signal_name(61) == "signal 61"
