"""Sandboxes: what users of the SDK begin with."""

import os
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Self

from headrace.client._async.commands import AsyncCommands
from headrace.client._async.connection import AsyncConnection
from headrace.client._async.contexts import AsyncContexts, context_id
from headrace.client._async.executions import (
    AsyncExecutionHandle,
    AsyncExecutionStream,
    AsyncListeners,
    start_code,
    stream_code,
)
from headrace.client._async.files import AsyncFiles
from headrace.client._async.logs import read_log
from headrace.client._async.pty import AsyncPty
from headrace.client._shared import answers, calls
from headrace.client._shared.calls import Code
from headrace.client._shared.endpoint import EMBEDDED, LOCAL, Endpoint, choose, parse
from headrace.client._shared.patience import Patience
from headrace.client._shared.values import (
    Context,
    Execution,
    ExecutionInfo,
    Limits,
    SandboxInfo,
    SandboxMetrics,
)
from headrace.client._transport_async import Answering, Callback, run_blocking, shielded
from headrace.model.errors import HeadraceError, InvalidRequestError, SandboxNotFoundError
from headrace.model.events import (
    CodeError,
    ExecutionEvent,
    InputRequested,
    OutputWritten,
    ProcessEvent,
)
from headrace.model.ids import ExecutionId, SandboxId
from headrace.model.results import Result

_KILLING = 30.0
_MAX_PORT = 65535


