"""Files, processes and the WebSocket of real sandboxes, over real sockets."""

import json
import os
from typing import Any

import anyio
import pytest
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as open_websocket

from tests.support.requests import Connection, ask, connect
from tests.support.serving import InProcessServer

pytestmark = pytest.mark.sandbox

NDJSON = "application/x-ndjson"
JSON = "application/json"
PATIENCE = 30.0


async def wait_for(socket: ClientConnection, **fields: object) -> Any:
    """Read messages until one has these fields; gives it."""
    with anyio.fail_after(PATIENCE):
        while True:
            message = json.loads(await socket.recv())
            if fields.items() <= message.items():
                return message


async def test_a_large_file_goes_in_and_out(server: InProcessServer, sandbox_id: str) -> None:
    data = os.urandom(8 * 1024 * 1024)
    path = f"/v1/sandboxes/{sandbox_id}/files/content?path=deep/er/data.bin"
    with anyio.fail_after(PATIENCE):
        async with await connect(server) as stream:
            connection = Connection(stream)
            assert await connection.ask(server, "PUT", path, content=data) == 200
            assert json.loads(await connection.body())["size"] == len(data)
            assert await connection.ask(server, "GET", path) == 200
            assert await connection.body() == data
            assert await connection.ask(server, "GET", path, range="bytes=1000000-1000009") == 206
            assert connection.headers["content-range"] == f"bytes 1000000-1000009/{len(data)}"
            assert await connection.body() == data[1_000_000:1_000_010]
            assert await connection.ask(server, "GET", path, range=f"bytes={len(data)}-") == 416


async def test_files_that_the_kernel_makes_up_are_read(
    server: InProcessServer, sandbox_id: str
) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/files/content?path=/proc/self/status"

    status, body = await ask(server, "GET", path)

    assert status == 200
    assert body.startswith(b"Name:")


async def test_an_upload_that_is_cut_changes_nothing(
    server: InProcessServer, sandbox_id: str
) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/files/content?path=a.txt"
    await ask(server, "PUT", path, content=b"before")
    async with await connect(server) as stream:
        head = (
            f"PUT {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n"
            f"authorization: Bearer {server.key}\r\n\r\n"
        )
        await stream.send(head.encode() + b"x" * 300_000)

    files = f"/v1/sandboxes/{sandbox_id}/files?path=."
    with anyio.fail_after(PATIENCE):
        while True:
            names = [
                each["name"] for each in json.loads((await ask(server, "GET", files))[1])["entries"]
            ]
            if sorted(name for name in names if "a.txt" in name) == ["a.txt"]:
                break
            await anyio.sleep(0.05)
    assert await ask(server, "GET", path) == (200, b"before")


async def test_a_command_runs_in_a_shell(server: InProcessServer, sandbox_id: str) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/processes"
    body = {"command": "echo $A | tr a-z A-Z; pwd >&2; exit 3", "env": {"A": "abc"}, "cwd": "/tmp"}

    status, answer = await ask(server, "POST", path, body, accept=JSON)

    outcome = json.loads(answer)
    assert status == 200
    assert (outcome["stdout"], outcome["stderr"]) == ("ABC\n", "/tmp\n")
    assert (outcome["reason"], outcome["exit_code"]) == ("error", 3)


async def test_a_command_that_does_not_exist_is_refused(
    server: InProcessServer, sandbox_id: str
) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/processes"

    status, answer = await ask(server, "POST", path, {"argv": ["/no/such"]}, accept=JSON)

    assert (status, json.loads(answer)["error"]["code"]) == (404, "path_not_found")


async def test_a_terminal_is_used_over_the_websocket(
    server: InProcessServer, sandbox_id: str
) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/sandboxes/{sandbox_id}/stream"
    protocols = ["headrace", f"headrace.key.{server.key}"]
    async with open_websocket(url, subprotocols=protocols) as socket:  # type: ignore[arg-type]  # they are text
        assert socket.subprotocol == "headrace"
        start = {"type": "start_process", "argv": ["/bin/bash", "--norc"], "pty": {"cols": 70}}
        await socket.send(json.dumps({**start, "request": "shell"}))
        log = (await wait_for(socket, type="accepted", request="shell"))["log"]
        await socket.send(json.dumps({"type": "resize", "id": log, "cols": 99, "rows": 33}))
        for line in ("stty size > size", "exit"):
            await socket.send(json.dumps({"type": "stdin", "id": log, "text": f"{line}\n"}))
        exited = await wait_for(socket, type="exited", request="shell")
        await socket.send(json.dumps({"type": "execute", "code": "print(open('size').read())"}))
        printed = await wait_for(socket, type="stdout")

    assert exited["reason"] == "ok"
    assert printed["text"] == "33 99\n\n"


async def test_a_connection_that_breaks_off_stops_what_it_asked(
    server: InProcessServer, sandbox_id: str
) -> None:
    url = f"ws://127.0.0.1:{server.port}/v1/sandboxes/{sandbox_id}/stream"
    socket = await open_websocket(url, additional_headers=server.headers)
    code = "import time\nprint('go')\ntime.sleep(60)"
    asked = {"type": "execute", "code": code, "on_disconnect": "interrupt"}
    await socket.send(json.dumps(asked))
    log = (await wait_for(socket, type="stdout"))["log"]
    socket.transport.abort()

    _, body = await ask(server, "GET", f"/v1/executions/{log}/events", accept=NDJSON)

    assert json.loads(body.splitlines()[-1])["reason"] == "interrupted"
