"""Servers in a sandbox that lie, flood or fall silent: each spoils its own request only."""

import socket
import struct

import anyio
import httpx
import pytest
from anyio.abc import SocketAttribute, SocketStream

from headrace.adapters.base import Message
from headrace.adapters.ports.app import make_app
from headrace.adapters.ports.settings import PortSettings
from tests.support.proxying import (
    PATIENCE,
    FakeSandbox,
    Guest,
    OneKey,
    answering,
    open_proxy,
    read_head,
    render_error,
    serve_guest,
)
from tests.unit.adapters.ports.test_route import make_scope

QUICK = PortSettings(head_timeout=0.2, stall_timeout=0.2, connect_timeout=0.2)
START = b"HTTP/1.1 200 OK\r\n"
CHUNKED = START + b"Transfer-Encoding: chunked\r\n\r\n"


def flooding(start: bytes, piece: bytes) -> Guest:
    """Play a server that repeats itself for as long as somebody listens."""

    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await stream.send(start)
        while True:
            await stream.send(piece)

    return play


async def get(sandbox: FakeSandbox, settings: PortSettings = QUICK) -> httpx.Response:
    """Ask the sandbox's server for its start page."""
    async with (
        open_proxy(sandbox, settings=settings) as proxy,
        httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client,
    ):
        return await client.get(proxy.url)


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\0",
        b"HTTP/1.1 200",
        b"SSH-2.0-OpenSSH_9.9\r\n",
        b"<html>\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 600 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 099 Odd\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/2 200\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        START + b"Content-Length: -1\r\n\r\n",
        START + b"Content-Length: many\r\n\r\n",
        START + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
        START + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        START + b"Transfer-Encoding: gzip\r\n\r\n",
        START + b"Bad Name: x\r\n\r\n",
        START + b"X: a\0b\r\n\r\n",
        START + b"X: a\rb\r\n\r\n",
        START + b"X: y\r\n" * 300 + b"\r\n",
        START + b"X: " + b"y" * 200_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 100 + START + b"\r\n",
    ],
)
async def test_what_is_no_answer_is_502(answer: bytes) -> None:
    async with serve_guest(answering(answer)) as sandbox:
        assert (await get(sandbox)).status_code == 502


@pytest.mark.parametrize(
    ("start", "piece"),
    [
        (START, b"X: y\r\n" * 1000),
        (START + b"X: ", b"y" * 65536),
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
        (b"", b"x" * 65536),
        (b"", b"\r\n" * 1000),
    ],
)
async def test_a_head_without_an_end_is_502(start: bytes, piece: bytes) -> None:
    async with serve_guest(flooding(start, piece)) as sandbox:
        assert (await get(sandbox, PortSettings())).status_code == 502


@pytest.mark.parametrize("piece", [b"", b"HTTP/1.1 200 OK\r\nX: y"])
async def test_a_guest_that_never_answers_is_504(piece: bytes) -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await stream.send(piece)
        await anyio.sleep(PATIENCE)

    async with serve_guest(play) as sandbox:
        assert (await get(sandbox)).status_code == 504


async def test_a_guest_that_answers_a_byte_at_a_time_is_504() -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        for byte in (START + b"X: " + b"y" * 10_000).strip():
            await stream.send(bytes([byte]))
            await anyio.sleep(0.01)

    async with serve_guest(play) as sandbox:
        assert (await get(sandbox)).status_code == 504


async def test_a_guest_that_does_not_take_the_body_is_504() -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await anyio.sleep(PATIENCE)

    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox, settings=QUICK) as proxy,
        httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client,
    ):
        answer = await client.put(proxy.url, content=b"x" * (32 * 1024 * 1024))

    assert answer.status_code == 504


async def test_a_guest_that_does_not_take_the_connection_is_504() -> None:
    class Deaf(FakeSandbox):
        async def open_port(self, port: int, host: str = "127.0.0.1") -> SocketStream:
            await anyio.sleep(PATIENCE)
            raise AssertionError

    answer = await get(Deaf())

    assert (answer.status_code, answer.json()["code"]) == (504, "deadline")


@pytest.mark.parametrize(
    "answer",
    [
        START + b"Content-Length: 10\r\n\r\nshort",
        CHUNKED + b"5\r\nshort\r\n",
        CHUNKED + b"ffffffffffffffff\r\nshort",
        CHUNKED + b"5\r\nshort\r\nnonsense\r\n",
        CHUNKED + b"5\r\nshort\r\n" + b"f" * 200_000,
        CHUNKED + b"5\r\nshort\r\n0\r\n" + b"X: y\r\n" * 50_000,
    ],
)
async def test_a_body_that_breaks_off_does_not_look_complete(answer: bytes) -> None:
    async with serve_guest(answering(answer)) as sandbox:
        with pytest.raises(httpx.RemoteProtocolError):
            await get(sandbox)


async def test_a_reset_in_mid_body_does_not_look_complete() -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await stream.send(START + b"\r\nshort")
        await anyio.sleep(0.1)
        sock = stream.extra(SocketAttribute.raw_socket)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with serve_guest(play) as sandbox:
        with pytest.raises(httpx.RemoteProtocolError):
            await get(sandbox)


async def test_a_body_that_ends_with_its_sandbox_does_not_look_complete() -> None:
    async with serve_guest(answering(START + b"\r\nshort")) as sandbox:
        sandbox.is_alive = False
        with pytest.raises(httpx.RemoteProtocolError):
            await get(sandbox)


async def test_what_comes_behind_an_answer_is_left_out() -> None:
    surplus = START + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nbad"

    async with serve_guest(answering(surplus)) as sandbox:
        answer = await get(sandbox)

    assert answer.text == "ok"


async def test_two_lengths_in_one_answer_do_not_split_it() -> None:
    both = START + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"

    async with serve_guest(answering(both)) as sandbox:
        answer = await get(sandbox)

    assert (answer.status_code, answer.text) == (200, "ok")
    assert "content-length" not in answer.headers


async def test_after_the_head_has_gone_out_an_error_is_not_an_answer_of_its_own() -> None:
    answer = START + b"Content-Length: 10\r\n\r\nshort"
    sent: list[str] = []

    async def receive() -> Message:
        await anyio.sleep(PATIENCE)
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message["type"])

    async with serve_guest(answering(answer)) as sandbox:
        scope = make_scope("/a", method="GET", **{"headrace.sandbox": sandbox})
        await make_app(OneKey(), render_error)(scope, receive, send)

    assert sent == ["http.response.start", "http.response.body"]


async def test_nobody_gets_a_tunnel() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        raise AssertionError

    async def send(message: Message) -> None:
        sent.append(message)

    scope = make_scope("/a", method="CONNECT")
    await make_app(OneKey(), render_error)(scope, receive, send)

    assert sent[0]["status"] == 400


async def test_a_client_that_has_gone_is_not_an_error() -> None:
    async def receive() -> Message:
        await anyio.sleep(PATIENCE)
        raise AssertionError

    async def send(_message: Message) -> None:
        raise OSError

    async with serve_guest(answering(START + b"Content-Length: 2\r\n\r\nok")) as sandbox:
        scope = make_scope("/a", method="GET", **{"headrace.sandbox": sandbox})
        await make_app(OneKey(), render_error)(scope, receive, send)
