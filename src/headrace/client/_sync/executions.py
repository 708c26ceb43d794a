# Made from the async face by scripts/generate-sync; change that one.
"""Running code: streams of events, callbacks, outcomes, and executions in the background."""

from dataclasses import dataclass

from headrace.client._shared import answers, calls
from headrace.client._shared.calls import Code
from headrace.client._shared.events import EXECUTION
from headrace.client._shared.outcome import ExecutionCollector
from headrace.client._shared.values import Execution, ExecutionInfo
from headrace.client._sync.connection import Connection
from headrace.client._sync.stream import EventStream
from headrace.client._transport_sync import Answering, Callback, ask, tell
from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    InputRequested,
    OutputWritten,
    ResultDisplayed,
    Stream,
)
from headrace.model.ids import ExecutionId
from headrace.model.results import Result


@dataclass(frozen=True, slots=True)
class Listeners:
    """Functions that are told what code does."""

    on_stdout: Callback[OutputWritten] | None = None
    on_stderr: Callback[OutputWritten] | None = None
    on_result: Callback[Result] | None = None
    on_error: Callback[CodeError] | None = None
    on_input: Answering[InputRequested, str | None] | None = None

    def hear(self, event: ExecutionEvent) -> None:
        """Tell whoever wants to know."""
        match event:
            case OutputWritten(stream=Stream.STDOUT):
                tell(self.on_stdout, event)
            case OutputWritten():
                tell(self.on_stderr, event)
            case ResultDisplayed(result=result):
                tell(self.on_result, result)
            case CodeRaised(error=error):
                tell(self.on_error, error)
            case _:
                pass


class ExecutionStream(EventStream[ExecutionEvent]):
    """The events of one execution; see `EventStream`."""

    @property
    def execution_id(self) -> ExecutionId:
        """The id of the execution, known once the stream is entered or gave an event."""
        return ExecutionId(self.log_id)

    def interrupt(self) -> None:
        """Interrupt the code; the stream then ends with the reason ``interrupted``."""
        self._connection.fetch(calls.interrupt(self.execution_id))

    def send_input(self, text: str | None) -> None:
        """Answer `InputRequested`; None is the end of the input."""
        self._connection.fetch(calls.send_input(self.execution_id, text))

    def collect(self, listeners: Listeners) -> Execution:
        """Follow the events to the last, telling the listeners, and give the outcome."""
        collector = ExecutionCollector()
        with self:
            while (event := self.next()) is not None:
                collector.add(event)
                listeners.hear(event)
                if isinstance(event, ExecutionFinished):
                    self.next()
                    return collector.finish(self.execution_id, event)
                if isinstance(event, InputRequested) and listeners.on_input is not None:
                    self.send_input(ask(listeners.on_input, event))
        raise AssertionError("a stream ends with its last event")


class ExecutionHandle:
    """An execution that runs, or ran, in the background.

        execution = sandbox.start_code("long_work()")
        ...
        outcome = execution.wait()

    Its ``id`` is enough to find it again, also from another process: `Sandbox.execution`.
    """

    def __init__(self, connection: Connection, execution_id: ExecutionId) -> None:
        self.id = execution_id
        self._connection = connection

    def events(self, after: int = 0) -> ExecutionStream:
        """Give the events behind the number ``after``; many streams may follow one execution."""
        return ExecutionStream(self._connection, EXECUTION, log_id=self.id, after=after)

    def info(self) -> ExecutionInfo:
        """Ask whether it runs."""
        return self._connection.call(calls.get_execution(self.id), answers.execution)

    def wait(
        self,
        *,
        on_stdout: Callback[OutputWritten] | None = None,
        on_stderr: Callback[OutputWritten] | None = None,
        on_result: Callback[Result] | None = None,
        on_error: Callback[CodeError] | None = None,
        on_input: Answering[InputRequested, str | None] | None = None,
    ) -> Execution:
        """Wait for the end and give the outcome; the callbacks are told everything from the start.

        If a callback raises, that goes through to the caller. The execution goes on.
        """
        listeners = Listeners(on_stdout, on_stderr, on_result, on_error, on_input)
        return self.events().collect(listeners)

    def interrupt(self) -> None:
        """Interrupt the code."""
        self._connection.fetch(calls.interrupt(self.id))

    def send_input(self, text: str | None) -> None:
        """Answer `InputRequested`; None is the end of the input."""
        self._connection.fetch(calls.send_input(self.id, text))


def stream_code(connection: Connection, sandbox_id: str, code: Code) -> ExecutionStream:
    """Give the stream of an execution that starts when the stream is entered or iterated over."""
    return ExecutionStream(connection, EXECUTION, start=calls.execute(sandbox_id, code))


def start_code(connection: Connection, sandbox_id: str, code: Code) -> ExecutionHandle:
    """Start an execution in the background."""
    started = connection.call(calls.execute(sandbox_id, code, background=True), answers.execution)
    return ExecutionHandle(connection, started.id)
