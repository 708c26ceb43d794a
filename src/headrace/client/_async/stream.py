"""Streams of events that survive their connections."""

import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, Self, TypeVar

from headrace.client._async.connection import AsyncAnswer, AsyncConnection
from headrace.client._shared.answers import Head
from headrace.client._shared.calls import events
from headrace.client._shared.events import EventKind
from headrace.client._shared.failure import CutError, TransportError
from headrace.client._shared.feed import BrokenFeedError, Feed, ServiceFailed
from headrace.client._shared.patience import Timer
from headrace.client._shared.request import NDJSON, Request
from headrace.client._transport_async import shielded, sleep
from headrace.client.errors import ConnectionFailedError, StreamBrokenError
from headrace.model.errors import HeadraceError, UnavailableError

E = TypeVar("E")

_CLOSING = 2.0
_NOTHING_MORE = 204


class AsyncEventStream(Generic[E]):
    """The events of one execution, process or watch: in order, each once, to the last.

    When the connection breaks it is taken up again behind the last event that arrived. What
    runs in the sandbox goes on meanwhile, and also when the stream is left early.

    Iterate over it; or enter it first, which makes it possible to leave the loop and to go on
    with another one:

        async with sandbox.run_code_stream("print(1)") as stream:
            async for event in stream:
                ...

    Raises `StreamBrokenError` if the stream cannot be taken up again. One task at a time.
    """

    def __init__(
        self,
        connection: AsyncConnection,
        kind: EventKind[E],
        *,
        start: Request | None = None,
        log_id: str | None = None,
        after: int = 0,
    ) -> None:
        # ``start`` is a request that starts something and answers with its events; its id then
        # stands in the answer's header. Otherwise ``log_id`` is followed.
        self._connection = connection
        self._kind = kind
        self._start = start
        self._log_id = log_id
        self._feed = Feed(kind, after)
        self._answer: AsyncAnswer | None = None
        self._was_opened = False
        self._failure: HeadraceError | None = None
        self._failures = 0
        self._deadline = 0.0
        self._is_entered = False

    @property
    def last_seq(self) -> int:
        """The number of the last event that arrived."""
        return self._feed.last_seq

    @property
    def is_finished(self) -> bool:
        """Whether the last event arrived."""
        return self._feed.is_finished

    @property
    def log_id(self) -> str:
        """The id of what is followed; not known before the stream is entered."""
        if self._log_id is None:
            raise ConnectionFailedError("the stream was not opened yet")
        return self._log_id

    async def __aenter__(self) -> Self:
        await self._open_first()
        self._is_entered = True
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def __aiter__(self) -> AsyncIterator[E]:
        try:
            while (event := await self.next()) is not None:
                yield event
        finally:
            if not self._is_entered:
                await self.aclose()

    async def next(self) -> E | None:
        """Give the next event, or None behind the last one."""
        while not self._feed.ready:
            if self._feed.is_finished:
                await self._finish()
                return None
            if self._failure is not None:
                raise self._failure
            await self._receive()
        return self._feed.ready.popleft()

    async def aclose(self) -> None:
        """Leave the stream. What runs goes on."""
        answer, self._answer = self._answer, None
        if answer is not None:
            with shielded(_CLOSING):
                await answer.aclose()

    async def _finish(self) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            await answer.finish()

    async def _receive(self) -> None:
        known = self._feed.last_seq
        try:
            answer = await self._open_first() if self._answer is None else self._answer
            if self._feed.is_finished:
                return
            data = await answer.receive(Timer(self._connection.patience.silence))
            if not data:
                raise CutError("the answer ended before the last event")
            self._feed.push(data)
        except ServiceFailed as news:
            self._failure = news.error
        except (TransportError, BrokenFeedError) as error:
            await self.aclose()
            await self._wait(error)
        if self._feed.last_seq > known:
            self._failures = 0

    async def _open_first(self) -> AsyncAnswer:
        """Begin; what fails now is raised as it is."""
        if self._was_opened:
            return await self._open_again()
        answer = await self._connection.open(self._start or self._resumption())
        try:
            if self._log_id is None:
                self._log_id = _find_id(self._kind, answer.head)
            return self._take(answer)
        except CutError as error:
            await answer.aclose()
            raise ConnectionFailedError(str(error)) from error

    async def _open_again(self) -> AsyncAnswer:
        try:
            answer = await self._connection.open_once(self._resumption())
        except UnavailableError as error:
            raise CutError(error.message) from error
        except HeadraceError as error:
            raise self._give_up(error) from error
        try:
            return self._take(answer)
        except CutError:
            await answer.aclose()
            raise

    def _take(self, answer: AsyncAnswer) -> AsyncAnswer:
        found = answer.head.content_type
        if answer.head.status == _NOTHING_MORE:
            self._feed.is_finished = True
        elif found != NDJSON:
            raise CutError(f"the answer is {found or 'of no type'}, expected {NDJSON}")
        self._feed.restart()
        self._answer, self._was_opened = answer, True
        return answer

    def _resumption(self) -> Request:
        return events(self._kind, self.log_id, self._feed.last_seq)

    async def _wait(self, error: Exception) -> None:
        """Wait before the stream is taken up again; raises StreamBrokenError if it is too late."""
        patience = self._connection.patience
        self._failures += 1
        if self._failures == 1:
            self._deadline = time.monotonic() + patience.reconnect
            return
        delay = patience.delay(self._failures - 1)
        if time.monotonic() + delay > self._deadline:
            raise self._give_up(error) from error
        await sleep(delay)

    def _give_up(self, error: Exception) -> StreamBrokenError:
        return StreamBrokenError(
            f"the events of {self._kind.name} {self._log_id} broke off behind number "
            f"{self.last_seq} and could not be taken up again: {error}",
            id=self._log_id,
            last_seq=self.last_seq,
        )


def _find_id(kind: EventKind[E], head: Head) -> str:
    try:
        return head.headers[kind.header]
    except KeyError:
        raise CutError(
            f"the answer does not name its {kind.name} ({kind.header}); it is unknown whether "
            "something was started"
        ) from None
