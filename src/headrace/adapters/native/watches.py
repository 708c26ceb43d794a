"""Watches on directories: started, followed, ended."""

from typing import Any

from headrace.adapters.base import note
from headrace.adapters.native import failures, sandboxes
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.forms import JSON, NDJSON, SSE
from headrace.adapters.native.routing import Reply, Route
from headrace.adapters.native.schemas import ReadEvents, StartWatch
from headrace.adapters.native.shapes import WatchEventPage, WatchEventShape, WatchShape
from headrace.adapters.native.streams import answer_events, read_position
from headrace.engine.event_log import EventLog
from headrace.model.errors import ExecutionNotFoundError, NotFoundError, PathNotFoundError
from headrace.model.records import WATCH_CODEC


async def start(exchange: Exchange) -> None:
    """Answer ``POST /v1/sandboxes/{sandbox_id}/watches``."""
    sandbox = sandboxes.find(exchange)
    body = await exchange.read_body(StartWatch)
    watch = await sandbox.files.watch(body.path, recursive=body.recursive, user=body.user)
    answer: WatchShape = {"id": watch.id, "path": watch.path}
    await exchange.answer(answer, 201)


async def follow(exchange: Exchange) -> None:
    """Answer ``GET /v1/watches/{watch_id}/events``."""
    query = exchange.read_query(ReadEvents)
    await answer_events(exchange, _find_log(exchange), read_position(exchange, query.after))


async def end(exchange: Exchange) -> None:
    """Answer ``DELETE /v1/watches/{watch_id}``; one that has ended stays so."""
    log = _find_log(exchange)
    if not log.is_finished:
        watch = exchange.tenant.find_owner(log.log_id).watches.find(log.log_id)
        if watch is not None:
            await watch.close()
    await exchange.answer_nothing()


def _find_log(exchange: Exchange) -> EventLog[Any]:
    watch_id = exchange.path["watch_id"]
    try:
        log = exchange.tenant.find_log(watch_id)
    except ExecutionNotFoundError:
        log = None
    if log is None or log.codec is not WATCH_CODEC:
        raise NotFoundError(f"there is no watch {watch_id!r}", id=watch_id)
    note(exchange.scope, watch_id=watch_id)
    return log


ROUTES = (
    Route(
        "POST",
        "/v1/sandboxes/{sandbox_id}/watches",
        "startWatch",
        "Watch a directory",
        start,
        {201: Reply("Changes are reported from now on.", {JSON: WatchShape})},
        failures=(*failures.BY_AGENT, PathNotFoundError),
        body=StartWatch,
    ),
    Route(
        "GET",
        "/v1/watches/{watch_id}/events",
        "followWatch",
        "Follow the changes in a directory",
        follow,
        {
            200: Reply(
                "The events behind that number; as JSON those that are there now.",
                {SSE: WatchEventShape, JSON: WatchEventPage, NDJSON: WatchEventShape},
            ),
            204: Reply("It has ended and there is nothing behind that number."),
        },
        failures=(NotFoundError,),
        query=ReadEvents,
        request_headers=("Last-Event-ID",),
    ),
    Route(
        "DELETE",
        "/v1/watches/{watch_id}",
        "endWatch",
        "Watch no longer",
        end,
        {204: Reply("It has ended.")},
        failures=(NotFoundError, *failures.IN_SANDBOX),
    ),
)
