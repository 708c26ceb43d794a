"""WebSocket through the proxy: our client is the websockets library, the guest often bare bytes."""

import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import anyio
import pytest
from anyio.abc import SocketStream
from websockets.asyncio.client import ClientConnection, connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from headrace.adapters.ports.settings import PortSettings
from tests.support.proxying import (
    KEY,
    PATIENCE,
    FakeSandbox,
    Guest,
    Proxy,
    answering,
    open_proxy,
    read_head,
    serve_guest,
)

QUICK = PortSettings(head_timeout=0.2, stall_timeout=0.2, close_timeout=0.2, max_message=100_000)


@asynccontextmanager
async def open_socket(
    sandbox: FakeSandbox, settings: PortSettings = QUICK, **options: object
) -> AsyncIterator[ClientConnection]:
    """Connect through a proxy of its own."""
    async with open_proxy(sandbox, settings=settings) as proxy:
        with anyio.fail_after(PATIENCE):
            async with join(proxy, **options) as ws:
                yield ws


def join(proxy: Proxy, **options: object) -> connect:
    """Connect through a proxy."""
    return connect(f"{proxy.ws_url}/chat?room=1", proxy=None, max_size=None, **options)  # type: ignore[arg-type]  # passed on as they are


def upgraded(play: Guest, extra: str = "") -> Guest:
    """Play a server that accepts, and then talks as it likes."""

    async def accept(stream: SocketStream) -> None:
        head = await read_head(stream)
        key = next(
            line.partition(b":")[2].strip()
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"sec-websocket-key")
        )
        proof = base64.b64encode(
            hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        )
        await stream.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            + extra.encode()
            + b"Sec-WebSocket-Accept: "
            + proof
            + b"\r\n\r\n"
        )
        await play(stream)

    return accept


def saying(*frames: bytes) -> Guest:
    """Play a server that accepts, sends these bytes and hangs up."""

    async def play(stream: SocketStream) -> None:
        for frame in frames:
            await stream.send(frame)

    return upgraded(play)


