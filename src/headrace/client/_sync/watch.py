# Made from the async face by scripts/generate-sync; change that one.
"""Watching a directory of a sandbox."""

from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from headrace.client._shared import answers, file_calls
from headrace.client._shared.events import WATCH
from headrace.client._shared.request import Request
from headrace.client._sync.connection import Connection
from headrace.client._sync.stream import EventStream
from headrace.client._transport_sync import shielded
from headrace.client.errors import ConnectionFailedError
from headrace.model.errors import HeadraceError
from headrace.model.events import WatchEvent
from headrace.model.ids import WatchId

_STOPPING = 10.0


class Watch:
    """The changes in a directory, from when it is entered to when it is left.

        with sandbox.files.watch("/workspace") as changes:
            for event in changes:
                ...

    Gives `WatchStarted`, `FileChanged`, `ChangesDropped` and, if the directory or the sandbox
    goes away, `WatchEnded`.
    """

    def __init__(self, connection: Connection, request: Request) -> None:
        self._connection = connection
        self._request = request
        self._id: WatchId | None = None
        self._events: EventStream[WatchEvent] | None = None

    def __enter__(self) -> Self:
        self._id = self._connection.call(self._request, answers.watch_id)
        self._events = EventStream(self._connection, WATCH, log_id=self._id)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._id is None or self._events is None:
            return
        self._events.close()
        # If it cannot be ended it ends with its sandbox; that must not hide another exception.
        with shielded(_STOPPING), suppress(HeadraceError):
            self._connection.fetch(file_calls.stop_watch(self._id))

    def __iter__(self) -> Iterator[WatchEvent]:
        if self._events is None:
            raise ConnectionFailedError("enter the watch first: with files.watch(...)")
        while (event := self._events.next()) is not None:
            yield event
