"""E2B's control plane: the real service over HTTP, with real sandboxes."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from headrace.engine.engine import Engine
from headrace.model.specs import MIB
from tests.integration.ports.test_sandboxes import serving
from tests.support.serving import InProcessServer, open_server

PATIENCE = 60.0
V2 = "/v2/sandboxes"
BASE = {"templateID": "code-interpreter"}


@pytest.fixture
async def server(engine: Engine, tmp_path: Path) -> AsyncIterator[InProcessServer]:
    """The service around the engine of the session."""
    async with open_server(tmp_path, engine=engine) as server:
        yield server


@pytest.fixture
async def client(server: InProcessServer) -> AsyncIterator[httpx.AsyncClient]:
    """A client with a key as the SDKs send it; what it made is ended after the test."""
    headers = {"x-api-key": f"e2b_{server.key}"}
    async with httpx.AsyncClient(
        base_url=server.url, headers=headers, timeout=PATIENCE, trust_env=False
    ) as client:
        try:
            yield client
        finally:
            for each in (await client.get(V2)).json():
                await client.delete(f"/sandboxes/{each['sandboxID']}")


async def create(client: httpx.AsyncClient, **fields: Any) -> Any:
    answer = await client.post(V2, json={**BASE, **fields})
    assert answer.status_code == 201, answer.text
    return answer.json()


async def execute(client: httpx.AsyncClient, made: Any, code: str) -> str:
    """Run code as the SDKs do and give what it wrote."""
    headers = {
        "e2b-sandbox-id": made["sandboxID"],
        "e2b-sandbox-port": "49999",
        "e2b-traffic-access-token": made["trafficAccessToken"],
    }
    answer = await client.post("/execute", json={"code": code}, headers=headers)
    assert answer.status_code == 200, answer.text
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert not [each for each in events if each["type"] == "error"], events
    return "".join(each["text"] for each in events if each["type"] == "stdout")


async def health(client: httpx.AsyncClient, made: Any) -> int:
    headers = {"e2b-sandbox-id": made["sandboxID"], "e2b-sandbox-port": "49983"}
    return (await client.get("/health", headers=headers)).status_code


async def detail_of(client: httpx.AsyncClient, made: Any) -> Any:
    answer = await client.get(f"/sandboxes/{made['sandboxID']}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_sandbox_lives_is_paused_woken_and_ended(client: httpx.AsyncClient) -> None:
    made = await create(client, envVars={"GREETING": "hello"}, metadata={"job": "7"})
    path = f"/sandboxes/{made['sandboxID']}"
    assert await execute(client, made, "import os; kept = os.environ['GREETING']") == ""

    assert (await client.post(f"{path}/pause", json={})).status_code == 204
    assert (await client.post(f"{path}/pause", json={})).status_code == 409
    assert await health(client, made) == 502
    assert (await detail_of(client, made))["state"] == "paused"
    woken = await client.post(f"/v2{path}/connect", json={"timeout": 100})
    assert woken.status_code == 201
    assert woken.json() == made
    assert await health(client, made) == 204
    assert await execute(client, made, "print(kept)") == "hello\n"

    assert (await client.delete(path)).status_code == 204
    assert (await client.delete(path)).status_code == 404
    assert await health(client, made) == 502


async def test_at_its_end_a_sandbox_is_paused_and_traffic_wakes_it(
    client: httpx.AsyncClient,
) -> None:
    made = await create(client, timeout=300, autoPause=True, autoResume={"enabled": True})
    path = f"/sandboxes/{made['sandboxID']}"
    await execute(client, made, "kept = 7")

    assert (await client.post(f"{path}/timeout", json={"timeout": 0})).status_code == 204
    assert (await detail_of(client, made))["state"] == "paused"
    outputs: list[str] = []

    async def ask() -> None:
        outputs.append(await execute(client, made, "print(kept)"))

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(ask)

    assert outputs == ["7\n"] * 3
    assert (await detail_of(client, made))["state"] == "running"
    logs = (await client.get(f"/v2{path}/logs")).json()["logs"]
    assert [each["message"] for each in logs].count("sandbox resumed") == 1


async def test_a_deadline_ends_a_sandbox(client: httpx.AsyncClient) -> None:
    made = await create(client, timeout=1)

    with anyio.fail_after(PATIENCE):
        while await health(client, made) != 502:  # noqa: ASYNC110 - nothing else tells
            await anyio.sleep(0.1)
    assert (await client.get(f"/sandboxes/{made['sandboxID']}")).status_code == 404


async def test_requests_with_the_same_key_make_one_sandbox(client: httpx.AsyncClient) -> None:
    found: list[str] = []

    async def ask() -> None:
        answer = await client.post(V2, json=BASE, headers={"idempotency-key": "one"})
        assert answer.status_code == 201
        found.append(answer.json()["sandboxID"])

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)

    assert (len(found), len({*found})) == (5, 1)
    assert [each["sandboxID"] for each in (await client.get(V2)).json()] == found[:1]


async def test_a_body_may_come_in_chunks(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for byte in json.dumps(BASE).encode():
            yield bytes([byte])

    answer = await client.post(V2, content=chunks())

    assert answer.status_code == 201


async def test_what_a_sandbox_uses_is_measured(
    server: InProcessServer, client: httpx.AsyncClient
) -> None:
    made = await create(client)
    stats = await server.engine.find(made["sandboxID"]).stats()
    path = f"/sandboxes/{made['sandboxID']}/metrics"
    (before,) = (await client.get(path)).json()
    write = f"kept = bytearray(b'x') * {64 * MIB}; open('f', 'wb').write(b'x' * {16 * MIB})"
    await execute(client, made, write)

    with anyio.fail_after(PATIENCE):
        while len((await client.get(path)).json()) < 2:  # noqa: ASYNC110 - nothing else tells
            await anyio.sleep(0.2)

    found = (await client.get(path)).json()
    after = found[1]
    assert found[0] == before
    assert after["diskUsed"] - before["diskUsed"] == pytest.approx(16 * MIB, rel=0.1)
    assert after["memUsed"] - before["memUsed"] > 48 * MIB
    # Without a cgroup nobody counts the time of processors.
    assert (after["cpuUsedPct"] > 0) == (stats.cpu_seconds is not None)
    assert after["cpuUsedPct"] <= 100
    assert (after["memTotal"], after["diskTotal"]) == (1024 * MIB, 512 * MIB)
    several = (await client.get(f"/sandboxes/metrics?sandbox_ids={made['sandboxID']}")).json()
    assert several["sandboxes"][made["sandboxID"]]["timestampUnix"] >= after["timestampUnix"]


async def test_pages_and_filters(client: httpx.AsyncClient) -> None:
    made = [(await create(client, metadata={"n": f"{n} %"}))["sandboxID"] for n in range(3)]

    first = await client.get(V2, params={"limit": 2, "order": "asc"})
    token = first.headers["x-next-token"]
    second = await client.get(V2, params={"limit": 2, "order": "asc", "nextToken": token})
    found = [each["sandboxID"] for answer in (first, second) for each in answer.json()]
    assert found == made
    assert "x-next-token" not in second.headers
    filtered = await client.get(V2, params={"metadata": "n=1%2520%2525"})
    assert [each["sandboxID"] for each in filtered.json()] == [made[1]]


async def test_what_belongs_to_others_is_not_there(
    server: InProcessServer, client: httpx.AsyncClient
) -> None:
    made = await create(client)
    theirs = {"x-api-key": f"e2b_{server.other_key}"}
    path = f"/sandboxes/{made['sandboxID']}"

    assert (await client.get(V2, headers=theirs)).json() == []
    for method in ("GET", "DELETE"):
        answer = await client.request(method, path, headers=theirs)
        assert (answer.status_code, answer.json()["code"]) == (404, 404)
    wrong = await client.get(V2, headers={"x-api-key": "e2b_0000"})
    assert (wrong.status_code, wrong.json()["code"]) == (401, 401)
    assert await health(client, made) == 204


async def test_a_server_inside_is_reached_by_the_host_name_that_was_told(
    server: InProcessServer, client: httpx.AsyncClient
) -> None:
    made = await create(client, network={"allowPublicTraffic": False})
    sandbox = server.engine.find(made["sandboxID"])
    host = f"8080-{made['sandboxID']}.{made['domain']}"
    token = {"e2b-traffic-access-token": made["trafficAccessToken"]}

    async with serving(sandbox):
        closed = await client.get("/headers", headers={"host": host})
        opened = await client.get(
            "/headers", headers={"host": host, "x-access-token": made["envdAccessToken"], **token}
        )

    assert (closed.status_code, closed.json()["code"]) == (403, 403)
    assert opened.status_code == 200
    seen = opened.text
    assert server.key not in seen
    assert made["trafficAccessToken"] not in seen
    assert made["envdAccessToken"] not in seen
