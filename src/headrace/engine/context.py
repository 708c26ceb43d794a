"""A context: one interpreter state, one queue of executions, one kernel at a time.

Its states, and how it goes from one to the other, are in `headrace.engine.context_state`.

A dead context has no kernel at present; the next execution or a restart tries to start one. A
kernel that is lost while it runs something is replaced at once, one that is lost while idle not
before it is needed: otherwise a process of the sandbox that kills it again and again would keep
the launcher busy. The execution that begins with a fresh kernel says so.
"""

import logging
import signal
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import anyio

from headrace.engine.context_state import MOVES, PAUSABLE, ContextState
from headrace.engine.execution import Ending, Execution, Stop, check_sendable, timed_out
from headrace.engine.expiry import TimeLimit
from headrace.engine.kernel import Kernel, KernelStarter
from headrace.engine.launcher import ExitNotice
from headrace.model.errors import HeadraceError, KernelDiedError, QuotaError, WrongStateError
from headrace.model.events import FinishReason
from headrace.model.ids import ContextId
from headrace.model.specs import MIB, ContextSpec, ExecutionRequest, Language
from headrace_guest.protocol import KernelMessage

MAX_QUEUE = 256
MAX_QUEUED_CODE = 64 * MIB
KEPT_EXECUTIONS = 256
_SETTLE = 0.1
_STOP = 10.0
_RESTART_SLACK = 30.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ContextSettings:
    """The deadlines of a context, in seconds."""

    interrupt_grace: float
    kernel_start_timeout: float


@dataclass(slots=True)
class _Restart:
    """Somebody waits for a fresh kernel."""

    ended: anyio.Event = field(default_factory=anyio.Event)
    error: HeadraceError | None = None


