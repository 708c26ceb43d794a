"""What sandboxes use, and what happened to them."""

from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.codec.sandbox import (
    describe_entry,
    describe_line,
    describe_usage,
    select_entries,
)
from headrace.adapters.e2b.control.finding import find_sandbox
from headrace.adapters.e2b.exchange import check_values
from headrace.adapters.e2b.routing import Route
from headrace.adapters.e2b.schemas.control import ReadLogs, ReadMetrics, first_values
from headrace.model.errors import InvalidRequestError

MAX_SANDBOXES = 100
"""Of how many sandboxes one request may ask what they use."""


async def measure(call: ControlCall) -> None:
    """Answer ``GET /sandboxes/{sandbox_id}/metrics``, the oldest first."""
    sandbox = find_sandbox(call)
    query = check_values(ReadMetrics, first_values(call.exchange.query()))
    found = [
        each
        for each in await call.tenant.usage(sandbox)
        if (query.start is None or each.timestamp >= query.start)
        # The end is a whole second, which belongs to the range.
        and (query.end is None or each.timestamp < query.end + 1)
    ]
    await call.exchange.answer([describe_usage(each, sandbox.spec.limits) for each in found])


async def measure_several(call: ControlCall) -> None:
    """Answer ``GET /sandboxes/metrics``: the newest of each; what is not there is left out."""
    ids = first_values(call.exchange.query()).get("sandbox_ids", "").split(",")
    wanted = {each.strip() for each in ids} - {""}
    if not wanted or len(wanted) > MAX_SANDBOXES:
        raise InvalidRequestError(
            f"sandbox_ids must name 1 to {MAX_SANDBOXES} sandboxes, got {len(wanted)}"
        )
    answer = {}
    for sandbox in call.tenant.list():
        if sandbox.is_alive and sandbox.id in wanted:
            found = await call.tenant.usage(sandbox)
            if found:
                answer[sandbox.id] = describe_usage(found[-1], sandbox.spec.limits)
    await call.exchange.answer({"sandboxes": answer})


async def read_logs(call: ControlCall) -> None:
    """Answer ``GET /v2/sandboxes/{sandbox_id}/logs``."""
    sandbox = find_sandbox(call)
    query = check_values(ReadLogs, first_values(call.exchange.query()))
    found = select_entries(
        sandbox.history.list(),
        cursor=query.cursor,
        is_backward=query.direction == "backward",
        level=query.level,
        search=query.search,
    )
    await call.exchange.answer({"logs": [describe_entry(each) for each in found[: query.limit]]})


async def read_legacy_logs(call: ControlCall) -> None:
    """Answer ``GET /sandboxes/{sandbox_id}/logs``."""
    sandbox = find_sandbox(call)
    query = check_values(ReadLogs, first_values(call.exchange.query()))
    found = select_entries(sandbox.history.list(), cursor=query.start)[: query.limit]
    await call.exchange.answer(
        {
            "logs": [describe_line(each) for each in found],
            "logEntries": [describe_entry(each) for each in found],
        }
    )


ROUTES: tuple[Route[ControlCall], ...] = (
    Route("GET", "/sandboxes/metrics", measure_several),
    Route("GET", "/sandboxes/{sandbox_id}/metrics", measure),
    Route("GET", "/v2/sandboxes/{sandbox_id}/logs", read_logs),
    Route("GET", "/sandboxes/{sandbox_id}/logs", read_legacy_logs),
)
