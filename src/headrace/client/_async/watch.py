"""Watching a directory of a sandbox."""

from collections.abc import AsyncIterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from headrace.client._async.connection import AsyncConnection
from headrace.client._async.stream import AsyncEventStream
from headrace.client._shared import answers, file_calls
from headrace.client._shared.events import WATCH
from headrace.client._shared.request import Request
from headrace.client._transport_async import shielded
from headrace.client.errors import ConnectionFailedError
from headrace.model.errors import HeadraceError
from headrace.model.events import WatchEvent
from headrace.model.ids import WatchId

_STOPPING = 10.0


class AsyncWatch:
    """The changes in a directory, from when it is entered to when it is left.

        async with sandbox.files.watch("/workspace") as changes:
            async for event in changes:
                ...

    Gives `WatchStarted`, `FileChanged`, `ChangesDropped` and, if the directory or the sandbox
    goes away, `WatchEnded`.
    """

    def __init__(self, connection: AsyncConnection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._id: WatchId | None = None
        self._events: AsyncEventStream[WatchEvent] | None = None

    async def __aenter__(self) -> Self:
        self._id = await self._connection.call(self._request, answers.watch_id)
        self._events = AsyncEventStream(self._connection, WATCH, log_id=self._id)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._id is None or self._events is None:
            return
        await self._events.aclose()
        # If it cannot be ended it ends with its sandbox; that must not hide another exception.
        with shielded(_STOPPING), suppress(HeadraceError):
            await self._connection.fetch(file_calls.stop_watch(self._id))

    async def __aiter__(self) -> AsyncIterator[WatchEvent]:
        if self._events is None:
            raise ConnectionFailedError("enter the watch first: async with files.watch(...)")
        while (event := await self._events.next()) is not None:
            yield event
