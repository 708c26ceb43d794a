"""One execution at a time per context; each ends in its one true reason, whatever happens."""

import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from headrace.engine.context import MAX_QUEUE, Context
from headrace.engine.context_state import ContextState
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import (
    InvalidRequestError,
    KernelDiedError,
    QuotaError,
    WrongStateError,
)
from headrace.model.events import (
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    InputRequested,
    OutputDropped,
    ResultDisplayed,
    Stream,
)
from headrace.model.specs import MIB, ExecutionRequest, Language, Limits, SandboxSpec
from tests.support.fakes import FakeKernel, FakeLauncher, open_fake_engine
from tests.support.logs import join_output, read_all, sum_dropped, wait_until

SPEC = SandboxSpec(env={"LEVEL": "sandbox", "ONLY": "sandbox"}, limits=Limits(output=10_000))


@dataclass
class World:
    """A sandbox with its default context, on a fake launcher."""

    engine: Engine
    launcher: FakeLauncher
    sandbox: Sandbox
    context: Context

    @property
    def kernel(self) -> FakeKernel:
        """The kernel that runs now."""
        (kernel,) = self.launcher.sandboxes[self.sandbox.id].kernels.values()
        return kernel

    async def run(self, code: str, timeout: float | None = None) -> list[ExecutionEvent]:  # noqa: ASYNC109
        """Run code and give all its events."""
        execution = await self.sandbox.execute(ExecutionRequest(code, timeout=timeout))
        return await read_all(execution.log)

    async def end(self, code: str, timeout: float | None = None) -> ExecutionFinished:  # noqa: ASYNC109
        """Run code and give its terminal event."""
        return terminal(await self.run(code, timeout))


def terminal(events: list[ExecutionEvent]) -> ExecutionFinished:
    """Give the terminal event, which must be the last and only one."""
    assert isinstance(events[0], ExecutionStarted)
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    (finished,) = [event for event in events if isinstance(event, ExecutionFinished)]
    assert finished is events[-1]
    return finished


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        sandbox = await engine.create(SPEC)
        context = await sandbox.default_context(Language.PYTHON)
        await context.await_ready()
        yield World(engine, launcher, sandbox, context)


# --- what code does -------------------------------------------------------------------------


async def test_what_code_does_is_told_in_order(world: World) -> None:
    events = await world.run("out one\nresult two\nerr three\nmain four")
    kinds = [type(event).__name__ for event in events]
    assert kinds == [
        "ExecutionStarted",
        "OutputWritten",
        "ResultDisplayed",
        "OutputWritten",
        "ResultDisplayed",
        "ExecutionFinished",
    ]
    assert join_output(events, Stream.STDOUT) == b"one\n"
    assert join_output(events, Stream.STDERR) == b"three\n"
    results = [event.result for event in events if isinstance(event, ResultDisplayed)]
    assert [(result.text, result.is_main) for result in results] == [("two", False), ("four", True)]
    assert terminal(events).reason is FinishReason.OK


async def test_executions_are_counted(world: World) -> None:
    counts = [(await world.run("out x"))[0] for _ in range(3)]
    assert [c.execution_count for c in counts if isinstance(c, ExecutionStarted)] == [1, 2, 3]


async def test_an_error_of_the_code_is_data(world: World) -> None:
    events = await world.run("error ValueError bad")
    raised = events[1]
    assert isinstance(raised, CodeRaised)
    assert (raised.error.name, raised.error.value) == ("ValueError", "bad")
    assert terminal(events).reason is FinishReason.ERROR


@pytest.mark.parametrize(("code", "reason"), [("0", FinishReason.OK), ("3", FinishReason.ERROR)])
async def test_sys_exit_keeps_its_status_and_the_kernel(
    world: World, code: str, reason: FinishReason
) -> None:
    finished = await world.end(f"exit {code}")
    assert (finished.reason, finished.exit_code, finished.state_lost) == (reason, int(code), False)
    assert world.launcher.kernel_starts == 1


async def test_a_character_written_in_two_halves_is_not_split(world: World) -> None:
    events = await world.run("hex f09f\nhex 9880")
    assert [event.data for event in events[1:-1]] == ["😀".encode()]  # type: ignore[union-attr]


async def test_input_is_asked_for_and_answered(world: World) -> None:
    request = ExecutionRequest("input name?", accepts_input=True)
    execution = await world.sandbox.execute(request)
    async for event in execution.events():
        if isinstance(event, InputRequested):
            assert event.prompt == "name?"
            await execution.send_input("Ada")
    assert join_output(await read_all(execution.log), Stream.STDOUT) == b"Ada\n"


