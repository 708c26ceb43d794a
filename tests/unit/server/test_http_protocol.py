"""Real sockets, and clients that do not behave."""

import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import orjson
import pytest

from headrace.server.http_protocol import MAX_FIELDS
from headrace.server.listeners import Door, Listener, bind_tcp
from headrace.server.settings import ServerTopic

PATIENCE = 10.0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the method, the path and the body."""
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    text = f"{scope['method']} {scope['path']} ".encode() + body
    headers = [(b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[int]:
    door = Door(bind_tcp("127.0.0.1", 0))
    port = door.sock.getsockname()[1]
    listener = Listener(door, echo, ServerTopic(**settings))
    await listener.start()
    try:
        yield port
    finally:
        listener.stop_accepting()
        await listener.abort()


async def talk(port: int, *pieces: bytes) -> bytes:
    """Send the pieces, and give everything until the service hangs up."""
    with anyio.fail_after(PATIENCE):
        async with await anyio.connect_tcp("127.0.0.1", port) as stream:
            received = b""
            try:
                for piece in pieces:
                    await stream.send(piece)
                    await anyio.lowlevel.checkpoint()
                while True:
                    received += await stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError):
                return received


def read_error(answer: bytes) -> tuple[int, str]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), orjson.loads(body)["error"]["code"]


CLOSE = b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


async def test_an_ordinary_request_is_answered_with_the_date_of_now() -> None:
    async with serving() as port:
        answer = await talk(port, CLOSE)

    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.endswith(b"GET /x ")
    assert time.strftime("date: %a, %d %b %Y", time.gmtime()).encode() in answer
    assert b"server:" not in answer.lower()


async def test_requests_that_come_piece_by_piece_and_several_at_once_are_answered() -> None:
    async with serving(max_header=1024) as port:
        slowly = await talk(port, *(CLOSE[at : at + 1] for at in range(len(CLOSE))))
        request = b"POST /y HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        together = await talk(port, request * 50 + CLOSE)

    assert slowly.endswith(b"GET /x ")
    assert together.count(b"POST /y hi") == 50
    assert together.endswith(b"GET /x ")


@pytest.mark.parametrize(
    "request_",
    [
        b"GET /" + b"x" * 3000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 3000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: xxxxxxxxxx\r\n" * 200 + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X:\r\n" * (MAX_FIELDS + 1) + b"\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
        + b"T: xxxxxxxxxx\r\n" * 200
        + b"\r\n",
    ],
    ids=["URL", "one field", "many fields", "many empty fields", "fields behind the body"],
)
async def test_a_header_that_is_too_large_is_refused(request_: bytes) -> None:
    async with serving(max_header=2048) as port:
        answer = await talk(port, request_)

    assert read_error(answer) == (431, "limit_exceeded")


@pytest.mark.parametrize(
    "beginning",
    [
        b"GET /",
        b"GET / HTTP/1.1\r\nX: ",
        b"GET / HTTP/1.1\r\n",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nT: ",
    ],
    ids=["URL", "value", "name", "extension of a chunk", "trailer"],
)
async def test_what_goes_on_for_ever_is_cut_at_the_limit(beginning: bytes) -> None:
    """The parser keeps what it was sent until a field is complete, which these never are."""
    pieces = [b"x" * 4096] * 200
    async with serving(max_header=8192) as port:
        answer = await talk(port, beginning, *pieces)

    # The client may see only that the connection is gone, as it goes on sending.
    assert answer == b"" or read_error(answer) == (431, "limit_exceeded")


async def test_a_large_body_is_not_a_header() -> None:
    body = b"x" * 300_000
    head = f"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    async with serving(max_header=1024) as port:
        answer = await talk(port, head.encode() + body)

    assert answer.endswith(b"POST / " + body)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\0\1\2\3\r\n\r\n",
        b"HELO mail\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
async def test_what_is_no_request_is_refused_in_our_form(garbage: bytes) -> None:
    async with serving() as port:
        answer = await talk(port, garbage)
        assert read_error(answer) == (400, "invalid_request")
        assert (await talk(port, CLOSE)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("beginning", [b"", b"GET / HTTP/1.1\r\nHost: a\r\n"])
async def test_a_client_that_never_finishes_its_header_is_let_go(beginning: bytes) -> None:
    async with serving(header_timeout=0.1) as port:
        assert await talk(port, beginning) == b""


async def test_a_client_that_waits_between_two_requests_has_longer() -> None:
    request = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
    async with (
        serving(header_timeout=0.1, keep_alive=60.0) as port,
        await anyio.connect_tcp("127.0.0.1", port) as stream,
    ):
        with anyio.fail_after(PATIENCE):
            for _ in range(2):
                await stream.send(request)
                assert b"GET /a " in await stream.receive()
                await anyio.sleep(0.3)


async def test_an_idle_connection_is_closed_in_the_end() -> None:
    async with serving(keep_alive=0.1) as port:
        answer = await talk(port, b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")

    assert answer.endswith(b"GET /a ")


async def test_one_connection_too_many_is_refused_and_room_is_made_again() -> None:
    async with serving(max_connections=2) as port:
        first = socket.create_connection(("127.0.0.1", port))
        second = socket.create_connection(("127.0.0.1", port))
        with first, second:
            # They are known once an answer came.
            for client in (first, second):
                client.sendall(b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n")
                client.setblocking(False)
                with anyio.fail_after(PATIENCE):
                    await anyio.wait_readable(client)
            assert read_error(await talk(port, b"")) == (503, "unavailable")
        with anyio.fail_after(PATIENCE):
            # Only the service knows when it has noticed that they are gone.
            while not (await talk(port, CLOSE)).startswith(b"HTTP/1.1 200"):  # noqa: ASYNC110
                await anyio.sleep(0.01)
