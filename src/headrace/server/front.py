"""The first of the service that a request meets: who calls whom, under which name, and the log.

Plain ASGI, so that streams flow through it.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import structlog

from headrace.adapters.base import ASGIApp, Message, Receive, Scope, Send, noted, set_request
from headrace.adapters.native.errors import error_response, unknown_failure
from headrace.model.errors import InvalidRequestError, PermissionDeniedError, UnavailableError
from headrace.server.cors import Cors
from headrace.server.hosts import HostPolicy, TrustedProxies, parse_address, split_host
from headrace.server.routing import Listener, Part, Request, Target, find_target

_MAX_HOST = 270
_MAX_SHOWN = 200
_PORT_PATH = re.compile(r"(/v1/sandboxes/[^/]+/ports/[^/]+)/.*", re.DOTALL)
_QUIET = (Part.HEALTH, Part.METRICS)

_log = structlog.stdlib.get_logger("headrace.request")


class RequestMeter(Protocol):
    """Hears of each request that was answered."""

    def observe_request(self, dialect: str, method: str, status: int, seconds: float) -> None:
        """Count it."""


@dataclass
class Phase:
    """Whether the service takes work, or is on its way down."""

    is_draining: bool = False


@dataclass(slots=True)
class Seen:
    """What the front reads of a header."""

    host: str | None = None
    hosts: int = 0
    origin: str | None = None
    authorization: str = ""
    e2b_sandbox: str | None = None
    preflight: bool = False
    forwarded: dict[bytes, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """Who may call the service by which name, and what it calls itself.

    ``cors`` has the parts of the service that pages of other origins may use.
    """

    hosts: HostPolicy
    proxies: TrustedProxies
    cors: Mapping[Part, Cors]
    public_url: str | None = None


def read_header(headers: Iterable[tuple[bytes, bytes]]) -> Seen:
    """Read what the front needs, in one pass."""
    seen = Seen()
    for name, value in headers:
        if name == b"host":
            seen.host = value.decode("latin-1")
            seen.hosts += 1
        elif name == b"authorization":
            seen.authorization = value.decode("latin-1")
        elif name == b"origin":
            seen.origin = value.decode("latin-1")
        elif name == b"e2b-sandbox-id":
            seen.e2b_sandbox = value.decode("latin-1")
        elif name == b"access-control-request-method":
            seen.preflight = True
        elif name == b"access-control-request-headers" and b"e2b-sandbox-id" in value.lower():
            # A browser asks beforehand, without the header itself.
            seen.e2b_sandbox = ""
        elif name.startswith(b"x-forwarded-"):
            # Proxies append; what the nearest one wrote is the last.
            seen.forwarded[name] = value.decode("latin-1").rpartition(",")[2].strip()
    return seen


@lru_cache(1024)
def _split(value: str) -> tuple[str, int | None] | None:
    return split_host(value)


class Exchange:
    """One request and what became of it; its ``send`` notes the status and adds headers."""

    __slots__ = ("_extra", "_send", "status")

    def __init__(self, send: Send, request_id: str) -> None:
        self._send = send
        self._extra = [(b"x-request-id", request_id.encode())]
        self.status = 0

    def add(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Add headers to the answer."""
        self._extra.extend(headers)

    async def send(self, message: Message) -> None:
        """Pass a message on."""
        kind = message["type"]
        if kind in ("http.response.start", "websocket.http.response.start"):
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self._extra]}
        elif kind == "websocket.accept":
            self.status = 101
            message = {**message, "headers": [*message.get("headers", ()), *self._extra]}
        elif kind == "websocket.close" and not self.status:
            self.status = 403
        await self._send(message)


