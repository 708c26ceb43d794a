"""Sandboxes: created, listed, extended, paused, measured, ended."""

import ipaddress
import time
from urllib.parse import urlsplit

from headrace.adapters.base import note
from headrace.adapters.native import failures
from headrace.adapters.native.codec import describe_time
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.forms import JSON
from headrace.adapters.native.routing import Reply, Route
from headrace.adapters.native.schemas import CreateSandbox, ExtendSandbox, ListSandboxes
from headrace.adapters.native.shapes import (
    IsolationShape,
    LimitsShape,
    MetricsShape,
    SandboxPage,
    SandboxShape,
)
from headrace.adapters.native.timing import format_timings
from headrace.engine.config import IsolationReport
from headrace.engine.sandbox import Sandbox, Timings
from headrace.model.errors import LaunchError, QuotaError, TemplateNotFoundError
from headrace.model.specs import Limits


def find(exchange: Exchange) -> Sandbox:
    """Give the sandbox that the path names; raises SandboxNotFoundError."""
    sandbox_id = exchange.path["sandbox_id"]
    sandbox = exchange.tenant.find(sandbox_id)
    note(exchange.scope, sandbox_id=sandbox_id)
    return sandbox


def describe(sandbox: Sandbox, report: IsolationReport, origin: str) -> SandboxShape:
    """Give a sandbox as clients see it."""
    return {
        "id": sandbox.id,
        "state": sandbox.state.value,  # type: ignore[typeddict-item]  # creating ones are not found
        "template": sandbox.spec.template,
        "metadata": dict(sandbox.spec.metadata),
        "created_at": describe_time(sandbox.created_at),
        "ends_at": describe_time(sandbox.deadline),
        "limits": _describe_limits(sandbox.spec.limits),
        "isolation": _describe_isolation(report),
        "ports_url": make_ports_url(origin, sandbox.id),
    }


def make_ports_url(origin: str, sandbox_id: str) -> str:
    """Give the URL of a sandbox's ports: by host name, where our host can have names below it."""
    parts = urlsplit(origin)
    host = parts.hostname or "localhost"
    try:
        if not ipaddress.ip_address(host).is_loopback:
            return f"{origin}/v1/sandboxes/{sandbox_id}/ports/{{port}}/"
        host = "localhost"
    except ValueError:
        pass
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{{port}}-{sandbox_id}.{host}{port}/"


async def create(exchange: Exchange) -> None:
    """Answer ``POST /v1/sandboxes``."""
    body = await exchange.read_body(CreateSandbox, is_optional=True)
    sandbox = await exchange.tenant.create(body.to_spec(exchange.tenant.default_limits))
    note(exchange.scope, sandbox_id=sandbox.id)
    await exchange.answer(
        describe(sandbox, exchange.report, exchange.origin),
        201,
        (b"location", f"{exchange.origin}/v1/sandboxes/{sandbox.id}".encode()),
        format_timings(_phases(sandbox.timings)),
    )


async def list_all(exchange: Exchange) -> None:
    """Answer ``GET /v1/sandboxes``."""
    query = exchange.read_query(ListSandboxes)
    wanted = query.wanted_metadata().items()
    found = [
        sandbox
        for sandbox in exchange.tenant.list()
        if sandbox.is_alive
        and query.state in (None, sandbox.state.value)
        and wanted <= sandbox.spec.metadata.items()
    ]
    # By time of creation, and by id for those of the same time: a page begins behind a place in
    # this order, not behind a sandbox, which may be gone by then.
    found.sort(key=_place)
    if query.after is not None:
        found = [sandbox for sandbox in found if _place(sandbox) > query.after]
    page = found[: query.limit]
    answer: SandboxPage = {
        "sandboxes": [describe(each, exchange.report, exchange.origin) for each in page],
        "next": _place(page[-1]) if len(found) > len(page) else None,
    }
    await exchange.answer(answer)


def _place(sandbox: Sandbox) -> str:
    return f"{sandbox.created_at:020.6f}-{sandbox.id}"


async def show(exchange: Exchange) -> None:
    """Answer ``GET /v1/sandboxes/{sandbox_id}``."""
    await exchange.answer(describe(find(exchange), exchange.report, exchange.origin))


async def extend(exchange: Exchange) -> None:
    """Answer ``PATCH /v1/sandboxes/{sandbox_id}``."""
    sandbox = find(exchange)
    body = await exchange.read_body(ExtendSandbox)
    await sandbox.set_timeout(body.timeout)
    await exchange.answer(describe(sandbox, exchange.report, exchange.origin))


