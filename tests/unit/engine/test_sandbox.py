"""A sandbox's life, from being built to leaving nothing behind."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from headrace.engine.context_state import ContextState
from headrace.engine.engine import Engine
from headrace.engine.launcher import Stats
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import (
    ContextNotFoundError,
    ExecutionNotFoundError,
    InvalidRequestError,
    KernelDiedError,
    LanguageUnavailableError,
    LaunchError,
    PathNotFoundError,
    QuotaError,
    WrongStateError,
)
from headrace.model.events import FinishReason
from headrace.model.ids import ContextId
from headrace.model.specs import (
    MAX_TIMEOUT,
    ContextSpec,
    ExecutionRequest,
    Language,
    Limits,
    ProcessRequest,
    SandboxSpec,
    TimeoutAction,
)
from tests.support.fakes import Channel, FakeAgent, FakeClock, FakeLauncher, open_fake_engine
from tests.support.logs import count_descriptors, read_all, wait_until

SPEC = SandboxSpec()
SLEEP = ProcessRequest(("sleep",))


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[tuple[Engine, FakeLauncher]]:
    async with open_fake_engine(tmp_path) as opened:
        yield opened


# --- being built ----------------------------------------------------------------------------


async def test_a_new_sandbox_runs_and_has_a_python_context(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, launcher = opened
    sandbox = await engine.create(SPEC)
    assert sandbox.state is SandboxState.RUNNING
    await wait_until(lambda: launcher.kernel_starts == 1)
    assert [context.language for context in sandbox.contexts] == [Language.PYTHON]
    assert sandbox.report.mode == "root"
    assert sandbox.deadline == pytest.approx(sandbox.created_at + 3600, abs=5)


async def test_a_sandbox_that_cannot_be_built_fails_in_the_guests_words(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    class Broken(FakeAgent):
        async def serve(self, _tasks: Any) -> None:
            await self.channel.send({"type": "failed", "detail": "overlay: no such device"})

    engine, launcher = opened
    launcher.make_agent = Broken
    before = count_descriptors()
    with pytest.raises(LaunchError, match="overlay: no such device"):
        await engine.create(SPEC)
    assert launcher.sandboxes == {}
    assert engine.list() == []
    assert count_descriptors() == before


async def test_a_sandbox_that_never_stands_is_given_up(tmp_path: Path) -> None:
    class Silent(FakeAgent):
        async def serve(self, _tasks: Any) -> None:
            await anyio.sleep_forever()

    launcher = FakeLauncher()
    launcher.make_agent = Silent
    async with open_fake_engine(tmp_path, launcher, sandbox_start_timeout=0.05) as (engine, _):
        with pytest.raises(LaunchError, match=r"within 0\.05 s"):
            await engine.create(SPEC)
        assert launcher.sandboxes == {}


async def test_a_launcher_that_refuses_is_an_error(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, launcher = opened
    launcher.refusals["create"] = ("failed", "no id ranges left")
    with pytest.raises(LaunchError, match="no id ranges left"):
        await engine.create(SPEC)
    assert engine.list() == []


async def test_a_sandbox_lives_although_its_first_kernel_does_not_start(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, launcher = opened
    launcher.refusals["kernel"] = ("failed", "the fork server died")
    sandbox = await engine.create(SPEC)
    with pytest.raises(KernelDiedError, match="the fork server died"):
        await sandbox.await_ready()
    del launcher.refusals["kernel"]
    finished = await (await sandbox.execute(ExecutionRequest("out x"))).wait()
    assert finished.reason is FinishReason.OK


# --- contexts -------------------------------------------------------------------------------


async def test_contexts_run_side_by_side(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    other = await sandbox.create_context(ContextSpec(env={"NAME": "other"}))
    busy = await sandbox.execute(ExecutionRequest("handle"))
    execution = await sandbox.execute(ExecutionRequest("env NAME", context_id=other.id))
    assert (await execution.wait()).reason is FinishReason.OK
    assert sandbox.context(other.id).state is ContextState.IDLE
    assert sandbox.execution(busy.id) is busy
    await busy.interrupt()
    await busy.wait()


async def test_a_context_goes_over_its_sandbox(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, launcher = opened
    sandbox = await engine.create(SandboxSpec(env={"A": "sandbox", "B": "sandbox"}))
    await (await sandbox.execute(ExecutionRequest("out x"))).wait()
    context = await sandbox.create_context(ContextSpec(env={"B": "context"}))
    await (await sandbox.execute(ExecutionRequest("out x", context_id=context.id))).wait()
    kernel = launcher.sandboxes[sandbox.id].kernels["k2"]
    assert kernel.env == {"A": "sandbox", "B": "context"}


async def test_unknown_things_are_named(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    with pytest.raises(ContextNotFoundError, match="'nope'"):
        await sandbox.execute(ExecutionRequest("x", context_id=ContextId("nope")))
    with pytest.raises(ContextNotFoundError, match="'nope'"):
        await sandbox.remove_context("nope")
    with pytest.raises(ExecutionNotFoundError, match="'nope'"):
        sandbox.execution("nope")


async def test_a_language_without_a_kernel_is_refused_and_changes_nothing(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    with pytest.raises(LanguageUnavailableError, match="javascript"):
        await sandbox.execute(ExecutionRequest("1", language=Language.JAVASCRIPT))
    with pytest.raises(LanguageUnavailableError, match="bash"):
        await sandbox.create_context(ContextSpec(Language.BASH))
    assert len(sandbox.contexts) == 1


async def test_a_context_of_another_language_is_refused(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    context = sandbox.contexts[0].id
    with pytest.raises(InvalidRequestError, match="runs python, not bash"):
        await sandbox.execute(ExecutionRequest("1", language=Language.BASH, context_id=context))


async def test_the_directory_of_a_context_must_exist(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, launcher = opened
    sandbox = await engine.create(SPEC)
    launcher.sandboxes[sandbox.id].agent.files = {"/srv.d": b"", "/file": b""}
    with pytest.raises(PathNotFoundError, match="/nowhere"):
        await sandbox.create_context(ContextSpec(cwd="/nowhere"))
    with pytest.raises(InvalidRequestError, match="/file is not a directory"):
        await sandbox.create_context(ContextSpec(cwd="/file"))
    assert len(sandbox.contexts) == 1
    await sandbox.create_context(ContextSpec(cwd="/srv.d"))


async def test_contexts_are_bounded(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    for _ in range(32):
        await sandbox.create_context(ContextSpec())
    with pytest.raises(QuotaError, match="at most 32 contexts beside the default ones"):
        await sandbox.create_context(ContextSpec())
    assert len(sandbox.contexts) == 33
    await sandbox.remove_context(sandbox.contexts[0].id)
    with pytest.raises(QuotaError):
        await sandbox.create_context(ContextSpec())
    await sandbox.remove_context(sandbox.contexts[0].id)
    await sandbox.create_context(ContextSpec())


async def test_a_context_whose_kernel_does_not_start_is_not_kept(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, launcher = opened
    sandbox = await engine.create(SPEC)
    await sandbox.await_ready()
    await (await sandbox.execute(ExecutionRequest("out x"))).wait()
    launcher.refusals["kernel"] = ("failed", "no more processes")
    with pytest.raises(KernelDiedError, match="no more processes"):
        await sandbox.create_context(ContextSpec())
    assert len(sandbox.contexts) == 1


async def test_a_removed_default_context_is_made_again_when_needed(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    former = await sandbox.default_context(Language.PYTHON)
    await sandbox.remove_context(former.id)
    assert sandbox.contexts == []
    finished = await (await sandbox.execute(ExecutionRequest("out x"))).wait()
    assert finished.reason is FinishReason.OK
    assert (await sandbox.default_context(Language.PYTHON)).id != former.id


# --- pause ----------------------------------------------------------------------------------


async def test_a_paused_sandbox_refuses_work_and_goes_on_where_it_was(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, launcher = opened
    sandbox = await engine.create(SPEC)
    await sandbox.await_ready()
    execution = await sandbox.execute(ExecutionRequest("wait", timeout=0.05))
    process = await sandbox.start_process(ProcessRequest(("sleep",), timeout=0.05))
    await wait_until(lambda: execution.log.last_seq >= 1)
    await sandbox.pause()
    assert sandbox.state is SandboxState.PAUSED
    assert launcher.sandboxes[sandbox.id].is_frozen
    for refused in (
        sandbox.execute(ExecutionRequest("x")),
        sandbox.start_process(SLEEP),
        sandbox.pause(),
    ):
        with pytest.raises(WrongStateError, match="is paused"):
            await refused
    with pytest.raises(WrongStateError, match="is paused"):
        _ = sandbox.files
    await anyio.sleep(0.1)
    assert not execution.is_finished
    assert process.is_running
    await sandbox.resume()
    assert not launcher.sandboxes[sandbox.id].is_frozen
    assert (await execution.wait()).reason is FinishReason.TIMEOUT
    assert (await process.wait()).reason is FinishReason.TIMEOUT


async def test_a_running_sandbox_cannot_be_resumed(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    with pytest.raises(WrongStateError, match="is running"):
        await sandbox.resume()


async def test_a_sandbox_is_not_paused_while_a_kernel_is_being_stopped(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, interrupt_grace=30.0, pause_timeout=0.05) as (engine, _):
        sandbox = await engine.create(SPEC)
        execution = await sandbox.execute(ExecutionRequest("stubborn"))
        await wait_until(lambda: execution.log.last_seq >= 1)
        await execution.interrupt()
        await wait_until(lambda: sandbox.contexts[0].state is ContextState.INTERRUPTING)
        with pytest.raises(WrongStateError, match="interrupting"):
            await sandbox.pause()
        assert sandbox.state is SandboxState.RUNNING


async def test_a_pause_waits_for_a_kernel_that_is_being_stopped(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, interrupt_grace=0.05, pause_timeout=30.0) as (engine, _):
        sandbox = await engine.create(SPEC)
        execution = await sandbox.execute(ExecutionRequest("stubborn"))
        await wait_until(lambda: execution.log.last_seq >= 1)
        await execution.interrupt()
        await wait_until(lambda: sandbox.contexts[0].state is ContextState.INTERRUPTING)
        await sandbox.pause()
        assert sandbox.state is SandboxState.PAUSED
        assert sandbox.contexts[0].state is ContextState.IDLE


async def test_a_pause_that_is_waiting_ends_with_its_sandbox(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, interrupt_grace=30.0, pause_timeout=30.0) as (engine, _):
        sandbox = await engine.create(SPEC)
        execution = await sandbox.execute(ExecutionRequest("stubborn"))
        await wait_until(lambda: execution.log.last_seq >= 1)
        await execution.interrupt()
        await wait_until(lambda: sandbox.contexts[0].state is ContextState.INTERRUPTING)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sandbox.kill)
            with pytest.raises(WrongStateError, match="the sandbox was killed"):
                await sandbox.pause()


async def test_a_pause_can_stop_the_lifetime(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_fake_engine(tmp_path, clock=clock) as (engine, _):
        sandbox = await engine.create(SPEC)
        await sandbox.await_ready()
        await sandbox.pause(stops_lifetime=True)
        clock.advance(MAX_TIMEOUT - 1)
        await anyio.wait_all_tasks_blocked()
        assert sandbox.state is SandboxState.PAUSED
        clock.advance(2)
        await wait_until(lambda: sandbox.state is SandboxState.KILLED)


async def test_a_sandbox_can_pause_at_its_deadline_and_go_on_later(tmp_path: Path) -> None:
    clock = FakeClock()
    spec = SandboxSpec(on_timeout=TimeoutAction.PAUSE, limits=Limits(lifetime=100.0))
    async with open_fake_engine(tmp_path, clock=clock) as (engine, launcher):
        sandbox = await engine.create(spec)
        await sandbox.await_ready()
        for _ in range(2):
            clock.advance(101)
            await wait_until(lambda: sandbox.state is SandboxState.PAUSED)
            assert launcher.sandboxes[sandbox.id].is_frozen
            clock.advance(1000)
            await sandbox.resume()
            await sandbox.set_timeout(100.0)
        assert sandbox.ends_at == clock.monotonic() + 100.0


async def test_a_sandbox_that_cannot_pause_at_its_deadline_ends(tmp_path: Path) -> None:
    clock = FakeClock()
    spec = SandboxSpec(on_timeout=TimeoutAction.PAUSE)
    async with open_fake_engine(tmp_path, clock=clock) as (engine, launcher):
        sandbox = await engine.create(spec)
        await sandbox.await_ready()
        launcher.refusals["freeze"] = ("failed", "no freezer")
        clock.advance(sandbox.spec.limits.lifetime + 1)
        await wait_until(lambda: sandbox.state is SandboxState.KILLED)
        assert sandbox.end_detail == "its lifetime of 3600 s was over"


async def test_extending_never_shortens_a_life(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    before = sandbox.ends_at
    await sandbox.extend(10.0)
    assert sandbox.ends_at == before
    await sandbox.extend(7200.0)
    assert sandbox.ends_at > before + 3000
    with pytest.raises(InvalidRequestError, match="above 0"):
        await sandbox.extend(0)


async def test_a_paused_sandbox_can_be_killed(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    await sandbox.await_ready()
    await sandbox.pause()
    await sandbox.kill()
    assert sandbox.state is SandboxState.KILLED


# --- the end --------------------------------------------------------------------------------


async def test_killing_ends_every_log_and_leaves_nothing(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, launcher = opened
    before = count_descriptors()
    sandbox = await engine.create(SPEC)
    running = await sandbox.execute(ExecutionRequest("out begun\nstubborn"))
    waiting = await sandbox.execute(ExecutionRequest("out x"))
    process = await sandbox.start_process(SLEEP)
    watch = await sandbox.files.watch("/w")
    await wait_until(lambda: running.log.last_seq >= 2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.kill)
        tasks.start_soon(sandbox.kill)
    await sandbox.kill()
    for execution in (running, waiting):
        finished = await execution.wait()
        assert (finished.reason, finished.detail) == (
            FinishReason.KILLED,
            "the sandbox was killed",
        )
        assert finished.state_lost
    assert (await process.wait()).reason is FinishReason.KILLED
    assert (await watch.wait()).reason is FinishReason.KILLED
    assert launcher.sandboxes == {}
    assert launcher.verbs.count("kill") == 1
    assert engine.list() == []
    # The log's segments are closed in time; everything else at once.
    await wait_until(lambda: count_descriptors() <= before)


async def test_nothing_begins_in_a_sandbox_that_is_ending(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    await sandbox.await_ready()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sandbox.kill)
        while sandbox.end_detail is None:
            await anyio.lowlevel.checkpoint()
        assert sandbox.is_alive
        for refused in (
            sandbox.execute(ExecutionRequest("x")),
            sandbox.create_context(ContextSpec()),
            sandbox.start_process(SLEEP),
        ):
            with pytest.raises(WrongStateError, match="is ending: the sandbox was killed"):
                await refused


async def test_logs_can_be_read_after_the_end(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    execution = await sandbox.execute(ExecutionRequest("out kept"))
    await execution.wait()
    await sandbox.kill()
    assert len(await read_all(engine.find_log(execution.id))) == 3


async def test_a_killed_sandbox_says_what_became_of_it(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    await sandbox.kill("nobody needs it")
    for refused in (
        sandbox.execute(ExecutionRequest("x")),
        sandbox.set_timeout(1.0),
        sandbox.stats(),
        sandbox.open_port(80),
        sandbox.create_context(ContextSpec()),
    ):
        with pytest.raises(WrongStateError, match="is killed: nobody needs it"):
            await refused


async def test_the_death_of_the_agent_ends_the_sandbox_with_the_cause(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, launcher = opened
    sandbox, other = await engine.create(SPEC), await engine.create(SPEC)
    execution = await sandbox.execute(ExecutionRequest("out begun\nstubborn"))
    await wait_until(lambda: execution.log.last_seq >= 2)
    launcher.sandboxes[sandbox.id].agent.scope.cancel()
    finished = await execution.wait()
    assert (finished.reason, finished.detail) == (
        FinishReason.KILLED,
        "its first process was ended by SIGKILL",
    )
    await wait_until(lambda: sandbox.state is SandboxState.KILLED)
    assert launcher.verbs.count("kill") == 1
    assert [each.id for each in engine.list()] == [other.id]
    assert (await (await other.execute(ExecutionRequest("out x"))).wait()).reason == "ok"


async def test_an_agent_that_breaks_the_protocol_ends_its_sandbox_only(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, launcher = opened
    sandbox, other = await engine.create(SPEC), await engine.create(SPEC)
    channel: Channel = launcher.sandboxes[sandbox.id].agent.channel
    await channel.send({"type": "exit", "pid": 1, "exit_code": 0, "signal": None})
    await wait_until(lambda: sandbox.state is SandboxState.KILLED)
    assert sandbox.end_detail is not None
    assert "broke the protocol" in sandbox.end_detail
    assert other.state is SandboxState.RUNNING


async def test_the_end_of_the_launcher_ends_all_sandboxes(
    opened: tuple[Engine, FakeLauncher],
) -> None:
    engine, launcher = opened
    sandbox = await engine.create(SPEC)
    execution = await sandbox.execute(ExecutionRequest("stubborn"))
    await wait_until(lambda: execution.log.last_seq >= 1)
    launcher.crash()
    finished = await execution.wait()
    assert (finished.reason, finished.detail) == (FinishReason.KILLED, "the launcher ended")
    await wait_until(lambda: sandbox.state is SandboxState.KILLED)


async def test_a_launcher_that_does_not_kill_does_not_hold_the_end_up(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, verb_timeout=0.05) as (engine, launcher):
        sandbox = await engine.create(SPEC)
        await sandbox.await_ready()
        launcher.hanging.add("kill")
        await sandbox.kill()
        assert sandbox.state is SandboxState.KILLED


async def test_a_sandbox_ends_at_its_deadline(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_fake_engine(tmp_path, clock=clock) as (engine, _):
        sandbox = await engine.create(SPEC)
        clock.advance(3000)
        await sandbox.set_timeout(1000.0)
        assert sandbox.deadline == clock.now() + 1000
        clock.advance(900)
        await anyio.wait_all_tasks_blocked()
        assert sandbox.state is SandboxState.RUNNING
        clock.advance(200)
        await wait_until(lambda: sandbox.state is SandboxState.KILLED)
        assert sandbox.end_detail == "its lifetime of 1000 s was over"


@pytest.mark.parametrize("seconds", [0, -1.0, float("nan"), float("inf"), True, "5"])
async def test_a_bad_timeout_is_refused(opened: tuple[Engine, FakeLauncher], seconds: Any) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    before = sandbox.ends_at
    with pytest.raises(InvalidRequestError, match="timeout"):
        await sandbox.set_timeout(seconds)
    assert sandbox.ends_at == before


async def test_a_failure_of_ours_ends_one_sandbox_only(
    opened: tuple[Engine, FakeLauncher],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    engine, _ = opened
    sandbox, other = await engine.create(SPEC), await engine.create(SPEC)
    await sandbox.await_ready()

    def break_down(*_: object) -> None:
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(sandbox.contexts[0], "_see_through", break_down)
    execution = await sandbox.execute(ExecutionRequest("handle"))
    finished = await execution.wait()
    assert finished.reason is FinishReason.KILLED
    await wait_until(lambda: sandbox.state is SandboxState.KILLED)
    assert "a bug of ours" in caplog.text
    assert (await (await other.execute(ExecutionRequest("out x"))).wait()).reason == "ok"


# --- facts and ports ------------------------------------------------------------------------


async def test_usage_is_told(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    assert await sandbox.stats() == Stats(1, 2, 0.5, 3, 0)


async def test_a_port_inside_can_be_reached(opened: tuple[Engine, FakeLauncher]) -> None:
    engine, _ = opened
    sandbox = await engine.create(SPEC)
    with socket.create_server(("127.0.0.1", 0)) as server:
        async with await sandbox.open_port(server.getsockname()[1]) as stream:
            accepted, _address = server.accept()
            with accepted:
                await stream.send(b"hello")
                assert accepted.recv(10) == b"hello"