class Front:
    """Names each request, checks how it came here, sends it to its part and writes a log line."""

    def __init__(
        self, parts: Mapping[Part, ASGIApp], rules: Rules, phase: Phase, meter: RequestMeter
    ) -> None:
        self._parts = parts
        self._rules = rules
        self._phase = phase
        self._meter = meter

    def door(self, listener: Listener, *, is_unix: bool) -> ASGIApp:
        """Give the ASGI application of one listener."""

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await self._serve(scope, receive, send, (listener, is_unix))

        return app

    async def _serve(
        self, scope: Scope, receive: Receive, send: Send, door: tuple[Listener, bool]
    ) -> None:
        started = time.perf_counter()
        name = secrets.token_hex(8)
        set_request(scope, name, "http://localhost")
        exchange = Exchange(send, name)
        target = Target(Part.NOTHING)
        try:
            app, target = self._choose(scope, exchange, *door)
            await app(scope, receive, exchange.send)
        except asyncio.CancelledError:
            if not self._phase.is_draining:
                raise
        except Exception as error:  # noqa: BLE001 - the last resort, logged with its traceback
            failure = unknown_failure(error, scope)
            if not exchange.status:
                await error_response(failure, scope)(scope, receive, exchange.send)
        finally:
            self._note(scope, target, exchange.status, time.perf_counter() - started)

    def _choose(
        self, scope: Scope, exchange: Exchange, listener: Listener, is_unix: bool
    ) -> tuple[ASGIApp, Target]:
        seen = read_header(scope["headers"])
        origins, host, problem = self._place(scope, seen, is_unix=is_unix)
        set_request(scope, _id(scope), self._rules.public_url or origins)
        path: str = scope["path"]
        target = find_target(
            Request(
                listener, host, path, scope["query_string"], seen.authorization, seen.e2b_sandbox
            )
        )
        if problem is not None:
            return error_response(problem, scope), target
        if self._phase.is_draining and target.part is not Part.HEALTH:
            error = UnavailableError("the service is shutting down")
            return error_response(error, scope, (b"connection", b"close")), target
        return self._welcome(scope, exchange, seen, target, origins), target

    def _welcome(
        self, scope: Scope, exchange: Exchange, seen: Seen, target: Target, own: str
    ) -> ASGIApp:
        """Apply what browsers need to be told; sandboxes with a host name do so by themselves."""
        if target.part is not Part.PORT:
            cors = self._rules.cors.get(target.part)
            if scope["type"] == "websocket":
                error = self._check_origin(seen.origin, own)
                if error is not None:
                    return error_response(error, scope)
            elif cors:
                exchange.add(cors.headers(seen.origin))
                if seen.preflight and scope["method"] == "OPTIONS":
                    return cors.preflight()
        scope["headrace.target"] = target
        return self._parts[target.part]

    def _check_origin(self, origin: str | None, own: str) -> PermissionDeniedError | None:
        """Pages may open a WebSocket to anywhere; their browser only says where they are from."""
        if origin is None or origin.lower() in (own.lower(), self._rules.public_url):
            return None
        native = self._rules.cors.get(Part.NATIVE)
        if native and native.allows(origin):
            return None
        return PermissionDeniedError(
            f"pages of {origin[:_MAX_SHOWN]!r} may not open a WebSocket here; "
            "server.cors_origins names those that may"
        )

    def _place(
        self, scope: Scope, seen: Seen, *, is_unix: bool
    ) -> tuple[str, str, InvalidRequestError | PermissionDeniedError | None]:
        """Give the origin as the client sees it, the host name, and what is wrong with it."""
        scheme = "https" if scope["scheme"] in ("https", "wss") else "http"
        value = seen.host
        if seen.forwarded and self._rules.proxies.include(scope.get("client"), is_unix=is_unix):
            scheme, value = _forwarded(seen, scheme, value)
        split = _split(value) if value and len(value) <= _MAX_HOST else None
        if split is None and is_unix and seen.hosts < 2:
            return f"{scheme}://localhost", "localhost", None
        if split is None or seen.hosts != 1:
            problem = InvalidRequestError(f"expected one host name in Host, got {value!r:.300}")
            return f"{scheme}://localhost", "", problem
        if not is_unix and not self._rules.hosts.accepts(split[0]):
            return f"{scheme}://localhost", split[0], _refuse_host(split[0])
        return f"{scheme}://{value}".lower(), split[0], None

    def _note(self, scope: Scope, target: Target, status: int, seconds: float) -> None:
        method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
        self._meter.observe_request(target.part, method, status, seconds)
        write = _log.debug if target.part in _QUIET and status < 400 else _log.info
        facts: dict[str, Any] = dict(noted(scope))
        if target.part is Part.PORT:
            facts.setdefault("sandbox_id", str(target.sandbox))
        write(
            "request answered",
            method=method,
            path=shown_path(scope["path"], Part.PORT if _is_passed_on(scope) else target.part),
            status=status,
            duration=round(seconds, 6),
            dialect=str(target.part),
            request_id=_id(scope),
            client=_client(scope),
            **facts,
        )


def shown_path(path: str, part: Part) -> str:
    """Give what of a path may stand in the log: nothing that belongs to a server in a sandbox."""
    if part is Part.PORT:
        return ""
    if part is Part.NATIVE:
        path = _PORT_PATH.sub(r"\1/…", path)
    return path if len(path) <= _MAX_SHOWN else path[:_MAX_SHOWN] + "…"


def _is_passed_on(scope: Scope) -> bool:
    """Say whether a request went on to a server in a sandbox, with its whole path."""
    return scope.get("headrace.port_raw_path") == scope.get("raw_path")


def _id(scope: Scope) -> str:
    name: str = scope["headrace.request_id"]
    return name


def _client(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unix"


def _refuse_host(host: str) -> PermissionDeniedError:
    return PermissionDeniedError(
        f"{host!r} is not a name of this service; server.host_names (HEADRACE_HOST_NAMES) adds "
        "names, server.public_url (HEADRACE_PUBLIC_URL) says the one that clients use",
        host=host,
    )


def _forwarded(seen: Seen, scheme: str, host: str | None) -> tuple[str, str | None]:
    told = seen.forwarded.get(b"x-forwarded-proto", "").lower()
    scheme = {"http": "http", "ws": "http", "https": "https", "wss": "https"}.get(told, scheme)
    forwarded_host = seen.forwarded.get(b"x-forwarded-host")
    if not forwarded_host:
        return scheme, host
    port = seen.forwarded.get(b"x-forwarded-port", "")
    has_port = forwarded_host.rpartition(":")[2].isdigit() and parse_address(forwarded_host) is None
    if port.isdigit() and not has_port and port != ("443" if scheme == "https" else "80"):
        return scheme, f"{forwarded_host}:{port}"
    return scheme, forwarded_host
