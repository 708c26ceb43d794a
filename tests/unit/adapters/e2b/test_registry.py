"""Finding sandboxes for the data plane, and what is remembered of them."""

import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.adapters.base import noted
from headrace.adapters.e2b.access import Purpose, SignedUrl
from headrace.adapters.e2b.registry import Registry
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import SandboxNotFoundError, UnauthenticatedError, WrongStateError
from headrace.model.specs import SandboxSpec
from tests.support.e2b import TOKENS
from tests.support.fakes import FakeLauncher, open_fake_engine


@dataclass
class Node:
    """An engine and the registry of its sandboxes."""

    engine: Engine
    launcher: FakeLauncher
    registry: Registry

    async def make(self, **fields: Any) -> Sandbox:
        """Make a sandbox."""
        return await self.engine.create(SandboxSpec(**fields))

    @property
    def wakings(self) -> int:
        """How often a sandbox was woken."""
        return self.launcher.verbs.count("thaw")


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """A node of its own for each test."""
    async with open_fake_engine(tmp_path) as (engine, launcher):
        yield Node(engine, launcher, Registry(engine, TOKENS))


def with_headers(**headers: str) -> dict[str, Any]:
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return {"type": "http", "headers": pairs}


# --- finding ----------------------------------------------------------------------------------


async def test_a_running_sandbox_is_found_and_noted(node: Node) -> None:
    sandbox, scope = await node.make(), with_headers()

    assert await node.registry.find(sandbox.id, scope) is sandbox
    assert noted(scope) == {"sandbox_id": sandbox.id}


async def test_one_that_is_paused_or_dead_or_never_was_is_not_found(node: Node) -> None:
    paused, dead = await node.make(), await node.make(auto_resume=True)
    await paused.pause()
    await dead.kill()

    for sandbox_id in (paused.id, dead.id, "nothing", ""):
        with pytest.raises(SandboxNotFoundError):
            await node.registry.find(sandbox_id, with_headers())
    assert paused.state is SandboxState.PAUSED


# --- waking -----------------------------------------------------------------------------------


async def test_traffic_wakes_a_sandbox_once(node: Node) -> None:
    sandbox = await node.make(auto_resume=True)
    node.registry.details(sandbox).timeout = 77
    await sandbox.pause(stops_lifetime=True)
    found: list[Sandbox] = []

    async def come() -> None:
        found.append(await node.registry.find(sandbox.id, with_headers()))

    async with anyio.create_task_group() as tasks:
        for _ in range(10):
            tasks.start_soon(come)

    assert found == [sandbox] * 10
    assert node.wakings == 1
    assert sandbox.deadline - time.time() == pytest.approx(77, abs=5)


async def test_a_sandbox_that_cannot_be_woken_is_not_found(node: Node) -> None:
    sandbox = await node.make(auto_resume=True)
    await sandbox.pause()
    node.launcher.refusals["thaw"] = ("internal", "no")

    with pytest.raises(SandboxNotFoundError, match="could not be woken"):
        await node.registry.find(sandbox.id, with_headers())

    del node.launcher.refusals["thaw"]
    assert await node.registry.find(sandbox.id, with_headers()) is sandbox


async def test_one_that_ends_while_it_is_woken_is_not_found(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await node.make(auto_resume=True)
    await sandbox.pause()

    async def die() -> None:
        await sandbox.kill()
        raise WrongStateError("it is killed")

    monkeypatch.setattr(sandbox, "resume", die)

    with pytest.raises(SandboxNotFoundError):
        await node.registry.find(sandbox.id, with_headers())


async def test_resuming_says_whether_it_was_paused(node: Node) -> None:
    sandbox = await node.make()

    assert not await node.registry.resume(sandbox, 50)
    await sandbox.pause()
    assert await node.registry.resume(sandbox, 50)
    assert sandbox.deadline - time.time() == pytest.approx(50, abs=5)


# --- remembering ------------------------------------------------------------------------------


async def test_what_is_remembered_stays_as_long_as_the_sandbox(node: Node) -> None:
    first, second = await node.make(), await node.make()

    assert not node.registry.knows(first.id)
    details = node.registry.details(first)
    details.is_public = False
    assert node.registry.details(first) is details
    await first.kill()
    node.registry.details(second)

    assert node.registry.details(first) is not details
    assert node.registry.knows(second.id)


async def test_sandboxes_that_are_gone_are_remembered_by_name_within_a_bound(
    node: Node, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.adapters.e2b.registry.MAX_DEAD", 2)
    gone = [await node.make() for _ in range(3)]
    for sandbox in gone:
        node.registry.details(sandbox)
        await sandbox.kill()
        node.registry.details(await node.make())

    assert [node.registry.knows(sandbox.id) for sandbox in gone] == [False, True, True]


# --- tokens -----------------------------------------------------------------------------------


async def test_only_the_token_of_this_sandbox_opens_its_agent(node: Node) -> None:
    sandbox, other = await node.make(), await node.make()
    good = TOKENS.make(Purpose.AGENT, sandbox.id)
    traffic = TOKENS.make(Purpose.TRAFFIC, sandbox.id)

    node.registry.check_agent_token(sandbox, with_headers(x_access_token=good))
    for headers in (
        {},
        {"x_access_token": ""},
        {"x_access_token": traffic},
        {"x_access_token": TOKENS.make(Purpose.AGENT, other.id)},
        {"authorization": good},
    ):
        with pytest.raises(UnauthenticatedError):
            node.registry.check_agent_token(sandbox, with_headers(**headers))


async def test_either_token_of_this_sandbox_opens_its_interpreter(node: Node) -> None:
    sandbox, other = await node.make(), await node.make()
    agent, traffic = (TOKENS.make(purpose, sandbox.id) for purpose in Purpose)

    def opens(**headers: str) -> bool:
        return node.registry.has_any_token(sandbox, with_headers(**headers))

    assert opens(x_access_token=agent)
    assert opens(e2b_traffic_access_token=traffic)
    assert opens(x_access_token="old", e2b_traffic_access_token=traffic)
    assert not opens()
    assert not opens(x_access_token=traffic)
    assert not opens(e2b_traffic_access_token=agent)
    assert not opens(x_access_token=TOKENS.make(Purpose.AGENT, other.id))
    assert not node.registry.has_traffic_token(sandbox, with_headers(x_access_token=agent))


async def test_a_signature_of_none_of_the_sandboxes_finds_none(node: Node) -> None:
    await node.make()

    assert node.registry.find_signer(SignedUrl("a", "read", "", "v1_x", None)) is None
