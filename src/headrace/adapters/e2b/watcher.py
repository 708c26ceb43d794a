"""A directory that a client watches by asking for what has changed since it last asked.

Nothing is queued here: what happened is in the log of the watch, which is bounded.
"""

from collections.abc import Callable

import anyio

from headrace.engine.watch import Watch
from headrace.model.events import WatchEvent

MAX_EVENTS = 10_000
"""How many events one answer may have; the rest is for the next one."""


class Watcher:
    """Hands out each event of a watch once."""

    def __init__(self, watch: Watch, *, user: str, includes_entry: bool) -> None:
        self.user = user
        self.includes_entry = includes_entry
        self._watch = watch
        self._position = 0
        self._reading = anyio.Lock()

    @property
    def id(self) -> str:
        """The name by which clients know it."""
        return self._watch.id

    @property
    def path(self) -> str:
        """The directory."""
        return self._watch.path

    @property
    def has_ended(self) -> bool:
        """Say whether nothing more will happen."""
        return self._watch.log.is_finished

    async def take(self, is_fault: Callable[[WatchEvent], bool]) -> list[WatchEvent]:
        """Give what has happened since the last call, up to now; waits for nothing.

        A fault comes alone: what was before it is given first, and what follows it next time.
        Raises NotFoundError if its log is past its retention.
        """
        async with self._reading:
            taken: list[WatchEvent] = []
            last = self._watch.log.last_seq
            while self._position + len(taken) < last and len(taken) < MAX_EVENTS:
                taken += await self._watch.log.next_batch(self._position + len(taken))
            fault = next((index for index, event in enumerate(taken) if is_fault(event)), None)
            if fault is not None:
                taken = taken[: fault or 1]
            self._position += len(taken)
            return taken

    async def close(self) -> None:
        """Watch no longer."""
        await self._watch.close()
