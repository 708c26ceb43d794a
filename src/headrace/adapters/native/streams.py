"""Answering a log: as a stream of events in one of two framings, or as a page of JSON.

One reader per request, with a position of its own. A batch becomes one write, and the next batch
is read only when the client has taken this one: a slow client leaves its events on the disk.
"""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio

from headrace.adapters.base import request_id
from headrace.adapters.native.answers import HeaderList
from headrace.adapters.native.codec import EncodeBatch, describe, encode_ndjson, encode_sse
from headrace.adapters.native.errors import describe_error, unknown_failure
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.forms import JSON, NDJSON, SSE
from headrace.engine.event_index import EventReader
from headrace.engine.event_log import EventLog
from headrace.model.errors import HeadraceError, InvalidRequestError
from headrace.model.specs import MIB
from headrace.wire import sse
from headrace.wire.ndjson import encode_json, encode_line

PAGE_EVENTS = 1000
PAGE_BYTES = 8 * MIB

_ALONE = 0.05
"""For so many seconds a stream runs without a second task that watches for the client's end."""


@dataclass(frozen=True)
class Framing:
    """How events, heartbeats and a failure of ours look in one form."""

    content_type: bytes
    encode: EncodeBatch
    heartbeat: Callable[[float], bytes]
    failure: Callable[[dict[str, Any]], bytes]


FRAMINGS = {
    SSE: Framing(
        b"text/event-stream; charset=utf-8",
        encode_sse,
        lambda _now: sse.HEARTBEAT,
        lambda error: sse.encode_event("failed", encode_json({"type": "failed", "error": error})),
    ),
    NDJSON: Framing(
        b"application/x-ndjson",
        encode_ndjson,
        lambda now: encode_line({"type": "heartbeat", "timestamp": round(now, 6)}),
        lambda error: encode_line({"type": "failed", "error": error}),
    ),
}


def read_position(exchange: Exchange, after: int | None) -> int:
    """Give the number of the last event that the client knows.

    ``Last-Event-ID`` wins over the query, which a browser repeats unchanged when it reconnects.
    """
    text = exchange.header(b"last-event-id")
    if not text:
        return after or 0
    if not (text.isascii() and text.isdecimal() and len(text) <= 16):
        raise InvalidRequestError(f"Last-Event-ID must be a number, got {text[:100]!r}")
    return int(text)


def check_position(log: EventLog[Any], after: int) -> None:
    """Refuse a position behind the newest event, where a reader would wait for nothing."""
    if after > log.last_seq:
        raise InvalidRequestError(
            f"after is {after}, but the newest event is {log.last_seq}",
            after=after,
            last_seq=log.last_seq,
        )


async def answer_page(exchange: Exchange, log: EventLog[Any], after: int) -> None:
    """Answer with the events that are there now, as one JSON object."""
    reader, size = log.read(after), 0
    records: list[bytes] = []
    last_seq, is_finished = log.last_seq, log.is_finished
    while reader.position < last_seq and len(records) < PAGE_EVENTS and size < PAGE_BYTES:
        for event in (await reader.batch())[: PAGE_EVENTS - len(records)]:
            record = encode_json(describe(event))
            records.append(record)
            size += len(record)
            if size >= PAGE_BYTES:
                break
    body = b'{"events":[%s],"last_seq":%d,"is_finished":%s}' % (
        b",".join(records),
        last_seq,
        b"true" if is_finished else b"false",
    )
    await exchange.answer_bytes(body)


class EventStream:
    """One answer that follows a log to its end; `run` says whether it came that far."""

    def __init__(
        self, exchange: Exchange, log: EventLog[Any], framing: Framing, after: int = 0
    ) -> None:
        self._exchange = exchange
        self._log = log
        self._framing = framing
        self._reader: EventReader[Any] = log.read(after)
        self._is_complete = False

    async def run(self, *headers: tuple[bytes, bytes]) -> bool:
        """Send everything; says whether the stream ended, and not because the client went away.

        A failure of ours becomes the last record of the stream.
        """
        await self._exchange.start(200, self._make_headers(headers))
        try:
            await self._follow()
        except HeadraceError as error:
            await self._fail(error)
        except Exception as error:  # noqa: BLE001 - logged, and told without its details
            await self._fail(unknown_failure(error, self._exchange.scope))
        return self._is_complete

    async def _follow(self) -> None:
        """Alone at first: most executions are short, and a task group costs as much as they do."""
        until = time.monotonic() + _ALONE
        while not self._is_complete and time.monotonic() < until:
            if not await self._send_next(_ALONE):
                break
        if not self._is_complete:
            await unless_gone(self._exchange, self._follow_long)

    async def _follow_long(self) -> None:
        while not self._is_complete:
            if not await self._send_next(self._exchange.settings.heartbeat):
                await self._exchange.write(self._framing.heartbeat(time.time()))

    async def _send_next(self, patience: float) -> bool:
        """Send what there is next; says False if nothing came for ``patience`` seconds."""
        if self._reader.position < self._log.last_seq:
            batch = await self._reader.batch()
        else:
            with anyio.move_on_after(patience) as scope:
                batch = await self._reader.batch()
            if scope.cancelled_caught:
                return False
        data = self._framing.encode(batch) if batch else b""
        if not batch or (self._log.is_finished and self._reader.position >= self._log.last_seq):
            await self._exchange.end(data)
            self._is_complete = True
        else:
            await self._exchange.write(data)
        return True

    async def _fail(self, error: HeadraceError) -> None:
        record = describe_error(error, request_id(self._exchange.scope))
        await self._exchange.end(self._framing.failure(record))
        self._is_complete = True

    def _make_headers(self, more: HeaderList) -> HeaderList:
        return (
            (b"content-type", self._framing.content_type),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
            *more,
        )


async def answer_events(exchange: Exchange, log: EventLog[Any], after: int) -> None:
    """Answer a log from a position on, in the form that the client asked for."""
    check_position(log, after)
    form = exchange.form
    if form == JSON:
        await answer_page(exchange, log, after)
    elif form == SSE and log.is_finished and after == log.last_seq:
        # The standard's word to a browser that it need not connect again.
        await exchange.answer_nothing()
    else:
        await EventStream(exchange, log, FRAMINGS[form], after).run()


async def unless_gone(exchange: Exchange, work: Callable[[], Awaitable[None]]) -> bool:
    """Do something for as long as the client is there; says whether it was done."""
    failure: Exception | None = None
    is_done = False
    async with anyio.create_task_group() as tasks:

        async def watch() -> None:
            await exchange.await_disconnect()
            tasks.cancel_scope.cancel()

        tasks.start_soon(watch)
        try:
            await work()
            is_done = True
        except Exception as error:  # noqa: BLE001 - raised below, not in a group of one
            failure = error
        tasks.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return is_done
