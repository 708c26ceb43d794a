"""Sandboxes made ready ahead of time, so that whoever wants one need not wait."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable

import anyio

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import HeadraceError
from headrace.model.specs import Limits

_COURTESY = 0.03
_FIRST_PAUSE = 0.5
_LAST_PAUSE = 30.0

_logger = logging.getLogger(__name__)


def has_same_bounds(one: Limits, other: Limits) -> bool:
    """Say whether two limits differ only in what can still be chosen when a sandbox is taken."""
    fixed = ("memory", "disk", "inodes", "processes", "open_files", "cpus")
    return all(getattr(one, name) == getattr(other, name) for name in fixed)


class Pool:
    """Ready sandboxes of one template with the same limits; `run` refills it, one by one.

    ``make`` gives a new sandbox whose kernel stands, ``may_make`` says whether there is room.
    """

    def __init__(
        self,
        size: int,
        template: str,
        limits: Limits,
        make: Callable[[], Awaitable[Sandbox]],
        may_make: Callable[[], bool],
    ) -> None:
        self._size = size
        self._template = template
        self._limits = limits
        self._make = make
        self._may_make = may_make
        self._ready: deque[Sandbox] = deque()
        self._changed = anyio.Event()

    def __len__(self) -> int:
        return len(self._ready)

    def take(self, template: str, limits: Limits) -> Sandbox | None:
        """Give a ready sandbox that fits, or None."""
        if template != self._template or not has_same_bounds(limits, self._limits):
            return None
        return self.give_up()

    def give_up(self) -> Sandbox | None:
        """Give away any ready sandbox, or None; it is somebody else's from here on."""
        while self._ready:
            sandbox = self._ready.popleft()
            self.refill()
            if sandbox.is_alive:
                return sandbox
        return None

    def discard(self, sandbox: Sandbox) -> None:
        """Forget a sandbox that has died; safe to call for any."""
        if sandbox in self._ready:
            self._ready.remove(sandbox)
            self.refill()

    def refill(self) -> None:
        """Look again whether sandboxes are missing."""
        self._changed.set()

    async def run(self) -> None:
        """Keep the pool full until cancelled; failures make it wait longer and longer."""
        pause = _FIRST_PAUSE
        while True:
            self._changed = anyio.Event()
            if len(self._ready) >= self._size or not self._may_make():
                await self._changed.wait()
                # Whoever took one is about to use it, and wants the processor first.
                await anyio.sleep(_COURTESY)
                continue
            try:
                self._ready.append(await self._make())
                pause = _FIRST_PAUSE
            except HeadraceError as error:
                _logger.warning("no sandbox for the pool: %s", error.message)
                await anyio.sleep(pause)
                pause = min(_LAST_PAUSE, pause * 2)
