# Made from the async face by scripts/generate-sync; change that one.
"""Reading the log of an execution or a process by its id alone."""

from collections.abc import Iterator
from typing import Any

from headrace.client._shared import answers, calls
from headrace.client._shared.answers import EventPage
from headrace.client._shared.events import EXECUTION, PROCESS, EventKind
from headrace.client._sync.connection import Connection
from headrace.client._sync.stream import EventStream
from headrace.model.errors import ExecutionNotFoundError
from headrace.model.events import ExecutionEvent, ProcessEvent


def read_log(
    connection: Connection, log_id: str, after: int, *, follow: bool
) -> Iterator[ExecutionEvent | ProcessEvent]:
    """Give the events behind ``after``: those that are there now, or all that will be."""
    kind, page = _first_page(connection, log_id, after)
    if follow:
        with EventStream(connection, kind, log_id=log_id, after=after) as events:
            while (event := events.next()) is not None:
                yield event
        return
    until = page.last_seq
    while page.events:
        for event in page.events:
            yield event
        after = page.events[-1].seq
        if after >= until:
            return
        page = _page(connection, kind, log_id, after)


def _first_page(
    connection: Connection, log_id: str, after: int
) -> tuple[EventKind[Any], EventPage]:
    """Find out whose log it is: an execution's or a process's."""
    try:
        return EXECUTION, _page(connection, EXECUTION, log_id, after)
    except ExecutionNotFoundError:
        return PROCESS, _page(connection, PROCESS, log_id, after)


def _page(connection: Connection, kind: EventKind[Any], log_id: str, after: int) -> EventPage:
    request = calls.event_page(kind, log_id, after)
    return connection.call(request, lambda fields: answers.events(kind, fields))
