"""How an execution ends, decided by a pure function, and what its events say."""

import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from headrace.engine.event_log import EventLog
from headrace.engine.execution import (
    Ending,
    Execution,
    Stop,
    check_sendable,
    conclude,
    timed_out,
)
from headrace.engine.kernel import KernelEnd
from headrace.engine.log_files import Bounds
from headrace.engine.log_store import LogStore
from headrace.model.errors import InvalidRequestError, WrongStateError
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
from headrace.model.records import EXECUTION_CODEC
from headrace.model.results import Result
from headrace.model.specs import MIB, ExecutionRequest, Limits
from headrace_guest.protocol import (
    KernelDone,
    KernelError,
    KernelInput,
    KernelReady,
    KernelResult,
    ProtocolError,
)
from tests.support.logs import read_all

LIMITS = Limits()
OK = KernelDone("x", "ok", None)
KILLED_9 = KernelEnd("ended by signal 9", signal=9, has_exited=True)


def done(status: str, exit_code: int | None = None) -> KernelDone:
    return KernelDone("x", status, exit_code)


INTERRUPT = Stop(FinishReason.INTERRUPTED)
TIMEOUT = timed_out(2.0)
OUTPUT = Stop(FinishReason.OUTPUT_LIMIT, limit="output", limit_value=1024)
KILL = Stop(FinishReason.KILLED, "the sandbox was killed")


@pytest.mark.parametrize(
    ("said", "end", "stop", "ending"),
    [
        (OK, None, None, Ending(FinishReason.OK)),
        (done("ok", 0), None, None, Ending(FinishReason.OK, exit_code=0)),
        (done("error"), None, None, Ending(FinishReason.ERROR)),
        (done("error", 3), None, None, Ending(FinishReason.ERROR, exit_code=3)),
        (done("interrupted"), None, None, Ending(FinishReason.INTERRUPTED)),
        # After an interrupt the code may end as it likes.
        (done("interrupted"), None, INTERRUPT, Ending(FinishReason.INTERRUPTED)),
        (OK, None, INTERRUPT, Ending(FinishReason.OK)),
        (done("error", 3), None, INTERRUPT, Ending(FinishReason.ERROR, exit_code=3)),
        # A limit is the reason whatever the code did then.
        (OK, None, TIMEOUT, Ending(FinishReason.TIMEOUT, limit="timeout", limit_value=2.0)),
        (
            done("interrupted"),
            None,
            OUTPUT,
            Ending(FinishReason.OUTPUT_LIMIT, limit="output", limit_value=1024),
        ),
        # What ended before it was killed keeps its own reason.
        (OK, None, KILL, Ending(FinishReason.OK)),
        (
            OK,
            KILLED_9,
            None,
            Ending(FinishReason.OK, state_lost=True, detail="ended by signal 9"),
        ),
        # No word of the kernel.
        (
            None,
            KernelEnd("exited with status 3", exit_code=3, has_exited=True),
            None,
            Ending(
                FinishReason.KERNEL_DIED,
                exit_code=3,
                state_lost=True,
                detail="exited with status 3",
            ),
        ),
        (
            None,
            KernelEnd("no memory", signal=9, oom=True, has_exited=True),
            TIMEOUT,
            Ending(
                FinishReason.OOM,
                signal=9,
                state_lost=True,
                limit="memory",
                limit_value=LIMITS.memory,
                detail="no memory",
            ),
        ),
        (
            None,
            KILLED_9,
            INTERRUPT,
            Ending(FinishReason.INTERRUPTED, signal=9, state_lost=True, detail="ended by signal 9"),
        ),
        (
            None,
            KILLED_9,
            TIMEOUT,
            Ending(
                FinishReason.TIMEOUT,
                signal=9,
                state_lost=True,
                limit="timeout",
                limit_value=2.0,
                detail="ended by signal 9",
            ),
        ),
        (
            None,
            KILLED_9,
            KILL,
            Ending(FinishReason.KILLED, state_lost=True, detail="the sandbox was killed"),
        ),
        (
            None,
            None,
            KILL,
            Ending(FinishReason.KILLED, state_lost=True, detail="the sandbox was killed"),
        ),
        (None, None, INTERRUPT, Ending(FinishReason.INTERRUPTED)),
        (None, None, None, Ending(FinishReason.KILLED, detail="the engine lost it")),
    ],
)
def test_the_reason_follows_from_what_happened(
    said: KernelDone | None, end: KernelEnd | None, stop: Stop | None, ending: Ending
) -> None:
    assert conclude(said, end, stop, LIMITS) == ending


def test_code_that_is_too_long_once_it_is_escaped_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="cannot be sent"):
        check_sendable(ExecutionRequest("\n" * (11 * MIB)))


def test_long_code_that_fits_is_accepted() -> None:
    check_sendable(ExecutionRequest("x" * (15 * MIB)))


# --- with a log -----------------------------------------------------------------------------


@dataclass
class Owner:
    """A context that writes down what it is told."""

    stops: list[Stop] = field(default_factory=list)
    inputs: list[str | None] = field(default_factory=list)

    def stop(self, execution: Execution, stop: Stop) -> None:
        execution.stop(stop)
        self.stops.append(stop)

    def send_input(self, _execution: Execution, text: str | None) -> None:
        self.inputs.append(text)


@dataclass
class Case:
    """An execution with its log and owner."""

    execution: Execution
    owner: Owner
    log: EventLog[ExecutionEvent]

    async def events(self) -> list[ExecutionEvent]:
        return await read_all(self.log)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LogStore]:
    bounds = Bounds(records=4096)
    async with LogStore(tmp_path / "run", tmp_path / "state", bounds=bounds) as store:
        yield store