class Context:
    """One context. `run` is its only task; everything else leaves word for it or for its kernel.

    ``sandbox_env`` is asked when a kernel gets its first code, because a ready-made sandbox does
    not know its environment before it is taken.
    """

    def __init__(
        self,
        context_id: ContextId,
        spec: ContextSpec,
        starter: KernelStarter,
        settings: ContextSettings,
        sandbox_env: Callable[[], Mapping[str, str]],
    ) -> None:
        self.id = context_id
        self.spec = spec
        self.state = ContextState.UNSTARTED
        self.executions: deque[Execution] = deque()
        self._starter = starter
        self._settings = settings
        self._sandbox_env = sandbox_env
        self._queue: deque[Execution] = deque()
        self._queued_code = 0
        self._current: Execution | None = None
        self._kernel: Kernel | None = None
        self._count = 0
        self._loss: str | None = None
        self._failure = "it was never started"
        self._restart: _Restart | None = None
        self._wake = anyio.Event()
        self._moved = anyio.Event()
        self._first_start = anyio.Event()
        self._limit: TimeLimit | None = None
        self._closed: str | None = None
        self._scope = anyio.CancelScope()
        self._stopped = anyio.Event()

    @property
    def language(self) -> Language:
        """The language that this context's kernels speak."""
        return self.spec.language

    # --- for callers --------------------------------------------------------------------------

    def check(self, request: ExecutionRequest) -> None:
        """Refuse what cannot be queued now."""
        if self._closed is not None:
            raise WrongStateError(f"the context {self.id} has ended: {self._closed}", id=self.id)
        if len(self._queue) >= MAX_QUEUE:
            raise QuotaError(f"{MAX_QUEUE} executions wait in the context {self.id} already")
        if self._queue and self._queued_code + len(request.code) > MAX_QUEUED_CODE:
            raise QuotaError(f"more than {MAX_QUEUED_CODE} bytes of code wait in {self.id}")
        check_sendable(request)

    def submit(self, execution: Execution) -> None:
        """Queue an execution; `check` has let it pass."""
        self._queue.append(execution)
        self._queued_code += execution.size
        self._remember(execution)
        kernel = self._kernel
        is_idle = self.state is ContextState.IDLE and self._restart is None
        if is_idle and kernel is not None and not kernel.is_lost:
            # At once, not when the task has its turn: that is much of what short code costs.
            self._begin_next(kernel)
        self._wake.set()

    async def interrupt(self) -> bool:
        """Interrupt what runs; says whether there was something. The queue goes on."""
        if self._current is None:
            return False
        await self._current.interrupt()
        return True

    async def restart(self) -> None:
        """Get a fresh kernel. What runs ends as killed; what waits is run by the new kernel.

        Raises KernelDiedError if there is none.
        """
        if self._closed is not None:
            raise WrongStateError(f"the context {self.id} has ended: {self._closed}", id=self.id)
        if self._restart is None:
            self._restart = _Restart()
        restart = self._restart
        if self._current is not None:
            self.stop(self._current, Stop(FinishReason.KILLED, "the context was restarted"))
        self._wake.set()
        with anyio.move_on_after(self._settings.kernel_start_timeout + _RESTART_SLACK):
            await restart.ended.wait()
        if not restart.ended.is_set():
            raise KernelDiedError(f"the context {self.id} was not restarted in time")
        if restart.error is not None:
            raise restart.error

    async def await_ready(self) -> None:
        """Wait until the first kernel, which is started if need be, stands or has failed to."""
        self.start()
        await self._first_start.wait()
        if self.state is ContextState.DEAD:
            raise self._no_kernel()

    # --- for the sandbox ----------------------------------------------------------------------

    def start(self) -> None:
        """Start the first kernel now, not when it is needed."""
        if self.state is ContextState.UNSTARTED:
            self._move(ContextState.STARTING)
            self._wake.set()

    @property
    def has_unused_kernel(self) -> bool:
        """Say whether it has a kernel to give away."""
        kernel = self._kernel
        is_free = self.state is ContextState.IDLE and not self._queue and self._restart is None
        return is_free and kernel is not None and not (kernel.is_lost or kernel.is_configured)

    def give_kernel(self) -> Kernel | None:
        """Let go of a kernel that stands and has run nothing, if there is one."""
        if not self.has_unused_kernel:
            return None
        kernel, self._kernel = self._kernel, None
        self._first_start = anyio.Event()
        self._move(ContextState.UNSTARTED)
        return kernel

    def take_over(self, kernel: Kernel) -> None:
        """Begin with the kernel that another context gave away."""
        self._move(ContextState.IDLE)
        self._kernel = kernel
        kernel.listen(self)
        self._first_start.set()
        self._wake.set()

    def warm_up(self) -> None:
        """Spend idle time on what the first execution would otherwise wait for."""
        if self._kernel is not None and self.state is ContextState.IDLE:
            self._kernel.warm_up()

    async def run(self) -> None:
        """Run one execution after the other until cancelled."""
        try:
            with self._scope:
                while True:
                    await self._do_next()
        finally:
            self._stopped.set()

    async def await_pausable(self) -> None:
        """Wait until no kernel is being started or stopped."""
        while self.state not in PAUSABLE:
            await self._moved.wait()

    def check_pausable(self) -> None:
        """Raise WrongStateError while a kernel is being started or stopped."""
        if self.state not in PAUSABLE:
            raise WrongStateError(f"the context {self.id} is {self.state}; try again", id=self.id)

    def pause(self) -> None:
        """Stop the clock of what runs."""
        if self._limit is not None:
            self._limit.pause()

    def resume(self) -> None:
        """Let the clock of what runs go on."""
        if self._limit is not None:
            self._limit.resume()

    def kernel_exited(self, notice: ExitNotice) -> None:
        """Pass the launcher's word on to the kernel of that name, if it is still ours."""
        if self._kernel is not None and self._kernel.name == notice.kernel:
            self._kernel.process_exited(notice)

    async def remove(self, detail: str) -> None:
        """End the context alone, while its sandbox goes on."""
        self._closed = self._closed or detail
        self._scope.cancel()
        with anyio.move_on_after(_STOP):
            await self._stopped.wait()
        if self._kernel is not None:
            await self._kernel.kill()
        await self.aclose(detail)

    async def aclose(self, detail: str) -> None:
        """End every execution as killed and close the kernel; `run` must have ended.

        Safe to call twice. What the processes wrote until their end is still delivered.
        """
        self._closed = self._closed or detail
        current, self._current = self._current, None
        kernel, self._kernel = self._kernel, None
        if current is not None and not current.is_finished:
            end = kernel.end if kernel is not None else None
            if end is None or (end.signal == signal.SIGKILL and not end.oom):
                current.kill(self._closed)
            if kernel is not None:
                await kernel.drain()
                kernel.finish()
            current.finish(current.conclude(end))
        for execution in self._queue:
            execution.finish(Ending(FinishReason.KILLED, state_lost=True, detail=self._closed))
        self._queue.clear()
        if kernel is not None:
            await kernel.aclose()
        self._end_restart(WrongStateError(f"the context {self.id} has ended: {self._closed}"))
        self.state = ContextState.DEAD
        self._moved.set()
        self._first_start.set()

    # --- for executions and kernels -----------------------------------------------------------

    def stop(self, execution: Execution, stop: Stop) -> None:
        """End an execution early; one that still waits ends at once."""
        if not execution.stop(stop) or execution is self._current:
            return
        if execution in self._queue:
            self._queue.remove(execution)
            self._queued_code -= execution.size
            execution.finish(
                Ending(stop.reason, detail=stop.detail or "the execution had not begun")
            )

    def send_input(self, execution: Execution, text: str | None) -> None:
        """Answer the running code's ``input()``."""
        if execution is self._current and self._kernel is not None:
            self._kernel.send_input(execution.id, text)

    def kernel_said(self, message: KernelMessage) -> None:
        """Pass on what the kernel says of the running execution."""
        execution, kernel = self._current, self._kernel
        if execution is None or kernel is None:
            return
        execution.hear(message)
        is_plain = self.state is ContextState.BUSY and execution.stopped is None
        if execution.done is not None and is_plain:
            kernel.finish()
            self._end_current(execution.conclude(None))
            self._move(ContextState.IDLE)
            self._wake.set()

    def kernel_ended(self) -> None:
        """Wake whoever must know that the kernel is no more."""
        if self._current is not None:
            self._current.end_code()
        self._wake.set()

    # --- the task -----------------------------------------------------------------------------

    async def _do_next(self) -> None:
        """Wait until there is something to do, and do it."""
        kernel = self._kernel
        if self.state is ContextState.STARTING:
            await self._start_kernel()
        elif self._current is not None and kernel is not None:
            await self._see_through(kernel, self._current)
        elif kernel is not None and kernel.is_lost:
            await self._lose_idle_kernel(kernel)
        elif self._restart is not None:
            await self._replace_kernel()
        elif self._queue:
            await self._begin_when_ready()
        else:
            self._wake = anyio.Event()
            await self._wake.wait()

    async def _begin_when_ready(self) -> None:
        """Begin the next execution, with a kernel that is started for it if there is none."""
        if self._kernel is None:
            self._move_to_start()
            await self._start_kernel()
        if self._kernel is not None:
            if self._queue:
                self._begin_next(self._kernel)
        elif self._queue:
            self._current = self._take_next()
            self._end_current(
                Ending(FinishReason.KERNEL_DIED, state_lost=True, detail=self._failure)
            )

    def _begin_next(self, kernel: Kernel) -> None:
        """Hand the next execution over to an idle kernel."""
        execution = self._current = self._take_next()
        self._count += 1
        self._move(ContextState.BUSY)
        execution.start(self._count)
        if not kernel.is_configured:
            self._configure(kernel)
        kernel.begin(execution.id, execution.log, execution.order)

    def _configure(self, kernel: Kernel) -> None:
        kernel.configure({**self._sandbox_env(), **self.spec.env}, self.spec.cwd)

    def _take_next(self) -> Execution:
        execution = self._queue.popleft()
        self._queued_code -= execution.size
        return execution

    async def _see_through(self, kernel: Kernel, execution: Execution) -> None:
        """Wait for the end of what was begun; end it if it does not end by itself."""
        self._limit = TimeLimit(execution.timeout)
        await self._limit.watch(execution.halted)
        self._limit = None
        if execution.is_finished:
            return
        if not execution.halted.is_set():
            execution.stop(timed_out(execution.timeout))
        if not execution.over.is_set():
            await self._stop_code(kernel, execution)
        if kernel.end is not None:
            await self._await_rest(kernel)
        kernel.finish()
        self._end_current(execution.conclude(kernel.end))
        if kernel.end is None:
            self._move(ContextState.IDLE)
        else:
            await self._replace_kernel()

    async def _stop_code(self, kernel: Kernel, execution: Execution) -> None:
        """Interrupt the code; if that does not end it in time, kill its kernel."""
        self._move(ContextState.INTERRUPTING)
        grace = self._settings.interrupt_grace
        if not execution.is_killed:
            with anyio.move_on_after(grace):
                await self._interrupt(kernel)
                await execution.over_or_killed.wait()
            if not execution.over_or_killed.is_set():
                execution.note_no_answer(grace)
        if not execution.over.is_set():
            await kernel.kill()

    async def _interrupt(self, kernel: Kernel) -> None:
        """Send the signal and wait until it is sent, so that it cannot hit the next code."""
        try:
            await kernel.interrupt()
        except HeadraceError as error:
            _logger.warning("kernel not interrupted: %s", error.message)

    async def _await_rest(self, kernel: Kernel) -> None:
        """Make sure that a lost kernel is gone, and get what it has written.

        A kernel that somebody killed may be the first sign that its whole sandbox was: then this
        task is cancelled while it waits, and the sandbox tells the reason.
        """
        await kernel.kill()
        end = kernel.end
        if end is not None and end.signal == signal.SIGKILL and not (end.oom or kernel.was_killed):
            await anyio.sleep(_SETTLE)
        await kernel.drain()

    def _end_current(self, ending: Ending) -> None:
        """Finish the current execution, which also tells of a kernel lost before it."""
        execution, self._current = self._current, None
        loss, self._loss = self._loss, None
        if loss is not None and not ending.state_lost:
            detail = ending.detail or f"{loss}; this execution began with a fresh one"
            ending = replace(ending, state_lost=True, detail=detail)
        if execution is not None:
            execution.finish(ending)

    async def _lose_idle_kernel(self, kernel: Kernel) -> None:
        await self._drop_kernel()
        detail = kernel.end.detail if kernel.end is not None else "the kernel ended"
        self._loss = f"{detail} between two executions"
        self._move(ContextState.DEAD)

    async def _replace_kernel(self) -> None:
        """Get a fresh kernel in place of one that is lost, or not wanted any more."""
        self._move_to_start()
        await self._drop_kernel()
        await self._start_kernel()
        # Whoever asked for it, or whose execution it was, knows that the state is gone.
        self._loss = None
        self._end_restart(None if self._kernel is not None else self._no_kernel())

    async def _start_kernel(self) -> None:
        """Start a kernel and become idle; or dead, with the cause in ``_failure``."""
        kernel = self._kernel = Kernel(self._starter(), self)
        try:
            with anyio.fail_after(self._settings.kernel_start_timeout):
                await kernel.launch()
                if self.spec.language is not Language.PYTHON:
                    # Its interpreter may start while the first code is on its way.
                    self._configure(kernel)
                    kernel.warm_up()
                await kernel.await_ready()
        except (HeadraceError, TimeoutError) as error:
            message = (
                error.message if isinstance(error, HeadraceError) else "it was not ready in time"
            )
            self._failure = f"no kernel could be started: {message}"
            _logger.warning("kernel not started: %s", message)
            await self._drop_kernel()
            self._move(ContextState.DEAD)
        else:
            self._move(ContextState.IDLE)
        self._first_start.set()

    async def _drop_kernel(self) -> None:
        if self._kernel is not None:
            await self._kernel.kill()
            await self._kernel.aclose()
            self._kernel = None

    # --- small things -------------------------------------------------------------------------

    def _move(self, state: ContextState) -> None:
        if state not in MOVES[self.state]:
            raise AssertionError(f"a context cannot go from {self.state} to {state}")
        self.state = state
        moved, self._moved = self._moved, anyio.Event()
        moved.set()

    def _move_to_start(self) -> None:
        is_first = self.state is ContextState.UNSTARTED
        self._move(ContextState.STARTING if is_first else ContextState.RESTARTING)

    def _end_restart(self, error: HeadraceError | None) -> None:
        restart, self._restart = self._restart, None
        if restart is not None:
            restart.error = error
            restart.ended.set()

    def _no_kernel(self) -> KernelDiedError:
        return KernelDiedError(f"the context {self.id} has no kernel: {self._failure}", id=self.id)

    def _remember(self, execution: Execution) -> None:
        self.executions.append(execution)
        while len(self.executions) > KEPT_EXECUTIONS and self.executions[0].is_finished:
            self.executions.popleft()
