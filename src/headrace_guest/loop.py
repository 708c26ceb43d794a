"""Readiness of descriptors and deadlines for the agent's only thread."""

import math
import select
import time
from collections.abc import Callable, Hashable


class Loop:
    """Calls handlers when descriptors are ready or deadlines are due.

    A handler may be called without cause (a number may be reused within one turn), so handlers
    never block.
    """

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._masks: dict[int, int] = {}
        self._deadlines: dict[Hashable, tuple[float, Callable[[], None]]] = {}

    def watch(self, fd: int, mask: int, handler: Callable[[], None]) -> None:
        """Call ``handler`` while ``fd`` is ready; with mask 0 never, not even when it hangs up.

        A descriptor must be given mask 0 before it is closed: a forked child may hold a copy for
        a moment, and epoll would go on to report it.
        """
        before = self._masks.get(fd, 0)
        if mask == 0:
            self._masks.pop(fd, None)
            self._handlers.pop(fd, None)
            if before:
                self._epoll.unregister(fd)
            return
        self._handlers[fd] = handler
        self._masks[fd] = mask
        if not before:
            self._epoll.register(fd, mask)
        elif before != mask:
            self._epoll.modify(fd, mask)

    def forget(self, fd: int) -> None:
        """Stop watching a descriptor."""
        self.watch(fd, 0, _do_nothing)

    def after(self, seconds: float, key: Hashable, handler: Callable[[], None]) -> None:
        """Call ``handler`` once; a key has one deadline, the last one given."""
        self._deadlines[key] = (time.monotonic() + seconds, handler)

    def cancel(self, key: Hashable) -> None:
        """Forget a deadline, if there is one."""
        self._deadlines.pop(key, None)

    def turn(self) -> None:
        """Wait until something is due and handle what is."""
        timeout = None
        if self._deadlines:
            soonest = min(when for when, _ in self._deadlines.values())
            timeout = max(0.0, soonest - time.monotonic())
        for fd, _ in self._epoll.poll(timeout, 64):
            self._handlers.get(fd, _do_nothing)()
        now = time.monotonic()
        for key in [key for key, (when, _) in self._deadlines.items() if when <= now]:
            when, handler = self._deadlines.get(key, (math.inf, _do_nothing))
            if when <= now:
                del self._deadlines[key]
                handler()


def _do_nothing() -> None:
    pass
