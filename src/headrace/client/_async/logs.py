"""Reading the log of an execution or a process by its id alone."""

from collections.abc import AsyncIterator
from typing import Any

from headrace.client._async.connection import AsyncConnection
from headrace.client._async.stream import AsyncEventStream
from headrace.client._shared import answers, calls
from headrace.client._shared.answers import EventPage
from headrace.client._shared.events import EXECUTION, PROCESS, EventKind
from headrace.model.errors import ExecutionNotFoundError
from headrace.model.events import ExecutionEvent, ProcessEvent


async def read_log(
    connection: AsyncConnection, log_id: str, after: int, *, follow: bool
) -> AsyncIterator[ExecutionEvent | ProcessEvent]:
    """Give the events behind ``after``: those that are there now, or all that will be."""
    kind, page = await _first_page(connection, log_id, after)
    if follow:
        async with AsyncEventStream(connection, kind, log_id=log_id, after=after) as events:
            while (event := await events.next()) is not None:
                yield event
        return
    until = page.last_seq
    while page.events:
        for event in page.events:
            yield event
        after = page.events[-1].seq
        if after >= until:
            return
        page = await _page(connection, kind, log_id, after)


async def _first_page(
    connection: AsyncConnection, log_id: str, after: int
) -> tuple[EventKind[Any], EventPage]:
    """Find out whose log it is: an execution's or a process's."""
    try:
        return EXECUTION, await _page(connection, EXECUTION, log_id, after)
    except ExecutionNotFoundError:
        return PROCESS, await _page(connection, PROCESS, log_id, after)


async def _page(
    connection: AsyncConnection, kind: EventKind[Any], log_id: str, after: int
) -> EventPage:
    request = calls.event_page(kind, log_id, after)
    return await connection.call(request, lambda fields: answers.events(kind, fields))
