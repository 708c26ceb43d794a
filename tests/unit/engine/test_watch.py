"""Watching a directory: changes as events, from started to ended."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.engine.watch import MAX_WATCHES, Watch
from headrace.model.errors import DeadlineError, PathNotFoundError, QuotaError
from headrace.model.events import (
    ChangesDropped,
    FileChange,
    FileChanged,
    FinishReason,
    WatchEnded,
    WatchEvent,
    WatchStarted,
)
from headrace.model.specs import SandboxSpec
from tests.support.fakes import FakeAgent, open_fake_engine
from tests.support.logs import PATIENCE, wait_until


@dataclass
class World:
    """A sandbox on a fake launcher."""

    engine: Engine
    sandbox: Sandbox
    agent: FakeAgent


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        sandbox = await engine.create(SandboxSpec())
        yield World(engine, sandbox, launcher.sandboxes[sandbox.id].agent)


async def read(watch: Watch) -> list[WatchEvent]:
    with anyio.fail_after(PATIENCE):
        return [event async for event in watch.events()]


async def test_changes_are_events(world: World) -> None:
    watch = await world.sandbox.files.watch("sub", recursive=True)
    assert world.sandbox.watches.find(watch.id) is watch
    await wait_until(lambda: watch.log.last_seq == 3)
    await watch.close()
    await watch.close()
    started, changed, dropped, ended = await read(watch)
    assert isinstance(started, WatchStarted)
    assert (started.watch_id, started.path) == (watch.id, "/home/user/sub")
    assert isinstance(changed, FileChanged)
    assert (changed.change, changed.path) == (FileChange.CREATED, "a")
    assert isinstance(dropped, ChangesDropped)
    assert isinstance(ended, WatchEnded)
    assert ended.reason is FinishReason.OK
    assert world.agent.requests[0]["recursive"] is True
    assert world.agent.requests[-1]["op"] == "cancel"
    await wait_until(lambda: world.sandbox.watches.find(watch.id) is None)


async def test_a_directory_that_is_not_there_is_an_error_and_no_log(world: World) -> None:
    with pytest.raises(PathNotFoundError, match="/missing"):
        await world.sandbox.files.watch("/missing")


async def test_a_directory_that_goes_ends_its_watch(world: World) -> None:
    watch = await world.sandbox.files.watch("/removed")
    ended = await watch.wait()
    assert (ended.reason, ended.detail) == (FinishReason.OK, "the directory was removed")


@pytest.mark.parametrize(
    "lines",
    [
        b'{"started":true}\n{"change":"eaten","path":"a"}\n',
        b'{"started":true}\n{"change":"created"}\n',
        b'{"started":true}\n{"started":true}\n',
        b'{"started":true}\nnope\n',
    ],
)
async def test_lines_that_are_none_end_the_watch_only(world: World, lines: bytes) -> None:
    async def garbage(_request: object, fd: int) -> None:
        os.write(fd, lines)
        await anyio.sleep_forever()

    world.agent._watch = garbage  # type: ignore[assignment, method-assign]
    before = await world.sandbox.files.watch("/w")
    assert (await before.wait()).reason is FinishReason.ERROR
    assert world.sandbox.is_alive


async def test_a_flood_of_changes_ends_the_watch_with_the_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def flood(request: dict[str, Any], fd: int) -> None:
        line = b'{"change":"created","path":"' + b"x" * 4000 + b'"}\n'
        os.write(fd, b'{"started":true}\n')
        os.set_blocking(fd, False)
        for _ in range(60):
            try:
                os.write(fd, line)
            except BlockingIOError:
                await anyio.sleep(0.001)
        await anyio.sleep_forever()

    world.agent._watch = flood  # type: ignore[assignment, method-assign]
    world.engine._logs._bounds = _small(world.engine)
    watch = await world.sandbox.files.watch("/w")
    assert (await watch.wait()).reason is FinishReason.OUTPUT_LIMIT


def _small(engine: Engine) -> Any:
    from dataclasses import replace

    return replace(engine._logs._bounds, records=20_000)


async def test_a_watch_that_does_not_begin_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_request: object, fd: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            os.close(fd)

    monkeypatch.setattr("headrace.engine.watch._START_TIMEOUT", 0.01)
    world.agent._watch = hang  # type: ignore[assignment, method-assign]
    with pytest.raises(DeadlineError, match="/w did not begin"):
        await world.sandbox.files.watch("/w")
    with anyio.move_on_after(0.005):
        await world.sandbox.files.watch("/w")
    await wait_until(lambda: [r["op"] for r in world.agent.requests].count("cancel") == 2)


async def test_watches_are_bounded(world: World) -> None:
    for _ in range(MAX_WATCHES):
        await world.sandbox.files.watch("/w")
    with pytest.raises(QuotaError, match=f"{MAX_WATCHES} watches"):
        await world.sandbox.files.watch("/w")


async def test_the_log_of_a_watch_is_found(world: World) -> None:
    watch = await world.sandbox.files.watch("/w")
    await watch.close()
    assert world.engine.find_log(watch.id) is watch.log