async def pause(exchange: Exchange) -> None:
    """Answer ``POST /v1/sandboxes/{sandbox_id}/pause``."""
    sandbox = find(exchange)
    await sandbox.pause()
    await exchange.answer(describe(sandbox, exchange.report, exchange.origin))


async def resume(exchange: Exchange) -> None:
    """Answer ``POST /v1/sandboxes/{sandbox_id}/resume``."""
    sandbox = find(exchange)
    await sandbox.resume()
    await exchange.answer(describe(sandbox, exchange.report, exchange.origin))


async def measure(exchange: Exchange) -> None:
    """Answer ``GET /v1/sandboxes/{sandbox_id}/metrics``."""
    stats = await find(exchange).stats()
    answer: MetricsShape = {
        "timestamp": describe_time(time.time()),
        "memory": stats.memory,
        "memory_peak": stats.memory_peak,
        "cpu_seconds": stats.cpu_seconds,
        "processes": stats.processes,
        "oom_kills": stats.oom_kills,
    }
    await exchange.answer(answer)


async def kill(exchange: Exchange) -> None:
    """Answer ``DELETE /v1/sandboxes/{sandbox_id}``."""
    await find(exchange).kill()
    await exchange.answer_nothing()


def _describe_limits(limits: Limits) -> LimitsShape:
    return {
        "memory": limits.memory,
        "disk": limits.disk,
        "inodes": limits.inodes,
        "processes": limits.processes,
        "open_files": limits.open_files,
        "cpus": limits.cpus,
        "output": limits.output,
    }


def _describe_isolation(report: IsolationReport) -> IsolationShape:
    return {
        "mode": report.mode,
        "enforced": sorted(report.enforced),
        "memory": report.memory,
    }


def _phases(timings: Timings) -> list[tuple[str, float]]:
    if timings.from_pool:
        return [("pool", timings.total)]
    return [
        ("queue", timings.queue),
        ("fork", timings.fork),
        ("namespaces", timings.namespaces),
        ("total", timings.total),
    ]


_SANDBOX = {200: Reply("The sandbox.", {JSON: SandboxShape})}
_ONE = "/v1/sandboxes/{sandbox_id}"

ROUTES = (
    Route(
        "POST",
        "/v1/sandboxes",
        "createSandbox",
        "Create a sandbox",
        create,
        {
            201: Reply(
                "The new sandbox.", {JSON: SandboxShape}, headers=("Location", "Server-Timing")
            )
        },
        failures=(TemplateNotFoundError, QuotaError, LaunchError),
        body=CreateSandbox,
        body_is_optional=True,
    ),
    Route(
        "GET",
        "/v1/sandboxes",
        "listSandboxes",
        "List the sandboxes that live, the oldest first",
        list_all,
        {200: Reply("A page of them.", {JSON: SandboxPage})},
        query=ListSandboxes,
    ),
    Route(
        "GET",
        _ONE,
        "getSandbox",
        "Show a sandbox",
        show,
        _SANDBOX,
        failures=failures.IN_SANDBOX,
    ),
    Route(
        "PATCH",
        _ONE,
        "extendSandbox",
        "Say when a sandbox shall end by itself",
        extend,
        _SANDBOX,
        failures=failures.IN_SANDBOX,
        body=ExtendSandbox,
    ),
    Route(
        "DELETE",
        _ONE,
        "killSandbox",
        "End a sandbox",
        kill,
        {204: Reply("Nothing of it is left.")},
        failures=(*failures.IN_SANDBOX, *failures.BY_LAUNCHER),
    ),
    Route(
        "POST",
        f"{_ONE}/pause",
        "pauseSandbox",
        "Stop everything inside where it stands",
        pause,
        _SANDBOX,
        failures=(*failures.IN_SANDBOX, *failures.BY_LAUNCHER),
    ),
    Route(
        "POST",
        f"{_ONE}/resume",
        "resumeSandbox",
        "Let everything inside go on",
        resume,
        _SANDBOX,
        failures=(*failures.IN_SANDBOX, *failures.BY_LAUNCHER),
    ),
    Route(
        "GET",
        f"{_ONE}/metrics",
        "measureSandbox",
        "Tell what a sandbox uses",
        measure,
        {200: Reply("What it uses now.", {JSON: MetricsShape})},
        failures=(*failures.IN_SANDBOX, *failures.BY_LAUNCHER),
    ),
)
