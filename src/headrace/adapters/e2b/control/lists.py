"""Lists of sandboxes, by page."""

from collections.abc import Iterable, Mapping

from headrace.adapters.e2b.answers import HeaderList
from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.codec.sandbox import (
    describe_listed,
    make_place,
    make_token,
    read_filter,
    read_token,
    split_template,
)
from headrace.adapters.e2b.control.finding import collect_facts
from headrace.adapters.e2b.exchange import check_values
from headrace.adapters.e2b.routing import Route
from headrace.adapters.e2b.schemas.control import ListSandboxes, first_values
from headrace.engine.sandbox import Sandbox


async def list_page(call: ControlCall) -> None:
    """Answer ``GET /v2/sandboxes``; a header says how to go on if there is more."""
    query = check_values(ListSandboxes, first_values(call.exchange.query()))
    after = query.started_after_time
    template = None if query.template is None else split_template(query.template)[0]
    found = [
        each
        for each in _select(call.tenant.list(), query.states, read_filter(query.metadata))
        if after is None or each.created_at > after
        if template is None or each.spec.template == template
    ]
    # A page begins behind a place, not behind a sandbox, which may be gone by then.
    is_newest_first = query.order == "desc"
    found.sort(key=_place, reverse=is_newest_first)
    if query.next_token is not None:
        last = read_token(query.next_token)
        found = [each for each in found if _follows(_place(each), last, is_newest_first)]
    page = found[: query.limit]
    headers: HeaderList = ()
    if len(found) > len(page):
        headers = ((b"x-next-token", make_token(_place(page[-1])).encode()),)
    await call.exchange.answer(
        [describe_listed(collect_facts(call, each)) for each in page], 200, *headers
    )


async def list_running(call: ControlCall) -> None:
    """Answer ``GET /sandboxes``, which knows neither pages nor what is paused."""
    wanted = read_filter(first_values(call.exchange.query()).get("metadata"))
    found = _select(call.tenant.list(), frozenset({"running"}), wanted)
    found.sort(key=_place, reverse=True)
    await call.exchange.answer([describe_listed(collect_facts(call, each)) for each in found])


def _select(
    sandboxes: Iterable[Sandbox], states: frozenset[str], wanted: Mapping[str, str]
) -> list[Sandbox]:
    return [
        each
        for each in sandboxes
        if each.state.value in states and wanted.items() <= each.spec.metadata.items()
    ]


def _place(sandbox: Sandbox) -> str:
    return make_place(sandbox.created_at, sandbox.id)


def _follows(place: str, last: str, is_newest_first: bool) -> bool:
    return place < last if is_newest_first else place > last


ROUTES: tuple[Route[ControlCall], ...] = (
    Route("GET", "/v2/sandboxes", list_page),
    Route("GET", "/sandboxes", list_running),
)
