"""The front door: making, finding, listing and ending sandboxes, and the pool behind it."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.engine.config import EngineConfig
from headrace.engine.engine import Collaborators, Engine
from headrace.engine.sandbox_state import SandboxState
from headrace.engine.store import RecentSandboxes
from headrace.model import ids
from headrace.model.errors import (
    ExecutionNotFoundError,
    InvalidRequestError,
    IsolationError,
    LaunchError,
    QuotaError,
    SandboxNotFoundError,
    TemplateNotFoundError,
    UnavailableError,
)
from headrace.model.events import FinishReason, Stream
from headrace.model.specs import ExecutionRequest, Limits, SandboxSpec
from tests.support.fakes import (
    FakeClock,
    FakeLauncher,
    make_config,
    open_fake_engine,
)
from tests.support.logs import count_descriptors, join_output, read_all, wait_until

SPEC = SandboxSpec()


# --- opening and closing --------------------------------------------------------------------


async def test_an_engine_says_what_is_enforced(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, require=frozenset({"seccomp"})) as (engine, _):
        assert "seccomp" in engine.report.enforced
        assert len(engine.node) == ids.NODE_LENGTH


async def test_weaker_isolation_than_required_is_refused(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    with pytest.raises(IsolationError, match="cannot enforce id_ranges, memory in root mode"):
        async with open_fake_engine(
            tmp_path, launcher, require=frozenset({"memory", "id_ranges", "seccomp"})
        ):
            pytest.fail("it opened")


async def test_an_unknown_requirement_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="'magic'"):
        make_config(tmp_path, require=frozenset({"magic"}))


async def test_privileges_are_given_up_before_anything_of_ours_is_made(tmp_path: Path) -> None:
    seen: list[bool] = []

    def look() -> None:
        seen.append((tmp_path / "state").exists() or (tmp_path / "runtime").exists())

    async with open_fake_engine(tmp_path, on_launched=look):
        assert seen == [False]
        assert (tmp_path / "runtime" / "logs" / "main").stat().st_mode & 0o777 == 0o700


async def test_a_failure_of_the_caller_comes_out_as_it_is(tmp_path: Path) -> None:
    launcher = FakeLauncher()

    async def fail() -> None:
        async with open_fake_engine(tmp_path, launcher) as (engine, _):
            await engine.create(SPEC)
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await fail()
    assert launcher.sandboxes == {}


async def test_closing_ends_every_execution_and_leaves_nothing(tmp_path: Path) -> None:
    before = count_descriptors()
    launcher = FakeLauncher()
    async with open_fake_engine(tmp_path, launcher, pool_size=2) as (engine, _):
        sandbox = await engine.create(SPEC)
        execution = await sandbox.execute(ExecutionRequest("out begun\nstubborn"))
        await wait_until(lambda: execution.log.last_seq >= 2)
    finished = await execution.wait()
    assert (finished.reason, finished.detail) == (FinishReason.KILLED, "the engine was closed")
    assert launcher.sandboxes == {}
    assert count_descriptors() == before


async def test_a_cancelled_engine_cleans_up_too(tmp_path: Path) -> None:
    before = count_descriptors()
    launcher = FakeLauncher()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.run)
        with anyio.CancelScope() as scope:
            async with Engine.open(make_config(tmp_path, pool_size=1), link=launcher) as engine:
                await engine.create(SPEC)
                scope.cancel()
                await anyio.sleep_forever()
        assert launcher.sandboxes == {}
    assert count_descriptors() == before


async def test_a_closing_engine_makes_no_sandboxes(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, _):
        pass
    with pytest.raises(UnavailableError, match="closing"):
        await engine.create(SPEC)


# --- sandboxes ------------------------------------------------------------------------------


async def test_sandboxes_are_found_and_listed_until_they_end(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, node="abcd") as (engine, _):
        first, second = await engine.create(SPEC), await engine.create(SPEC)
        assert first.id.startswith("abcd")
        assert ids.is_sandbox_id(first.id)
        assert engine.find(first.id) is first
        assert engine.list() == [first, second]
        await engine.kill(first.id)
        assert engine.list() == [second]
        with pytest.raises(SandboxNotFoundError, match="the sandbox was killed"):
            engine.find(first.id)
        with pytest.raises(SandboxNotFoundError, match="'nope'"):
            await engine.kill("nope")


async def test_the_store_hears_of_every_sandbox(tmp_path: Path) -> None:
    store, clock = RecentSandboxes(), FakeClock(500.0)
    launcher = FakeLauncher()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.run)
        config = make_config(tmp_path)
        outside = Collaborators(clock=clock, store=store)
        async with Engine.open(config, link=launcher, outside=outside) as engine:
            sandbox = await engine.create(SandboxSpec(metadata={"owner": "ada"}))
            record = store.find(sandbox.id)
            assert record is not None
            assert (record.metadata, record.created_at, record.ended_at) == (
                {"owner": "ada"},
                500.0,
                None,
            )
            clock.advance(5.0)
            await sandbox.kill()
            record = store.find(sandbox.id)
            assert record is not None
            assert (record.ended_at, record.end_detail) == (505.0, "the sandbox was killed")


async def test_an_unknown_template_is_refused_before_anything_changes(tmp_path: Path) -> None:
    aliases = {"base": "code-interpreter"}
    async with open_fake_engine(tmp_path, template_aliases=aliases) as (engine, launcher):
        with pytest.raises(TemplateNotFoundError, match="'nope'"):
            await engine.create(SandboxSpec(template="nope"))
        assert launcher.verbs == []
        assert (await engine.create(SandboxSpec(template="base"))).spec.template == "base"


async def test_a_hundred_sandboxes_can_be_made_at_once(tmp_path: Path) -> None:
    most, now = 0, 0

    async with open_fake_engine(tmp_path, max_creating=8) as (engine, launcher):
        create = launcher._create

        async def counting(*arguments: Any) -> None:
            nonlocal most, now
            now += 1
            most = max(most, now)
            await anyio.sleep(0.001)
            now -= 1
            await create(*arguments)

        launcher._create = counting  # type: ignore[assignment]
        results: list[str] = []

        async def use() -> None:
            sandbox = await engine.create(SPEC)
            execution = await sandbox.execute(ExecutionRequest("main 1"))
            results.append((await execution.wait()).reason)

        async with anyio.create_task_group() as tasks:
            for _ in range(100):
                tasks.start_soon(use)
        assert results == ["ok"] * 100
        assert most <= 8
        assert len(engine.list()) == 100


async def test_the_number_of_sandboxes_is_bounded(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, max_sandboxes=2) as (engine, _):
        first, _ = await engine.create(SPEC), await engine.create(SPEC)
        with pytest.raises(QuotaError, match="there are 2 sandboxes"):
            await engine.create(SPEC)
        await first.kill()
        await engine.create(SPEC)


async def test_a_creation_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        launcher.hanging.add("create")
        with anyio.move_on_after(0.02):
            await engine.create(SPEC)
        launcher.hanging.clear()
        await wait_until(lambda: launcher.verbs.count("kill") == 1)
        assert engine.list() == []
        await engine.create(SPEC)


async def test_failed_creations_do_not_count(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, max_sandboxes=1) as (engine, launcher):
        launcher.refusals["create"] = ("failed", "not now")
        for _ in range(3):
            with pytest.raises(LaunchError):
                await engine.create(SPEC)
        launcher.refusals.clear()
        await engine.create(SPEC)


async def test_an_unknown_log_is_not_found(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, _):
        with pytest.raises(ExecutionNotFoundError, match="'nope'"):
            engine.find_log("nope")


async def test_logs_go_when_their_retention_is_over(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_fake_engine(tmp_path, clock=clock, log_retention=100.0) as (engine, _):
        sandbox = await engine.create(SPEC)
        execution = await sandbox.execute(ExecutionRequest("out x"))
        await execution.wait()
        assert len(await read_all(engine.find_log(execution.id))) == 3
        clock.advance(101.0)
        await wait_until(lambda: not _has_log(engine, execution.id))


def _has_log(engine: Engine, log_id: str) -> bool:
    try:
        engine.find_log(log_id)
    except ExecutionNotFoundError:
        return False
    return True


# --- the pool -------------------------------------------------------------------------------


async def wait_for_pool(launcher: FakeLauncher, count: int) -> None:
    """Wait until that many sandboxes have a kernel that stands."""
    await wait_until(lambda: sum(bool(s.kernels) for s in launcher.sandboxes.values()) >= count)
    await anyio.wait_all_tasks_blocked()


async def test_a_ready_sandbox_is_given_and_replaced(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, pool_size=2) as (engine, launcher):
        await wait_for_pool(launcher, 2)
        assert engine.list() == []
        ready = set(launcher.sandboxes)
        sandbox = await engine.create(
            SandboxSpec(env={"A": "mine"}, limits=Limits(lifetime=50.0, output=5000))
        )
        assert sandbox.id in ready
        assert sandbox.spec.limits.lifetime == 50.0
        execution = await sandbox.execute(ExecutionRequest("env A\nflood 9000\nwait"))
        finished = await execution.wait()
        assert (finished.reason, finished.limit_value) == (FinishReason.OUTPUT_LIMIT, 5000)
        events = await read_all(engine.find_log(execution.id))
        assert join_output(events, Stream.STDOUT).startswith(b"mine\n")
        await wait_for_pool(launcher, 3)
        assert len(engine.list()) == 1


async def test_other_limits_are_not_from_the_pool(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, pool_size=1) as (engine, launcher):
        await wait_for_pool(launcher, 1)
        (ready,) = launcher.sandboxes
        sandbox = await engine.create(SandboxSpec(limits=Limits(memory=256 * 1024 * 1024)))
        assert sandbox.id != ready


async def test_a_ready_sandbox_that_dies_is_replaced(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, pool_size=1) as (engine, launcher):
        await wait_for_pool(launcher, 1)
        (dead,) = launcher.sandboxes
        launcher.sandboxes[dead].agent.scope.cancel()
        await wait_until(lambda: dead not in launcher.sandboxes)
        await wait_for_pool(launcher, 1)
        sandbox = await engine.create(SPEC)
        assert sandbox.id != dead
        assert (await (await sandbox.execute(ExecutionRequest("out x"))).wait()).reason == "ok"


async def test_the_pool_stays_within_the_number_of_sandboxes(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"pool_size": 4, "max_sandboxes": 3}
    async with open_fake_engine(tmp_path, **settings) as (engine, launcher):
        await wait_for_pool(launcher, 3)
        assert len(launcher.sandboxes) == 3
        special = SandboxSpec(limits=Limits(processes=50))
        made = [await engine.create(special) for _ in range(3)]
        assert len(launcher.sandboxes) == 3
        with pytest.raises(QuotaError):
            await engine.create(special)
        await made[0].kill()
        await wait_for_pool(launcher, 3)


async def test_a_pool_that_cannot_be_filled_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.pool._FIRST_PAUSE", 0.01)
    launcher = FakeLauncher()
    launcher.refusals["create"] = ("failed", "not now")
    async with open_fake_engine(tmp_path, launcher, pool_size=1):
        await wait_until(lambda: launcher.verbs.count("create") >= 2)
        del launcher.refusals["create"]
        await wait_for_pool(launcher, 1)


async def test_the_lifetime_of_a_ready_sandbox_begins_when_it_is_taken(tmp_path: Path) -> None:
    clock = FakeClock()
    async with open_fake_engine(tmp_path, clock=clock, pool_size=1) as (engine, launcher):
        await wait_for_pool(launcher, 1)
        clock.advance(5000)
        await anyio.wait_all_tasks_blocked()
        sandbox = await engine.create(SPEC)
        assert sandbox.deadline == clock.now() + 3600
        assert sandbox.created_at == clock.now()
        assert sandbox.state is SandboxState.RUNNING


async def test_a_launcher_that_cannot_be_started_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    config = EngineConfig(state_dir=tmp_path / "s", runtime_dir=tmp_path / "r")
    with pytest.raises(LaunchError, match="/nowhere/python"):
        async with Engine.open(config):
            pytest.fail("it opened")
