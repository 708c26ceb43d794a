"""Commands in a sandbox: to the end, or in the background with a handle."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Literal, overload

from headrace.client._async.connection import AsyncConnection
from headrace.client._async.stream import AsyncEventStream
from headrace.client._shared import answers, process_calls
from headrace.client._shared.events import PROCESS
from headrace.client._shared.outcome import CommandCollector
from headrace.client._shared.process_calls import Command
from headrace.client._shared.values import CommandResult, ProcessInfo
from headrace.client._transport_async import Callback, tell
from headrace.model.errors import InvalidRequestError, ProcessNotFoundError, WrongStateError
from headrace.model.events import (
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
    Stream,
)
from headrace.model.ids import ProcessId, SandboxId


class AsyncCommandStream(AsyncEventStream[ProcessEvent]):
    """The events of one command; see `AsyncEventStream`."""

    async def collect(
        self,
        on_stdout: Callback[OutputWritten] | None,
        on_stderr: Callback[OutputWritten] | None,
        stdin: bytes | None = None,
    ) -> CommandResult:
        """Follow the events to the last, telling the callbacks, and give the outcome."""
        collector = CommandCollector()
        async with self:
            while (event := await self.next()) is not None:
                collector.add(event)
                match event:
                    case OutputWritten(stream=Stream.STDERR):
                        await tell(on_stderr, event)
                    case OutputWritten():
                        await tell(on_stdout, event)
                    case ProcessStarted() if stdin is not None:
                        await self._feed_stdin(stdin)
                    case ProcessExited():
                        await self.next()
                        return collector.finish(ProcessId(self.log_id), event)
                    case _:
                        pass
        raise AssertionError("a stream ends with its last event")

    async def _feed_stdin(self, data: bytes) -> None:
        try:
            if data:
                await self._connection.fetch(process_calls.write_stdin(self.log_id, data))
            await self._connection.fetch(process_calls.close_stdin(self.log_id))
        except (ProcessNotFoundError, WrongStateError):
            pass  # it ended, or closed its input, without reading everything: its own business


class AsyncCommandHandle:
    """A command that runs, or ran, in the background.

        server = await sandbox.commands.run("python -m http.server", background=True)
        async for event in server:
            ...
        await server.kill()

    Its ``id`` is enough to find it again: `AsyncCommands.connect`.
    """

    def __init__(self, connection: AsyncConnection, info: ProcessInfo) -> None:
        self.id = info.id
        self.pid = info.pid
        self._connection = connection

    def events(self, after: int = 0) -> AsyncCommandStream:
        """Give the events behind the number ``after``; many streams may follow one command."""
        return AsyncCommandStream(self._connection, PROCESS, log_id=self.id, after=after)

    def __aiter__(self) -> AsyncIterator[ProcessEvent]:
        """Go through all events from the first to the last."""
        return self.events().__aiter__()

    async def info(self) -> ProcessInfo:
        """Ask whether it runs."""
        return await self._connection.call(process_calls.get_process(self.id), answers.process)

    async def wait(
        self,
        *,
        on_stdout: Callback[OutputWritten] | None = None,
        on_stderr: Callback[OutputWritten] | None = None,
    ) -> CommandResult:
        """Wait for the end and give the outcome, with everything that was written."""
        return await self.events().collect(on_stdout, on_stderr)

    async def write_stdin(self, data: bytes | str) -> None:
        """Write to its standard input; it must have been started with ``stdin=True``."""
        content = data.encode() if isinstance(data, str) else data
        await self._connection.fetch(process_calls.write_stdin(self.id, content))

    async def close_stdin(self) -> None:
        """End its standard input."""
        await self._connection.fetch(process_calls.close_stdin(self.id))

    async def signal(self, signal: int | str) -> None:
        """Send a signal: a number, a member of `signal.Signals`, or a name such as SIGTERM."""
        number = signal if isinstance(signal, str) else int(signal)
        await self._connection.fetch(process_calls.send_signal(self.id, number))

    async def kill(self) -> bool:
        """Send SIGKILL; false if it had ended already."""
        try:
            await self._connection.fetch(process_calls.kill_process(self.id))
        except ProcessNotFoundError:
            return False
        return True


class AsyncCommands:
    """Commands in a sandbox."""

    def __init__(self, connection: AsyncConnection, sandbox_id: SandboxId) -> None:
        self._connection = connection
        self._sandbox_id = sandbox_id

    @overload
    async def run(
        self,
        command: str | Sequence[str],
        *,
        background: Literal[False] = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the limit of the command
        stdin: bytes | str | None = None,
        tag: str | None = None,
        on_stdout: Callback[OutputWritten] | None = None,
        on_stderr: Callback[OutputWritten] | None = None,
    ) -> CommandResult: ...

    @overload
    async def run(
        self,
        command: str | Sequence[str],
        *,
        background: Literal[True],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the limit of the command
        stdin: bool = False,
        tag: str | None = None,
    ) -> AsyncCommandHandle: ...

    async def run(  # noqa: PLR0913 - the options of a command
        self,
        command: str | Sequence[str],
        *,
        background: bool = False,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the limit of the command
        stdin: bytes | str | bool | None = None,
        tag: str | None = None,
        on_stdout: Callback[OutputWritten] | None = None,
        on_stderr: Callback[OutputWritten] | None = None,
    ) -> CommandResult | AsyncCommandHandle:
        """Run a command: a line for the shell, or a list of words without a shell.

            result = await sandbox.commands.run("ls -l | wc -l")
            print(result.exit_code, result.stdout)

        Waits for the end and gives the outcome. A status other than 0 is not raised: look at
        ``exit_code`` or ``is_ok``. ``stdin`` is what the command can read; without it there is
        nothing to read. ``timeout`` is in seconds, without one there is no limit.

        With ``background`` gives a handle at once; ``stdin=True`` then makes the input writable.
        If a callback raises, that goes through to the caller and the command goes on.
        """
        wanted = Command(
            command, env, cwd, user, timeout, has_stdin=stdin not in (None, False), tag=tag
        )
        if background:
            if on_stdout is not None or on_stderr is not None or isinstance(stdin, bytes | str):
                raise InvalidRequestError(
                    "with background=True give callbacks to wait() and input to write_stdin()"
                )
            return await self._start(wanted)
        data = stdin.encode() if isinstance(stdin, str) else stdin
        if isinstance(data, bool):
            data = b"" if data else None
        request = process_calls.start_process(self._sandbox_id, wanted, background=False)
        stream = AsyncCommandStream(self._connection, PROCESS, start=request)
        return await stream.collect(on_stdout, on_stderr, data)

    async def list(self) -> tuple[ProcessInfo, ...]:
        """Give the processes that run, terminals too."""
        return await self._connection.call(
            process_calls.list_processes(self._sandbox_id), answers.processes
        )

    async def connect(self, process_id: str) -> AsyncCommandHandle:
        """Find a command again that runs, or ran not long ago."""
        info = await self._connection.call(process_calls.get_process(process_id), answers.process)
        return AsyncCommandHandle(self._connection, info)

    async def _start(self, wanted: Command) -> AsyncCommandHandle:
        request = process_calls.start_process(self._sandbox_id, wanted, background=True)
        return AsyncCommandHandle(
            self._connection, await self._connection.call(request, answers.process)
        )
