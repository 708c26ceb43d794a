"""Runs programs in one sandbox and shows their events on our own streams, as they come."""

import contextlib
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, assert_never

import anyio

from headrace.cli import results
from headrace.cli.exit_status import describe, exit_status
from headrace.cli.results import ResultsFolder
from headrace.cli.sources import Source
from headrace.cli.terminal import ByteSink, LineSource
from headrace.model.errors import LimitExceededError, SandboxFailedError, WrongStateError
from headrace.model.events import (
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ResultDisplayed,
    Stream,
)
from headrace.model.ids import ContextId
from headrace.model.results import Result
from headrace.model.specs import ContextSpec, ExecutionRequest, Language


class RunningExecution(Protocol):
    """What a session needs of an execution."""

    def events(self, after: int = 0) -> AsyncIterator[ExecutionEvent]:
        """Give all events, up to and with the terminal one."""

    async def interrupt(self) -> None:
        """Ask the code to stop."""

    async def send_input(self, text: str | None) -> None:
        """Answer the code's ``input()``; None is the end of the file."""


class ContextHandle(Protocol):
    """What a session needs of a context."""

    @property
    def id(self) -> ContextId:
        """Its id."""


class SandboxHandle(Protocol):
    """What a session needs of a sandbox."""

    async def default_context(self, language: Language) -> ContextHandle:
        """Give the context of that language that is there from the start."""

    async def create_context(self, spec: ContextSpec) -> ContextHandle:
        """Make another context."""

    async def execute(self, request: ExecutionRequest) -> RunningExecution:
        """Run code in a context."""


@dataclass(frozen=True, slots=True)
class Streams:
    """Our own standard streams; without ``stdin`` the programs may not ask for input."""

    stdout: ByteSink
    stderr: ByteSink
    stdin: LineSource | None

    async def say(self, message: str) -> None:
        """Write a line of our own to stderr, never into the middle of another."""
        prefix = "" if self.stderr.is_at_line_start else "\n"
        await self.stderr.write(f"{prefix}headrace: {message}\n".encode("utf-8", "replace"))


