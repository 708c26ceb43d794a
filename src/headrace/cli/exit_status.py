"""From the way an execution ended to an exit status and a line for people."""

import signal
from typing import assert_never

from headrace.model.events import ExecutionFinished, FinishReason

USAGE = 2
TIME_LIMIT = 124
FAILED = 125
"""Headrace itself failed, as with timeout(1): the program did not run, or not to its end."""
INTERRUPTED = 130
KILLED = 137
READER_GONE = 141
_UNCAUGHT = 1


def exit_status(finished: ExecutionFinished) -> int:
    """Give the exit status of a program that ended like this."""
    match finished.reason:
        case FinishReason.OK:
            return (finished.exit_code or 0) & 0xFF
        case FinishReason.ERROR:
            # sys.exit(256) is an error all the same, so its low byte is not taken at its word.
            return (finished.exit_code or 0) & 0xFF or _UNCAUGHT
        case FinishReason.INTERRUPTED:
            return INTERRUPTED
        case FinishReason.TIMEOUT:
            return TIME_LIMIT
        case FinishReason.OOM | FinishReason.OUTPUT_LIMIT | FinishReason.KILLED:
            return KILLED
        case FinishReason.NODE_LOST:
            return _UNCAUGHT
        case FinishReason.KERNEL_DIED:
            return _status_of_death(finished)
        case _:
            assert_never(finished.reason)


def _status_of_death(finished: ExecutionFinished) -> int:
    if finished.signal is not None:
        return 128 + (finished.signal & 0x7F)
    if finished.exit_code is not None:
        return finished.exit_code & 0xFF
    return _UNCAUGHT


def describe(finished: ExecutionFinished) -> str | None:
    """Name the reason and what is known of it; None where the program's own output says all."""
    if finished.reason in {FinishReason.OK, FinishReason.ERROR}:
        return None
    facts = [fact for fact in (_limit(finished), finished.detail or _death(finished)) if fact]
    return f"{finished.reason}: {'; '.join(facts)}" if facts else str(finished.reason)


def _limit(finished: ExecutionFinished) -> str | None:
    if finished.limit is None:
        return None
    if finished.limit_value is None:
        return f"the limit {finished.limit} was hit"
    unit = "seconds" if finished.reason is FinishReason.TIMEOUT else "bytes"
    return f"the limit {finished.limit} is {finished.limit_value:.15g} {unit}"


def _death(finished: ExecutionFinished) -> str | None:
    if finished.reason is not FinishReason.KERNEL_DIED:
        return None
    if finished.signal is not None:
        return f"the program was ended by {signal_name(finished.signal)}"
    if finished.exit_code is not None:
        return f"the program ended its process with exit code {finished.exit_code}"
    return None


def signal_name(number: int) -> str:
    """Give a signal's name, or its number where it has none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
