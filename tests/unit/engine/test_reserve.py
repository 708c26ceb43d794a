"""A new Python context takes a kernel that stands already, and that one is replaced later."""

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import anyio
import pytest

from headrace.engine.context import Context
from headrace.engine.context_state import ContextState
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import HeadraceError
from headrace.model.events import ExecutionFinished, FinishReason, OutputWritten
from headrace.model.specs import ContextSpec, ExecutionRequest, Language, SandboxSpec
from tests.support.fakes import REPORT, FakeKernel, FakeLauncher, open_fake_engine
from tests.support.logs import count_descriptors, read_all, wait_until

BASH = {"path": "/usr/bin/bash", "version": "5.2", "problem": None, "package": "bash"}


@dataclass
class World:
    """A sandbox whose default kernel stands, on a fake launcher."""

    launcher: FakeLauncher
    sandbox: Sandbox
    default: Context

    @property
    def kernels(self) -> dict[str, FakeKernel]:
        """The kernels that run now, by their names."""
        return self.launcher.sandboxes[self.sandbox.id].kernels

    async def create(self, language: Language = Language.PYTHON) -> Context:
        """Make a context."""
        return await self.sandbox.create_context(ContextSpec(language, env={"NAME": "mine"}))

    async def run(self, context: Context, code: str = "env NAME") -> tuple[str, ExecutionFinished]:
        """Run code and give what it wrote and its terminal event."""
        execution = await self.sandbox.execute(ExecutionRequest(code, context_id=context.id))
        events = await read_all(execution.log)
        finished = events[-1]
        assert isinstance(finished, ExecutionFinished)
        return "".join(e.text for e in events if isinstance(e, OutputWritten)), finished


@pytest.fixture(autouse=True)
def no_courtesy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.reserve.COURTESY", 0.0)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    launcher = FakeLauncher({**REPORT, "languages": {"bash": BASH}})
    async with open_fake_engine(tmp_path, launcher) as (engine, _):
        sandbox = await engine.create(SandboxSpec(env={"NAME": "the sandbox's"}))
        await sandbox.await_ready()
        yield World(launcher, sandbox, await sandbox.default_context(Language.PYTHON))


async def test_a_new_context_takes_the_kernel_that_nobody_has_used(world: World) -> None:
    context = await world.create()
    assert world.launcher.kernel_starts == 1
    assert (context.state, world.default.state) == (ContextState.IDLE, ContextState.UNSTARTED)
    assert (await world.run(context))[0] == "mine\n"


async def test_the_kernel_that_was_taken_is_replaced_and_warmed(world: World) -> None:
    await world.create()
    await wait_until(lambda: world.default.state is ContextState.IDLE)
    await wait_until(lambda: any(f["type"] == "warm" for f in world.kernels["k2"].frames))
    assert world.launcher.kernel_starts == 2
    assert (await world.run(world.default))[0] == "the sandbox's\n"


async def test_the_default_context_starts_its_own_kernel_if_it_is_used_before_that(
    world: World,
) -> None:
    await world.create()
    written, finished = await world.run(world.default)
    assert (written, finished.reason) == ("the sandbox's\n", FinishReason.OK)
    assert not finished.state_lost


async def test_a_kernel_that_has_run_code_is_nobody_elses(world: World) -> None:
    await world.run(world.default)
    context = await world.create()
    assert "k2" in world.kernels
    assert world.default.state is ContextState.IDLE
    assert (await world.run(world.default))[0] == "the sandbox's\n"
    assert (await world.run(context))[0] == "mine\n"


async def test_beside_a_used_default_context_a_kernel_is_kept_that_no_list_shows(
    world: World,
) -> None:
    await world.run(world.default)
    first = await world.create()
    await wait_until(lambda: len(world.kernels) == 3 and world.kernels["k3"].frames != [])
    assert len(world.sandbox.contexts) == 3
    second = await world.create()
    assert (await world.run(second))[0] == "mine\n"
    assert [frame["type"] for frame in world.kernels["k3"].frames][-1] == "execute"
    await wait_until(lambda: world.launcher.kernel_starts == 4)
    assert {first.id, second.id} < {context.id for context in world.sandbox.contexts}


