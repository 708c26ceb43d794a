# Made from the async face by scripts/generate-sync; change that one.
"""Sandboxes: what users of the SDK begin with."""

import os
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

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
from headrace.client._sync.commands import Commands
from headrace.client._sync.connection import Connection
from headrace.client._sync.contexts import Contexts, context_id
from headrace.client._sync.executions import (
    ExecutionHandle,
    ExecutionStream,
    Listeners,
    start_code,
    stream_code,
)
from headrace.client._sync.files import Files
from headrace.client._sync.logs import read_log
from headrace.client._sync.pty import Pty
from headrace.client._transport_sync import Answering, Callback, run_blocking, shielded
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


class Sandbox:
    """An isolated environment that runs code.

        with Sandbox.create() as sandbox:
            outcome = sandbox.run_code("print('hello'); 6 * 7")
            print(outcome.stdout, outcome.text)

    ``contexts``, ``commands``, ``files`` and ``pty`` are its parts. What the code in it does
    (exceptions, time limits, running out of memory) is data; the exceptions that are raised, all
    of them `HeadraceError`, are failures of the service or of a request.
    """

    def __init__(self, connection: Connection, info: SandboxInfo, *, is_owner: bool) -> None:
        self.id: SandboxId = info.id
        self.contexts = Contexts(connection, info.id)
        self.commands = Commands(connection, info.id)
        self.files = Files(connection, info.id)
        self.pty = Pty(connection, info.id)
        self._connection = connection
        self._ports_url = info.ports_url
        self._is_owner = is_owner

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} at {self._connection.endpoint}>"

    # --- finding and leaving ---

    @classmethod
    def create(  # noqa: PLR0913 - the options of a sandbox
        cls,
        template: str | None = None,
        *,
        timeout: float | None = None,
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
        connection = _connect(url, api_key, request_timeout)
        request = calls.create_sandbox(template, timeout, env, metadata, limits)
        try:
            info = connection.call(request, answers.sandbox)
        except BaseException:
            connection.close()
            raise
        return cls(connection, info, is_owner=True)

    @classmethod
    def connect(
        cls,
        sandbox_id: str,
        *,
        url: str | None = None,
        api_key: str | None = None,
        request_timeout: float = 60.0,
    ) -> Self:
        """Find a sandbox that exists; leaving its ``with`` block leaves it alive."""
        connection = _connect(url, api_key, request_timeout)
        try:
            info = connection.call(calls.get_sandbox(sandbox_id), answers.sandbox)
        except BaseException:
            connection.close()
            raise
        return cls(connection, info, is_owner=False)

    @classmethod
    def list(
        cls,
        *,
        metadata: Mapping[str, str] | None = None,
        state: str | None = None,
        url: str | None = None,
        api_key: str | None = None,
        request_timeout: float = 60.0,
    ) -> Iterator[SandboxInfo]:
        """Go through your sandboxes: those with all of ``metadata``, in that ``state``.

        for info in Sandbox.list(metadata={"job": "7"}):
            ...
        """
        connection = _connect(url, api_key, request_timeout)
        try:
            after: str | None = None
            while True:
                request = calls.list_sandboxes(metadata, state, None, after)
                page = connection.call(request, answers.page)
                yield from page.sandboxes
                if page.next is None:
                    return
                after = page.next
        finally:
            connection.close()

    @classmethod
    def read_log(
        cls,
        log_id: str,
        *,
        after: int = 0,
        follow: bool = False,
        url: str | None = None,
        api_key: str | None = None,
        request_timeout: float = 60.0,
    ) -> Iterator[ExecutionEvent | ProcessEvent]:
        """Go through the events of an execution or a command by its id.

        This works also when its sandbox is gone, until the service forgets the log. Gives what is
        there now behind the number ``after``; with ``follow`` it goes on to the last event.
        """
        connection = _connect(url, api_key, request_timeout)
        try:
            yield from read_log(connection, log_id, after, follow=follow)
        finally:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._is_owner:
            self.close()
            return
        try:
            with shielded(_KILLING):
                self.kill()
        except HeadraceError:
            if error is None:
                raise

    def close(self) -> None:
        """Close the connections to the service; the sandbox lives on."""
        self._connection.close()

    # --- its life ---

    def info(self) -> SandboxInfo:
        """Ask for its state, limits and isolation, and when it ends."""
        return self._connection.call(calls.get_sandbox(self.id), answers.sandbox)

    def set_timeout(self, seconds: float) -> SandboxInfo:
        """Let it end by itself that long from now."""
        return self._connection.call(calls.set_timeout(self.id, seconds), answers.sandbox)

    def pause(self) -> SandboxInfo:
        """Stop everything in it until `resume`."""
        return self._connection.call(calls.change_sandbox(self.id, "pause"), answers.sandbox)

    def resume(self) -> SandboxInfo:
        """Let everything in it go on."""
        return self._connection.call(calls.change_sandbox(self.id, "resume"), answers.sandbox)

    def metrics(self) -> SandboxMetrics:
        """Ask what it uses."""
        return self._connection.call(calls.get_metrics(self.id), answers.metrics)

    def kill(self) -> bool:
        """End it; nothing of it is left afterwards. False if it had ended already."""
        try:
            self._connection.fetch(calls.kill_sandbox(self.id))
        except SandboxNotFoundError:
            return False
        finally:
            self._connection.close()
        return True

    def port_url(self, port: int) -> str:
        """Give the URL of a server in the sandbox that listens at ``port``."""
        if isinstance(port, bool) or not 1 <= port <= _MAX_PORT:
            raise InvalidRequestError(f"a port is 1 to {_MAX_PORT}, got {port!r}")
        return self._ports_url.replace("{port}", str(port))

    # --- running code ---

    def run_code(  # noqa: PLR0913 - the options of an execution
        self,
        code: str,
        *,
        language: str | None = None,
        context: Context | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        on_stdout: Callback[OutputWritten] | None = None,
        on_stderr: Callback[OutputWritten] | None = None,
        on_result: Callback[Result] | None = None,
        on_error: Callback[CodeError] | None = None,
        on_input: Answering[InputRequested, str | None] | None = None,
    ) -> Execution:
        """Run code, wait for its end, and give the outcome.

            outcome = sandbox.run_code("1 / 0", on_stdout=lambda e: print(e.text, end=""))
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
        listeners = Listeners(on_stdout, on_stderr, on_result, on_error, on_input)
        return stream_code(self._connection, self.id, wanted).collect(listeners)

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
    ) -> ExecutionStream:
        """Run code and give its events while they happen.

            for event in sandbox.run_code_stream("for i in range(9): print(i)"):
                match event:
                    case OutputWritten():
                        print(event.text, end="")
                    case ExecutionFinished():
                        print(event.reason)

        The code starts when the stream is entered or iterated over. Leaving early leaves it
        running; `ExecutionStream.interrupt` stops it.
        """
        wanted = _code(code, language, context, env, cwd, timeout, accepts_input)
        return stream_code(self._connection, self.id, wanted)

    def start_code(
        self,
        code: str,
        *,
        language: str | None = None,
        context: Context | str | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        timeout: float | None = None,
        accepts_input: bool = False,
    ) -> ExecutionHandle:
        """Start code in the background and give a handle at once."""
        wanted = _code(code, language, context, env, cwd, timeout, accepts_input)
        return start_code(self._connection, self.id, wanted)

    def execution(self, execution_id: str) -> ExecutionHandle:
        """Give a handle for an execution by its id, also for one that another process started."""
        return ExecutionHandle(self._connection, ExecutionId(execution_id))

    def executions(self) -> tuple[ExecutionInfo, ...]:
        """Give the executions that run, wait, or ended not long ago."""
        return self._connection.call(calls.list_executions(self.id), answers.executions)


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


def _connect(url: str | None, api_key: str | None, request_timeout: float) -> Connection:
    patience = Patience(request=request_timeout)
    return Connection(_find_endpoint(url, api_key), patience)


def _find_endpoint(url: str | None, api_key: str | None) -> Endpoint:
    wanted = choose(url, api_key, os.environ)
    # Imported here because most programs use one of the three, and importing takes a while.
    if wanted.url == EMBEDDED:
        from headrace.client._embedded import PRIVATE_SERVER

        running = PRIVATE_SERVER.running()
        if running is not None:
            return running
        return run_blocking(PRIVATE_SERVER.ensure_started)
    if wanted.url == LOCAL:
        from headrace.client._discovery import find_local

        return find_local(wanted.key, os.environ)
    return parse(wanted.url, wanted.key)