def frame(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    """Give a frame as a server sends it."""
    return Frame(opcode, data, fin).serialize(mask=False)


@asynccontextmanager
async def serve_library(handler: object, **options: object) -> AsyncIterator[FakeSandbox]:
    """Give a sandbox with a server made with the websockets library."""
    async with serve(handler, "127.0.0.1", 0, **options) as server:  # type: ignore[arg-type]  # passed on as they are
        yield FakeSandbox(next(iter(server.sockets)).getsockname()[1])


async def echo(ws: ServerConnection) -> None:
    """Send everything back."""
    async for message in ws:
        await ws.send(message)


async def test_text_and_bytes_go_both_ways() -> None:
    async with serve_library(echo) as sandbox, open_socket(sandbox) as ws:
        for message in ("text \N{SNOWMAN}", b"\0\xff", "", b"", "x" * 70_000):
            await ws.send(message)
            assert await ws.recv() == message


async def test_the_guest_sees_its_own_address_and_no_key() -> None:
    async def tell(ws: ServerConnection) -> None:
        assert ws.request is not None
        await ws.send(ws.request.path)
        await ws.send(str(ws.request.headers))

    headers = {"Authorization": f"Bearer {KEY}", "Cookie": "a=b"}
    async with (
        serve_library(tell) as sandbox,
        open_socket(sandbox, additional_headers=headers) as ws,
    ):
        assert await ws.recv() == "/chat?room=1"
        seen = str(await ws.recv()).lower()

    assert "host: localhost:8080" in seen
    assert "x-forwarded-host: 127.0.0.1:" in seen
    assert "authorization" not in seen
    assert "cookie" not in seen
    assert KEY not in seen


async def test_the_subprotocol_that_the_guest_chose_is_the_clients() -> None:
    async with (
        serve_library(echo, subprotocols=["graphql-ws"]) as sandbox,
        open_socket(sandbox, subprotocols=["other", "graphql-ws"]) as ws,
    ):
        assert ws.subprotocol == "graphql-ws"


async def test_a_key_among_the_subprotocols_is_left_out() -> None:
    async def tell(ws: ServerConnection) -> None:
        assert ws.request is not None
        await ws.send(str(ws.request.headers.get_all("Sec-WebSocket-Protocol")))

    async with (
        serve_library(tell, subprotocols=["chat"]) as sandbox,
        open_socket(sandbox, subprotocols=["chat", KEY]) as ws,
    ):
        assert await ws.recv() == "['chat']"


async def test_fragments_of_the_guest_become_one_message() -> None:
    play = saying(
        frame(Opcode.TEXT, b"sn\xe2\x98", fin=False),
        frame(Opcode.PING, b"between"),
        frame(Opcode.CONT, b"", fin=False),
        frame(Opcode.CONT, b"\x83w", fin=True),
        frame(Opcode.BINARY, b"b", fin=True),
    )
    async with serve_guest(play) as sandbox, open_socket(sandbox) as ws:
        assert await ws.recv() == "sn\N{SNOWMAN}w"
        assert await ws.recv() == b"b"


async def test_fragments_of_the_client_become_one_message() -> None:
    async with serve_library(echo) as sandbox, open_socket(sandbox) as ws:
        await ws.send(["one ", "two ", "three"])
        assert await ws.recv() == "one two three"


async def test_frames_that_came_with_the_handshake_are_not_lost() -> None:
    play = glued(frame(Opcode.TEXT, b"at once"))
    async with serve_guest(play) as sandbox, open_socket(sandbox) as ws:
        assert await ws.recv() == "at once"


def glued(first: bytes) -> Guest:
    """Play a server whose first frame is in the same packet as its handshake."""

    async def play(stream: SocketStream) -> None:
        class Gluing:
            async def receive(self, size: int) -> bytes:
                return await stream.receive(size)

            async def send(self, data: bytes) -> None:
                await stream.send(data + first)

        async def rest(_stream: SocketStream) -> None:
            await stream.receive()

        await upgraded(rest)(Gluing())  # type: ignore[arg-type]  # as much of a stream as it needs

    return play


async def test_pings_of_the_guest_are_answered() -> None:
    answers: list[bytes] = []

    async def play(stream: SocketStream) -> None:
        await stream.send(frame(Opcode.PING, b"hello"))
        answers.append(await stream.receive())
        await stream.send(frame(Opcode.TEXT, b"done"))

    async with serve_guest(upgraded(play)) as sandbox, open_socket(sandbox) as ws:
        assert await ws.recv() == "done"

    assert answers[0][0] == 0x80 | Opcode.PONG


async def test_pings_of_the_client_are_answered() -> None:
    async with serve_library(echo) as sandbox, open_socket(sandbox) as ws:
        await (await ws.ping())


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4321, "own")])
async def test_the_guests_close_code_reaches_the_client(code: int, reason: str) -> None:
    async def close(ws: ServerConnection) -> None:
        await ws.close(code, reason)

    async with serve_library(close) as sandbox, open_socket(sandbox) as ws:
        await ws.wait_closed()

    assert (ws.close_code, ws.close_reason) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4321, "own")])
async def test_the_clients_close_code_reaches_the_guest(code: int, reason: str) -> None:
    seen: list[tuple[int | None, str | None]] = []
    closed = anyio.Event()

    async def note(ws: ServerConnection) -> None:
        await ws.wait_closed()
        seen.append((ws.close_code, ws.close_reason))
        closed.set()

    async with serve_library(note) as sandbox, open_socket(sandbox) as ws:
        await ws.close(code, reason)
        await closed.wait()

    assert seen == [(code, reason)]


async def test_a_client_that_is_lost_takes_the_guests_connection_with_it() -> None:
    closed = anyio.Event()

    async def note(ws: ServerConnection) -> None:
        await ws.wait_closed()
        closed.set()

    async with serve_library(note) as sandbox, open_socket(sandbox) as ws:
        ws.transport.abort()
        await closed.wait()


