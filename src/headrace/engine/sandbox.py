"""A sandbox: its life, its contexts, files and processes.

Its states, and how it goes from one to the other, are in `headrace.engine.sandbox_state`.

Its one task, `run`, owns all the others. However it ends, they end first; then the launcher
kills what is left inside, and then every log that is still open gets its terminal event.
"""

import itertools
import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

import anyio
from anyio.abc import SocketStream, TaskGroup, TaskStatus

from headrace.engine import ports
from headrace.engine.agent import CLOSED, AgentConnection
from headrace.engine.config import EngineConfig, IsolationReport
from headrace.engine.context import Context, ContextSettings
from headrace.engine.contexts import Contexts, runnable
from headrace.engine.execution import Execution
from headrace.engine.expiry import Clock
from headrace.engine.files import Files
from headrace.engine.history import History
from headrace.engine.kernel import KernelStarter, LauncherControl, name_of
from headrace.engine.launcher import ExitNotice, Launcher, Stats
from headrace.engine.log_store import LogStore
from headrace.engine.processes import Process, Processes
from headrace.engine.sandbox_state import MOVES, SandboxState
from headrace.engine.watch import Watches
from headrace.model import ids
from headrace.model.errors import (
    DeadlineError,
    ExecutionNotFoundError,
    HeadraceError,
    InvalidRequestError,
    LaunchError,
    WrongStateError,
)
from headrace.model.files import FileType
from headrace.model.ids import ContextId, ExecutionId, ProcessId, SandboxId, WatchId
from headrace.model.records import EXECUTION_CODEC
from headrace.model.specs import (
    HOME,
    MAX_TIMEOUT,
    ContextSpec,
    ExecutionRequest,
    Language,
    ProcessRequest,
    SandboxSpec,
    TimeoutAction,
    check_positive,
)

_KILL_TIMEOUT = 30.0
_ENGINE_CLOSED = "the engine was closed"
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SandboxServices:
    """What a sandbox needs of its engine.

    ``on_end`` is called once, when nothing is left of it, ``on_deadline`` when its deadline has
    changed.
    """

    config: EngineConfig
    launcher: Launcher
    logs: LogStore
    report: IsolationReport
    clock: Clock
    on_end: Callable[["Sandbox"], None]
    on_deadline: Callable[["Sandbox"], None]


@dataclass(slots=True)
class Timings:
    """Where the time of a creation went, in seconds: waiting for a turn, forking, namespaces.

    All are 0 for a sandbox that was ready in the pool.
    """

    queue: float = 0.0
    fork: float = 0.0
    namespaces: float = 0.0
    total: float = 0.0
    from_pool: bool = False


@dataclass(frozen=True)
class _Inside:
    """What a sandbox that stands has."""

    files: Files
    watches: Watches
    processes: Processes


