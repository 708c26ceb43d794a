"""What the vendor has and this version does not: said plainly, and so that no SDK tries again."""

from collections.abc import Awaitable, Callable

from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.control.finding import find_sandbox
from headrace.adapters.e2b.errors import NotSupportedError
from headrace.adapters.e2b.routing import Route
from headrace.model.errors import NotFoundError

_Handler = Callable[[ControlCall], Awaitable[None]]


def _refuse(what: str) -> _Handler:
    async def refuse(call: ControlCall) -> None:
        if "sandbox_id" in call.path:
            find_sandbox(call)
        raise NotSupportedError(f"{what} not supported yet")

    return refuse


def _find_none(what: str) -> _Handler:
    async def find_none(call: ControlCall) -> None:
        name = next(iter(call.path.values()), "")
        raise NotFoundError(f"there is no {what} {name[:100]!r}")

    return find_none


async def list_none(call: ControlCall) -> None:
    """Answer a list of what cannot be made."""
    await call.exchange.answer([])


_BUILDS = _refuse("building templates is")
_TAGS = _refuse("tags of templates are")
_TEMPLATE = "/templates/{template_id}"
_BUILD = f"{_TEMPLATE}/builds/{{build_id}}"

ROUTES: tuple[Route[ControlCall], ...] = (
    Route("POST", "/sandboxes/{sandbox_id}/snapshots", _refuse("making snapshots is")),
    Route("POST", "/sandboxes/{sandbox_id}/fork", _refuse("forking a sandbox is")),
    Route("GET", "/snapshots", list_none),
    Route("GET", "/volumes", list_none),
    Route("POST", "/volumes", _refuse("volumes are")),
    Route("GET", "/volumes/{volume_id}", _find_none("volume")),
    Route("DELETE", "/volumes/{volume_id}", _find_none("volume")),
    Route("GET", "/secrets", list_none),
    Route("POST", "/secrets", _refuse("secrets are")),
    Route("GET", "/secrets/{secret_id}", _find_none("secret")),
    Route("POST", "/secrets/{secret_id}", _find_none("secret")),
    Route("DELETE", "/secrets/{secret_id}", _find_none("secret")),
    Route("POST", "/templates", _BUILDS),
    Route("POST", "/v2/templates", _BUILDS),
    Route("POST", "/v3/templates", _BUILDS),
    Route("POST", _TEMPLATE, _BUILDS),
    Route("PATCH", _TEMPLATE, _refuse("changing templates is")),
    Route("PATCH", f"/v2{_TEMPLATE}", _refuse("changing templates is")),
    Route("GET", f"{_TEMPLATE}/files/{{hash}}", _BUILDS),
    Route("POST", _BUILD, _BUILDS),
    Route("POST", f"/v2{_BUILD}", _BUILDS),
    Route("GET", f"{_BUILD}/status", _find_none("build of the template")),
    Route("GET", f"{_BUILD}/logs", _find_none("build of the template")),
    Route("POST", "/templates/tags", _TAGS),
    Route("DELETE", "/templates/tags", _TAGS),
)