@pytest.mark.parametrize(
    "frames",
    [
        (),
        (b"\xff\xff\xff\xff",),
        (frame(Opcode.CONT, b"of nothing"),),
        (frame(Opcode.TEXT, b"\xff\xfe"),),
        (frame(Opcode.TEXT, b"a", fin=False), frame(Opcode.TEXT, b"b")),
        (frame(Opcode.PING, b"x")[:-1],),
        (b"\x81\xff" + b"\xff" * 8,),
        (Frame(Opcode.TEXT, b"masked").serialize(mask=True),),
        (b"\x88\x02\x03\xed",),
    ],
)
async def test_a_guest_that_breaks_off_or_the_rules_is_a_bad_gateway(
    frames: tuple[bytes, ...],
) -> None:
    async with serve_guest(saying(*frames)) as sandbox, open_socket(sandbox) as ws:
        with pytest.raises(ConnectionClosed):
            await ws.recv()

    assert ws.close_code == 1014


@pytest.mark.parametrize(
    "frames",
    [
        (frame(Opcode.BINARY, b"x" * 100_001),),
        (frame(Opcode.BINARY, b"x" * 60_000, fin=False), frame(Opcode.CONT, b"x" * 60_000)),
        (b"\x82\x7f" + (2**62).to_bytes(8, "big"),),
    ],
)
async def test_a_message_that_is_too_long_is_not_passed_on(frames: tuple[bytes, ...]) -> None:
    async with serve_guest(saying(*frames)) as sandbox, open_socket(sandbox) as ws:
        with pytest.raises(ConnectionClosed):
            await ws.recv()

    assert (ws.close_code, ws.close_reason) == (1009, "a message has more than 100000 bytes")


async def test_a_guest_that_does_not_read_is_a_bad_gateway() -> None:
    async def play(_stream: SocketStream) -> None:
        await anyio.sleep(PATIENCE)

    async with serve_guest(upgraded(play)) as sandbox, open_socket(sandbox, compression=None) as ws:
        with suppress(ConnectionClosed):
            for _ in range(1000):
                await ws.send(b"x" * 65536)

    assert ws.close_code == 1014


async def test_a_slow_client_slows_the_guest_down() -> None:
    sent = 0

    async def flood(ws: ServerConnection) -> None:
        nonlocal sent
        while True:
            await ws.send(b"x" * 65536)
            sent += 65536

    async with (
        serve_library(flood) as sandbox,
        open_socket(sandbox, compression=None, close_timeout=0.1),
    ):
        before = -1
        while sent > before:  # until nobody takes any more
            before = sent
            await anyio.sleep(0.3)

        assert 0 < sent < 64 * 1024 * 1024


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nX-Why: x\r\n\r\nnope", 404, b"nope"),
        (b"HTTP/1.0 403 Forbidden\r\n\r\nno", 403, b"no"),
        (b"HTTP/1.1 401 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", 401, b"no"),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n" + b"x" * 100_000, 403, b""),
        (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nx", 403, b""),
        (b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", 502, b""),
    ],
)
async def test_a_refusal_of_the_guest_is_the_clients_answer(
    answer: bytes, status: int, body: bytes
) -> None:
    async with serve_guest(answering(answer)) as sandbox:
        with pytest.raises(InvalidStatus) as caught:
            async with open_socket(sandbox):
                pass

    response = caught.value.response
    assert (response.status_code, bytes(response.body)) == (status, body)
    assert response.headers["Content-Security-Policy"] == "sandbox allow-scripts"


@pytest.mark.parametrize(
    ("play", "status"),
    [
        (answering(b""), 502),
        (answering(b"garbage\r\n\r\n"), 502),
        (
            answering(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n"
                b"Upgrade: websocket\r\nSec-WebSocket-Accept: wrong\r\n\r\n"
            ),
            502,
        ),
        (upgraded(answering(b""), "Sec-WebSocket-Protocol: unasked\r\n"), 502),
        (upgraded(answering(b""), "Sec-WebSocket-Extensions: permessage-deflate\r\n"), 502),
        (lambda _stream: anyio.sleep(PATIENCE), 504),
    ],
)
async def test_a_handshake_that_fails_is_an_error_of_the_gateway(play: Guest, status: int) -> None:
    async with serve_guest(play) as sandbox:
        with pytest.raises(InvalidStatus) as caught:
            async with open_socket(sandbox):
                pass

    assert caught.value.response.status_code == status


async def test_where_nothing_listens_the_handshake_answers_502() -> None:
    with pytest.raises(InvalidStatus) as caught:
        async with open_socket(FakeSandbox()):
            pass

    assert caught.value.response.status_code == 502
