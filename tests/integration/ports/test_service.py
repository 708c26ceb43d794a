"""Ports through the whole service: by path with a key, by host name without one."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from tests.integration.ports.test_sandboxes import ECHO, serving
from tests.support.proxying import PATIENCE
from tests.support.serving import InProcessServer, open_server


@pytest.fixture
async def server(engine: Engine, tmp_path: Path) -> AsyncIterator[InProcessServer]:
    """The whole service on the engine of the session."""
    async with open_server(tmp_path, engine=engine) as server:
        yield server


@pytest.fixture
async def client(server: InProcessServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client of that service, without a key."""
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE, trust_env=False) as client:
        yield client


async def test_by_path_a_server_is_reached_with_a_key_that_it_does_not_see(
    server: InProcessServer, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    path = f"/v1/sandboxes/{sandbox.id}/ports/8080/headers"
    async with serving(sandbox):
        answer = await client.get(path, headers=server.headers)
        stranger = await client.get(path, headers={"authorization": f"Bearer {server.other_key}"})
        nobody = await client.get(path)

    assert answer.status_code == 200
    assert answer.headers["content-security-policy"] == "sandbox allow-scripts"
    assert json.loads(answer.text)["host"] == "localhost:8080"
    assert json.loads(answer.text)["x-forwarded-host"] == f"127.0.0.1:{server.port}"
    assert server.key not in answer.text
    assert (stranger.status_code, nobody.status_code) == (404, 401)


async def test_by_host_name_a_server_is_reached_without_a_key(
    server: InProcessServer, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    host = f"8080-{sandbox.id}.localhost:{server.port}"
    async with serving(sandbox):
        answer = await client.get("/headers", headers={"host": host, **server.headers})

    seen = json.loads(answer.text)
    assert seen["host"] == "localhost:8080"
    assert seen["x-forwarded-host"] == host
    assert "x-forwarded-prefix" not in seen
    assert server.key not in answer.text
    assert "content-security-policy" not in answer.headers


async def test_where_nothing_listens_the_service_says_so_in_its_own_words(
    server: InProcessServer, client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    path = f"/v1/sandboxes/{sandbox.id}/ports/9"
    answer = await client.get(path, headers=server.headers)
    with pytest.raises(InvalidStatus) as caught:
        async with connect(
            f"ws://127.0.0.1:{server.port}{path}", additional_headers=server.headers, proxy=None
        ):
            pass

    assert (answer.status_code, answer.json()["error"]["code"]) == (502, "port_unreachable")
    assert caught.value.response.status_code == 502


async def test_a_websocket_is_reached_both_ways(server: InProcessServer, sandbox: Sandbox) -> None:
    base = f"ws://127.0.0.1:{server.port}"
    host = f"8080-{sandbox.id}.localhost:{server.port}"
    async with serving(sandbox, ECHO):
        with anyio.fail_after(PATIENCE):
            async with connect(
                f"{base}/v1/sandboxes/{sandbox.id}/ports/8080/",
                additional_headers=server.headers,
                proxy=None,
            ) as by_path:
                await by_path.send("by path")
                assert await by_path.recv() == "by path"
            async with connect(
                f"ws://{host}/", host="127.0.0.1", port=server.port, proxy=None
            ) as by_name:
                await by_name.send("by name")
                assert await by_name.recv() == "by name"