async def test_environments_lie_over_each_other(world: World) -> None:
    execution = await world.sandbox.execute(
        ExecutionRequest("env LEVEL\nenv ONLY", env={"LEVEL": "execution"})
    )
    events = await read_all(execution.log)
    assert join_output(events, Stream.STDOUT) == b"execution\nsandbox\n"
    assert join_output(await world.run("env LEVEL"), Stream.STDOUT) == b"sandbox\n"


async def test_a_directory_holds_for_one_execution(world: World) -> None:
    execution = await world.sandbox.execute(ExecutionRequest("cwd", cwd="/tmp"))
    assert join_output(await read_all(execution.log), Stream.STDOUT) == b"/tmp\n"
    assert join_output(await world.run("cwd"), Stream.STDOUT) == b"/home/user\n"


async def test_a_fresh_kernel_gets_the_environment_again(world: World) -> None:
    await world.run("die 0")
    assert join_output(await world.run("env ONLY"), Stream.STDOUT) == b"sandbox\n"


async def test_one_execution_runs_at_a_time_in_the_order_of_their_coming(world: World) -> None:
    first = await world.sandbox.execute(ExecutionRequest("handle\nout first"))
    second = await world.sandbox.execute(ExecutionRequest("out second"))
    await wait_until(lambda: world.context.state is ContextState.BUSY)
    assert second.log.last_seq == 0
    assert world.context.executions[0] is first
    await first.interrupt()
    assert (await second.wait()).reason is FinishReason.OK
    ended = await first.wait()
    started = (await read_all(second.log))[0]
    assert started.timestamp >= ended.timestamp


async def test_output_written_between_executions_belongs_to_the_next_one(world: World) -> None:
    await world.run("out one")
    await world.kernel.print("out", "thread")
    events = await world.run("out two")
    assert join_output(events, Stream.STDOUT) == b"thread\ntwo\n"


# --- interrupts and limits ------------------------------------------------------------------


async def test_an_interrupt_ends_the_code_and_keeps_the_kernel(world: World) -> None:
    execution = await world.sandbox.execute(ExecutionRequest("out begun\nwait"))
    await wait_until(lambda: execution.log.last_seq >= 2)
    assert await world.context.interrupt()
    finished = await execution.wait()
    assert (finished.reason, finished.state_lost) == (FinishReason.INTERRUPTED, False)
    assert world.launcher.kernel_starts == 1
    assert world.context.state is ContextState.IDLE


async def test_interrupting_an_idle_context_says_so(world: World) -> None:
    assert not await world.context.interrupt()


async def test_code_that_answers_an_interrupt_itself_ends_as_it_likes(world: World) -> None:
    execution = await world.sandbox.execute(ExecutionRequest("handle\nout bye"))
    await wait_until(lambda: world.context.state is ContextState.BUSY)
    await execution.interrupt()
    assert (await execution.wait()).reason is FinishReason.OK


async def test_code_that_ignores_an_interrupt_loses_its_kernel(world: World) -> None:
    execution = await world.sandbox.execute(ExecutionRequest("out begun\nstubborn"))
    await wait_until(lambda: execution.log.last_seq >= 2)
    await execution.interrupt()
    finished = await execution.wait()
    assert (finished.reason, finished.state_lost) == (FinishReason.INTERRUPTED, True)
    assert finished.signal == signal.SIGKILL
    assert finished.detail == "the code did not end within 0.1 s of the interrupt"
    assert (await world.end("out again")).reason is FinishReason.OK
    assert world.launcher.kernel_starts == 2


async def test_a_time_limit_interrupts(world: World) -> None:
    finished = await world.end("wait", timeout=0.01)
    assert (finished.reason, finished.limit, finished.limit_value, finished.state_lost) == (
        FinishReason.TIMEOUT,
        "timeout",
        0.01,
        False,
    )


async def test_a_time_limit_kills_what_does_not_heed_it(world: World) -> None:
    finished = await world.end("stubborn", timeout=0.01)
    assert (finished.reason, finished.state_lost) == (FinishReason.TIMEOUT, True)


async def test_a_time_limit_does_not_count_the_waiting(world: World) -> None:
    await world.sandbox.execute(ExecutionRequest("wait", timeout=0.05))
    assert (await world.end("out x", timeout=0.04)).reason is FinishReason.OK


async def test_an_execution_that_waits_can_be_interrupted(world: World) -> None:
    first = await world.sandbox.execute(ExecutionRequest("handle"))
    second = await world.sandbox.execute(ExecutionRequest("out x"))
    await second.interrupt()
    events = await read_all(second.log)
    finished = terminal(events)
    assert (finished.reason, finished.state_lost) == (FinishReason.INTERRUPTED, False)
    assert isinstance(events[0], ExecutionStarted)
    assert events[0].execution_count == 0
    await wait_until(lambda: world.context.state is ContextState.BUSY)
    await first.interrupt()
    assert (await first.wait()).reason is FinishReason.OK


