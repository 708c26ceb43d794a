"""Sandboxes over the API."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest

from headrace.adapters.native.sandboxes import make_ports_url
from headrace.model.ids import is_sandbox_id
from tests.support.native import ORIGIN, PATIENCE, Client, NativeService, open_native

ID = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[NativeService]:
    """A service of its own for each test."""
    async with open_native(tmp_path) as service:
        yield service


async def test_a_sandbox_is_created_as_asked(service: NativeService) -> None:
    asked = {
        "template": "code-interpreter",
        "timeout": 60,
        "env": {"A": "1"},
        "metadata": {"job": "7"},
        "limits": {"memory": 128 * 1024 * 1024, "cpus": 2, "output": 4096},
    }

    reply = await service.client.post("/v1/sandboxes", asked)

    assert reply.status == 201
    shape = reply.json()
    assert is_sandbox_id(shape["id"])
    assert reply.headers["location"] == f"{ORIGIN}/v1/sandboxes/{shape['id']}"
    assert shape["ends_at"] - shape["created_at"] == pytest.approx(60, abs=1)
    del shape["ends_at"], shape["created_at"]
    assert shape == {
        "id": shape["id"],
        "state": "running",
        "template": "code-interpreter",
        "metadata": {"job": "7"},
        "limits": {
            "memory": 128 * 1024 * 1024,
            "disk": 512 * 1024 * 1024,
            "inodes": 100_000,
            "processes": 256,
            "open_files": 1024,
            "cpus": 2.0,
            "output": 4096,
        },
        "isolation": {
            "mode": "root",
            "enforced": ["namespaces", "processes", "seccomp"],
            "memory": "cgroup",
        },
        "ports_url": f"http://{{port}}-{shape['id']}.headrace.test:8000/",
    }
    sandbox = service.engine.find(shape["id"])
    assert sandbox.spec.env == {"A": "1"}
    assert sandbox.spec.tenant == "ours"


async def test_the_time_of_a_creation_is_told(client: Client) -> None:
    reply = await client.post("/v1/sandboxes", {})

    names = [part.partition(";dur=")[0] for part in reply.headers["server-timing"].split(", ")]
    assert names == ["queue", "fork", "namespaces", "total"]


async def test_a_sandbox_from_the_pool_says_so(tmp_path: Path) -> None:
    async with open_native(tmp_path, pool_size=1) as service:
        with anyio.fail_after(PATIENCE):
            while not service.engine.count_ready():
                await anyio.lowlevel.checkpoint()
        reply = await service.client.post("/v1/sandboxes", {})

    assert reply.headers["server-timing"].startswith("pool;dur=")


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"template": "no-such"}, 404, "template_not_found"),
        ({"template": ""}, 400, "invalid_request"),
        ({"timeout": 0}, 400, "invalid_request"),
        ({"timeout": 10**9}, 400, "invalid_request"),
        ({"env": {"1A": "x"}}, 400, "invalid_request"),
        ({"env": {"A": "a\0b"}}, 400, "invalid_request"),
        ({"metadata": {"a": 1}}, 400, "invalid_request"),
        ({"metadata": {"a": "x" * 300_000}}, 400, "invalid_request"),
        ({"limits": {"memory": 1}}, 400, "invalid_request"),
        ({"limits": {"memory": 10**15}}, 400, "invalid_request"),
        ({"limits": {"memory": 10**30}}, 400, "invalid_request"),
        ({"limits": {"cpus": 0}}, 400, "invalid_request"),
        ({"colour": "red"}, 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_created_is_refused(
    client: Client, body: object, status: int, code: str
) -> None:
    reply = await client.post("/v1/sandboxes", body)

    assert (reply.status, reply.code) == (status, code)
    assert (await client.get("/v1/sandboxes")).json()["sandboxes"] == []


async def test_too_many_sandboxes_answer_429(tmp_path: Path) -> None:
    async with open_native(tmp_path, max_sandboxes=1) as service:
        await service.client.create()

        reply = await service.client.post("/v1/sandboxes", {})

        assert (reply.status, reply.code) == (429, "quota")


async def test_a_launcher_that_refuses_answers_500(service: NativeService) -> None:
    service.launcher.refusals["create"] = ("failed", "no more ids")

    reply = await service.client.post("/v1/sandboxes", {})

    assert (reply.status, reply.code) == (500, "launch_failed")


async def test_a_service_that_goes_down_answers_503(service: NativeService) -> None:
    await service.engine.drain("maintenance")

    reply = await service.client.post("/v1/sandboxes", {})

    assert (reply.status, reply.code) == (503, "unavailable")
    assert reply.headers["retry-after"] == "1"


async def test_a_sandbox_is_shown_and_ended(client: Client, sandbox_id: str) -> None:
    path = f"/v1/sandboxes/{sandbox_id}"
    shown = await client.get(path)

    ended = await client.request("DELETE", path)

    assert (shown.status, shown.json()["id"]) == (200, sandbox_id)
    assert (ended.status, ended.body) == (204, b"")
    after = await client.get(path)
    assert (after.status, after.code) == (404, "sandbox_not_found")
    assert "the sandbox was killed" in after.json()["error"]["message"]
    assert (await client.request("DELETE", path)).status == 404


async def test_a_sandbox_is_extended(client: Client, sandbox_id: str) -> None:
    before = (await client.get(f"/v1/sandboxes/{sandbox_id}")).json()

    reply = await client.request("PATCH", f"/v1/sandboxes/{sandbox_id}", {"timeout": 7200})

    assert reply.status == 200
    assert reply.json()["ends_at"] - before["ends_at"] == pytest.approx(3600, abs=5)
    missing = await client.request("PATCH", f"/v1/sandboxes/{sandbox_id}", {})
    assert (missing.status, missing.code) == (400, "invalid_request")


async def test_a_sandbox_is_paused_and_resumed(client: Client, sandbox_id: str) -> None:
    path = f"/v1/sandboxes/{sandbox_id}"
    await client.execute(sandbox_id, "out ready")

    assert (await client.post(f"{path}/pause")).json()["state"] == "paused"
    twice = await client.post(f"{path}/pause")
    assert (twice.status, twice.code) == (409, "wrong_state")
    refused = await client.post(f"{path}/executions", {"code": ""})
    assert (refused.status, refused.code) == (409, "wrong_state")
    assert (await client.post(f"{path}/resume")).json()["state"] == "running"
    again = await client.post(f"{path}/resume")
    assert (again.status, again.code) == (409, "wrong_state")


async def test_a_sandbox_is_measured(client: Client, sandbox_id: str) -> None:
    reply = await client.get(f"/v1/sandboxes/{sandbox_id}/metrics")

    shape = reply.json()
    assert shape.pop("timestamp") > 0
    assert shape == {
        "memory": 1,
        "memory_peak": 2,
        "cpu_seconds": 0.5,
        "processes": 3,
        "oom_kills": 0,
    }


async def test_a_launcher_that_does_not_answer_is_a_deadline(tmp_path: Path) -> None:
    async with open_native(tmp_path, verb_timeout=0.1) as service:
        sandbox_id = await service.client.create()
        service.launcher.hanging.add("stats")

        reply = await service.client.get(f"/v1/sandboxes/{sandbox_id}/metrics")

        assert (reply.status, reply.code) == (504, "deadline")
        service.launcher.hanging.clear()


async def test_pages_are_stable_while_sandboxes_come_and_go(client: Client) -> None:
    ids = [await client.create() for _ in range(5)]

    first = (await client.get("/v1/sandboxes?limit=2")).json()
    # The one at which the page ended goes, and a new one comes.
    await client.request("DELETE", f"/v1/sandboxes/{ids[1]}")
    newest = await client.create()
    second = (await client.get(f"/v1/sandboxes?limit=2&after={first['next']}")).json()
    third = (await client.get(f"/v1/sandboxes?limit=2&after={second['next']}")).json()

    pages = [[each["id"] for each in page["sandboxes"]] for page in (first, second, third)]
    assert pages == [ids[:2], ids[2:4], [ids[4], newest]]
    assert third["next"] is None


async def test_sandboxes_are_found_by_metadata_and_state(client: Client) -> None:
    async def create(**metadata: str) -> str:
        made = await client.post("/v1/sandboxes", {"metadata": metadata})
        sandbox_id: str = made.json()["id"]
        return sandbox_id

    async def find(query: str) -> list[str]:
        found = await client.get(f"/v1/sandboxes?{query}")
        return [each["id"] for each in found.json()["sandboxes"]]

    one, two = await create(a="1", b="x=y"), await create(a="1")
    await client.execute(two, "out ready")
    await client.post(f"/v1/sandboxes/{two}/pause")

    assert await find("metadata=a%3D1") == [one, two]
    assert await find("metadata=a%3D1&metadata=b%3Dx%3Dy") == [one]
    assert await find("metadata=a%3D2") == []
    assert await find("state=paused") == [two]
    assert await find("state=running&metadata=a%3D1") == [one]


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "state=dead", "metadata=a", "colour=red"]
)
async def test_a_listing_that_cannot_be_is_refused(client: Client, query: str) -> None:
    reply = await client.get(f"/v1/sandboxes?{query}")

    assert (reply.status, reply.code) == (400, "invalid_request")


async def test_a_page_behind_anything_is_no_failure(client: Client) -> None:
    await client.create()

    reply = await client.get("/v1/sandboxes?after=zzz")

    assert reply.json() == {"sandboxes": [], "next": None}


@pytest.mark.parametrize(
    ("origin", "url"),
    [
        ("http://127.0.0.1:8000", f"http://{{port}}-{ID}.localhost:8000/"),
        ("http://[::1]:8000", f"http://{{port}}-{ID}.localhost:8000/"),
        ("http://localhost", f"http://{{port}}-{ID}.localhost/"),
        ("https://code.example.com", f"https://{{port}}-{ID}.code.example.com/"),
        ("http://10.0.0.7:8000", f"http://10.0.0.7:8000/v1/sandboxes/{ID}/ports/{{port}}/"),
        ("http://[fd00::1]", f"http://[fd00::1]/v1/sandboxes/{ID}/ports/{{port}}/"),
    ],
)
def test_the_url_of_ports_is_a_host_name_where_there_can_be_one(origin: str, url: str) -> None:
    assert make_ports_url(origin, ID) == url
