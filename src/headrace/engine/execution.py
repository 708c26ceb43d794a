"""One piece of code on its way: what its kernel says becomes events, its end one true reason."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import anyio

from headrace.engine.event_log import EventLog
from headrace.engine.kernel import KernelEnd
from headrace.model.errors import (
    HeadraceError,
    InvalidRequestError,
    OutputTooLargeError,
    WrongStateError,
)
from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    InputRequested,
    ResultDisplayed,
)
from headrace.model.ids import ContextId, ExecutionId
from headrace.model.results import Result
from headrace.model.specs import MIB, ExecutionRequest, Limits, check_text
from headrace_guest.protocol import (
    MAX_HOST_FRAME,
    KernelDone,
    KernelError,
    KernelInput,
    KernelMessage,
    KernelReady,
    KernelResult,
    ProtocolError,
    encode_frame,
)

MAX_INPUT = 1 * MIB
_SURELY_SENDABLE = 1 * MIB
_ENVELOPE = 1024


@dataclass(frozen=True, slots=True)
class Stop:
    """Why an execution was told to end before its code did."""

    reason: FinishReason
    detail: str | None = None
    limit: str | None = None
    limit_value: float | None = None


def timed_out(timeout: float | None) -> Stop:
    """Give the stop for a time limit of that many seconds."""
    return Stop(FinishReason.TIMEOUT, limit="timeout", limit_value=timeout)


@dataclass(frozen=True, slots=True)
class Ending:
    """Everything about an end but when it was."""

    reason: FinishReason
    exit_code: int | None = None
    signal: int | None = None
    state_lost: bool = False
    limit: str | None = None
    limit_value: float | None = None
    detail: str | None = None


def conclude(
    done: KernelDone | None, end: KernelEnd | None, stop: Stop | None, limits: Limits
) -> Ending:
    """Decide how an execution ended.

    ``done`` is the kernel's word, ``end`` how the kernel itself ended if it did, ``stop`` what we
    told the execution. A limit that was hit is the reason however the code then ended; after an
    interrupt the kernel's word counts, since code may answer an interrupt as it likes.
    """
    if done is not None:
        return _conclude_done(done, end, stop)
    if stop is not None and stop.reason is FinishReason.KILLED:
        return Ending(stop.reason, state_lost=True, detail=stop.detail)
    if end is None:
        return _from_stop(stop or Stop(FinishReason.KILLED, "the engine lost it"), None)
    if end.oom:
        return Ending(
            FinishReason.OOM,
            exit_code=end.exit_code,
            signal=end.signal,
            state_lost=True,
            limit="memory",
            limit_value=limits.memory,
            detail=end.detail,
        )
    if stop is not None:
        return _from_stop(stop, end)
    return Ending(
        FinishReason.KERNEL_DIED,
        exit_code=end.exit_code,
        signal=end.signal,
        state_lost=True,
        detail=end.detail,
    )


_STATUSES = {
    "ok": FinishReason.OK,
    "error": FinishReason.ERROR,
    "interrupted": FinishReason.INTERRUPTED,
}


def _conclude_done(done: KernelDone, end: KernelEnd | None, stop: Stop | None) -> Ending:
    lost = end is not None
    detail = end.detail if end is not None else None
    if stop is not None and stop.limit is not None:
        return Ending(
            stop.reason,
            exit_code=done.exit_code,
            state_lost=lost,
            limit=stop.limit,
            limit_value=stop.limit_value,
            detail=detail or stop.detail,
        )
    return Ending(_STATUSES[done.status], exit_code=done.exit_code, state_lost=lost, detail=detail)


def _from_stop(stop: Stop, end: KernelEnd | None) -> Ending:
    return Ending(
        stop.reason,
        exit_code=end.exit_code if end else None,
        signal=end.signal if end else None,
        state_lost=end is not None,
        limit=stop.limit,
        limit_value=stop.limit_value,
        detail=stop.detail or (end.detail if end else None),
    )


def make_order(request: ExecutionRequest) -> Mapping[str, Any]:
    """Give what a kernel is told of a request."""
    return {
        "code": request.code,
        "env": dict(request.env),
        "cwd": request.cwd,
        "accepts_input": request.accepts_input,
    }


def check_sendable(request: ExecutionRequest) -> None:
    """Refuse code that is within its limit but, escaped as JSON, too long for a frame."""
    if len(request.code) <= _SURELY_SENDABLE:
        return
    try:
        encode_frame(make_order(request), MAX_HOST_FRAME - _ENVELOPE)
    except ProtocolError as error:
        raise InvalidRequestError(f"code cannot be sent: {error}") from error


class ExecutionOwner(Protocol):
    """The context that an execution belongs to."""

    def stop(self, execution: "Execution", stop: Stop) -> None:
        """End an execution early, wherever it stands; returns at once."""

    def send_input(self, execution: "Execution", text: str | None) -> None:
        """Answer the running code's ``input()``."""


