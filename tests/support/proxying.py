"""The proxy on a real socket, in front of servers that a test plays itself, byte by byte."""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import uvicorn
from anyio.abc import SocketAttribute, SocketStream

from headrace.adapters.base import ASGIApp, Receive, Scope, Send, noted, set_request
from headrace.adapters.native.answers import Answer
from headrace.adapters.ports.app import make_app
from headrace.adapters.ports.route import Reachable
from headrace.adapters.ports.settings import PortSettings
from headrace.engine.tenancy import TenantEngine
from headrace.model.errors import DeadlineError, HeadraceError, PortUnreachableError
from headrace.wire.ndjson import encode_json

KEY = "0123456789abcdef0123456789abcdef01234567"
SANDBOX = "abcdefghijklmnopqrstuvwxyz"
PATIENCE = 10.0

Guest = Callable[[SocketStream], Awaitable[None]]
"""Plays a server for one connection, which is closed when it returns."""


class OneKey:
    """Access for whoever has KEY."""

    def authenticate(self, presented: str | None) -> TenantEngine:
        """The proxy never asks."""
        raise AssertionError(presented)

    def is_key(self, presented: str) -> bool:
        """Say whether it is KEY, with or without a vendor's prefix."""
        return KEY in (presented, presented.rpartition("_")[2])


@dataclass
class FakeSandbox:
    """A sandbox whose only address leads to a server of the test."""

    target: int | None = None
    host: str = "127.0.0.1"
    id: str = SANDBOX
    is_alive: bool = True
    asked: list[tuple[str, int]] = field(default_factory=list)

    async def open_port(self, port: int, host: str = "127.0.0.1") -> SocketStream:
        """Connect to the test's server."""
        self.asked.append((host, port))
        if self.target is None or host != self.host:
            raise PortUnreachableError(f"no connection to {host}:{port}", port=port)
        return await anyio.connect_tcp("127.0.0.1", self.target)


@dataclass
class Proxy:
    """Where the proxy listens, and what it noted of the requests."""

    port: int
    prefix: str
    facts: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The address of the guest's server for clients."""
        return f"http://127.0.0.1:{self.port}{self.prefix}"

    @property
    def ws_url(self) -> str:
        """The same for WebSocket."""
        return f"ws://127.0.0.1:{self.port}{self.prefix}"


def render_error(error: HeadraceError, _scope: Scope) -> ASGIApp:
    """Give an answer with the error's code, which reads the first message as ours do."""
    status = {PortUnreachableError.code: 502, DeadlineError.code: 504}.get(error.code, 400)
    return Answer(status, encode_json({"code": error.code, "message": error.message}))


@asynccontextmanager
async def open_proxy(
    sandbox: Reachable,
    *,
    port: int = 8080,
    is_main_origin: bool = True,
    has_tls: bool = False,
    settings: PortSettings | None = None,
) -> AsyncIterator[Proxy]:
    """Serve the proxy on a free port of the loopback."""
    prefix = f"/v1/sandboxes/{sandbox.id}/ports/{port}" if is_main_origin else ""
    inner = make_app(OneKey(), render_error, settings)
    # Named as TCP, as asyncio turns Nagle off only then.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as sock:
        sock.bind(("127.0.0.1", 0))
        proxy = Proxy(sock.getsockname()[1], prefix)

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            raw: bytes = scope["raw_path"].removeprefix(prefix.encode())
            host = "" if is_main_origin else f"{port}-{sandbox.id}."
            set_request(scope, "a-request", f"http://{host}127.0.0.1:{proxy.port}")
            scope["headrace.sandbox"], scope["headrace.port"] = sandbox, port
            scope["headrace.port_path"] = scope["path"].removeprefix(prefix)
            scope["headrace.port_raw_path"] = raw
            scope["headrace.is_main_origin"] = is_main_origin
            scope["headrace.port_has_tls"] = has_tls
            try:
                await inner(scope, receive, send)
            finally:
                proxy.facts.append(noted(scope))

        config = uvicorn.Config(
            app, lifespan="off", log_config=None, http="httptools", ws="websockets-sansio"
        )
        config.server_header = False
        server = uvicorn.Server(config)
        async with beside(lambda: server.serve([sock])):
            try:
                with anyio.fail_after(PATIENCE):
                    while not server.started:  # noqa: ASYNC110 - it has nothing to wait on
                        await anyio.sleep(0.01)
                yield proxy
            finally:
                server.should_exit = server.force_exit = True


@asynccontextmanager
async def serve_guest(play: Guest) -> AsyncIterator[FakeSandbox]:
    """Give a sandbox in which ``play`` answers every connection."""

    async def handle(stream: SocketStream) -> None:
        async with stream:
            with suppress(anyio.BrokenResourceError, anyio.EndOfStream):  # the proxy hung up
                await play(stream)

    async with (
        await anyio.create_tcp_listener(local_host="127.0.0.1", local_port=0) as listener,
        beside(lambda: listener.serve(handle)) as scope,
    ):
        try:
            yield FakeSandbox(listener.extra(SocketAttribute.local_port))
        finally:
            scope.cancel()


@asynccontextmanager
async def beside(run: Callable[[], Coroutine[Any, Any, None]]) -> AsyncIterator[anyio.CancelScope]:
    """Run something beside the body, which ends it; a failure of the body comes out as it is."""
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        try:
            yield tasks.cancel_scope
        except Exception as error:  # noqa: BLE001 - raised below, not in a group of one
            failure = error
    if failure is not None:
        raise failure


async def read_head(stream: SocketStream) -> bytes:
    """Give everything up to the blank line; what follows it is left in the stream."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += await stream.receive(1)
    return head


def answering(answer: bytes) -> Guest:
    """Play a server that gives these bytes to whatever request, and closes."""

    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await stream.send(answer)

    return play
