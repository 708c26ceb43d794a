"""The templates that there are; none can be built, changed or deleted."""

from typing import Any

from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.codec.sandbox import describe_template, split_template
from headrace.adapters.e2b.routing import Route
from headrace.engine.templates import Template
from headrace.model.errors import PermissionDeniedError


async def list_all(call: ControlCall) -> None:
    """Answer the lists of templates: they are few, so there is one page."""
    await call.exchange.answer([_describe(call, each) for each in call.tenant.templates.list()])


async def show(call: ControlCall) -> None:
    """Answer ``GET /templates/{template_id}``."""
    await call.exchange.answer({**_describe(call, _find(call)), "builds": []})


async def find_alias(call: ControlCall) -> None:
    """Answer ``GET /templates/aliases/{alias}``."""
    template = call.tenant.templates.find(call.path["alias"][:256])
    await call.exchange.answer({"templateID": template.name, "public": True})


async def list_tags(call: ControlCall) -> None:
    """Answer ``GET /templates/{template_id}/tags``: there are none."""
    _find(call)
    await call.exchange.answer([])


async def delete(call: ControlCall) -> None:
    """Answer ``DELETE /templates/{template_id}``; snapshots are deleted in the same way."""
    template = _find(call)
    raise PermissionDeniedError(f"the template {template.name!r} belongs to the service")


def _find(call: ControlCall) -> Template:
    return call.tenant.templates.find(split_template(call.path["template_id"][:256])[0])


def _describe(call: ControlCall, template: Template) -> dict[str, Any]:
    tenant = call.tenant
    names = [template.name, *tenant.templates.aliases(template)]
    return describe_template(template.name, names, tenant.default_limits, call.registry.since)


ROUTES: tuple[Route[ControlCall], ...] = (
    Route("GET", "/templates", list_all),
    Route("GET", "/v2/templates", list_all),
    Route("GET", "/templates/{template_id}", show),
    Route("DELETE", "/templates/{template_id}", delete),
    Route("GET", "/templates/aliases/{alias}", find_alias),
    Route("GET", "/templates/{template_id}/tags", list_tags),
)