class Execution:
    """One execution; readers follow `events`, the context drives the rest.

    ``order`` is what the kernel is told. ``over`` is set when the code cannot do anything any
    more: done, or no kernel; ``over_or_killed`` also when it is to be killed at once; ``halted``
    also when it was told to stop.
    """

    def __init__(
        self,
        execution_id: ExecutionId,
        context_id: ContextId,
        request: ExecutionRequest,
        log: EventLog[ExecutionEvent],
        owner: ExecutionOwner,
        limits: Limits,
    ) -> None:
        self.id = execution_id
        self.context_id = context_id
        self.log = log
        self.order = make_order(request)
        self.timeout = request.timeout
        self.halted = anyio.Event()
        self.over_or_killed = anyio.Event()
        self.over = anyio.Event()
        self.done: KernelDone | None = None
        self.stopped: Stop | None = None
        self._accepts_input = request.accepts_input
        self._owner = owner
        self._limits = limits
        self._started_at: float | None = None
        self._waits_for_input = False
        self.log.on_limit = self._hit_output_limit

    # --- for callers --------------------------------------------------------------------------

    @property
    def is_finished(self) -> bool:
        """Say whether the terminal event is in the log."""
        return self.log.is_finished

    def events(self, after: int = 0) -> AsyncIterator[ExecutionEvent]:
        """Give every event behind number ``after``, as they come, until the terminal one."""
        return self.log.read(after)

    async def wait(self) -> ExecutionFinished:
        """Wait for the end and give it."""
        return cast("ExecutionFinished", await self.log.wait())

    async def interrupt(self) -> None:
        """Ask the code to stop; its end says how it took that. Does nothing after the end."""
        if not self.is_finished:
            self._owner.stop(self, Stop(FinishReason.INTERRUPTED))

    async def send_input(self, text: str | None) -> None:
        """Answer ``input()``; None is the end of the file.

        Raises WrongStateError unless an InputRequested event is waiting for its answer.
        """
        if text is not None:
            check_text("input", text, MAX_INPUT)
        if self.is_finished or not self._waits_for_input:
            raise WrongStateError(f"the execution {self.id} does not wait for input", id=self.id)
        self._waits_for_input = False
        self._owner.send_input(self, text)

    # --- for the context ----------------------------------------------------------------------

    @property
    def size(self) -> int:
        """The length of the code; 0 after the end."""
        return len(self.order.get("code", ""))

    @property
    def is_killed(self) -> bool:
        """Say whether the kernel is to be killed without being asked first."""
        return self.stopped is not None and self.stopped.reason is FinishReason.KILLED

    def start(self, count: int) -> None:
        """Note that the code is handed over. ``count`` is 0 if it never will be."""
        event = self.log.append(
            lambda seq, timestamp: ExecutionStarted(seq, timestamp, self.id, self.context_id, count)
        )
        self._started_at = event.timestamp

    def hear(self, message: KernelMessage) -> None:
        """Take what the kernel says of this execution; raises ProtocolError if it may not."""
        match message:
            case KernelDone():
                self.done = message
                self.end_code()
            case KernelResult():
                self._hear_result(message)
            case KernelError():
                error = _read_error(message)
                self._append(lambda seq, timestamp: CodeRaised(seq, timestamp, error))
            case KernelInput():
                self._hear_input(message)
            case KernelReady():
                raise ProtocolError("a kernel is ready only once")

    def stop(self, stop: Stop) -> bool:
        """Note that the execution is to end; the first word stands, except that a kill wins."""
        if self.over.is_set() or self.is_finished:
            return False
        is_kill = stop.reason is FinishReason.KILLED
        if self.stopped is not None and (not is_kill or self.stopped.reason is stop.reason):
            return False
        self.stopped = stop
        self.halted.set()
        if is_kill:
            self.over_or_killed.set()
        return True

    def kill(self, detail: str) -> None:
        """Note that everything around it ended; what the kernel said before still counts."""
        self.stopped = Stop(FinishReason.KILLED, detail)
        self.end_code()

    def note_no_answer(self, grace: float) -> None:
        """Note that the code did not heed the interrupt, so that its kernel must go."""
        if self.stopped is not None:
            detail = f"the code did not end within {grace:g} s of the interrupt"
            self.stopped = replace(self.stopped, detail=detail)

    def end_code(self) -> None:
        """Note that the code can do nothing any more."""
        self.halted.set()
        self.over_or_killed.set()
        self.over.set()

    def finish(self, ending: Ending) -> None:
        """Append the terminal event; does nothing if it is there already."""
        if self.is_finished:
            return
        self.end_code()
        self.order = {}
        self.log.on_limit = None
        if self._started_at is None:
            self.start(0)
        started_at = self._started_at or 0.0
        self.log.finish(
            lambda seq, timestamp: ExecutionFinished(
                seq,
                timestamp,
                ending.reason,
                duration=max(0.0, timestamp - started_at),
                exit_code=ending.exit_code,
                signal=ending.signal,
                state_lost=ending.state_lost,
                limit=ending.limit,
                limit_value=ending.limit_value,
                detail=ending.detail,
            )
        )

    def conclude(self, end: KernelEnd | None) -> Ending:
        """Decide how this execution ended, see `conclude`."""
        return conclude(self.done, end, self.stopped, self._limits)

    def _hear_result(self, message: KernelResult) -> None:
        result = Result(
            bundle=message.bundle,
            is_main=message.is_main,
            omitted=message.omitted,
            display_id=message.display_id,
            is_update=message.is_update,
        )
        self._append(lambda seq, timestamp: ResultDisplayed(seq, timestamp, result))

    def _hear_input(self, message: KernelInput) -> None:
        if not self._accepts_input:
            raise ProtocolError("input was requested by an execution that accepts none")
        self._waits_for_input = True
        self._append(
            lambda seq, timestamp: InputRequested(
                seq, timestamp, message.prompt, message.is_password
            )
        )

    def _append(self, make: "MakeEvent") -> None:
        try:
            self.log.append(make)
        except OutputTooLargeError:
            # The log has called on_limit already.
            return
        except HeadraceError as error:
            self._owner.stop(self, Stop(FinishReason.KILLED, error.message))

    def _hit_output_limit(self) -> None:
        limit = self._limits.output
        stop = Stop(FinishReason.OUTPUT_LIMIT, limit="output", limit_value=limit)
        self._owner.stop(self, stop)


class MakeEvent(Protocol):
    """Makes an event from its number and its time."""

    def __call__(self, seq: int, timestamp: float, /) -> ExecutionEvent:
        """Make it."""


def _read_error(message: KernelError) -> CodeError:
    return CodeError(
        name=message.name,
        value=message.value,
        traceback=message.traceback,
        parts=tuple(_read_error(part) for part in message.parts),
    )
