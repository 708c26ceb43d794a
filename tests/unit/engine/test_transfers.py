"""Running file requests: whatever breaks them off, the guest hears of it and nothing is left."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.engine.agent import AgentConnection
from headrace.engine.pipes import PipeClosedError
from headrace.engine.transfers import Lines, Transfer
from headrace.model.errors import AgentProtocolError, DeadlineError, PathNotFoundError
from headrace.model.specs import SandboxSpec
from tests.support.fakes import FakeAgent, open_fake_engine
from tests.support.logs import count_descriptors, wait_until

READ = {"action": "read", "path": "/f", "offset": 0, "length": None, "user": "user"}
LIST = {"action": "list", "path": "/", "depth": 1, "user": "user"}


@dataclass
class World:
    """Both ends of an agent's socket."""

    agent: FakeAgent
    connection: AgentConnection


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        sandbox = await engine.create(SandboxSpec())
        await sandbox.await_ready()
        connection = sandbox.files._agent
        yield World(launcher.sandboxes[sandbox.id].agent, connection)


async def test_bytes_come_and_then_the_answer(world: World) -> None:
    world.agent.files["/f"] = b"content"
    async with Transfer(world.connection, READ) as transfer:
        assert await transfer.read() == b"content"
        assert await transfer.read() == b""
        assert await transfer.end() == {"size": 7, "sent": 7}


async def test_a_refusal_comes_as_the_answer(world: World) -> None:
    async with Transfer(world.connection, READ) as transfer:
        assert await transfer.read() == b""
        with pytest.raises(PathNotFoundError):
            await transfer.end()


async def test_a_transfer_that_is_left_is_cancelled_in_the_guest(world: World) -> None:
    before = count_descriptors()
    world.agent.files["/f"] = b"x" * 1_000_000
    async with Transfer(world.connection, READ) as transfer:
        await transfer.read()
    assert [request["op"] for request in world.agent.requests] == ["file", "cancel"]
    await wait_until(lambda: count_descriptors() == before)


async def test_a_cancelled_transfer_is_cancelled_in_the_guest(world: World) -> None:
    async def hang(_request: dict[str, Any], fd: int) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            os.close(fd)

    world.agent._read = hang  # type: ignore[assignment, method-assign]
    with anyio.move_on_after(0.02):
        async with Transfer(world.connection, READ) as transfer:
            await transfer.read()
    assert world.agent.requests[-1]["op"] == "cancel"


async def test_a_guest_that_sends_nothing_is_a_deadline(world: World) -> None:
    world.agent.ignored.add("file")

    async def keep(request: dict[str, Any], fd: int) -> None:
        await anyio.sleep_forever()

    world.agent.ignored.clear()
    world.agent._read = keep  # type: ignore[assignment, method-assign]
    async with Transfer(world.connection, READ) as transfer:
        with pytest.raises(DeadlineError):
            await transfer.read(0.01)


async def test_what_was_not_opened_cannot_be_read(world: World) -> None:
    transfer = Transfer(world.connection, READ)
    for refused in (transfer.read(), transfer.end()):
        with pytest.raises(PipeClosedError):
            await refused


async def test_lines_are_put_together_from_pieces(world: World) -> None:
    async def in_pieces(request: dict[str, Any], fd: int) -> None:
        for piece in (b'{"a"', b':1}\n{"b":"two"}', b"\n"):
            os.write(fd, piece)
            await anyio.sleep(0.001)
        os.close(fd)
        await world.agent.reply(request, count=2)

    world.agent._list = in_pieces  # type: ignore[assignment, method-assign]
    async with Lines(world.connection, LIST) as lines:
        assert [line async for line in lines.follow()] == [{"a": 1}, {"b": "two"}]
        assert await lines.end() == {"count": 2}


@pytest.mark.parametrize("data", [b"x" * 70_000, b'{"a":1}', b"[]\n", b"{\n"])
async def test_what_is_no_line_is_the_agents_fault(world: World, data: bytes) -> None:
    async def garbage(request: dict[str, Any], fd: int) -> None:
        os.set_blocking(fd, False)
        os.write(fd, data[:65536])
        await anyio.sleep(0.005)
        os.write(fd, data[65536:])
        os.close(fd)
        await world.agent.reply(request)

    world.agent._list = garbage  # type: ignore[assignment, method-assign]
    async with Lines(world.connection, LIST) as lines:
        with pytest.raises(AgentProtocolError):
            _ = [line async for line in lines.follow()]