async def test_too_much_output_ends_the_code_with_the_limit(world: World) -> None:
    events = await world.run("flood 50000\nwait")
    finished = terminal(events)
    assert (finished.reason, finished.limit, finished.limit_value) == (
        FinishReason.OUTPUT_LIMIT,
        "output",
        10_000,
    )
    assert len(join_output(events, Stream.STDOUT)) == 10_000
    assert sum_dropped(events, Stream.STDOUT) == 40_000
    assert any(isinstance(event, OutputDropped) for event in events)


async def test_an_interrupt_that_cannot_be_sent_still_ends_in_time(world: World) -> None:
    world.launcher.refusals["signal"] = ("failed", "no such luck")
    finished = await world.end("wait", timeout=0.01)
    assert (finished.reason, finished.state_lost) == (FinishReason.TIMEOUT, True)


# --- deaths ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "reason", "exit_code", "number"),
    [
        ("die 3", FinishReason.KERNEL_DIED, 3, None),
        ("signal 11", FinishReason.KERNEL_DIED, None, 11),
        ("signal 9", FinishReason.KERNEL_DIED, None, 9),
        ("oom", FinishReason.OOM, None, 9),
    ],
)
async def test_the_death_of_a_kernel_is_told_with_its_cause(
    world: World, code: str, reason: FinishReason, exit_code: int | None, number: int | None
) -> None:
    events = await world.run(f"out before\n{code}")
    finished = terminal(events)
    assert (finished.reason, finished.exit_code, finished.signal, finished.state_lost) == (
        reason,
        exit_code,
        number,
        True,
    )
    assert join_output(events, Stream.STDOUT) == b"before\n"
    after = await world.end("out after")
    assert (after.reason, after.state_lost) == (FinishReason.OK, False)


async def test_a_kernel_that_dies_idle_is_replaced_when_it_is_needed(world: World) -> None:
    await world.run("out x")
    world.kernel.scope.cancel()
    await wait_until(lambda: world.context.state is ContextState.DEAD)
    assert world.launcher.kernel_starts == 1
    finished = await world.end("out x")
    assert (finished.reason, finished.state_lost) == (FinishReason.OK, True)
    assert finished.detail is not None
    assert "between two executions" in finished.detail
    assert (await world.end("out x")).state_lost is False


@pytest.mark.parametrize(
    "code",
    [
        'frame {"type":"done","execution":"other","status":"ok","exit_code":null}',
        'frame {"type":"ready"}',
        "bytes ffffffff",
        "bytes 000000046e6f7065",
        "input not-allowed",
    ],
)
async def test_a_kernel_that_lies_ends_its_own_execution_only(world: World, code: str) -> None:
    other = await world.sandbox.create_context(world.context.spec)
    waiting = await world.sandbox.execute(ExecutionRequest("handle", context_id=other.id))
    finished = await world.end(code + "\nstubborn")
    assert (finished.reason, finished.state_lost) == (FinishReason.KERNEL_DIED, True)
    assert finished.detail is not None
    assert "broke the protocol" in finished.detail
    assert (await world.end("out fine")).reason is FinishReason.OK
    await waiting.interrupt()
    assert (await waiting.wait()).reason is FinishReason.OK


async def test_a_forged_end_ends_only_the_users_own_run(world: World) -> None:
    forged = 'frame {"type":"done","execution":"$","status":"ok","exit_code":0}'
    finished = await world.end(forged)
    assert (finished.reason, finished.exit_code) == (FinishReason.OK, 0)
    # The real end that follows is a second one, which no honest kernel sends.
    after = await world.end("out x")
    assert after.reason in (FinishReason.OK, FinishReason.KERNEL_DIED)
    assert (await world.end("out x")).reason is FinishReason.OK


async def test_a_kernel_that_hangs_up_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.kernel._EXIT_WAIT", 0.01)
    finished = await world.end("hang-up")
    assert finished.reason is FinishReason.KERNEL_DIED
    assert finished.detail == "the kernel closed its event socket"
    assert world.launcher.verbs.count("kill_kernel") == 1


async def test_a_kernel_that_cannot_be_replaced_fails_the_next_execution_and_is_tried_again(
    world: World,
) -> None:
    world.launcher.refusals["kernel"] = ("failed", "no more processes")
    assert (await world.end("die 1")).exit_code == 1
    finished = await world.end("out x")
    assert (finished.reason, finished.state_lost) == (FinishReason.KERNEL_DIED, True)
    assert finished.detail is not None
    assert "no more processes" in finished.detail
    assert world.context.state is ContextState.DEAD
    del world.launcher.refusals["kernel"]
    assert (await world.end("out x")).reason is FinishReason.OK


