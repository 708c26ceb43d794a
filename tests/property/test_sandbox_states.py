"""Whatever is done to a sandbox, in whatever order: its state machine and its logs hold."""

import itertools
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.engine.context_state import ContextState
from headrace.engine.event_log import EventLog
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import MOVES, SandboxState
from headrace.model.errors import HeadraceError, WrongStateError
from headrace.model.events import (
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
)
from headrace.model.specs import ContextSpec, ExecutionRequest, ProcessRequest, SandboxSpec
from tests.support.fakes import FakeLauncher, open_fake_engine
from tests.support.logs import count_descriptors, read_all, wait_until

CODES = (
    "out x\nmain 1",
    "error ValueError bad",
    "exit 3",
    "wait",
    "handle\nout y",
    "stubborn",
    "die 1",
    "oom",
    "flood 5000\nwait",
    "input never",
    'frame {"type":"done","execution":"other","status":"ok","exit_code":null}',
    "bytes ffffffff",
)


@dataclass
class World:
    """A sandbox, what was asked of it, and the states that it was seen in."""

    launcher: FakeLauncher
    sandbox: Sandbox
    executions: list[EventLog[ExecutionEvent]] = field(default_factory=list)
    processes: list[EventLog[ProcessEvent]] = field(default_factory=list)
    states: list[SandboxState] = field(default_factory=list)

    def look(self) -> None:
        """Note the state if it is another one."""
        if not self.states or self.states[-1] is not self.sandbox.state:
            self.states.append(self.sandbox.state)

    async def execute(self, number: int) -> None:
        request = ExecutionRequest(CODES[number % len(CODES)], timeout=0.01 + number / 5000)
        contexts = self.sandbox.contexts
        if contexts:
            chosen = contexts[number % len(contexts)].id
            request = ExecutionRequest(request.code, context_id=chosen, timeout=request.timeout)
        self.executions.append((await self.sandbox.execute(request)).log)

    async def interrupt(self, number: int) -> None:
        for context in self.sandbox.contexts[number % 2 :]:
            await context.interrupt()

    async def restart(self, number: int) -> None:
        contexts = self.sandbox.contexts
        if contexts:
            await contexts[number % len(contexts)].restart()

    async def create_context(self, _number: int) -> None:
        if len(self.sandbox.contexts) < 3:
            await self.sandbox.create_context(ContextSpec())

    async def remove_context(self, number: int) -> None:
        contexts = self.sandbox.contexts
        if contexts:
            await self.sandbox.remove_context(contexts[number % len(contexts)].id)

    async def start_process(self, number: int) -> None:
        argv = (("echo", "x"), ("sleep",), ("exit", "3"))[number % 3]
        request = ProcessRequest(argv, timeout=0.01 + number / 5000)
        self.processes.append((await self.sandbox.start_process(request)).log)

    async def pause(self, _number: int) -> None:
        await self.sandbox.pause()

    async def resume(self, _number: int) -> None:
        await self.sandbox.resume()

    async def kill_kernel(self, number: int) -> None:
        known = self.launcher.sandboxes.get(self.sandbox.id)
        kernels = list(known.kernels.values()) if known is not None else []
        if kernels:
            kernels[number % len(kernels)].scope.cancel()

    async def wait(self, number: int) -> None:
        await anyio.sleep(number / 10_000)

    async def kill(self, _number: int) -> None:
        await self.sandbox.kill()

    async def kill_agent(self, _number: int) -> None:
        known = self.launcher.sandboxes.get(self.sandbox.id)
        if known is not None:
            known.agent.scope.cancel()


USUAL = (
    "execute",
    "execute",
    "execute",
    "interrupt",
    "restart",
    "create_context",
    "remove_context",
    "start_process",
    "pause",
    "resume",
    "kill_kernel",
    "wait",
)
FATAL = ("kill", "kill_agent")
Steps = Sequence[tuple[str, int]]
steps = st.lists(
    st.tuples(st.sampled_from([*USUAL, *USUAL, *FATAL]), st.integers(0, 100)), max_size=12
)