async def test_a_used_default_context_gets_a_spare_one_at_leisure(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.reserve.LEISURE", 0.0)
    await world.run(world.default)
    await world.run(world.default)
    await wait_until(lambda: "k2" in world.kernels and world.launcher.kernel_starts == 2)
    assert world.sandbox.contexts[0] is world.default
    assert len(world.sandbox.contexts) == 2
    # Which waits until nothing is being started.
    await world.sandbox.pause()
    await world.sandbox.resume()
    context = await world.create()
    assert (await world.run(context))[0] == "mine\n"
    sent = [frame["type"] for frame in world.kernels["k2"].frames]
    assert "execute" in sent
    assert "warm" not in sent


async def test_a_sandbox_with_a_short_task_and_no_new_contexts_keeps_one_kernel(
    world: World,
) -> None:
    await world.run(world.default)
    await world.create(Language.BASH)
    await anyio.sleep(0.02)
    assert list(world.kernels) == ["k1", "k2"]


async def test_a_context_of_another_language_takes_no_python_kernel(world: World) -> None:
    context = await world.create(Language.BASH)
    assert world.default.state is ContextState.IDLE
    assert (await world.run(context))[0] == "mine\n"
    assert world.launcher.kernel_starts == 2


async def test_a_kernel_that_is_lost_is_given_to_nobody(world: World) -> None:
    world.kernels["k1"].scope.cancel()
    await wait_until(lambda: world.default.state is ContextState.DEAD)
    context = await world.create()
    assert not (await world.run(context))[1].state_lost
    assert (await world.run(world.default))[1].state_lost


async def test_a_kernel_that_hangs_up_is_given_to_nobody(world: World) -> None:
    world.kernels["k1"].channel.sock.shutdown(socket.SHUT_WR)
    await wait_until(lambda: not world.default.has_unused_kernel)
    assert (await world.run(await world.create()))[0] == "mine\n"


async def test_a_kept_kernel_that_is_lost_is_replaced_with_the_next_context(world: World) -> None:
    await world.run(world.default)
    await world.create()
    await wait_until(lambda: "k3" in world.kernels and world.kernels["k3"].frames != [])
    world.kernels["k3"].scope.cancel()
    await wait_until(lambda: "k3" not in world.kernels)
    context = await world.create()
    assert not (await world.run(context))[1].state_lost
    await wait_until(lambda: "k5" in world.kernels and world.kernels["k5"].frames != [])
    await world.create()
    assert world.kernels["k5"].frames != []


async def test_a_kernel_that_does_not_start_in_advance_harms_nobody(world: World) -> None:
    world.launcher.refusals["kernel"] = ("failed", "no more processes")
    context = await world.create()
    await wait_until(lambda: world.default.state is ContextState.DEAD)
    assert (await world.run(context))[0] == "mine\n"
    del world.launcher.refusals["kernel"]
    assert (await world.run(world.default))[0] == "the sandbox's\n"


async def test_without_a_default_context_a_kernel_is_kept_as_well(world: World) -> None:
    await world.sandbox.remove_context(world.default.id)
    await world.create()
    await wait_until(lambda: "k3" in world.kernels and world.kernels["k3"].frames != [])
    await world.create()
    assert [kernel.name for kernel in world.kernels.values()][:2] == ["k2", "k3"]


async def test_a_paused_sandbox_starts_nothing(world: World) -> None:
    await world.create()
    await world.sandbox.pause()
    await anyio.sleep(0.02)
    assert world.launcher.kernel_starts == 1
    assert world.default.state is ContextState.UNSTARTED
    await world.sandbox.resume()
    await world.create()
    await wait_until(lambda: world.default.state is ContextState.IDLE)


async def test_a_pause_waits_for_what_is_started_in_advance(world: World) -> None:
    begin = anyio.Event()

    class Slow(FakeKernel):
        async def serve(self) -> None:
            await begin.wait()
            await super().serve()

    world.launcher.make_kernel = Slow
    await world.create()
    await wait_until(lambda: world.default.state is ContextState.STARTING)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(world.sandbox.pause)
        await anyio.sleep(0.01)
        assert not world.launcher.sandboxes[world.sandbox.id].is_frozen
        begin.set()
    assert world.sandbox.state is SandboxState.PAUSED
    assert world.default.state is ContextState.IDLE


async def test_a_pause_that_is_refused_leaves_the_reserve_at_work(world: World) -> None:
    world.launcher.refusals["freeze"] = ("failed", "no freezer")
    with pytest.raises(HeadraceError, match="no freezer"):
        await world.sandbox.pause()
    await world.create()
    await wait_until(lambda: world.default.state is ContextState.IDLE)
    assert world.launcher.kernel_starts == 2


async def test_the_kept_kernel_ends_with_its_sandbox(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        before = count_descriptors()
        sandbox = await engine.create(SandboxSpec())
        await (await sandbox.execute(ExecutionRequest("out x"))).wait()
        await sandbox.create_context(ContextSpec())
        await wait_until(lambda: launcher.kernel_starts == 3)
        await sandbox.kill()
        assert launcher.sandboxes == {}
        await wait_until(lambda: count_descriptors() <= before + 2)