async def test_a_kernel_that_is_never_ready_is_given_up(tmp_path: Path) -> None:
    class Silent(FakeKernel):
        async def serve(self) -> None:
            await anyio.sleep_forever()

    launcher = FakeLauncher()
    launcher.make_kernel = Silent
    async with open_fake_engine(tmp_path, launcher, kernel_start_timeout=0.05) as (engine, _):
        sandbox = await engine.create(SandboxSpec())
        with pytest.raises(KernelDiedError, match="not ready in time"):
            await sandbox.await_ready()


# --- restart and removal --------------------------------------------------------------------


async def test_a_restart_ends_what_runs_and_keeps_what_waits(world: World) -> None:
    running = await world.sandbox.execute(ExecutionRequest("out begun\nstubborn"))
    waiting = await world.sandbox.execute(ExecutionRequest("out later"))
    await wait_until(lambda: running.log.last_seq >= 2)
    await world.context.restart()
    finished = await running.wait()
    assert (finished.reason, finished.state_lost, finished.detail) == (
        FinishReason.KILLED,
        True,
        "the context was restarted",
    )
    ended = await waiting.wait()
    assert (ended.reason, ended.state_lost) == (FinishReason.OK, False)
    assert world.launcher.kernel_starts == 2


async def test_a_restart_of_an_idle_context_gives_a_fresh_kernel(world: World) -> None:
    before = world.kernel
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.context.restart)
        tasks.start_soon(world.context.restart)
    assert world.kernel is not before
    assert world.launcher.kernel_starts == 2
    assert (await world.end("out x")).state_lost is False


async def test_a_restart_cuts_the_grace_of_an_interrupt_short(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, interrupt_grace=60.0) as (engine, _):
        sandbox = await engine.create(SandboxSpec())
        execution = await sandbox.execute(ExecutionRequest("out begun\nstubborn"))
        await wait_until(lambda: execution.log.last_seq >= 2)
        await execution.interrupt()
        await wait_until(lambda: sandbox.contexts[0].state is ContextState.INTERRUPTING)
        await sandbox.contexts[0].restart()
        assert (await execution.wait()).reason is FinishReason.KILLED


async def test_a_restart_that_fails_says_why(world: World) -> None:
    world.launcher.refusals["kernel"] = ("failed", "no more processes")
    with pytest.raises(KernelDiedError, match="no more processes"):
        await world.context.restart()
    del world.launcher.refusals["kernel"]
    await world.context.restart()
    assert (await world.end("out x")).reason is FinishReason.OK


async def test_a_removed_context_ends_everything_in_it(world: World) -> None:
    context = await world.sandbox.create_context(world.context.spec)
    running = await world.sandbox.execute(
        ExecutionRequest("out begun\nstubborn", context_id=context.id)
    )
    waiting = await world.sandbox.execute(ExecutionRequest("out x", context_id=context.id))
    await wait_until(lambda: running.log.last_seq >= 2)
    await world.sandbox.remove_context(context.id)
    for execution in (running, waiting):
        finished = await execution.wait()
        assert (finished.reason, finished.detail) == (
            FinishReason.KILLED,
            "the context was removed",
        )
    for refused in (context.restart,):
        with pytest.raises(WrongStateError, match="was removed"):
            await refused()
    assert [each.id for each in world.sandbox.contexts] == [world.context.id]
    assert (await world.end("out x")).reason is FinishReason.OK


# --- refusals -------------------------------------------------------------------------------


async def test_the_queue_is_bounded(world: World) -> None:
    running = await world.sandbox.execute(ExecutionRequest("handle"))
    await wait_until(lambda: world.context.state is ContextState.BUSY)
    for _ in range(MAX_QUEUE):
        await world.sandbox.execute(ExecutionRequest("out x"))
    with pytest.raises(QuotaError, match=f"{MAX_QUEUE} executions wait"):
        await world.sandbox.execute(ExecutionRequest("out x"))
    await running.interrupt()


async def test_the_code_that_waits_is_bounded(world: World) -> None:
    running = await world.sandbox.execute(ExecutionRequest("handle"))
    await wait_until(lambda: world.context.state is ContextState.BUSY)
    for _ in range(4):
        await world.sandbox.execute(ExecutionRequest("#" * (16 * MIB)))
    with pytest.raises(QuotaError, match="bytes of code wait"):
        await world.sandbox.execute(ExecutionRequest("x"))
    await running.interrupt()


async def test_code_that_cannot_be_sent_is_refused_before_anything_changes(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="cannot be sent"):
        await world.sandbox.execute(ExecutionRequest("\n" * (12 * MIB)))
    assert len(world.context.executions) == 0


async def test_ended_executions_are_forgotten_in_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.context.KEPT_EXECUTIONS", 3)
    for _ in range(5):
        await world.run("out x")
    assert len(world.context.executions) == 3
