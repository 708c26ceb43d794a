"""HTTP through the proxy, against servers that the test plays."""

import hashlib
from collections.abc import AsyncIterator

import anyio
import anyio.abc
import httpx
import pytest
from anyio.abc import SocketStream

from headrace.adapters.ports.settings import PortSettings
from tests.support.proxying import (
    KEY,
    PATIENCE,
    FakeSandbox,
    Proxy,
    answering,
    open_proxy,
    read_head,
    serve_guest,
)

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client without limits of its own that matter."""
    async with httpx.AsyncClient(timeout=PATIENCE, trust_env=False) as client:
        yield client


async def connect(proxy: Proxy) -> SocketStream:
    """Connect to the proxy with a bare socket."""
    return await anyio.connect_tcp("127.0.0.1", proxy.port)


async def read_all(stream: SocketStream) -> bytes:
    """Give everything until the proxy hangs up."""
    data = b""
    with anyio.fail_after(PATIENCE):
        try:
            while True:
                data += await stream.receive()
        except anyio.EndOfStream:
            return data


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"])
async def test_every_method_goes_through_with_path_and_query_as_they_are(
    client: httpx.AsyncClient, method: str
) -> None:
    seen: list[bytes] = []

    async def play(stream: SocketStream) -> None:
        seen.append(await read_head(stream))
        await stream.send(OK)

    async with serve_guest(play) as sandbox, open_proxy(sandbox) as proxy:
        answer = await client.request(method, f"{proxy.url}/a%2Fb%20c/?q=1&r=%26")

    assert (answer.status_code, answer.text) == (200, "ok")
    assert seen[0].startswith(f"{method} /a%2Fb%20c/?q=1&r=%26 HTTP/1.1\r\n".encode())


async def test_a_request_without_a_body_carries_no_framing(client: httpx.AsyncClient) -> None:
    seen: list[bytes] = []

    async def play(stream: SocketStream) -> None:
        seen.append(await read_head(stream))
        await stream.send(OK)

    async with serve_guest(play) as sandbox, open_proxy(sandbox) as proxy:
        await client.get(proxy.url)

    assert b"content-length" not in seen[0].lower()
    assert b"transfer-encoding" not in seen[0].lower()


async def test_names_of_headers_are_written_as_people_write_them(
    client: httpx.AsyncClient,
) -> None:
    seen: list[bytes] = []

    async def play(stream: SocketStream) -> None:
        seen.append(await read_head(stream))
        await stream.send(OK)

    async with serve_guest(play) as sandbox, open_proxy(sandbox) as proxy:
        await client.get(proxy.url, headers={"x-of-mine": "1"})

    names = {line.partition(b":")[0] for line in seen[0].split(b"\r\n")}
    assert {b"Host", b"X-Of-Mine", b"X-Forwarded-For", b"Connection"} <= names


async def test_a_body_of_unknown_length_goes_through_in_chunks(client: httpx.AsyncClient) -> None:
    seen: list[bytes] = []

    async def play(stream: SocketStream) -> None:
        head = await read_head(stream)
        body = b""
        while not body.endswith(b"0\r\n\r\n"):
            body += await stream.receive()
        seen.extend([head, body])
        await stream.send(OK)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"three"

    async with serve_guest(play) as sandbox, open_proxy(sandbox) as proxy:
        answer = await client.post(proxy.url, content=pieces())

    assert answer.text == "ok"
    assert b"transfer-encoding: chunked" in seen[0].lower()
    assert b"one" in seen[1]
    assert b"three" in seen[1]


async def test_the_pieces_of_a_body_arrive_while_it_is_being_sent() -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        first = await stream.receive()
        await stream.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        await stream.send(b"%x\r\n%s\r\n" % (len(first), first))
        second = await stream.receive()
        await stream.send(b"%x\r\n%s\r\n0\r\n\r\n" % (len(second), second))

    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox) as proxy,
        await connect(proxy) as stream,
    ):
        head = f"PUT {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
        await stream.send(head.encode() + b"FIRST")
        received = b""
        with anyio.fail_after(PATIENCE):
            while b"FIRST" not in received:
                received += await stream.receive()
            await stream.send(b"AFTER")
            while b"AFTER" not in received:
                received += await stream.receive()


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\n",
    ],
)
async def test_each_framing_of_an_answer_arrives_complete(
    client: httpx.AsyncClient, head: bytes
) -> None:
    rest = b"3\r\ndef\r\n0\r\nLate: 1\r\n\r\n" if b"chunked" in head else b"abcdef"

    async with serve_guest(answering(head + rest)) as sandbox, open_proxy(sandbox) as proxy:
        answer = await client.get(proxy.url)

    assert answer.content == b"abcdef"
    assert "late" not in answer.headers


@pytest.mark.parametrize(
    ("method", "head"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n"),
        ("GET", b'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nETag: "x"\r\n\r\n'),
    ],
)
async def test_an_answer_that_has_no_body_gets_none(method: str, head: bytes) -> None:
    async with (
        serve_guest(answering(head)) as sandbox,
        open_proxy(sandbox) as proxy,
        await connect(proxy) as stream,
    ):
        request = f"{method} {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        await stream.send(request.encode())
        answer = await read_all(stream)

    assert answer.split(b" ")[1] == head.split(b" ")[1]
    assert answer.endswith(b"\r\n\r\n")
    assert answer.count(b"\r\n\r\n") == 1
    assert (b"content-length: 99" in answer) == (b"99" in head)


async def test_preliminary_answers_are_left_out(client: httpx.AsyncClient) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </x>; rel=preload\r\n\r\n" * 3

    async with serve_guest(answering(early + OK)) as sandbox, open_proxy(sandbox) as proxy:
        answer = await client.get(proxy.url)

    assert (answer.status_code, answer.text) == (200, "ok")


async def test_a_guest_that_says_continue_gets_the_body() -> None:
    async def play(stream: SocketStream) -> None:
        assert b"expect: 100-continue" in (await read_head(stream)).lower()
        await stream.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert await stream.receive() == b"body"
        await stream.send(OK)

    settings = PortSettings(continue_timeout=600)
    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox, settings=settings) as proxy,
        await connect(proxy) as stream,
    ):
        await stream.send(expecting(proxy))
        with anyio.fail_after(PATIENCE):
            assert (await stream.receive()).startswith(b"HTTP/1.1 100 ")
            await stream.send(b"body")
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")


async def test_a_guest_that_refuses_is_not_sent_the_body() -> None:
    refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
    settings = PortSettings(continue_timeout=600)
    async with (
        serve_guest(answering(refusal)) as sandbox,
        open_proxy(sandbox, settings=settings) as proxy,
        await connect(proxy) as stream,
    ):
        await stream.send(expecting(proxy))
        with anyio.fail_after(PATIENCE):
            assert (await stream.receive()).startswith(b"HTTP/1.1 413 ")


async def test_a_guest_that_does_not_know_of_continue_gets_the_body_after_a_while() -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        assert await stream.receive() == b"body"
        await stream.send(OK)

    settings = PortSettings(continue_timeout=0.01)
    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox, settings=settings) as proxy,
        await connect(proxy) as stream,
    ):
        await stream.send(expecting(proxy))
        with anyio.fail_after(PATIENCE):
            assert (await stream.receive()).startswith(b"HTTP/1.1 100 ")
            await stream.send(b"body")
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")


def expecting(proxy: Proxy) -> bytes:
    """Give the head of a request that waits for a word from the server."""
    return (
        f"PUT {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n"
        "Expect: 100-continue\r\n\r\n"
    ).encode()


async def test_an_answer_ahead_of_the_end_of_the_body_is_passed_on() -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await stream.receive()
        await stream.send(b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!")
        await anyio.sleep(PATIENCE)

    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox) as proxy,
        await connect(proxy) as stream,
    ):
        head = f"PUT {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        await stream.send(head.encode() + b"x")
        received = b""
        with anyio.fail_after(PATIENCE):
            while not received.endswith(b"no!"):
                received += await stream.receive()

    assert received.startswith(b"HTTP/1.1 413 ")


async def test_events_arrive_one_by_one_while_the_guest_makes_them() -> None:
    go_on = anyio.Event()

    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        await stream.send(b"data: first\n\n")
        await go_on.wait()
        await stream.send(b"data: second\n\n")

    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox) as proxy,
        httpx.AsyncClient(trust_env=False) as client,
        client.stream("GET", proxy.url) as answer,
    ):
        with anyio.fail_after(PATIENCE):
            lines = answer.aiter_lines()
            assert await anext(lines) == "data: first"
            go_on.set()
            assert [line async for line in lines if line] == ["data: second"]


async def test_a_long_body_may_take_longer_than_any_deadline(client: httpx.AsyncClient) -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
        for _ in range(4):
            await anyio.sleep(0.3)
            await stream.send(b"x")

    settings = PortSettings(head_timeout=0.15, stall_timeout=0.15)
    async with serve_guest(play) as sandbox, open_proxy(sandbox, settings=settings) as proxy:
        answer = await client.get(proxy.url)

    assert answer.text == "xxxx"


async def test_a_client_may_take_longer_over_its_body_than_any_deadline() -> None:
    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        body = b""
        while len(body) < 4:
            body += await stream.receive()
        await stream.send(OK)

    settings = PortSettings(head_timeout=0.15, stall_timeout=0.15)
    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox, settings=settings) as proxy,
        await connect(proxy) as stream,
    ):
        head = f"PUT {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"
        await stream.send(head.encode())
        for _ in range(4):
            await anyio.sleep(0.3)
            await stream.send(b"x")
        with anyio.fail_after(PATIENCE):
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")


@pytest.mark.parametrize("is_in_body", [True, False])
async def test_a_client_that_leaves_takes_the_guests_connection_with_it(is_in_body: bool) -> None:
    arrived, left = anyio.Event(), anyio.Event()

    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        if is_in_body:
            await stream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
        arrived.set()
        try:
            await stream.receive()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            left.set()

    async with serve_guest(play) as sandbox, open_proxy(sandbox) as proxy:
        with anyio.fail_after(PATIENCE):
            stream = await connect(proxy)
            await stream.send(f"GET {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await arrived.wait()
            await anyio.aclose_forcefully(stream)
            await left.wait()


async def test_a_client_that_leaves_in_mid_body_does_not_look_complete_to_the_guest() -> None:
    ends: list[bytes] = []
    arrived, left = anyio.Event(), anyio.Event()

    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        try:
            while True:
                ends.append(await stream.receive())
                arrived.set()
        except (anyio.EndOfStream, anyio.BrokenResourceError):
            left.set()

    async with serve_guest(play) as sandbox, open_proxy(sandbox) as proxy:
        with anyio.fail_after(PATIENCE):
            stream = await connect(proxy)
            head = f"PUT {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            await stream.send(head.encode() + b"3\r\nabc\r\n")
            await arrived.wait()
            await anyio.aclose_forcefully(stream)
            await left.wait()

    assert b"".join(ends) == b"3\r\nabc\r\n"


async def test_a_slow_client_slows_the_guest_down() -> None:
    sent = 0

    async def play(stream: SocketStream) -> None:
        nonlocal sent
        await read_head(stream)
        await stream.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await stream.send(b"x" * 65536)
            sent += 65536

    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox) as proxy,
        await connect(proxy) as stream,
    ):
        await stream.send(f"GET {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        before = -1
        with anyio.fail_after(PATIENCE):
            while sent > before:  # until nobody takes any more
                before = sent
                await anyio.sleep(0.3)

        assert 0 < sent < 64 * 1024 * 1024


async def test_a_slow_guest_slows_the_client_down() -> None:
    go_on = anyio.Event()
    digest = hashlib.sha256()
    total = 24 * 1024 * 1024

    async def play(stream: SocketStream) -> None:
        await read_head(stream)
        await go_on.wait()
        received = 0
        while received < total:
            data = await stream.receive()
            digest.update(data)
            received += len(data)
        await stream.send(OK)

    async with (
        serve_guest(play) as sandbox,
        open_proxy(sandbox) as proxy,
        await connect(proxy) as stream,
    ):
        head = f"PUT {proxy.prefix}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {total}\r\n\r\n"
        await stream.send(head.encode())
        sent = 0
        with anyio.move_on_after(0.5):
            while sent < total:
                await stream.send(b"x" * 65536)
                sent += 65536
        assert sent < total
        go_on.set()
        with anyio.fail_after(PATIENCE):
            # What was cut off while it was waiting has gone out from the transport's own buffer.
            await stream.send(b"x" * (total - sent - 65536))
            assert (await stream.receive()).startswith(b"HTTP/1.1 200 ")

    assert digest.hexdigest() == hashlib.sha256(b"x" * total).hexdigest()


async def test_a_server_that_listens_on_ipv6_only_is_found(client: httpx.AsyncClient) -> None:
    async with serve_guest(answering(OK)) as sandbox, open_proxy(sandbox) as proxy:
        sandbox.host = "::1"
        answer = await client.get(proxy.url)

    assert answer.text == "ok"
    assert sandbox.asked == [("127.0.0.1", 8080), ("::1", 8080)]


async def test_where_nothing_listens_the_answer_is_502(client: httpx.AsyncClient) -> None:
    async with open_proxy(FakeSandbox()) as proxy:
        answer = await client.get(proxy.url)

    assert answer.status_code == 502
    assert answer.json()["message"] == "no connection to 127.0.0.1:8080"
    assert proxy.facts == [{"port": "8080", "port_error": "port_unreachable"}]


async def test_the_key_never_reaches_the_guest(client: httpx.AsyncClient) -> None:
    seen: list[bytes] = []

    async def play(stream: SocketStream) -> None:
        seen.append(await read_head(stream))
        await stream.send(OK)

    headers = {
        "Authorization": f"Bearer {KEY}",
        "X-API-Key": f"e2b_{KEY}",
        "X-Other": f"a, {KEY}; b",
        "Cookie": f"k={KEY}",
    }
    for is_main_origin in (True, False):
        async with (
            serve_guest(play) as sandbox,
            open_proxy(sandbox, is_main_origin=is_main_origin) as proxy,
        ):
            answer = await client.get(f"{proxy.url}/?a=1&key={KEY}", headers=headers)
            assert answer.text == "ok"

    assert len(seen) == 2
    assert all(b"GET /?a=1 HTTP/1.1" in head for head in seen)
    assert not [head for head in seen if KEY.encode() in head]