def make(store: LogStore, *, accepts_input: bool = False, output: int = 1024) -> Case:
    log = store.create("x", EXECUTION_CODEC, max_output=output)
    owner, limits = Owner(), Limits(output=output)
    request = ExecutionRequest("code", accepts_input=accepts_input)
    execution = Execution(ExecutionId("x"), ContextId("c"), request, log, owner, limits)
    return Case(execution, owner, log)


async def test_what_the_kernel_says_becomes_events_in_order(store: LogStore) -> None:
    case = make(store, accepts_input=True)
    case.execution.start(4)
    part = KernelError("x", "KeyError", "'k'", "tb2")
    case.execution.hear(KernelResult("x", {"text/plain": "2"}, True, {"image/png": 9}, "d", True))
    case.execution.hear(KernelInput("x", "name? ", is_password=True))
    case.execution.hear(KernelError("x", "ExceptionGroup", "two", "tb", (part,)))
    case.execution.hear(done("error"))
    case.execution.finish(case.execution.conclude(None))
    started, result, asked, raised, finished = await case.events()
    assert isinstance(started, ExecutionStarted)
    assert started.execution_count == 4
    assert isinstance(result, ResultDisplayed)
    assert result.result == Result({"text/plain": "2"}, True, {"image/png": 9}, "d", True)
    assert isinstance(asked, InputRequested)
    assert (asked.prompt, asked.is_password) == ("name? ", True)
    assert isinstance(raised, CodeRaised)
    inner = CodeError("KeyError", "'k'", "tb2")
    assert raised.error == CodeError("ExceptionGroup", "two", "tb", (inner,))
    assert isinstance(finished, ExecutionFinished)
    assert finished.reason is FinishReason.ERROR


async def test_every_log_begins_with_started_even_if_nothing_ran(store: LogStore) -> None:
    case = make(store)
    case.execution.finish(Ending(FinishReason.KILLED))
    started, finished = await case.events()
    assert isinstance(started, ExecutionStarted)
    assert started.execution_count == 0
    assert isinstance(finished, ExecutionFinished)
    assert finished.duration >= 0.0


async def test_there_is_only_one_terminal_event(store: LogStore) -> None:
    case = make(store)
    case.execution.start(1)
    case.execution.finish(Ending(FinishReason.OK))
    case.execution.finish(Ending(FinishReason.KILLED))
    assert len(await case.events()) == 2
    assert (await case.execution.wait()).reason is FinishReason.OK


async def test_input_is_refused_from_code_that_may_not_ask(store: LogStore) -> None:
    case = make(store)
    with pytest.raises(ProtocolError, match="accepts none"):
        case.execution.hear(KernelInput("x", "", is_password=False))


async def test_a_second_ready_is_refused(store: LogStore) -> None:
    with pytest.raises(ProtocolError):
        make(store).execution.hear(KernelReady())


async def test_input_goes_to_code_that_waits_for_it_once(store: LogStore) -> None:
    case = make(store, accepts_input=True)
    case.execution.start(1)
    with pytest.raises(WrongStateError, match="does not wait for input"):
        await case.execution.send_input("early")
    case.execution.hear(KernelInput("x", "", is_password=False))
    await case.execution.send_input("text")
    with pytest.raises(WrongStateError):
        await case.execution.send_input("again")
    assert case.owner.inputs == ["text"]


@pytest.mark.parametrize("text", ["a\0b", "\ud800", "x" * (MIB + 1)])
async def test_input_that_is_no_text_is_refused(store: LogStore, text: str) -> None:
    case = make(store, accepts_input=True)
    case.execution.start(1)
    case.execution.hear(KernelInput("x", "", is_password=False))
    with pytest.raises(InvalidRequestError):
        await case.execution.send_input(text)
    await case.execution.send_input(None)


async def test_the_first_stop_stands_but_a_kill_wins(store: LogStore) -> None:
    case = make(store)
    assert case.execution.stop(TIMEOUT)
    assert not case.execution.stop(INTERRUPT)
    assert case.execution.stopped == TIMEOUT
    assert not case.execution.over_or_killed.is_set()
    assert case.execution.stop(KILL)
    assert not case.execution.stop(KILL)
    assert case.execution.stopped == KILL
    assert case.execution.over_or_killed.is_set()


async def test_what_is_over_cannot_be_stopped(store: LogStore) -> None:
    case = make(store)
    case.execution.hear(OK)
    assert not case.execution.stop(KILL)


async def test_results_that_fill_the_log_stop_the_execution(store: LogStore) -> None:
    case = make(store)
    case.execution.start(1)
    for _ in range(3):
        case.execution.hear(KernelResult("x", {"text/plain": "y" * 2000}, True, {}, None, False))
    assert case.owner.stops == [OUTPUT]


async def test_interrupting_what_has_ended_does_nothing(store: LogStore) -> None:
    case = make(store)
    await case.execution.interrupt()
    assert case.owner.stops == [INTERRUPT]
    case.execution.finish(Ending(FinishReason.OK))
    await case.execution.interrupt()
    assert case.owner.stops == [INTERRUPT]


async def test_code_is_forgotten_at_the_end(store: LogStore) -> None:
    case = make(store)
    assert case.execution.size == 4
    case.execution.finish(Ending(FinishReason.OK))
    assert case.execution.size == 0


def test_the_end_of_a_kernel_is_put_into_words() -> None:
    assert KILLED_9.signal == signal.SIGKILL
