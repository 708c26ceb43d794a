"""The application of this dialect: which plane a request is for, and whether it may.

The data plane is told by the header ``E2b-Sandbox-Id``, by a host name, or by a signature in the
URL of a file; everything else is the control plane.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from headrace.adapters.base import Access, ASGIApp, Message, Receive, Scope, Send, note
from headrace.adapters.e2b.access import Purpose, Tokens
from headrace.adapters.e2b.answers import Answer
from headrace.adapters.e2b.call import Call, ControlCall
from headrace.adapters.e2b.control.routes import ROUTES as CONTROL_ROUTES
from headrace.adapters.e2b.debugging import DEBUG_SANDBOX, DebugSandbox
from headrace.adapters.e2b.envd.files import read_signed_url, serve_signed
from headrace.adapters.e2b.envd.service import serve as serve_agent
from headrace.adapters.e2b.errors import (
    ClientGoneError,
    json_error,
    port_closed,
    sandbox_gone,
    traffic_refused,
    unknown_failure,
)
from headrace.adapters.e2b.exchange import Exchange, find_header
from headrace.adapters.e2b.interpreter.service import serve as serve_interpreter
from headrace.adapters.e2b.registry import Registry
from headrace.adapters.e2b.routing import Router
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import (
    HeadraceError,
    InvalidRequestError,
    PortUnreachableError,
    SandboxNotFoundError,
    UnauthenticatedError,
)

AGENT_PORT = 49983
INTERPRETER_PORT = 49999

_LAST_PORT = 65535
_PORT = re.compile(r"[0-9]{1,5}", re.ASCII)
_Header: TypeAlias = tuple[bytes, bytes]
_OURS = frozenset({b"e2b-sandbox-id", b"e2b-sandbox-port", b"e2b-traffic-access-token"})


def render_port_error(error: HeadraceError, scope: Scope) -> ASGIApp:
    """Give the answer that tells of an error on the way to a server in a sandbox."""
    if isinstance(error, PortUnreachableError):
        sandbox: Sandbox = scope["headrace.sandbox"]
        return port_closed(sandbox.id, scope["headrace.port"])
    return json_error(error, scope)


class E2bApp:
    """Answers every request of this dialect.

    ``ports`` passes a request on to a server in a sandbox and uses `render_port_error`; ``secret``
    are at least 32 random bytes, from which the tokens of sandboxes are made.
    """

    def __init__(
        self,
        access: Access,
        engine: Engine,
        ports: ASGIApp,
        secret: bytes,
        settings: E2bSettings | None = None,
    ) -> None:
        self._access = access
        self._ports = ports
        self._settings = settings or E2bSettings()
        self._registry = Registry(engine, Tokens(secret))
        self._control: Router[ControlCall] = Router(CONTROL_ROUTES)
        self._debug = DebugSandbox(engine) if self._settings.debug else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request that came to the main origin."""
        sandbox_id = find_header(scope, b"e2b-sandbox-id")
        if sandbox_id is not None:
            port = find_header(scope, b"e2b-sandbox-port") or str(AGENT_PORT)

            async def work(exchange: Exchange) -> None:
                await self._serve_port(exchange, sandbox_id, port, is_main_origin=True)

        elif scope["type"] == "http" and scope["path"] == "/files":
            work = self._serve_signed
        else:
            work = self._serve_control
        await self._guard(work, scope, receive, send)

    def knows(self, sandbox_id: str) -> bool:
        """Say whether the names of all ports of this sandbox are for `serve_host`."""
        return self._registry.knows(sandbox_id)

    async def serve_host(
        self, scope: Scope, receive: Receive, send: Send, *, sandbox_id: str, port: int
    ) -> None:
        """Answer a request that came to the host name of a port of a sandbox."""

        async def work(exchange: Exchange) -> None:
            await self._serve_port(exchange, sandbox_id, str(port), is_main_origin=False)

        await self._guard(work, scope, receive, send)

    async def _guard(
        self,
        work: Callable[[Exchange], Awaitable[None]],
        scope: Scope,
        receive: Receive,
        send: Send,
    ) -> None:
        exchange = Exchange(scope, receive, send, self._settings)
        try:
            await self._answer(work, exchange)
        except (ClientGoneError, _HeadSentError):
            return

    async def _answer(
        self, work: Callable[[Exchange], Awaitable[None]], exchange: Exchange
    ) -> None:
        if _is_head(exchange.scope):
            exchange.send = _HeadOnly(exchange.send)
        try:
            await work(exchange)
        except (ClientGoneError, _HeadSentError):
            raise
        except HeadraceError as error:
            await self._refuse(json_error(error, exchange.scope), exchange)
        except Exception as error:  # noqa: BLE001 - logged, and told without its details
            failure = unknown_failure(error, exchange.scope)
            await self._refuse(json_error(failure, exchange.scope), exchange)

    @staticmethod
    async def _refuse(answer: Answer, exchange: Exchange) -> None:
        # Once an answer has begun all that is left is not to complete it: the client sees that.
        if not exchange.status:
            exchange.status = answer.status
            await answer(exchange.scope, exchange.receive, exchange.send)

    # --- the control plane --------------------------------------------------------------------

    async def _serve_control(self, exchange: Exchange) -> None:
        if exchange.scope["type"] == "websocket":
            raise InvalidRequestError("there is no WebSocket at this path")
        tenant = self._access.authenticate(_find_key(exchange))
        note(exchange.scope, tenant=tenant.tenant)
        route, path = self._control.find(exchange.method, exchange.scope["raw_path"])
        await route.handler(ControlCall(exchange, tenant, self._registry, path))

    # --- the data plane -----------------------------------------------------------------------

    async def _serve_port(
        self, exchange: Exchange, sandbox_id: str, port: str, *, is_main_origin: bool
    ) -> None:
        number = _read_port(port)
        try:
            sandbox, is_debug = await self._find(exchange, sandbox_id)
        except SandboxNotFoundError:
            await self._refuse(sandbox_gone(sandbox_id[:100]), exchange)
            return
        call = Call(exchange, sandbox, self._registry)
        if number == AGENT_PORT and exchange.scope["type"] == "http":
            await serve_agent(call, is_trusted=is_debug)
        elif number == INTERPRETER_PORT and exchange.scope["type"] == "http":
            await serve_interpreter(call, is_trusted=is_debug)
        else:
            await self._pass_on(call, number, is_main_origin=is_main_origin)

    async def _find(self, exchange: Exchange, sandbox_id: str) -> tuple[Sandbox, bool]:
        if self._debug is not None and sandbox_id == DEBUG_SANDBOX:
            return await self._debug.find(), True
        return await self._registry.find(sandbox_id, exchange.scope), False

    async def _pass_on(self, call: Call, port: int, *, is_main_origin: bool) -> None:
        """Hand a request over to a server in the sandbox, without what is for us only."""
        scope, sandbox = call.exchange.scope, call.sandbox
        details = self._registry.details(sandbox)
        if not details.is_public and not self._registry.has_traffic_token(sandbox, scope):
            await self._refuse(traffic_refused(sandbox.id), call.exchange)
            return
        scope["headers"] = self._leave_out_ours(sandbox, scope["headers"])
        scope["headrace.sandbox"] = sandbox
        scope["headrace.port"] = port
        scope["headrace.port_path"] = scope["path"]
        scope["headrace.port_raw_path"] = scope["raw_path"]
        scope["headrace.is_main_origin"] = is_main_origin
        scope["headrace.port_host"] = details.mask_host(port)
        scope["headrace.port_has_tls"] = details.has_tls(port)
        # What a server inside answers to HEAD is its own affair, so it is passed on as it is.
        send = call.exchange.send
        whole = send.whole if isinstance(send, _HeadOnly) else send
        await self._ports(scope, call.exchange.receive, whole)

    def _leave_out_ours(self, sandbox: Sandbox, headers: Iterable[_Header]) -> list[_Header]:
        """Leave out what is for us; a header for the agent's token may also be a server's own."""
        token = self._registry.tokens.make(Purpose.AGENT, sandbox.id).encode()
        ours = (b"x-access-token", token)
        return [each for each in headers if each[0] not in _OURS and tuple(each) != ours]

    async def _serve_signed(self, exchange: Exchange) -> None:
        """Serve a URL that carries no header of ours: its signature says whose file it is."""
        url = read_signed_url(exchange)
        signer = self._registry.find_signer(url)
        if signer is None:
            raise UnauthenticatedError("invalid signature")
        try:
            sandbox = await self._registry.find(signer, exchange.scope)
        except SandboxNotFoundError:
            await exchange.give(sandbox_gone(signer))
            return
        await serve_signed(Call(exchange, sandbox, self._registry), url)


class _HeadSentError(Exception):
    """All that a HEAD request wants was sent."""


def _is_head(scope: Scope) -> bool:
    return bool(scope["type"] == "http" and scope["method"] == "HEAD")


class _HeadOnly:
    """Sends the head of an answer and ends whoever was about to send its body."""

    def __init__(self, whole: Send) -> None:
        self.whole = whole

    async def __call__(self, message: Message) -> None:
        await self.whole(message)
        await self.whole({"type": "http.response.body", "body": b""})
        raise _HeadSentError


def _find_key(exchange: Exchange) -> str | None:
    key = exchange.header(b"x-api-key")
    if key is not None:
        return key
    scheme, _, credentials = (exchange.header(b"authorization") or "").partition(" ")
    return credentials.strip() if scheme.lower() == "bearer" else None


def _read_port(text: str) -> int:
    if not (_PORT.fullmatch(text) and 1 <= int(text) <= _LAST_PORT):
        raise InvalidRequestError(f"a port is a number from 1 to {_LAST_PORT}, got {text[:40]!r}")
    return int(text)
