"""Puts the service together: settings, engine and keys become one application per listener."""

import secrets
from collections.abc import Mapping
from typing import Protocol

from headrace.adapters.base import Access, ASGIApp, Receive, Scope, Send
from headrace.adapters.e2b.app import E2bApp, render_port_error
from headrace.adapters.e2b.settings import E2bSettings
from headrace.adapters.native.answers import Answer
from headrace.adapters.native.app import NativeSettings
from headrace.adapters.native.app import make_app as make_native_app
from headrace.adapters.native.errors import MethodNotAllowedError, error_response
from headrace.adapters.ports.app import make_app as make_ports_app
from headrace.engine.engine import Engine
from headrace.model.errors import (
    HeadraceError,
    InvalidRequestError,
    NotFoundError,
    SandboxNotFoundError,
)
from headrace.server.cors import Cors
from headrace.server.front import Front, Phase, RequestMeter, Rules
from headrace.server.hosts import HostPolicy, TrustedProxies, check_url, is_loopback, split_host
from headrace.server.routing import Part, Target
from headrace.server.settings import ServerTopic, Settings
from headrace.server.version import VERSION
from headrace.wire.ndjson import encode_json


class Figures(RequestMeter, Protocol):
    """The figures of the service, and how Prometheus reads them."""

    def render(self) -> tuple[bytes, str]:
        """Give them, and their content type."""


_TITLES = {
    Part.HOPX: "HopX's API",
    Part.CLOUDFLARE: "Cloudflare's API",
    Part.AGB: "AGB's API",
    Part.WEB: "a web page",
    Part.MCP: "MCP",
}


def make_front(
    settings: Settings, engine: Engine, access: Access, metrics: Figures, phase: Phase
) -> Front:
    """Give the front of the whole service; `check` has said yes to the settings before."""
    ports = make_ports_app(access, error_response)
    server = settings.server
    native_settings = NativeSettings(
        heartbeat=server.heartbeat,
        max_body=int(server.max_body),
        max_outcome=int(server.max_outcome),
        max_upload=None if server.max_upload is None else int(server.max_upload),
    )
    parts: dict[Part, ASGIApp] = {part: _missing(part) for part in Part}
    parts[Part.NATIVE] = make_native_app(access, engine.report, ports, native_settings)
    e2b = _make_e2b_app(settings, engine, access)
    parts[Part.E2B] = _by_host_or_path(e2b)
    parts[Part.PORT] = _PortHosts(engine, ports, e2b)
    parts[Part.HEALTH] = _Health(engine, phase)
    parts[Part.METRICS] = _MetricsPage(metrics, access, is_open=is_private(server))
    return Front(parts, make_rules(settings), phase, metrics)


def _make_e2b_app(settings: Settings, engine: Engine, access: Access) -> E2bApp:
    server = settings.server
    chosen = E2bSettings(
        domain=settings.e2b.domain,
        debug=settings.e2b.debug,
        max_body=int(server.max_body),
        max_upload=None if server.max_upload is None else int(server.max_upload),
    )
    ports = make_ports_app(access, render_port_error)
    return E2bApp(access, engine, ports, secrets.token_bytes(32), chosen)


def make_rules(settings: Settings) -> Rules:
    """Read the settings about names; raises InvalidRequestError that names what is wrong."""
    server = settings.server
    if settings.e2b.debug and not is_private(server):
        raise InvalidRequestError(
            "e2b.debug lets everybody in who reaches the service; it needs a loopback server.host "
            "and neither server.public_url nor server.trusted_proxies"
        )
    url = server.public_url
    public_url = check_url("server.public_url", url) if url is not None else None
    return Rules(
        HostPolicy(server.host, public_url, server.host_names),
        TrustedProxies(server.trusted_proxies),
        {
            Part.NATIVE: Cors(server.cors_origins),
            Part.E2B: Cors(settings.e2b.cors_origins, "e2b.cors_origins", any_header=True),
        },
        public_url,
    )


def is_private(server: ServerTopic) -> bool:
    """Say whether only programs of this machine can reach the service, and no proxy is told of."""
    is_local = not server.tcp or is_loopback(server.host)
    return is_local and server.public_url is None and not server.trusted_proxies


