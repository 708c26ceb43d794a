"""Streams over real sockets from real sandboxes: nothing is lost, nothing comes twice."""

import base64
import json
import random
import socket as sockets
from contextlib import aclosing
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest

from tests.support.requests import Connection, ask, connect
from tests.support.serving import InProcessServer

pytestmark = pytest.mark.sandbox

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
PATIENCE = 30.0

MIXED = """
import os, subprocess, sys
for i in range(6):
    print("line", i)
    print("warning", i, file=sys.stderr)
    os.write(1, b"\\xff\\xfe")
    display(i)
    subprocess.run(["echo", "child", str(i)])
print("grüße", end="")
1 / 0
"""


def read_lines(body: bytes) -> list[Any]:
    return [json.loads(line) for line in body.splitlines()]


def text_of(events: list[Any], stream: str = "stdout") -> bytes:
    """Give the exact bytes of a stream."""
    return b"".join(
        base64.b64decode(event["base64"]) if "base64" in event else event["text"].encode()
        for event in events
        if event["type"] == stream
    )


def assert_complete(events: list[Any]) -> None:
    """Assert that there is every number once, and the end."""
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "finished"


async def run(server: InProcessServer, sandbox_id: str, code: str) -> list[Any]:
    """Run code to its end; gives its events."""
    path = f"/v1/sandboxes/{sandbox_id}/executions"
    status, body = await ask(server, "POST", path, {"code": code}, accept=NDJSON)
    assert status == 200
    return read_lines(body)


async def test_every_event_is_a_place_to_go_on_from(
    server: InProcessServer, sandbox_id: str
) -> None:
    events = await run(server, sandbox_id, MIXED)
    assert_complete(events)
    assert {event["type"] for event in events} == {
        "started",
        "stdout",
        "stderr",
        "result",
        "error",
        "finished",
    }
    expected = b"".join(b"line %d\n\xff\xfechild %d\n" % (i, i) for i in range(6))
    assert text_of(events) == expected + "grüße".encode()

    path = f"/v1/executions/{events[0]['id']}/events"
    for after in range(len(events)):
        _, body = await ask(server, "GET", f"{path}?after={after}", accept=NDJSON)
        assert read_lines(body) == events[after:]
        _, body = await ask(server, "GET", path, accept=SSE, last_event_id=str(after))
        data = [block.partition(b"\ndata: ")[2] for block in body.split(b"\n\n")[:-1]]
        assert [json.loads(each) for each in data] == events[after:]


async def test_ten_readers_at_different_places_see_the_same(
    server: InProcessServer, sandbox_id: str
) -> None:
    code = "import time\nfor i in range(200):\n    print('line', i)\n    time.sleep(0.002)"
    path = f"/v1/sandboxes/{sandbox_id}/executions"
    _, body = await ask(server, "POST", path, {"code": code, "background": True})
    log = f"/v1/executions/{json.loads(body)['id']}/events"
    found: dict[int, list[Any]] = {}

    async def read(number: int) -> None:
        # Each begins a little later, with what it would know by then.
        await anyio.sleep(0.03 * number)
        _, body = await ask(server, "GET", f"{log}?after={min(number, 1)}", accept=NDJSON)
        found[number] = read_lines(body)

    async with anyio.create_task_group() as tasks:
        for number in range(10):
            tasks.start_soon(read, number)

    assert_complete(found[0])
    assert text_of(found[0]) == b"".join(b"line %d\n" % i for i in range(200))
    assert all(found[number] == found[0][1:] for number in range(1, 10))


