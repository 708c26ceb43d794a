"""The ASGI application of our own API: keys first, then the table of routes."""

from dataclasses import dataclass

from headrace.adapters.base import Access, ASGIApp, Message, Receive, Scope, Send, note
from headrace.adapters.native import (
    contexts,
    executions,
    files,
    processes,
    sandboxes,
    stream,
    watches,
)
from headrace.adapters.native.answers import Answer
from headrace.adapters.native.errors import ClientGoneError, error_response, unknown_failure
from headrace.adapters.native.exchange import Client, Exchange, NativeSettings, find_header
from headrace.adapters.native.forms import choose_form
from headrace.adapters.native.openapi import make_document
from headrace.adapters.native.routing import Route, Router, split_path
from headrace.adapters.native.stream import KEY_PROTOCOL, Session
from headrace.engine.config import IsolationReport
from headrace.engine.tenancy import TenantEngine
from headrace.model.errors import HeadraceError, InvalidRequestError, NotFoundError
from headrace.wire.ndjson import encode_json

__all__ = ["ROUTES", "NativeSettings", "make_app"]

ROUTES: tuple[Route, ...] = (
    *sandboxes.ROUTES,
    *contexts.ROUTES,
    *executions.ROUTES,
    *processes.ROUTES,
    *files.ROUTES,
    *watches.ROUTES,
    *stream.ROUTES,
)
"""Every operation but the ports of sandboxes, which take any method and any path."""

_DOCUMENT = ["v1", "openapi.json"]
_PORT = 5
_LAST_PORT = 65535


def make_app(
    access: Access,
    report: IsolationReport,
    ports: ASGIApp,
    settings: NativeSettings | None = None,
) -> ASGIApp:
    """Give the application that answers everything below /v1.

    ``ports`` answers what goes to a port of a sandbox, with these keys in its scope:
    ``headrace.sandbox``, ``headrace.port``, ``headrace.port_path``, ``headrace.port_raw_path`` and
    ``headrace.is_main_origin``.
    """
    return _Application(access, report, ports, settings or NativeSettings())


@dataclass(slots=True)
class _Answering:
    """Remembers whether an answer has begun."""

    to_client: Send
    has_begun: bool = False

    async def send(self, message: Message) -> None:
        self.has_begun = True
        await self.to_client(message)


class _HeadSentError(Exception):
    """All that a HEAD request wants was sent."""


class _Application:
    def __init__(
        self, access: Access, report: IsolationReport, ports: ASGIApp, settings: NativeSettings
    ) -> None:
        self._access = access
        self._report = report
        self._ports = ports
        self._settings = settings
        self._router = Router(ROUTES)
        self._document = Answer(200, encode_json(make_document(ROUTES)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        answering = _Answering(send)
        try:
            segments = split_path(scope["raw_path"])
            if segments == _DOCUMENT and scope.get("method") in ("GET", "HEAD"):
                await self._document(scope, receive, answering.send)
            else:
                await self._answer(segments, scope, receive, answering.send)
        except (ClientGoneError, _HeadSentError):
            return
        except HeadraceError as error:
            await self._refuse(error, scope, receive, answering)
        except Exception as error:  # noqa: BLE001 - logged, and told without its details
            await self._refuse(unknown_failure(error, scope), scope, receive, answering)

    async def _refuse(
        self, error: HeadraceError, scope: Scope, receive: Receive, answering: _Answering
    ) -> None:
        # Once an answer has begun all that is left is not to complete it: the client sees that.
        if not answering.has_begun:
            await error_response(error, scope)(scope, receive, answering.send)

    async def _answer(
        self, segments: list[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        is_socket = scope["type"] == "websocket"
        is_stream = is_socket and len(segments) == 4 and segments[3] == "stream"
        tenant = self._access.authenticate(find_key(scope, in_protocol=is_stream))
        note(scope, tenant=tenant.tenant)
        if segments[:2] == ["v1", "sandboxes"] and segments[3:4] == ["ports"]:
            await self._pass_on(tenant, segments, scope, receive, send)
        elif not is_socket:
            await self._dispatch(tenant, segments, scope, receive, send)
        elif is_stream and segments[:2] == ["v1", "sandboxes"]:
            sandbox = tenant.find(segments[2])
            note(scope, sandbox_id=sandbox.id)
            await Session(scope, receive, send, tenant, sandbox, self._settings).run()
        else:
            raise NotFoundError("there is no WebSocket at this path")

    async def _dispatch(
        self, tenant: TenantEngine, segments: list[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        method = scope["method"]
        if method == "OPTIONS":
            allowed = ", ".join(self._router.methods(segments)).encode()
            await Answer(204, headers=((b"allow", allowed),)).send(send)
            return
        route, path = self._router.find(method, segments)
        if route.query is None and scope.get("query_string"):
            raise InvalidRequestError("the query: nothing is expected here")
        form = ""
        if route.is_negotiated:
            form = choose_form(find_header(scope, b"accept"), route.produces)
        if method == "HEAD":
            send = _only_head(send)
        client = Client(scope, receive, send, form)
        await route.handler(Exchange(client, tenant, self._report, self._settings, path))

    async def _pass_on(
        self, tenant: TenantEngine, segments: list[str], scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Hand a request over to the port of a sandbox that the path names."""
        sandbox = tenant.find(segments[2])
        note(scope, sandbox_id=sandbox.id)
        port = segments[4] if len(segments) >= _PORT else ""
        if not (port.isascii() and port.isdigit() and 1 <= int(port[:9]) <= _LAST_PORT):
            raise InvalidRequestError(f"a port is a number from 1 to {_LAST_PORT}, got {port!r}")
        rest = scope["raw_path"].split(b"/", _PORT + 1)[_PORT + 1 :]
        scope["headrace.sandbox"] = sandbox
        scope["headrace.port"] = int(port)
        scope["headrace.port_path"] = "/" + "/".join(segments[_PORT:])
        scope["headrace.port_raw_path"] = b"/" + b"".join(rest)
        scope["headrace.is_main_origin"] = True
        await self._ports(scope, receive, send)


def find_key(scope: Scope, *, in_protocol: bool = False) -> str | None:
    """Give the key that a request carries; ``in_protocol`` also among its WebSocket protocols."""
    authorization = find_header(scope, b"authorization")
    if authorization is not None:
        scheme, _, credentials = authorization.partition(" ")
        return credentials.strip() if scheme.lower() == "bearer" else authorization
    key = find_header(scope, b"x-api-key")
    if key is None and in_protocol:
        offered = [each for each in scope.get("subprotocols", ()) if each.startswith(KEY_PROTOCOL)]
        key = offered[0].removeprefix(KEY_PROTOCOL) if offered else None
    return key


def _only_head(send: Send) -> Send:
    async def send_head(message: Message) -> None:
        await send(message)
        await send({"type": "http.response.body", "body": b""})
        raise _HeadSentError

    return send_head