@dataclass
class Session:
    """The programs of one command line in one sandbox; each gets a context of its own."""

    sandbox: SandboxHandle
    streams: Streams
    folder: ResultsFolder | None
    timeout: float | None
    _used: set[Language] = field(default_factory=set)
    _current: RunningExecution | None = None
    _has_hinted: bool = False

    async def run(self, sources: Sequence[Source]) -> int:
        """Run them in order up to the first that fails; give the last exit status."""
        status = 0
        for source in sources:
            label = f"{source.name}: " if len(sources) > 1 else ""
            finished = await self._run_source(source)
            reason = describe(finished)
            if reason is not None:
                await self.streams.say(label + reason)
            status = exit_status(finished)
            if status != 0:
                break
        return status

    async def interrupt(self) -> bool:
        """Interrupt what runs; False if nothing does."""
        if self._current is None:
            return False
        with contextlib.suppress(WrongStateError):
            # It may end by itself at this very moment.
            await self._current.interrupt()
        return True

    async def _run_source(self, source: Source) -> ExecutionFinished:
        context = await self._context(source.language)
        execution = await self.sandbox.execute(
            ExecutionRequest(
                source.code,
                context_id=context.id,
                timeout=self.timeout,
                accepts_input=self.streams.stdin is not None,
            )
        )
        self._current = execution
        try:
            async with anyio.create_task_group() as tasks:
                finished = await self._follow(execution, tasks)
                tasks.cancel_scope.cancel()
            return finished
        finally:
            self._current = None

    async def _context(self, language: Language) -> ContextHandle:
        if language in self._used:
            return await self.sandbox.create_context(ContextSpec(language))
        self._used.add(language)
        return await self.sandbox.default_context(language)

    async def _follow(
        self, execution: RunningExecution, tasks: anyio.abc.TaskGroup
    ) -> ExecutionFinished:
        async for event in execution.events():
            match event:
                case ExecutionFinished():
                    return event
                case InputRequested():
                    tasks.start_soon(self._answer, execution, event)
                case _:
                    await self._show(event)
        raise SandboxFailedError("the events of the execution ended without a last one")

    async def _show(
        self,
        event: ExecutionStarted | OutputWritten | OutputDropped | ResultDisplayed | CodeRaised,
    ) -> None:
        match event:
            case ExecutionStarted():
                pass
            case OutputWritten():
                is_stdout = event.stream is Stream.STDOUT
                sink = self.streams.stdout if is_stdout else self.streams.stderr
                await sink.write(event.data)
            case OutputDropped():
                lost = f"{event.dropped} bytes of {event.stream} are missing: {event.reason}"
                await self.streams.say(lost)
            case ResultDisplayed():
                await self._show_result(event.result)
            case CodeRaised():
                # Like Python itself, which shows no traceback for sys.exit().
                if event.error.name != "SystemExit":
                    text = event.error.traceback.rstrip("\n") + "\n"
                    await self._on_own_line(self.streams.stderr, text)
            case _:
                assert_never(event)

    async def _on_own_line(self, sink: ByteSink, text: str) -> None:
        prefix = "" if sink.is_at_line_start else "\n"
        await sink.write((prefix + text).encode("utf-8", "replace"))

    # --- results ----------------------------------------------------------------------------

    async def _show_result(self, result: Result) -> None:
        await self._on_own_line(self.streams.stdout, results.text_form(result) + "\n")
        for mime, size in result.omitted.items():
            if self.folder is not None or results.is_for_people(mime):
                await self.streams.say(f"{mime} of a result was left out: it has {size} bytes")
        if self.folder is not None:
            await self._save(self.folder, result)
        elif results.has_picture(result) and not self._has_hinted:
            self._has_hinted = True
            await self.streams.say("a picture is shown as text; --results DIR saves it to a file")

    async def _save(self, folder: ResultsFolder, result: Result) -> None:
        try:
            paths = await folder.save(result)
        except (LimitExceededError, SandboxFailedError) as error:
            await self.streams.say(f"a result was not saved: {error.message}")
            return
        for path in paths:
            await self.streams.say(f"saved {path}")

    # --- input ------------------------------------------------------------------------------

    async def _answer(self, execution: RunningExecution, event: InputRequested) -> None:
        line = await (self._ask_password if event.is_password else self._ask)(event.prompt)
        with contextlib.suppress(WrongStateError):
            # The code may have been interrupted, or run into its time limit, meanwhile.
            await execution.send_input(line)

    async def _ask(self, prompt: str) -> str | None:
        await self.streams.stdout.write(prompt.encode("utf-8", "replace"))
        source = self.streams.stdin
        return None if source is None else await source.read_line()

    async def _ask_password(self, prompt: str) -> str | None:
        source = self.streams.stdin
        if source is None:
            return None
        # The echo goes before the prompt comes: whoever sees it may type.
        with source.without_echo():
            await self.streams.stderr.write(prompt.encode("utf-8", "replace"))
            line = await source.read_line()
        await self.streams.stderr.write(b"\n")
        return line


class SignalGate:
    """What signals do to a command: Ctrl-C interrupts once; whatever follows ends it.

    ``scope`` is what is cancelled then. It is narrowed to the session while there is one, so
    that the engine around it is closed in order.
    """

    def __init__(self) -> None:
        self.scope = anyio.CancelScope()
        self.stopped_by: signal.Signals | None = None
        self._session: Session | None = None
        self._has_interrupted = False

    @contextlib.contextmanager
    def guard(self, session: Session) -> Iterator[None]:
        """Let signals end this session, and nothing around it, while it lasts."""
        outer = self.scope
        try:
            with anyio.CancelScope() as self.scope:
                self._session = session
                yield
        finally:
            self._session, self.scope = None, outer

    async def watch(
        self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Receive signals for as long as this task runs.

        What our caller ignores, as nohup does with SIGHUP, stays ignored.
        """
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        watched = [number for number in numbers if signal.getsignal(number) != signal.SIG_IGN]
        with anyio.open_signal_receiver(*watched) as signals:
            task_status.started()
            async with anyio.create_task_group() as tasks:
                async for number in signals:
                    if self._may_interrupt(number):
                        tasks.start_soon(self._interrupt, number)
                    else:
                        self._stop(number)

    def _may_interrupt(self, number: signal.Signals) -> bool:
        if number is not signal.SIGINT or self._has_interrupted or self._session is None:
            return False
        self._has_interrupted = True
        return True

    async def _interrupt(self, number: signal.Signals) -> None:
        if self._session is None or not await self._session.interrupt():
            self._stop(number)

    def _stop(self, number: signal.Signals) -> None:
        self.stopped_by = self.stopped_by or number
        self.scope.cancel()
