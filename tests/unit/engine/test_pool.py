"""The pool by itself: what fits, and what it does when making fails."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import anyio
import anyio.lowlevel
import pytest

from headrace.engine.pool import Pool, has_same_bounds
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import LaunchError
from headrace.model.specs import Limits
from tests.support.logs import wait_until


class Made:
    """Stands for a sandbox."""

    def __init__(self) -> None:
        self.is_alive = True


class Maker:
    """Makes things, as often and as well as it is told."""

    def __init__(self) -> None:
        self.made: list[Made] = []
        self.failures = 0
        self.room = 100

    async def make(self) -> Sandbox:
        await anyio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise LaunchError("not now")
        self.made.append(Made())
        return cast("Sandbox", self.made[-1])

    def may_make(self) -> bool:
        return len(self.made) < self.room


@asynccontextmanager
async def at_work(size: int, maker: Maker) -> AsyncIterator[Pool]:
    pool = Pool(size, "code-interpreter", Limits(), maker.make, maker.may_make)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(pool.run)
        yield pool
        tasks.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"lifetime": 5.0}, True),
        ({"output": 5000}, True),
        ({"memory": 1 << 30}, True),
        ({"memory": 1 << 29}, False),
        ({"disk": 1 << 29 | 1}, False),
        ({"inodes": 7000}, False),
        ({"processes": 10}, False),
        ({"open_files": 100}, False),
        ({"cpus": 2.0}, False),
    ],
)
def test_only_limits_that_are_fixed_at_the_start_matter(change: dict[str, Any], same: bool) -> None:
    assert has_same_bounds(Limits(**change), Limits()) is same


async def test_the_pool_fills_up_and_stops() -> None:
    maker = Maker()
    async with at_work(3, maker) as pool:
        await wait_until(lambda: len(pool) == 3)
        await anyio.wait_all_tasks_blocked()
        assert len(maker.made) == 3


async def test_what_is_taken_is_replaced_and_the_oldest_goes_first() -> None:
    maker = Maker()
    async with at_work(2, maker) as pool:
        await wait_until(lambda: len(pool) == 2)
        taken: object = pool.take("code-interpreter", Limits())
        assert taken is maker.made[0]
        await wait_until(lambda: len(pool) == 2)
        assert len(maker.made) == 3


async def test_another_template_is_not_in_the_pool() -> None:
    async with at_work(1, Maker()) as pool:
        await wait_until(lambda: len(pool) == 1)
        assert pool.take("other", Limits()) is None
        assert pool.take("code-interpreter", Limits(processes=9)) is None
        assert len(pool) == 1


async def test_the_dead_are_passed_over() -> None:
    maker = Maker()
    async with at_work(2, maker) as pool:
        await wait_until(lambda: len(pool) == 2)
        maker.made[0].is_alive = False
        given: object = pool.give_up()
        assert given is maker.made[1]


async def test_the_dead_that_are_told_of_are_replaced() -> None:
    maker = Maker()
    async with at_work(1, maker) as pool:
        await wait_until(lambda: len(pool) == 1)
        pool.discard(cast("Sandbox", maker.made[0]))
        pool.discard(cast("Sandbox", maker.made[0]))
        await wait_until(lambda: len(maker.made) == 2 and len(pool) == 1)


async def test_nothing_is_made_without_room_until_there_is_some() -> None:
    maker = Maker()
    maker.room = 1
    async with at_work(2, maker) as pool:
        await wait_until(lambda: len(pool) == 1)
        await anyio.wait_all_tasks_blocked()
        assert len(maker.made) == 1
        maker.room = 2
        pool.refill()
        await wait_until(lambda: len(pool) == 2)


async def test_a_failure_is_followed_by_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.pool._FIRST_PAUSE", 0.001)
    maker = Maker()
    maker.failures = 3
    async with at_work(1, maker) as pool:
        await wait_until(lambda: len(pool) == 1)


async def test_an_empty_pool_gives_nothing() -> None:
    assert Pool(0, "x", Limits(), Maker().make, lambda: True).give_up() is None