async def test_two_hundred_cuts_lose_nothing_and_repeat_nothing(
    server: InProcessServer, sandbox_id: str
) -> None:
    chance = random.Random(20)
    code = "import time\nfor i in range(4000):\n    print('line', i, 'x' * (i % 97))\n"
    code += "    if i % 20 == 0: time.sleep(0.001)"
    path = f"/v1/sandboxes/{sandbox_id}/executions"
    _, body = await ask(server, "POST", path, {"code": code, "background": True})
    log = f"/v1/executions/{json.loads(body)['id']}/events"
    events: list[Any] = []
    cuts = 0

    async def read_a_piece(maximum: int | None) -> None:
        """Read so many bytes, wherever that ends, and hang up."""
        async with await connect(server) as stream:
            connection = Connection(stream)
            query = f"{log}?after={len(events)}"
            assert await connection.ask(server, "GET", query, accept=NDJSON) == 200
            rest = b""
            async with aclosing(connection.chunks()) as chunks:
                async for chunk in chunks:
                    piece = chunk if maximum is None else chunk[:maximum]
                    *lines, rest = (rest + piece).split(b"\n")
                    events.extend(json.loads(line) for line in lines)
                    if maximum is not None:
                        maximum -= len(piece)
                        if maximum <= 0:
                            return

    with anyio.fail_after(PATIENCE):
        while cuts < 200:
            await read_a_piece(chance.randrange(1, 2000))
            cuts += 1
        await read_a_piece(None)

    assert_complete(events)
    assert text_of(events) == b"".join(b"line %d %s\n" % (i, b"x" * (i % 97)) for i in range(4000))


async def test_two_hundred_streams_at_once_are_complete_and_correct(
    server: InProcessServer,
) -> None:
    made: list[str] = []
    found: dict[int, list[Any]] = {}

    async def prepare() -> None:
        _, body = await ask(server, "POST", "/v1/sandboxes", {})
        made.append(json.loads(body)["id"])

    async def stream(number: int) -> None:
        code = f"import time\nfor i in range(20):\n    print({number}, i)\n    time.sleep(0.005)"
        found[number] = await run(server, made[number % len(made)], code)

    try:
        async with anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(prepare)
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(stream, number)
    finally:
        for sandbox_id in made:
            await ask(server, "DELETE", f"/v1/sandboxes/{sandbox_id}")

    for number in range(200):
        assert_complete(found[number])
        assert found[number][-1]["reason"] == "ok"
        assert text_of(found[number]) == b"".join(b"%d %d\n" % (number, i) for i in range(20))


async def test_a_reader_that_does_not_read_delays_nobody_and_costs_no_memory(
    server: InProcessServer, sandbox_id: str
) -> None:
    code = "import os\nfor i in range(1600): os.write(1, b'W' * 65535 + b'\\n')"
    path = f"/v1/sandboxes/{sandbox_id}/executions"
    body = json.dumps({"code": code})
    request = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {server.key}\r\n"
        f"accept: {NDJSON}\r\ncontent-length: {len(body)}\r\n\r\n{body}"
    )
    before = resident()
    with sockets.create_connection(("127.0.0.1", server.port)) as stuck:
        await anyio.to_thread.run_sync(stuck.sendall, request.encode())
        head = (await anyio.to_thread.run_sync(stuck.recv, 600)).decode().lower()
        execution_id = head.partition("headrace-execution-id: ")[2].split("\r\n")[0]

        count, peak, last = 0, 0, b""
        with anyio.fail_after(PATIENCE):
            async with await connect(server) as stream:
                connection = Connection(stream)
                log = f"/v1/executions/{execution_id}/events"
                await connection.ask(server, "GET", log, accept=NDJSON)
                async for chunk in connection.chunks():
                    count += chunk.count(b"W")
                    last = (last + chunk)[-1000:]
                    peak = max(peak, resident())

    assert json.loads(last.splitlines()[-1])["reason"] == "ok"
    assert count == 1600 * 65535
    assert peak - before < 64 * 1024 * 1024


def resident() -> int:
    """Give the memory of this process, in bytes."""
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * 4096


async def test_a_client_that_is_gone_stops_only_what_it_asked(
    server: InProcessServer, sandbox_id: str
) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/executions"
    code = "import time\nprint('go')\ntime.sleep(60)"
    ids = []
    for on_disconnect in ("interrupt", "continue"):
        async with await connect(server) as stream:
            connection = Connection(stream)
            body = {"code": code, "on_disconnect": on_disconnect}
            await connection.ask(server, "POST", path, body, accept=NDJSON)
            ids.append(connection.headers["headrace-execution-id"])
            if on_disconnect == "interrupt":
                while b"go" not in await connection.some(1000):
                    pass
        if on_disconnect == "interrupt":
            _, told = await ask(server, "GET", f"/v1/executions/{ids[0]}/events", accept=NDJSON)
            assert read_lines(told)[-1]["reason"] == "interrupted"

    _, shown = await ask(server, "GET", f"/v1/executions/{ids[1]}")
    assert json.loads(shown)["state"] == "running"