def _missing(part: Part) -> ASGIApp:
    title = _TITLES.get(part)
    what = f"this version does not speak {title}" if title else "there is nothing at this path"

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        error = NotFoundError(f"{what}; the API is below /v1, see /v1/openapi.json")
        await error_response(error, scope)(scope, receive, send)

    return app


def _by_host_or_path(e2b: E2bApp) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        target: Target = scope["headrace.target"]
        if target.sandbox is None:
            await e2b(scope, receive, send)
        else:
            sandbox_id, port = target.sandbox, target.port
            await e2b.serve_host(scope, receive, send, sandbox_id=sandbox_id, port=port)

    return app


class _PortHosts:
    """Servers in sandboxes by their host names; whoever knows the name may connect.

    A sandbox that a client of E2B's dialect made has that dialect's rules and answers.
    """

    def __init__(self, engine: Engine, ports: ASGIApp, e2b: E2bApp) -> None:
        self._engine = engine
        self._ports = ports
        self._e2b = e2b

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        target: Target = scope["headrace.target"]
        if target.sandbox is not None and self._e2b.knows(target.sandbox):
            sandbox_id, port = target.sandbox, target.port
            await self._e2b.serve_host(scope, receive, send, sandbox_id=sandbox_id, port=port)
            return
        try:
            sandbox = self._engine.find(target.sandbox or "")
        except SandboxNotFoundError:
            # Without what is remembered of its end: that is for its owner.
            error = SandboxNotFoundError(f"there is no sandbox {target.sandbox!r}")
            await error_response(error, scope)(scope, receive, send)
            return
        scope["headrace.sandbox"] = sandbox
        scope["headrace.port"] = target.port
        scope["headrace.port_path"] = scope["path"]
        scope["headrace.port_raw_path"] = scope["raw_path"]
        scope["headrace.is_main_origin"] = False
        await self._ports(scope, receive, send)


class _Health:
    """Says, without a key, whether the service works and what it enforces."""

    def __init__(self, engine: Engine, phase: Phase) -> None:
        self._phase = phase
        report = engine.report
        self._isolation: Mapping[str, object] = {
            "mode": report.mode,
            "enforced": sorted(report.enforced),
            "memory": report.memory,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = _refuse_method(scope)
        answer = refusal or self._answer()
        await answer(scope, receive, send)

    def _answer(self) -> Answer:
        if self._phase.is_draining:
            return Answer(503, encode_json({"status": "draining", "version": VERSION}))
        body = {"status": "healthy", "version": VERSION, "isolation": self._isolation}
        return Answer(200, encode_json(body))


class _MetricsPage:
    """The figures for Prometheus; with a key, unless nobody but this machine can ask."""

    def __init__(self, metrics: Figures, access: Access, *, is_open: bool) -> None:
        self._metrics = metrics
        self._access = access
        self._is_open = is_open

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer = _refuse_method(scope)
        if answer is None:
            try:
                self._check(scope)
            except HeadraceError as error:
                answer = error_response(error, scope)
            else:
                body, content_type = self._metrics.render()
                answer = Answer(200, body, content_type=content_type.encode())
        await answer(scope, receive, send)

    def _check(self, scope: Scope) -> None:
        host, presented = None, None
        is_forwarded = False
        for name, value in scope["headers"]:
            if name == b"host":
                host = split_host(value.decode("latin-1"))
            elif name == b"authorization":
                scheme, _, rest = value.decode("latin-1").partition(" ")
                presented = rest.strip() if scheme.lower() == "bearer" else None
            elif name == b"forwarded" or name.startswith(b"x-forwarded-"):
                # Somebody put a proxy in front of us without saying so.
                is_forwarded = True
        is_local = scope.get("client") is None or (host is not None and is_loopback(host[0]))
        if not (self._is_open and is_local and not is_forwarded):
            self._access.authenticate(presented)


def _refuse_method(scope: Scope) -> Answer | None:
    if scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
        return None
    method = scope["method"] if scope["type"] == "http" else "WebSocket"
    error = MethodNotAllowedError(method, ["GET", "HEAD"])
    return error_response(error, scope)
