"""Servers in sandboxes that speak TLS, with a certificate that only they vouch for."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
from anyio.abc import SocketStream
from anyio.streams.tls import TLSStream
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from headrace.adapters.ports.settings import PortSettings
from tests.support.proxying import (
    PATIENCE,
    FakeSandbox,
    Guest,
    open_proxy,
    serve_guest,
)

CERTIFICATE = Path(__file__).parents[2] / "support" / "localhost.pem"
"""For localhost only, signed by itself, with its key; known to everybody."""
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client without limits of its own that matter."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        yield client


def make_context() -> ssl.SSLContext:
    """Give what a server needs."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    return context


def with_tls(seen: list[bytes]) -> Guest:
    """Play a server that answers one request over TLS and keeps its head."""
    context = make_context()

    async def play(stream: SocketStream) -> None:
        tls = await TLSStream.wrap(stream, server_side=True, ssl_context=context)
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await tls.receive(1)
        seen.append(head)
        await tls.send(OK)

    return play


async def test_a_server_with_tls_is_reached(client: httpx.AsyncClient) -> None:
    seen: list[bytes] = []
    async with (
        serve_guest(with_tls(seen)) as sandbox,
        open_proxy(sandbox, is_main_origin=False, has_tls=True) as proxy,
    ):
        own = f"http://8080-{sandbox.id}.127.0.0.1:{proxy.port}"
        answer = await client.get(proxy.url, headers={"origin": own})

    assert (answer.status_code, answer.text) == (200, "ok")
    assert b"\r\nHost: localhost:8080\r\n" in seen[0]
    assert b"\r\nOrigin: https://localhost:8080\r\n" in seen[0]


async def test_a_server_that_has_no_tls_after_all_is_told_of(client: httpx.AsyncClient) -> None:
    async def play(stream: SocketStream) -> None:
        await stream.receive()
        await stream.send(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox, has_tls=True) as proxy,
    ):
        answer = await client.get(proxy.url)

    assert answer.status_code == 502
    assert answer.json()["message"] == "the server at port 8080 does not speak TLS"


async def test_a_server_that_says_nothing_has_not_got_for_ever(client: httpx.AsyncClient) -> None:
    async def play(stream: SocketStream) -> None:
        await anyio.sleep_forever()

    settings = PortSettings(connect_timeout=0.2)
    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox, has_tls=True, settings=settings) as proxy,
    ):
        answer = await client.get(proxy.url)

    assert answer.status_code == 504


async def test_a_websocket_goes_over_tls() -> None:
    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    async with serve(echo, "127.0.0.1", 0, ssl=make_context()) as server:
        port = server.sockets[0].getsockname()[1]
        async with (
            open_proxy(FakeSandbox(port), has_tls=True) as proxy,
            connect(proxy.ws_url, proxy=None) as connection,
        ):
            await connection.send("hello")
            assert await connection.recv() == "hello"
