"""Answering the request that started something: with its events, or with the whole outcome."""

import time
from dataclasses import dataclass
from typing import Any

import anyio

from headrace.adapters.native.answers import HeaderList
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.forms import JSON
from headrace.adapters.native.outcome import Outcome
from headrace.adapters.native.streams import FRAMINGS, EventStream, unless_gone
from headrace.adapters.native.timing import format_timings
from headrace.engine.event_log import EventLog
from headrace.model.errors import OutputTooLargeError

_ALONE = 0.05
"""For so many seconds an outcome is waited for without watching for the client's end."""


@dataclass(frozen=True)
class Run:
    """An execution or a process that was just started, ``asked_at`` in Unix seconds."""

    log: EventLog[Any]
    outcome: Outcome
    asked_at: float

    async def answer(self, exchange: Exchange, headers: HeaderList) -> bool:
        """Answer; says False if the client went away before the end."""
        if exchange.form == JSON:
            return await self._answer_outcome(exchange, headers)
        if self.log.last_seq:
            headers = (*headers, format_timings([("queue", time.time() - self.asked_at)]))
        return await EventStream(exchange, self.log, FRAMINGS[exchange.form]).run(*headers)

    async def _answer_outcome(self, exchange: Exchange, headers: HeaderList) -> bool:
        try:
            is_there = await self._collect(exchange)
        except OutputTooLargeError as error:
            await exchange.refuse(error, *headers)
            return True
        if is_there:
            timing = format_timings(self._phases())
            await exchange.answer_bytes(self.outcome.encode(), *headers, timing)
        return is_there

    async def _collect(self, exchange: Exchange) -> bool:
        """Take all events, to the end; says False if the client goes away first."""
        reader = self.log.read()

        async def read() -> None:
            while batch := await reader.batch():
                self.outcome.take(batch)
                if self.log.is_finished and reader.position >= self.log.last_seq:
                    return

        with anyio.move_on_after(_ALONE) as scope:
            await read()
        if not scope.cancelled_caught:
            return True
        return await unless_gone(exchange, read)

    def _phases(self) -> list[tuple[str, float]]:
        outcome, asked_at = self.outcome, self.asked_at
        started_at, ended_at = outcome.started_at or asked_at, outcome.ended_at or asked_at
        phases = [("queue", max(0.0, started_at - asked_at))]
        if outcome.first_at is not None:
            phases.append(("first_byte", max(0.0, outcome.first_at - started_at)))
        return [*phases, ("total", max(0.0, ended_at - asked_at))]
