"""Timeouts and the reaper: sandboxes end at their deadline, time limits stop while paused."""

import time
from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import anyio

_HOUSEKEEPING = 10.0


class Clock(Protocol):
    """Where the engine has its time from."""

    def now(self) -> float:
        """Give the time in Unix seconds, for people."""

    def monotonic(self) -> float:
        """Give seconds that never jump, for deadlines."""

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        """Give the time in Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Give seconds that never jump."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait that long."""
        await anyio.sleep(seconds)


class TimeLimit:
    """Waits for an event for a bounded time whose clock can be stopped."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._scope: anyio.CancelScope | None = None
        self._left: float | None = None

    async def watch(self, event: anyio.Event) -> None:
        """Return when the event is set or the time is over."""
        if self._seconds is None:
            await event.wait()
            return
        with anyio.move_on_after(self._seconds) as self._scope:
            await event.wait()
        self._scope = None

    def pause(self) -> None:
        """Stop the clock."""
        if self._scope is not None and self._left is None:
            self._left = self._scope.deadline - anyio.current_time()
            self._scope.deadline = float("inf")

    def resume(self) -> None:
        """Let the clock go on."""
        if self._scope is not None and self._left is not None:
            self._scope.deadline = anyio.current_time() + self._left
        self._left = None


class Mortal(Protocol):
    """What ends by itself at a deadline."""

    @property
    def ends_at(self) -> float:
        """The deadline, on the clock's monotonic scale."""


M = TypeVar("M", bound=Mortal)


class Reaper(Generic[M]):
    """Has what is due ended, and does the housekeeping now and then, until cancelled."""

    def __init__(
        self,
        clock: Clock,
        expire: Callable[[M], None],
        housekeep: Callable[[], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._expire = expire
        self._housekeep = housekeep
        self._watched: set[M] = set()
        self._changed = anyio.Event()
        self._next_housekeeping = clock.monotonic() + _HOUSEKEEPING

    def watch(self, mortal: M) -> None:
        """End this at its deadline; also to be called when the deadline has changed."""
        self._watched.add(mortal)
        self._changed.set()

    def forget(self, mortal: M) -> None:
        """It has ended by other means; safe to call twice."""
        self._watched.discard(mortal)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            now = self._clock.monotonic()
            for mortal in [each for each in self._watched if each.ends_at <= now]:
                self.forget(mortal)
                self._expire(mortal)
            if now >= self._next_housekeeping:
                self._next_housekeeping = now + _HOUSEKEEPING
                await self._housekeep()
            self._changed = anyio.Event()
            await self._sleep_until_due(now)

    async def _sleep_until_due(self, now: float) -> None:
        due = min([self._next_housekeeping, *(each.ends_at for each in self._watched)])
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._cancel_on_change, tasks.cancel_scope)
            await self._clock.sleep(max(0.0, due - now))
            tasks.cancel_scope.cancel()

    async def _cancel_on_change(self, scope: anyio.CancelScope) -> None:
        await self._changed.wait()
        scope.cancel()
