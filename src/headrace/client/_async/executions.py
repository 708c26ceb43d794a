"""Running code: streams of events, callbacks, outcomes, and executions in the background."""

from dataclasses import dataclass

from headrace.client._async.connection import AsyncConnection
from headrace.client._async.stream import AsyncEventStream
from headrace.client._shared import answers, calls
from headrace.client._shared.calls import Code
from headrace.client._shared.events import EXECUTION
from headrace.client._shared.outcome import ExecutionCollector
from headrace.client._shared.values import Execution, ExecutionInfo
from headrace.client._transport_async import Answering, Callback, ask, tell
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
class AsyncListeners:
    """Functions that are told what code does."""

    on_stdout: Callback[OutputWritten] | None = None
    on_stderr: Callback[OutputWritten] | None = None
    on_result: Callback[Result] | None = None
    on_error: Callback[CodeError] | None = None
    on_input: Answering[InputRequested, str | None] | None = None

    async def hear(self, event: ExecutionEvent) -> None:
        """Tell whoever wants to know."""
        match event:
            case OutputWritten(stream=Stream.STDOUT):
                await tell(self.on_stdout, event)
            case OutputWritten():
                await tell(self.on_stderr, event)
            case ResultDisplayed(result=result):
                await tell(self.on_result, result)
            case CodeRaised(error=error):
                await tell(self.on_error, error)
            case _:
                pass


class AsyncExecutionStream(AsyncEventStream[ExecutionEvent]):
    """The events of one execution; see `AsyncEventStream`."""

    @property
    def execution_id(self) -> ExecutionId:
        """The id of the execution, known once the stream is entered or gave an event."""
        return ExecutionId(self.log_id)

    async def interrupt(self) -> None:
        """Interrupt the code; the stream then ends with the reason ``interrupted``."""
        await self._connection.fetch(calls.interrupt(self.execution_id))

    async def send_input(self, text: str | None) -> None:
        """Answer `InputRequested`; None is the end of the input."""
        await self._connection.fetch(calls.send_input(self.execution_id, text))

    async def collect(self, listeners: AsyncListeners) -> Execution:
        """Follow the events to the last, telling the listeners, and give the outcome."""
        collector = ExecutionCollector()
        async with self:
            while (event := await self.next()) is not None:
                collector.add(event)
                await listeners.hear(event)
                if isinstance(event, ExecutionFinished):
                    await self.next()
                    return collector.finish(self.execution_id, event)
                if isinstance(event, InputRequested) and listeners.on_input is not None:
                    await self.send_input(await ask(listeners.on_input, event))
        raise AssertionError("a stream ends with its last event")


class AsyncExecutionHandle:
    """An execution that runs, or ran, in the background.

        execution = await sandbox.start_code("long_work()")
        ...
        outcome = await execution.wait()

    Its ``id`` is enough to find it again, also from another process: `AsyncSandbox.execution`.
    """

    def __init__(self, connection: AsyncConnection, execution_id: ExecutionId) -> None:
        self.id = execution_id
        self._connection = connection

    def events(self, after: int = 0) -> AsyncExecutionStream:
        """Give the events behind the number ``after``; many streams may follow one execution."""
        return AsyncExecutionStream(self._connection, EXECUTION, log_id=self.id, after=after)

    async def info(self) -> ExecutionInfo:
        """Ask whether it runs."""
        return await self._connection.call(calls.get_execution(self.id), answers.execution)

    async def wait(
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
        listeners = AsyncListeners(on_stdout, on_stderr, on_result, on_error, on_input)
        return await self.events().collect(listeners)

    async def interrupt(self) -> None:
        """Interrupt the code."""
        await self._connection.fetch(calls.interrupt(self.id))

    async def send_input(self, text: str | None) -> None:
        """Answer `InputRequested`; None is the end of the input."""
        await self._connection.fetch(calls.send_input(self.id, text))


def stream_code(connection: AsyncConnection, sandbox_id: str, code: Code) -> AsyncExecutionStream:
    """Give the stream of an execution that starts when the stream is entered or iterated over."""
    return AsyncExecutionStream(connection, EXECUTION, start=calls.execute(sandbox_id, code))


async def start_code(
    connection: AsyncConnection, sandbox_id: str, code: Code
) -> AsyncExecutionHandle:
    """Start an execution in the background."""
    started = await connection.call(
        calls.execute(sandbox_id, code, background=True), answers.execution
    )
    return AsyncExecutionHandle(connection, started.id)
