"""Following a log: every stream of this dialect is a reader of one, with a position of its own.

A batch becomes one write, and the next is read only when the client has taken this one. The end is
one of three: the log's own, the client's, or that of the sandbox. In the last case the answer is
left without an end, which makes the server break the connection off: that is how clients are told.
"""

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import anyio

from headrace.adapters.e2b.exchange import Exchange
from headrace.engine.event_index import EventReader
from headrace.engine.event_log import EventLog
from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason, ProcessExited

ALONE = 0.05
"""For so many seconds a stream runs without a second task that watches for the client's end."""
HELD = 0.25
"""For so many seconds something is held back at most, if nothing else comes: who writes a line in
parts may have to wait between them on a busy machine."""


class Ending(Enum):
    """How following a log ended."""

    COMPLETE = "complete"
    CLIENT_GONE = "client gone"
    BROKEN_OFF = "broken off"
    TIMED_OUT = "timed out"


@dataclass(frozen=True)
class Form:
    """How a stream looks: its events, its signs of life, and what comes after the last event.

    ``prepare`` gives what is encoded in place of a batch, if more must be known than it has; what
    it raises ends the stream. ``holds`` says that something is held back that the next sign of
    life carries; that one then comes soon.
    """

    encode: Callable[[Sequence[Any]], bytes]
    keepalive: Callable[[], bytes]
    end: bytes = b""
    prepare: Callable[[Sequence[Any]], Awaitable[Sequence[Any]]] | None = None
    holds: Callable[[], bool] = lambda: False


class Following:
    """Sends the events of a log behind ``after`` to a client; its answer has begun already."""

    def __init__(
        self, exchange: Exchange, sandbox: Sandbox, log: EventLog[Any], form: Form, after: int = 0
    ) -> None:
        self._exchange = exchange
        self._sandbox = sandbox
        self._log = log
        self._form = form
        self._reader: EventReader[Any] = log.read(after)
        self._ending: Ending | None = None

    async def run(self, *, interval: float, time_limit: float | None = None) -> Ending:
        """Follow to the end. Only a COMPLETE answer has its end; TIMED_OUT is for the caller.

        ``interval`` is the silence in seconds after which a sign of life goes out, ``time_limit``
        the seconds after which it stops by itself.
        """
        with anyio.move_on_after(time_limit):
            # Alone at first: most are short, and a task group costs as much as they do.
            until = time.monotonic() + ALONE
            while self._ending is None and time.monotonic() < until:
                if not await self._send_next(ALONE):
                    break
            if self._ending is None:
                is_there = await self._exchange.unless_gone(lambda: self._go_on(interval))
                if not is_there:
                    return Ending.CLIENT_GONE
        return self._ending or Ending.TIMED_OUT

    async def _go_on(self, interval: float) -> None:
        while self._ending is None:
            if not await self._send_next(interval):
                await self._exchange.write(self._form.keepalive())

    async def _send_next(self, patience: float) -> bool:
        """Send what there is next; says False if nothing came for ``patience`` seconds."""
        if self._reader.position < self._log.last_seq:
            batch = await self._reader.batch()
        else:
            holds = self._form.holds()
            limit = HELD if holds else patience
            with anyio.move_on_after(limit) as scope:
                batch = await self._reader.batch()
            if scope.cancelled_caught:
                if holds:
                    await self._exchange.write(self._form.keepalive())
                return holds
        is_last = not batch or (
            self._log.is_finished and self._reader.position >= self._log.last_seq
        )
        if is_last and self._is_broken_off():
            batch = [event for event in batch if type(event) is not self._log.codec.terminal]
            self._ending = Ending.BROKEN_OFF
        data = await self._encode(batch) if batch else b""
        if self._ending is None and is_last:
            # Said first: an answer must not get a second end if its time is over meanwhile.
            self._ending = Ending.COMPLETE
            await self._exchange.end(data + self._form.end)
        elif data:
            await self._exchange.write(data)
        return True

    async def _encode(self, batch: Sequence[Any]) -> bytes:
        prepare = self._form.prepare
        return self._form.encode(batch if prepare is None else await prepare(batch))

    def _is_broken_off(self) -> bool:
        """Say whether the log ended because its sandbox did.

        A process whose own end was seen had one, even if the sandbox is gone by now.
        """
        terminal = self._log.terminal
        reason = terminal.reason if terminal is not None else None
        if reason not in (FinishReason.KILLED, FinishReason.NODE_LOST) or self._sandbox.is_alive:
            return False
        return not (isinstance(terminal, ProcessExited) and terminal.signal is not None)
