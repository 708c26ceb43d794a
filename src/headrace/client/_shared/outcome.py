"""The outcome of an execution or of a command, collected from its events."""

from headrace.client._shared.values import CommandResult, Execution
from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    OutputDropped,
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
    ResultDisplayed,
    Stream,
)
from headrace.model.ids import ExecutionId, ProcessId
from headrace.model.results import Json, Result

MAX_KEPT = 256 * 1024 * 1024
"""Bytes of output and results that are kept of one execution or command."""


class _Output:
    """Pieces of the streams, up to a bound."""

    def __init__(self, maximum: int) -> None:
        self._room = maximum
        self._pieces: dict[Stream, list[bytes]] = {stream: [] for stream in Stream}
        self.dropped: list[OutputDropped] = []
        self.not_kept = 0

    def has_room(self, size: int) -> bool:
        if self.not_kept or size > self._room:
            self.not_kept += size
            return False
        self._room -= size
        return True

    def add(self, event: OutputWritten) -> None:
        if self.has_room(len(event.data)):
            self._pieces[event.stream].append(event.data)

    def text(self, *streams: Stream) -> str:
        pieces = (piece for stream in streams for piece in self._pieces[stream])
        return b"".join(pieces).decode("utf-8", "replace")


class ExecutionCollector:
    """Takes the events of one execution, from the first to the last."""

    def __init__(self, maximum: int = MAX_KEPT) -> None:
        self._output = _Output(maximum)
        self._started: ExecutionStarted | None = None
        self._results: list[Result] = []
        self._error: CodeError | None = None

    def add(self, event: ExecutionEvent) -> None:
        """Take the next event."""
        match event:
            case ExecutionStarted():
                self._started = event
            case OutputWritten():
                self._output.add(event)
            case OutputDropped():
                self._output.dropped.append(event)
            case ResultDisplayed(result=result):
                if self._output.has_room(_size(dict(result.bundle))):
                    self._results.append(result)
            case CodeRaised(error=error):
                self._error = error
            case _:
                pass

    def finish(self, execution_id: ExecutionId, last: ExecutionFinished) -> Execution:
        """Give the outcome; ``last`` is the terminal event."""
        started = self._started
        return Execution(
            id=execution_id,
            context_id=started.context_id if started else None,
            execution_count=started.execution_count if started else None,
            reason=last.reason,
            duration=last.duration,
            exit_code=last.exit_code,
            signal=last.signal,
            state_lost=last.state_lost,
            limit=last.limit,
            limit_value=last.limit_value,
            detail=last.detail,
            stdout=self._output.text(Stream.STDOUT),
            stderr=self._output.text(Stream.STDERR),
            results=tuple(self._results),
            error=self._error,
            dropped=tuple(self._output.dropped),
            not_kept=self._output.not_kept,
            last_seq=last.seq,
        )


class CommandCollector:
    """Takes the events of one command, from the first to the last."""

    def __init__(self, maximum: int = MAX_KEPT) -> None:
        self._output = _Output(maximum)
        self._pid: int | None = None

    def add(self, event: ProcessEvent) -> None:
        """Take the next event."""
        match event:
            case ProcessStarted(pid=pid):
                self._pid = pid
            case OutputWritten():
                self._output.add(event)
            case OutputDropped():
                self._output.dropped.append(event)
            case _:
                pass

    def finish(self, process_id: ProcessId, last: ProcessExited) -> CommandResult:
        """Give the outcome; ``last`` is the terminal event."""
        return CommandResult(
            id=process_id,
            pid=self._pid,
            reason=last.reason,
            duration=last.duration,
            exit_code=last.exit_code,
            signal=last.signal,
            limit=last.limit,
            limit_value=last.limit_value,
            detail=last.detail,
            stdout=self._output.text(Stream.STDOUT, Stream.PTY),
            stderr=self._output.text(Stream.STDERR),
            dropped=tuple(self._output.dropped),
            not_kept=self._output.not_kept,
        )


def _size(value: Json) -> int:
    """Give about how much memory a JSON value takes."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(len(key) + _size(item) for key, item in value.items())
    if isinstance(value, list):
        return sum(map(_size, value))
    return 8
