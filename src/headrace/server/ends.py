"""What ends a service: a signal, or the end of the process that it belongs to."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Owner:
    """The process that a private server belongs to, by a descriptor of it."""

    def __init__(self, pidfd: int) -> None:
        self._fd = pidfd

    async def wait(self) -> None:
        """Wait for its end, also one by SIGKILL."""
        await anyio.wait_readable(self._fd)

    def close(self) -> None:
        """Follow it no more."""
        os.close(self._fd)


class Ends:
    """Tells when to stop, and when to hurry; cancels ``scope``, if there is one, at once."""

    def __init__(self) -> None:
        self.asked = anyio.Event()
        self.hurried = anyio.Event()
        self.reason = ""
        self.scope: anyio.CancelScope | None = None

    def ask(self, reason: str) -> None:
        """Ask the service to stop; when it was asked before, to hurry."""
        if self.asked.is_set():
            self.hurried.set()
            return
        self.reason = reason
        self.asked.set()
        if self.scope is not None:
            self.scope.cancel()


@asynccontextmanager
async def watch_ends(owner: Owner | None) -> AsyncIterator[Ends]:
    """Give what tells of the end. What our caller ignores, as nohup does, stays ignored."""
    ends = Ends()
    async with anyio.create_task_group() as tasks:
        await tasks.start(_watch_signals, ends)
        if owner is not None:
            tasks.start_soon(_watch_owner, owner, ends)
        yield ends
        tasks.cancel_scope.cancel()


async def _watch_signals(
    ends: Ends, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    watched = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]
    with anyio.open_signal_receiver(*watched) as signals:
        task_status.started()
        async for number in signals:
            ends.ask(signal.Signals(number).name)


async def _watch_owner(owner: Owner, ends: Ends) -> None:
    await owner.wait()
    ends.ask("the process that it belongs to has ended")