class Sandbox:
    """One sandbox. Made by the engine, which starts `run` in its own task group."""

    def __init__(self, sandbox_id: SandboxId, spec: SandboxSpec, services: SandboxServices) -> None:
        self.id = sandbox_id
        self.spec = spec
        self.state = SandboxState.CREATING
        self.created_at = services.clock.now()
        self.ends_at = services.clock.monotonic() + spec.limits.lifetime
        self.end_detail: str | None = None
        self.timings = Timings()
        self.history = History(services.clock.now)
        self._lifetime = spec.limits.lifetime
        self._services = services
        self._launcher = services.launcher
        self._contexts = self._make_contexts()
        self._agent: AgentConnection | None = None
        self._inside: _Inside | None = None
        self._tasks: TaskGroup | None = None
        self._exit_detail: str | None = None
        self._oom_kills = 0
        self._ending = anyio.Event()
        self._ended = anyio.Event()

    # --- what it is ---------------------------------------------------------------------------

    @property
    def report(self) -> IsolationReport:
        """What is really enforced."""
        return self._services.report

    @property
    def deadline(self) -> float:
        """When it ends by itself, in Unix seconds."""
        clock = self._services.clock
        return clock.now() + (self.ends_at - clock.monotonic())

    @property
    def is_alive(self) -> bool:
        """Say whether it is running or paused."""
        return self.state in (SandboxState.RUNNING, SandboxState.PAUSED)

    # --- contexts and executions --------------------------------------------------------------

    @property
    def contexts(self) -> list[Context]:
        """All contexts: the default ones by language, then the others as they were made."""
        return self._contexts.list()

    async def create_context(self, spec: ContextSpec) -> Context:
        """Make a context and wait until its kernel stands.

        Raises LanguageUnavailableError, InvalidRequestError for a directory that is none,
        QuotaError, or KernelDiedError; then there is no context.
        """
        inside = self._check_running()
        self._contexts.check_language(spec.language)
        if spec.cwd != HOME:
            found = await inside.files.stat(spec.cwd)
            if FileType.DIRECTORY not in (found.type, found.target_type):
                raise InvalidRequestError(f"cwd {spec.cwd} is not a directory", path=spec.cwd)
            self._check_running()
        context = self._contexts.add(spec)
        try:
            await context.await_ready()
        except HeadraceError:
            await self._contexts.remove(context.id)
            raise
        return context

    def context(self, context_id: str) -> Context:
        """Give the context of that id; raises ContextNotFoundError."""
        return self._contexts.find(context_id)

    def is_default(self, context_id: str) -> bool:
        """Say whether this context runs the code of its language that names none."""
        return self._contexts.is_default(context_id)

    async def default_context(self, language: Language) -> Context:
        """Give the context of that language that runs code which names none."""
        self._check_running()
        return self._contexts.default(language)

    async def remove_context(self, context_id: str) -> None:
        """End a context; what it runs, and what waits, ends as killed."""
        self._check_running()
        await self._contexts.remove(context_id)

    async def execute(self, request: ExecutionRequest) -> Execution:
        """Queue code; returns at once. Everything else is told by the execution's events."""
        self._check_running()
        context = self._contexts.choose(request)
        context.check(request)
        limits = self.spec.limits
        execution_id = ExecutionId(self._make_id())
        log = self._services.logs.create(execution_id, EXECUTION_CODEC, max_output=limits.output)
        execution = Execution(execution_id, context.id, request, log, context, limits)
        context.submit(execution)
        return execution

    def execution(self, execution_id: str) -> Execution:
        """Give an execution that runs, waits or has ended lately."""
        for context in self._contexts.list():
            for execution in context.executions:
                if execution.id == execution_id:
                    return execution
        raise ExecutionNotFoundError(
            f"there is no execution {execution_id!r} in this sandbox", execution=execution_id
        )

    # --- processes, files, ports --------------------------------------------------------------

    @property
    def files(self) -> Files:
        """The files inside; raises WrongStateError unless the sandbox is running."""
        return self._check_running().files

    @property
    def watches(self) -> Watches:
        """The watches that run."""
        return self._check_running().watches

    @property
    def processes(self) -> list[Process]:
        """The processes that run, in the order of their start."""
        return self._check_running().processes.list()

    def process(self, key: int | str) -> Process:
        """Give a process by pid or id, also one that has ended lately."""
        return self._check_running().processes.find(key)

    async def start_process(self, request: ProcessRequest) -> Process:
        """Start a command; raises what the agent says if it cannot be run."""
        inside = self._check_running()
        env = {**self.spec.env, **request.env}
        process_id = ProcessId(self._make_id())
        return await inside.processes.start(process_id, request, env, self.spec.limits)

    async def open_port(self, port: int, host: str = "127.0.0.1") -> SocketStream:
        """Connect to a port inside; the caller closes the stream. See `ports.open_port`."""
        self._check_running()
        return await ports.open_port(self._launcher, self.id, port, host)

    async def stats(self) -> Stats:
        """Tell what the sandbox uses."""
        self._check_alive()
        return await self._launcher.stats(self.id)

    # --- life ---------------------------------------------------------------------------------

    async def set_timeout(self, seconds: float) -> None:
        """Let the sandbox end by itself that long from now."""
        check_positive("timeout", seconds)
        self._check_alive()
        self._set_lifetime(seconds)
        self.history.note("timeout set", {"seconds": f"{seconds:g}"})

    def adopt(self, spec: SandboxSpec) -> None:
        """Become what somebody asked for; the limits of processes inside must be the same."""
        self.spec = spec
        self.created_at = self._services.clock.now()
        self._set_lifetime(spec.limits.lifetime)
        self.history.begin({"template": spec.template, "timeout": f"{spec.limits.lifetime:g}"})

    async def extend(self, seconds: float) -> None:
        """Let the sandbox live at least that long from now; a later deadline stays."""
        check_positive("timeout", seconds)
        self._check_alive()
        if self._services.clock.monotonic() + seconds > self.ends_at:
            self._set_lifetime(seconds)
            self.history.note("timeout extended", {"seconds": f"{seconds:g}"})

    async def pause(self, *, stops_lifetime: bool = False) -> None:
        """Stop everything inside where it stands, and the clocks of all time limits with it.

        A kernel that is being started or interrupted is waited for; raises WrongStateError if
        that takes longer than ``pause_timeout``. The deadline of the sandbox itself stays, unless
        ``stops_lifetime``: then it is kept for `MAX_TIMEOUT`, or until whoever resumes it sets
        another.
        """
        inside = self._check_running()
        try:
            with anyio.move_on_after(self._services.config.pause_timeout):
                await self._contexts.hold_still()
            self._check_running()
            self._contexts.check_pausable()
            await self._launcher.freeze(self.id)
            if self.state is SandboxState.RUNNING:
                self._move(SandboxState.PAUSED)
                self.history.note("sandbox paused")
                self._contexts.pause()
                inside.processes.pause()
                if stops_lifetime:
                    self._set_lifetime(MAX_TIMEOUT)
        finally:
            if self.state is not SandboxState.PAUSED:
                self._contexts.release()

    async def resume(self) -> None:
        """Go on; raises WrongStateError unless the sandbox is paused."""
        if self.state is not SandboxState.PAUSED or self._inside is None:
            raise self._wrong_state()
        await self._launcher.thaw(self.id)
        if self.state is SandboxState.PAUSED:
            self._move(SandboxState.RUNNING)
            self.history.note("sandbox resumed")
            self._contexts.resume()
            self._inside.processes.resume()

    async def kill(self, detail: str = "the sandbox was killed") -> None:
        """End it; returns when nothing is left inside. Safe to call twice and at the same time."""
        self._end(detail)
        with anyio.move_on_after(_KILL_TIMEOUT):
            await self._ended.wait()
            return
        raise DeadlineError(f"the sandbox {self.id} did not end within {_KILL_TIMEOUT:g} s")

    async def expire(self) -> None:
        """End it because its deadline has come, or pause it if that was asked for."""
        if self.spec.on_timeout is TimeoutAction.PAUSE and self.state is SandboxState.RUNNING:
            try:
                await self.pause(stops_lifetime=True)
            except HeadraceError as error:
                _logger.warning("sandbox %s not paused: %s", self.id, error.message)
            else:
                return
        await self.kill(f"its lifetime of {self._lifetime:g} s was over")

    async def await_ready(self) -> None:
        """Wait until the default kernel stands; raises KernelDiedError if it does not."""
        self._check_running()
        await self._contexts.default(Language.PYTHON).await_ready()

    def warm_up(self) -> None:
        """Spend idle time on what the first execution would otherwise wait for."""
        for context in self.contexts:
            context.warm_up()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Live: be built, say that it stands, and clean up when the end has come.

        Raises LaunchError, with the guest's own words, if it could not be built.
        """
        failure: HeadraceError | None = None
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                try:
                    await self._build(tasks)
                    self._move(SandboxState.RUNNING)
                    task_status.started()
                    await self._ending.wait()
                except HeadraceError as error:
                    failure = error
                    self._end(error.message)
                finally:
                    # Nobody reads the agent's answers from here on, so nobody may wait for them.
                    if self._agent is not None:
                        self._agent.end(self.end_detail or _ENGINE_CLOSED)
                tasks.cancel_scope.cancel()
        except Exception:
            # Trouble of one sandbox must stay its own.
            _logger.exception("a sandbox failed", extra={"sandbox_id": self.id})
            failure = LaunchError(f"the sandbox {self.id} failed: internal failure of the engine")
            self._end(failure.message)
        finally:
            was_built = self.state is not SandboxState.CREATING
            self._end(_ENGINE_CLOSED)
            with anyio.CancelScope(shield=True):
                await self._release()
        if failure is not None and not was_built:
            raise failure

    # --- for the launcher ---------------------------------------------------------------------

    def process_exited(self, notice: ExitNotice) -> None:
        """Take the launcher's word that a kernel, or the whole sandbox, has ended.

        The agent's own last words may still be in its socket; its end of file is what counts.
        """
        if notice.kernel is not None:
            self._contexts.kernel_exited(notice)
            if notice.oom and self.is_alive and self._tasks is not None:
                # So that this is not taken for the reason of a later kill.
                self._tasks.start_soon(self._was_out_of_memory)
        elif notice.oom:
            self._exit_detail = "its first process was killed because it ran out of memory"
        elif notice.signal is not None:
            self._exit_detail = f"its first process was ended by {name_of(notice.signal)}"
        else:
            self._exit_detail = f"its first process exited with status {notice.exit_code}"

    def launcher_gone(self, detail: str) -> None:
        """Take note that everything inside is dying."""
        self._end(detail)

    # --- inside -------------------------------------------------------------------------------

    async def _build(self, tasks: TaskGroup) -> None:
        ours, theirs = socket.socketpair()
        config, logs = self._services.config, self._services.logs
        agent = AgentConnection(ours, timeout=config.agent_timeout, on_end=self._end)
        self._agent = agent
        self._launcher.listen(self.id, self)
        monotonic = self._services.clock.monotonic
        started = monotonic()
        with theirs:
            await self._launcher.create(self.id, self.spec.limits, theirs.fileno())
        forked = monotonic()
        tasks.start_soon(agent.run)
        await agent.await_ready(config.sandbox_start_timeout)
        self.timings.fork, self.timings.namespaces = forked - started, monotonic() - forked
        watches = Watches(agent, logs, tasks, lambda: WatchId(self._make_id()))
        processes = Processes(agent, logs, tasks, self._was_out_of_memory, self.history)
        self._inside = _Inside(Files(agent, watches), watches, processes)
        self._contexts.begin(tasks)

    def _make_contexts(self) -> Contexts:
        launcher, sandbox, config = self._launcher, self.id, self._services.config
        numbers = itertools.count(1)

        def starter_of(language: Language) -> KernelStarter:
            return lambda: LauncherControl(launcher, sandbox, f"k{next(numbers)}", language)

        languages = self._services.report.languages
        return Contexts(
            {language: starter_of(language) for language in runnable(languages)},
            languages,
            ContextSettings(config.interrupt_grace, config.kernel_start_timeout),
            lambda: ContextId(self._make_id()),
            lambda: self.spec.env,
        )

    def _make_id(self) -> str:
        return f"{self.id}-{ids.make_suffix(secrets.token_bytes(ids.SUFFIX_LENGTH))}"

    def _set_lifetime(self, seconds: float) -> None:
        self._lifetime = seconds
        self.ends_at = self._services.clock.monotonic() + seconds
        self._services.on_deadline(self)

    async def _was_out_of_memory(self) -> bool:
        """Say whether the sandbox's counter of such kills has grown since the last question."""
        try:
            stats = await self._launcher.stats(self.id)
        except HeadraceError:
            return False
        before, self._oom_kills = self._oom_kills, stats.oom_kills or 0
        return self._oom_kills > before

    def _end(self, detail: str) -> None:
        if self.end_detail is None:
            self.end_detail = detail
        self._ending.set()

    async def _release(self) -> None:
        """Kill what is left, then end every log; nothing here waits without a bound."""
        self._move(SandboxState.KILLING)
        try:
            try:
                await self._launcher.kill(self.id)
            except HeadraceError as error:
                _logger.warning("sandbox %s not killed: %s", self.id, error.message)
            if self.end_detail == CLOSED and self._exit_detail is not None:
                self.end_detail = self._exit_detail
            detail = self.end_detail or _ENGINE_CLOSED
            await self._contexts.aclose(detail)
            if self._inside is not None:
                await self._inside.processes.aclose(detail)
                self._inside.watches.end_all(detail)
        finally:
            if self._agent is not None:
                self._agent.close()
            self._launcher.forget(self.id)
            self._move(SandboxState.KILLED)
            self._ended.set()
            self._services.on_end(self)

    def _move(self, state: SandboxState) -> None:
        if state not in MOVES[self.state]:
            raise AssertionError(f"a sandbox cannot go from {self.state} to {state}")
        self.state = state

    def _check_running(self) -> _Inside:
        # A task that is started in a group which is being cancelled is never told.
        is_running = self.state is SandboxState.RUNNING and not self._ending.is_set()
        if not is_running or self._inside is None:
            raise self._wrong_state()
        return self._inside

    def _check_alive(self) -> None:
        if not self.is_alive:
            raise self._wrong_state()

    def _wrong_state(self) -> WrongStateError:
        why = f": {self.end_detail}" if self.end_detail else ""
        state = "ending" if self.is_alive and self._ending.is_set() else self.state
        return WrongStateError(f"the sandbox {self.id} is {state}{why}", state=self.state)
