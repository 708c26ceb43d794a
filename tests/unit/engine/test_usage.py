"""What sandboxes use is measured in turn, kept within a bound, and measured when somebody asks."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from headrace.engine import usage
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.engine.usage import DISK_INTERVAL, INTERVAL, KEPT_SAMPLES
from headrace.model.life import Usage
from headrace.model.specs import MIB, Limits, SandboxSpec
from tests.support.fakes import REPORT, FakeClock, FakeLauncher, open_fake_engine
from tests.support.logs import wait_until


@dataclass
class Node:
    """An engine whose time the test moves."""

    engine: Engine
    launcher: FakeLauncher
    clock: FakeClock

    @property
    def measurements(self) -> int:
        """How often the launcher was asked."""
        return self.launcher.verbs.count("stats")

    async def advance(self, seconds: float, *, until: Callable[[], bool]) -> None:
        """Let time pass, and wait until what is due then has happened."""
        self.clock.advance(seconds)
        await wait_until(until)

    async def settle(self) -> None:
        """Let everything run that can run now."""
        for _ in range(50):
            await anyio.lowlevel.checkpoint()


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """An engine without sandboxes."""
    clock = FakeClock()
    async with open_fake_engine(tmp_path, clock=clock) as (engine, launcher):
        yield Node(engine, launcher, clock)


async def make(node: Node) -> Sandbox:
    return await node.engine.create(SandboxSpec(limits=Limits(disk=1 * MIB, lifetime=1e6)))


async def measure_again(node: Node, sandbox: Sandbox) -> list[Usage]:
    node.clock.advance(INTERVAL)
    return await node.engine.usage.samples(sandbox)


async def test_a_new_sandbox_is_measured_when_somebody_asks(node: Node) -> None:
    sandbox = await make(node)
    files = node.launcher.sandboxes[sandbox.id].agent

    samples = await node.engine.usage.samples(sandbox)

    assert samples == [Usage(node.clock.now(), 0.0, 0, 1, 60)]
    assert [each["action"] for each in files.requests] == ["disk_usage"]


async def test_files_count_as_memory_only_where_a_cgroup_counts_them(tmp_path: Path) -> None:
    launcher = FakeLauncher(report={**REPORT, "memory": "watchdog"})
    async with open_fake_engine(tmp_path, launcher) as (engine, _):
        sandbox = await engine.create(SandboxSpec())

        (sample,) = await engine.usage.samples(sandbox)

    assert (sample.memory, sample.cache, sample.disk) == (1, 0, 60)


async def test_asking_often_does_not_measure_often(node: Node) -> None:
    sandbox = await make(node)
    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(node.engine.usage.samples, sandbox)

    assert node.measurements == 1


async def test_processors_are_told_from_the_time_between_two_measurements(node: Node) -> None:
    sandbox = await make(node)
    node.launcher.cpu_seconds = 10.0
    await node.engine.usage.samples(sandbox)
    node.launcher.cpu_seconds = 10.0 + INTERVAL * 0.75

    samples = await measure_again(node, sandbox)

    assert samples[-1].cpus == pytest.approx(0.75)


async def test_a_counter_that_went_back_is_no_negative_use(node: Node) -> None:
    sandbox = await make(node)
    node.launcher.cpu_seconds = 10.0
    await node.engine.usage.samples(sandbox)
    node.launcher.cpu_seconds = 0.0

    assert (await measure_again(node, sandbox))[-1].cpus == 0.0


async def test_running_sandboxes_are_measured_in_turn(node: Node) -> None:
    first, second = await make(node), await make(node)
    await node.settle()

    # The task slept when there was nothing to measure; then each has its half of the interval.
    await node.advance(INTERVAL, until=lambda: True)
    await node.settle()
    assert node.measurements == 0
    await node.advance(INTERVAL / 2, until=lambda: node.measurements == 1)
    await node.settle()
    assert node.measurements == 1
    await node.advance(INTERVAL / 2, until=lambda: node.measurements == 2)

    assert len(await node.engine.usage.samples(first)) == 2
    assert len(await node.engine.usage.samples(second)) == 1


async def test_what_is_paused_is_not_measured(node: Node) -> None:
    sandbox = await make(node)
    (former,) = await node.engine.usage.samples(sandbox)
    await sandbox.pause()

    for _ in range(3):
        node.clock.advance(INTERVAL)
        await node.settle()

    assert node.measurements == 1
    assert await node.engine.usage.samples(sandbox) == [former]


async def test_what_is_paused_takes_no_turn(node: Node) -> None:
    paused, _ = await make(node), await make(node)
    await paused.pause()
    await node.settle()

    await node.advance(INTERVAL, until=lambda: True)
    await node.settle()
    await node.advance(INTERVAL, until=lambda: node.measurements == 1)


async def test_the_pool_is_not_measured(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_fake_engine(tmp_path, clock=clock, pool_size=1) as (engine, launcher):
        node = Node(engine, launcher, clock)
        await wait_until(lambda: engine.count_ready() == 1)
        for _ in range(3):
            clock.advance(INTERVAL)
            await node.settle()

        assert node.measurements == 0


async def test_the_oldest_samples_go(node: Node) -> None:
    sandbox = await make(node)
    (first,) = await node.engine.usage.samples(sandbox)
    for _ in range(KEPT_SAMPLES - 1):
        await measure_again(node, sandbox)

    samples = await measure_again(node, sandbox)

    assert len(samples) == KEPT_SAMPLES
    assert samples[0].timestamp == first.timestamp + INTERVAL
    assert samples[-1].timestamp == node.clock.now()


async def test_a_sandbox_that_lies_about_its_files_cannot_use_more_than_it_has(node: Node) -> None:
    sandbox = await make(node)
    node.launcher.sandboxes[sandbox.id].agent.disk = (10**30, 0)

    (sample,) = await node.engine.usage.samples(sandbox)

    assert sample.disk == 1 * MIB


async def test_a_sandbox_that_cannot_count_its_files_is_measured_nevertheless(node: Node) -> None:
    sandbox = await make(node)
    await node.engine.usage.samples(sandbox)
    node.launcher.sandboxes[sandbox.id].agent.disk = None

    samples = await measure_again(node, sandbox)

    assert [each.disk for each in samples] == [60, 60]
    assert sandbox.is_alive


async def test_nobody_waits_long_for_a_sandbox_to_count_its_files(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "DISK_TIMEOUT", 0.01)
    sandbox = await make(node)
    node.launcher.sandboxes[sandbox.id].agent.ignored.add("file")

    (sample,) = await node.engine.usage.samples(sandbox)

    assert (sample.memory, sample.disk) == (1, 0)


async def test_files_are_counted_seldom_unless_somebody_asks(node: Node) -> None:
    sandbox = await make(node)
    await node.engine.usage.samples(sandbox)
    agent = node.launcher.sandboxes[sandbox.id].agent
    agent.disk = (100, 10)
    await node.advance(INTERVAL, until=lambda: True)
    await node.settle()
    await node.advance(INTERVAL, until=lambda: node.measurements == 2)
    await node.settle()
    assert len(agent.requests) == 1

    samples = await node.engine.usage.samples(sandbox)

    assert [each.disk for each in samples] == [60, 60, 90]
    await node.advance(DISK_INTERVAL, until=lambda: len(agent.requests) == 3)


async def test_a_launcher_that_refuses_leaves_no_sample(node: Node) -> None:
    sandbox = await make(node)
    node.launcher.refusals["stats"] = ("internal", "no")

    assert await node.engine.usage.samples(sandbox) == []


async def test_one_that_does_not_answer_does_not_hold_up_the_others(node: Node) -> None:
    silent, other = await make(node), await make(node)
    node.launcher.sandboxes[silent.id].agent.ignored.add("file")
    await node.settle()

    await node.advance(INTERVAL, until=lambda: True)
    await node.settle()
    await node.advance(INTERVAL / 2, until=lambda: node.measurements == 1)
    await node.settle()
    await node.advance(INTERVAL / 2, until=lambda: node.measurements == 2)

    assert len(await node.engine.usage.samples(other)) == 1


async def test_of_one_that_does_not_answer_nothing_more_is_asked(node: Node) -> None:
    silent = await make(node)
    node.launcher.sandboxes[silent.id].agent.ignored.add("file")
    await node.settle()
    await node.advance(INTERVAL, until=lambda: True)
    await node.settle()
    await node.advance(INTERVAL, until=lambda: node.measurements == 1)
    waiting = len(anyio.get_running_tasks())

    for _ in range(3):
        node.clock.advance(INTERVAL)
        await node.settle()

    assert len(anyio.get_running_tasks()) == waiting


async def test_nothing_is_kept_of_a_sandbox_that_ended(node: Node) -> None:
    sandbox = await make(node)
    await node.engine.usage.samples(sandbox)

    await sandbox.kill()

    assert await node.engine.usage.samples(sandbox) == []
