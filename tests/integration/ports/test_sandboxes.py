"""Real servers in real sandboxes, reached through the proxy."""

import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx
import pytest
from websockets.asyncio.client import connect

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import PortUnreachableError
from headrace.model.specs import ProcessRequest
from tests.support.proxying import PATIENCE, Proxy, open_proxy
from tests.support.running import PATIENCE as START_PATIENCE

MIB = 1024 * 1024

SERVER = """
import hashlib, http.server, json, socket, sys, threading

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    go_on = threading.Event()

    def do_GET(self):
        if self.path == "/headers":
            seen = {name.lower(): value for name, value in self.headers.items()}
            return self.answer(json.dumps(seen).encode())
        if self.path == "/go":
            self.go_on.set()
            return self.answer(b"going")
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        if self.path == "/big":
            self.send_header("Content-Length", str(50 * 1024 * 1024))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        if self.path == "/big":
            for number in range(50):
                self.wfile.write(bytes([number]) * 1024 * 1024)
        elif self.path == "/events":
            self.wfile.write(b"data: first\\n\\n")
            self.go_on.wait(30)
            self.wfile.write(b"data: second\\n\\n")
        elif self.path == "/endless":
            while True:
                self.wfile.write(b"x")
                threading.Event().wait(0.05)

    def do_PUT(self):
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        while left:
            data = self.rfile.read(min(left, 65536))
            digest.update(data)
            left -= len(data)
        self.answer(digest.hexdigest().encode())

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET

Server((sys.argv[1], 8080), Handler).serve_forever()
"""

ECHO = """
import base64, hashlib, socketserver

class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        key = b""
        while (line := self.rfile.readline().strip()):
            name, _, value = line.partition(b":")
            if name.lower() == b"sec-websocket-key":
                key = value.strip()
        proof = hashlib.sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
        self.wfile.write(
            b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n"
            b"Connection: Upgrade\\r\\nSec-WebSocket-Accept: " + base64.b64encode(proof)
            + b"\\r\\n\\r\\n"
        )
        while (head := self.rfile.read(2)):
            length = head[1] & 127  # only short frames, always masked
            mask = self.rfile.read(4)
            data = bytes(b ^ mask[i % 4] for i, b in enumerate(self.rfile.read(length)))
            self.wfile.write(bytes([head[0], length]) + data)

socketserver.ThreadingTCPServer(("127.0.0.1", 8080), Echo).serve_forever()
"""


@asynccontextmanager
async def serving(
    sandbox: Sandbox, program: str = SERVER, address: str = "127.0.0.1"
) -> AsyncIterator[Proxy]:
    """Run a server in a sandbox and open a proxy to it."""
    await sandbox.files.write("/home/user/server.py", program.encode())
    await sandbox.start_process(ProcessRequest(("python3", "/home/user/server.py", address)))
    with anyio.fail_after(START_PATIENCE):
        while not await _listens(sandbox, address):  # noqa: ASYNC110 - it tells nobody
            await anyio.sleep(0.05)
    async with open_proxy(sandbox) as proxy:
        yield proxy


async def _listens(sandbox: Sandbox, address: str) -> bool:
    try:
        await (await sandbox.open_port(8080, address)).aclose()
    except PortUnreachableError:
        return False
    return True


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    """A client that is patient."""
    async with httpx.AsyncClient(timeout=START_PATIENCE, trust_env=False) as client:
        yield client


async def test_fifty_megabytes_come_out_as_they_are(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    expected = hashlib.sha256()
    for number in range(50):
        expected.update(bytes([number]) * MIB)

    digest = hashlib.sha256()
    async with serving(sandbox) as proxy, client.stream("GET", f"{proxy.url}/big") as answer:
        async for piece in answer.aiter_raw():
            digest.update(piece)

    assert digest.hexdigest() == expected.hexdigest()


async def test_fifty_megabytes_go_in_as_they_are(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    body = b"".join(bytes([number]) * MIB for number in range(50))

    async with serving(sandbox) as proxy:
        answer = await client.put(f"{proxy.url}/sum", content=body)

    assert answer.text == hashlib.sha256(body).hexdigest()


async def test_events_arrive_while_the_guest_makes_them(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    async with (
        serving(sandbox) as proxy,
        client.stream("GET", f"{proxy.url}/events") as answer,
    ):
        lines = answer.aiter_lines()
        assert await anext(lines) == "data: first"
        assert (await client.get(f"{proxy.url}/go")).text == "going"
        assert [line async for line in lines if line] == ["data: second"]


async def test_the_guest_takes_its_clients_for_local_ones(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    async with serving(sandbox) as proxy:
        answer = await client.get(f"{proxy.url}/headers", headers={"Authorization": "Bearer x"})
        host = f"127.0.0.1:{proxy.port}"

    seen = json.loads(answer.text)
    assert seen["host"] == "localhost:8080"
    assert seen["x-forwarded-host"] == host
    assert seen["x-forwarded-for"] == "127.0.0.1"
    assert seen["x-forwarded-prefix"] == f"/v1/sandboxes/{sandbox.id}/ports/8080"
    assert "authorization" not in seen


async def test_a_server_that_listens_on_ipv6_only_is_found(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    async with serving(sandbox, address="::1") as proxy:
        assert (await client.get(f"{proxy.url}/headers")).status_code == 200


async def test_messages_of_a_websocket_are_echoed(sandbox: Sandbox) -> None:
    async with serving(sandbox, ECHO) as proxy:
        with anyio.fail_after(PATIENCE):
            async with connect(f"{proxy.ws_url}/", proxy=None) as ws:
                for message in ("text \N{SNOWMAN}", b"\0\xff", ""):
                    await ws.send(message)
                    assert await ws.recv() == message


async def test_where_nothing_listens_the_answer_is_502(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    async with open_proxy(sandbox) as proxy:
        answer = await client.get(proxy.url)

    assert (answer.status_code, answer.json()["code"]) == (502, "port_unreachable")


async def test_a_paused_sandbox_is_not_reached(sandbox: Sandbox, client: httpx.AsyncClient) -> None:
    await sandbox.await_ready()
    await sandbox.pause()
    async with open_proxy(sandbox) as proxy:
        answer = await client.get(proxy.url)

    assert answer.json()["code"] == "wrong_state"


async def test_an_answer_that_ends_with_its_sandbox_does_not_look_complete(
    sandbox: Sandbox, client: httpx.AsyncClient
) -> None:
    async with (
        serving(sandbox) as proxy,
        client.stream("GET", f"{proxy.url}/endless") as answer,
    ):
        pieces = answer.aiter_raw()
        await anext(pieces)
        await sandbox.kill()
        with pytest.raises(httpx.RemoteProtocolError):
            [piece async for piece in pieces]