@settings(max_examples=60, deadline=None)
@given(steps, st.booleans())
def test_every_log_ends_once_and_nothing_is_left(todo: Steps, at_once: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        anyio.run(_run, Path(directory), todo, at_once)


async def _run(directory: Path, todo: Steps, at_once: bool) -> None:
    before = count_descriptors()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("headrace.engine.reserve.COURTESY", 0.001)
        await _live(directory, todo, at_once)
    assert count_descriptors() == before


async def _live(directory: Path, todo: Steps, at_once: bool) -> None:
    async with open_fake_engine(directory, interrupt_grace=0.005) as (engine, launcher):
        world = World(launcher, await engine.create(SandboxSpec()))
        await _do_all(world, todo, at_once=at_once)
        await world.sandbox.kill()
        world.look()
        await _check_logs(world)
        await _check_refusals(world.sandbox)
        assert launcher.sandboxes == {}
        assert all(context.state is ContextState.DEAD for context in world.sandbox.contexts)
        _check_moves(world.states)


async def _do_all(world: World, todo: Steps, *, at_once: bool) -> None:
    async def do(name: str, number: int) -> None:
        step: Callable[[int], Awaitable[None]] = getattr(world, name)
        with suppress(HeadraceError), anyio.fail_after(20):
            await step(number)
        world.look()

    async with anyio.create_task_group() as tasks:
        for name, number in todo:
            if at_once:
                tasks.start_soon(do, name, number)
                await anyio.sleep(number / 100_000)
            else:
                await do(name, number)
    if world.sandbox.state is SandboxState.PAUSED:
        await world.sandbox.resume()
        world.look()


async def _check_logs(world: World) -> None:
    for log in world.executions:
        events = await read_all(log)
        assert isinstance(events[0], ExecutionStarted)
        assert [isinstance(event, ExecutionFinished) for event in events].count(True) == 1
        last = events[-1]
        assert isinstance(last, ExecutionFinished)
        assert last.duration >= 0
        assert last.reason is not FinishReason.NODE_LOST
        assert [event.seq for event in events] == list(range(1, len(events) + 1))
    for process_log in world.processes:
        await process_log.wait()
        told = [event async for event in process_log.read()]
        assert isinstance(told[0], ProcessStarted)
        assert [isinstance(event, ProcessExited) for event in told].count(True) == 1
        assert isinstance(told[-1], ProcessExited)


async def _check_refusals(sandbox: Sandbox) -> None:
    await wait_until(lambda: sandbox.state is SandboxState.KILLED)
    refusals: list[Awaitable[object]] = [
        sandbox.execute(ExecutionRequest("out x")),
        sandbox.create_context(ContextSpec()),
        sandbox.start_process(ProcessRequest(("echo",))),
        sandbox.pause(),
        sandbox.resume(),
        sandbox.set_timeout(5.0),
    ]
    for refusal in refusals:
        try:
            await refusal
        except WrongStateError:
            continue
        raise AssertionError("a killed sandbox took work")


def _check_moves(states: Sequence[SandboxState]) -> None:
    """Each state that was seen can be reached from the one seen before it."""
    for one, other in itertools.pairwise(states):
        assert other in _reachable(one), (one, other)


def _reachable(state: SandboxState) -> set[SandboxState]:
    found, waiting = set[SandboxState](), [state]
    while waiting:
        for following in MOVES[waiting.pop()] - found:
            found.add(following)
            waiting.append(following)
    return found


def test_every_state_has_its_row_and_leads_to_the_end() -> None:
    assert set(MOVES) == set(SandboxState)
    for state in set(SandboxState) - {SandboxState.KILLED}:
        assert SandboxState.KILLED in _reachable(state)
    assert MOVES[SandboxState.KILLED] == frozenset()
