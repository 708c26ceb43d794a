"""The same key gives the same sandbox, and nothing is remembered longer than it lives."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import anyio
import pytest

from headrace.adapters.e2b.creations import Creations, check_key
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import InvalidRequestError, QuotaError
from headrace.model.specs import SandboxSpec
from tests.support.fakes import open_fake_engine

Make = Callable[[], Awaitable[Sandbox]]


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine on a fake launcher."""
    async with open_fake_engine(tmp_path) as (engine, _):
        yield engine


@pytest.fixture
def make(engine: Engine) -> Make:
    """Makes a sandbox."""
    return lambda: engine.create(SandboxSpec())


async def test_the_same_key_gives_the_same_sandbox_while_it_lives(make: Make) -> None:
    creations = Creations()

    first = await creations.once("ours", "key", make)
    again = await creations.once("ours", "key", make)
    other = await creations.once("ours", "key-2", make)
    await first.kill()
    fresh = await creations.once("ours", "key", make)

    assert again is first
    assert len({first, other, fresh}) == 3


async def test_a_key_is_that_of_one_tenant(make: Make) -> None:
    creations = Creations()

    ours = await creations.once("ours", "key", make)

    assert await creations.once("theirs", "key", make) is not ours


async def test_requests_at_the_same_time_make_one_sandbox(make: Make) -> None:
    creations, found = Creations(), []
    may_go_on = anyio.Event()
    calls: list[None] = []

    async def make_slowly() -> Sandbox:
        calls.append(None)
        await may_go_on.wait()
        return await make()

    async def ask() -> None:
        found.append(await creations.once("ours", "key", make_slowly))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
        await anyio.wait_all_tasks_blocked()
        may_go_on.set()

    assert (len(calls), len(found), len(set(found))) == (1, 5, 1)


async def test_after_a_failure_the_next_one_tries(make: Make) -> None:
    creations = Creations()

    async def fail() -> Sandbox:
        raise QuotaError("full")

    with pytest.raises(QuotaError):
        await creations.once("ours", "key", fail)
    assert len(creations) == 0
    assert (await creations.once("ours", "key", make)).is_alive


async def test_keys_of_the_dead_are_forgotten(make: Make) -> None:
    creations = Creations()
    for number in range(5):
        sandbox = await creations.once("ours", f"key-{number}", make)
        await sandbox.kill()

    await creations.once("ours", "last", make)

    assert len(creations) == 1


@pytest.mark.parametrize("key", ["a", "0-9", "x" * 255])
def test_a_key_is_of_small_letters_digits_and_dashes(key: str) -> None:
    assert check_key(key) == key


@pytest.mark.parametrize("key", ["", "A", "a_b", "a b", "x" * 256, "a\n", "ä"])
def test_another_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequestError, match="Idempotency-Key"):
        check_key(key)