class AsyncSandbox:
    """An isolated environment that runs code.

        async with await AsyncSandbox.create() as sandbox:
            outcome = await sandbox.run_code("print('hello'); 6 * 7")
            print(outcome.stdout, outcome.text)

    ``contexts``, ``commands``, ``files`` and ``pty`` are its parts. What the code in it does
    (exceptions, time limits, running out of memory) is data; the exceptions that are raised, all
    of them `HeadraceError`, are failures of the service or of a request.
    """

    def __init__(self, connection: AsyncConnection, info: SandboxInfo, *, is_owner: bool) -> None:
        self.id: SandboxId = info.id
        self.contexts = AsyncContexts(connection, info.id)
        self.commands = AsyncCommands(connection, info.id)
        self.files = AsyncFiles(connection, info.id)
        self.pty = AsyncPty(connection, info.id)
        self._connection = connection
        self._ports_url = info.ports_url
        self._is_owner = is_owner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} at {self._connection.endpoint}>"

    # --- finding and leaving ---

    @classmethod
    async def create(  # noqa: PLR0913 - the options of a sandbox
        cls,
        template: str | None = None,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the life time of the sandbox
        env: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        url: str | None = None,
        api_key: str | None = None,
        request_timeout: float = 60.0,
    ) -> Self:
        """Make a sandbox; leaving its ``with`` block kills it.

        Without ``url`` and HEADRACE_URL a private server is started for this process, which needs
        ``pip install 'headrace[server,kernel]'`` and ends with the process. ``url`` may be
        ``http://…``, ``https://…``, ``unix:///…``, or ``local`` for the service of this machine.
        The key is ``api_key`` or HEADRACE_API_KEY.

        ``timeout`` is the sandbox's life time, ``request_timeout`` how long one answer may take,
        both in seconds.
        """
        connection = await _connect(url, api_key, request_timeout)
        request = calls.create_sandbox(template, timeout, env, metadata, limits)
        try:
            info = await connection.call(request, answers.sandbox)
        except BaseException:
            await connection.aclose()
            raise
        return cls(connection, info, is_owner=True)

    @classmethod
    async def connect(
        cls,
        sandbox_id: str,
        *,
        url: str | None = None,
        api_key: str | None = None,
        request_timeout: float = 60.0,
    ) -> Self:
        """Find a sandbox that exists; leaving its ``with`` block leaves it alive."""
        connection = await _connect(url, api_key, request_timeout)
        try:
            info = await connection.call(calls.get_sandbox(sandbox_id), answers.sandbox)
        except BaseException:
            await connection.aclose()
            raise
        return cls(connection, info, is_owner=False)

    @classmethod
    async def list(
        cls,
        *,
        metadata: Mapping[str, str] | None = None,
        state: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        request_timeout: float = 60.0,
    ) -> AsyncIterator[SandboxInfo]:
        """Go through your sandboxes: those with all of ``metadata``, in that ``state``.

        async for info in AsyncSandbox.list(metadata={"job": "7"}):
            ...
        """
        connection = await _connect(url, api_key, request_timeout)
        try:
            after: str | None = None
            while True:
                request = calls.list_sandboxes(metadata, state, None, after)
                page = await connection.call(request, answers.page)
                for info in page.sandboxes:
                    yield info
                if page.next is None:
                    return
                after = page.next
        finally:
            await connection.aclose()

    @classmethod
    async def read_log(
        cls,
        log_id: str,
        *,
        after: int = 0,
        follow: bool = False,
        url: str | None = None,
        api_key: str | None = None,
        request_timeout: float = 60.0,
    ) -> AsyncIterator[ExecutionEvent | ProcessEvent]:
        """Go through the events of an execution or a command by its id.

        This works also when its sandbox is gone, until the service forgets the log. Gives what is
        there now behind the number ``after``; with ``follow`` it goes on to the last event.
        """
        connection = await _connect(url, api_key, request_timeout)
        try:
            async for event in read_log(connection, log_id, after, follow=follow):
                yield event
        finally:
            await connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_owner:
            await self.aclose()
            return
        try:
            with shielded(_KILLING):
                await self.kill()
        except HeadraceError:
            if error is None:
                raise

    async def aclose(self) -> None:
        """Close the connections to the service; the sandbox lives on."""
        await self._connection.aclose()

    # --- its life ---

    async def info(self) -> SandboxInfo:
        """Ask for its state, limits and isolation, and when it ends."""
        return await self._connection.call(calls.get_sandbox(self.id), answers.sandbox)

    async def set_timeout(self, seconds: float) -> SandboxInfo:
        """Let it end by itself that long from now."""
        return await self._connection.call(calls.set_timeout(self.id, seconds), answers.sandbox)

    async def pause(self) -> SandboxInfo:
        """Stop everything in it until `resume`."""
        return await self._connection.call(calls.change_sandbox(self.id, "pause"), answers.sandbox)

    async def resume(self) -> SandboxInfo:
        """Let everything in it go on."""
        return await self._connection.call(calls.change_sandbox(self.id, "resume"), answers.sandbox)

    async def metrics(self) -> SandboxMetrics:
        """Ask what it uses."""
        return await self._connection.call(calls.get_metrics(self.id), answers.metrics)

    async def kill(self) -> bool:
        """End it; nothing of it is left afterwards. False if it had ended already."""
        try:
            await self._connection.fetch(calls.kill_sandbox(self.id))
        except SandboxNotFoundError:
            return False
        finally:
            await self._connection.aclose()
        return True

    def port_url(self, port: int) -> str:
        """Give the URL of a server in the sandbox that listens at ``port``."""
        if isinstance(port, bool) or not 1 <= port <= _MAX_PORT:
            raise InvalidRequestError(f"a port is 1 to {_MAX_PORT}, got {port!r}")
        return self._ports_url.replace("{port}", str(port))

    # --- running code ---

    async def run_code(  # noqa: PLR0913 - the options of an execution
        self,
        code: str,
        *,
        language: str | None = None,
        context: Context | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the limit of the execution
        on_stdout: Callback[OutputWritten] | None = None,
        on_stderr: Callback[OutputWritten] | None = None,
        on_result: Callback[Result] | None = None,
        on_error: Callback[CodeError] | None = None,
        on_input: Answering[InputRequested, str | None] | None = None,
    ) -> Execution:
        """Run code, wait for its end, and give the outcome.

            outcome = await sandbox.run_code("1 / 0", on_stdout=lambda e: print(e.text, end=""))
            if outcome.error:
                print(outcome.error.traceback)

        An exception in the code, a time limit and so on are in the outcome (``error``,
        ``reason``) and are not raised. The callbacks are told things while they happen.
        ``on_input`` is asked for a line when the code wants one, and gives None for the end of
        the input; without it `input()` in the code fails. ``timeout`` is in seconds; without one
        there is no limit.

        If a callback raises, or the caller is cancelled, the code goes on: interrupt it with
        `contexts.interrupt`, or use `run_code_stream`.
        """
        wanted = _code(code, language, context, env, cwd, timeout, on_input is not None)
        listeners = AsyncListeners(on_stdout, on_stderr, on_result, on_error, on_input)
        return await stream_code(self._connection, self.id, wanted).collect(listeners)

    def run_code_stream(
        self,
        code: str,
        *,
        language: str | None = None,
        context: Context | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        accepts_input: bool = False,
    ) -> AsyncExecutionStream:
        """Run code and give its events while they happen.

            async for event in sandbox.run_code_stream("for i in range(9): print(i)"):
                match event:
                    case OutputWritten():
                        print(event.text, end="")
                    case ExecutionFinished():
                        print(event.reason)

        The code starts when the stream is entered or iterated over. Leaving early leaves it
        running; `AsyncExecutionStream.interrupt` stops it.
        """
        wanted = _code(code, language, context, env, cwd, timeout, accepts_input)
        return stream_code(self._connection, self.id, wanted)

    async def start_code(
        self,
        code: str,
        *,
        language: str | None = None,
        context: Context | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the limit of the execution
        accepts_input: bool = False,
    ) -> AsyncExecutionHandle:
        """Start code in the background and give a handle at once."""
        wanted = _code(code, language, context, env, cwd, timeout, accepts_input)
        return await start_code(self._connection, self.id, wanted)

    def execution(self, execution_id: str) -> AsyncExecutionHandle:
        """Give a handle for an execution by its id, also for one that another process started."""
        return AsyncExecutionHandle(self._connection, ExecutionId(execution_id))

    async def executions(self) -> tuple[ExecutionInfo, ...]:
        """Give the executions that run, wait, or ended not long ago."""
        return await self._connection.call(calls.list_executions(self.id), answers.executions)


def _code(
    code: str,
    language: str | None,
    context: Context | str | None,
    env: Mapping[str, str] | None,
    cwd: str | None,
    timeout: float | None,
    accepts_input: bool,
) -> Code:
    chosen = None if context is None else context_id(context)
    return Code(code, language, chosen, env, cwd, timeout, accepts_input)


async def _connect(url: str | None, api_key: str | None, request_timeout: float) -> AsyncConnection:
    patience = Patience(request=request_timeout)
    return AsyncConnection(await _find_endpoint(url, api_key), patience)


async def _find_endpoint(url: str | None, api_key: str | None) -> Endpoint:
    wanted = choose(url, api_key, os.environ)
    # Imported here because most programs use one of the three, and importing takes a while.
    if wanted.url == EMBEDDED:
        from headrace.client._embedded import PRIVATE_SERVER

        running = PRIVATE_SERVER.running()
        if running is not None:
            return running
        return await run_blocking(PRIVATE_SERVER.ensure_started)
    if wanted.url == LOCAL:
        from headrace.client._discovery import find_local

        return find_local(wanted.key, os.environ)
    return parse(wanted.url, wanted.key)
