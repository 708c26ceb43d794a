"""Deadlines of sandboxes, and time limits whose clock can be stopped."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import anyio
import anyio.lowlevel

from headrace.engine.expiry import Reaper, SystemClock, TimeLimit
from tests.support.fakes import FakeClock
from tests.support.logs import wait_until


@dataclass(eq=False)
class Thing:
    """Something that ends at a deadline."""

    ends_at: float


class Watched:
    """A reaper at work, and what it did."""

    def __init__(self) -> None:
        self.clock = FakeClock(0.0)
        self.ended: list[Thing] = []
        self.housekeepings = 0
        self.reaper: Reaper[Thing] = Reaper(self.clock, self.ended.append, self.housekeep)

    async def housekeep(self) -> None:
        self.housekeepings += 1


@asynccontextmanager
async def at_work() -> AsyncIterator[Watched]:
    async with anyio.create_task_group() as tasks:
        watched = Watched()
        tasks.start_soon(watched.reaper.run)
        await anyio.wait_all_tasks_blocked()
        yield watched
        tasks.cancel_scope.cancel()


async def pass_time(watched: Watched, seconds: float) -> None:
    watched.clock.advance(seconds)
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


async def test_a_thing_ends_at_its_deadline_and_not_before() -> None:
    async with at_work() as watched:
        thing = Thing(5.0)
        watched.reaper.watch(thing)
        await pass_time(watched, 4.9)
        assert watched.ended == []
        await pass_time(watched, 0.2)
        assert watched.ended == [thing]


async def test_a_deadline_that_moved_away_is_kept() -> None:
    async with at_work() as watched:
        thing = Thing(5.0)
        watched.reaper.watch(thing)
        thing.ends_at = 50.0
        watched.reaper.watch(thing)
        await pass_time(watched, 40.0)
        assert watched.ended == []
        await pass_time(watched, 11.0)
        assert watched.ended == [thing]


async def test_a_deadline_that_came_nearer_is_kept() -> None:
    async with at_work() as watched:
        thing = Thing(500.0)
        watched.reaper.watch(thing)
        await anyio.wait_all_tasks_blocked()
        thing.ends_at = 1.0
        watched.reaper.watch(thing)
        await pass_time(watched, 1.5)
        assert watched.ended == [thing]


async def test_what_is_forgotten_does_not_end() -> None:
    async with at_work() as watched:
        thing = Thing(5.0)
        watched.reaper.watch(thing)
        watched.reaper.forget(thing)
        watched.reaper.forget(thing)
        await pass_time(watched, 6.0)
        assert watched.ended == []


async def test_several_deadlines_are_all_kept() -> None:
    async with at_work() as watched:
        things = [Thing(float(number)) for number in range(1, 6)]
        for thing in things:
            watched.reaper.watch(thing)
        await pass_time(watched, 3.0)
        assert set(watched.ended) == set(things[:3])


async def test_housekeeping_is_done_now_and_then() -> None:
    async with at_work() as watched:
        for _ in range(3):
            await pass_time(watched, 11.0)
        assert watched.housekeepings == 3


async def test_a_time_limit_ends_when_its_event_is_set() -> None:
    event = anyio.Event()
    event.set()
    await TimeLimit(1000.0).watch(event)


async def test_a_time_limit_ends_when_its_time_is_over() -> None:
    event = anyio.Event()
    await TimeLimit(0.001).watch(event)
    assert not event.is_set()


async def test_a_paused_time_limit_does_not_end() -> None:
    limit, ended = TimeLimit(0.02), anyio.Event()

    async def watch() -> None:
        await limit.watch(anyio.Event())
        ended.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.wait_all_tasks_blocked()
        limit.pause()
        limit.pause()
        await anyio.sleep(0.05)
        assert not ended.is_set()
        limit.resume()
        await wait_until(ended.is_set)


async def test_a_limit_that_is_not_watched_can_be_paused() -> None:
    limit = TimeLimit(None)
    limit.pause()
    limit.resume()


async def test_the_system_clock_moves() -> None:
    clock = SystemClock()
    before = clock.monotonic(), clock.now()
    await clock.sleep(0.001)
    assert (clock.monotonic(), clock.now()) > before
