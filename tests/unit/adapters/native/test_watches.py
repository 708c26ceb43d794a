"""Watches over the API."""

import anyio
import pytest

from tests.support.native import Client

NDJSON = "application/x-ndjson"


async def test_a_watch_is_started_followed_and_ended(client: Client, sandbox_id: str) -> None:
    made = await client.post(f"/v1/sandboxes/{sandbox_id}/watches", {"path": "src"})

    assert made.status == 201
    watch = made.json()
    assert watch == {"id": watch["id"], "path": "/home/user/src"}
    path = f"/v1/watches/{watch['id']}"
    async with anyio.create_task_group() as tasks:
        reader = client.begin(tasks, "GET", f"{path}/events", accept=NDJSON)
        await reader.wait_for(b"changes_dropped")
        assert (await client.request("DELETE", path)).status == 204

    events = reader.reply().lines()
    assert [(event["seq"], event["type"]) for event in events] == [
        (1, "started"),
        (2, "changed"),
        (3, "changes_dropped"),
        (4, "ended"),
    ]
    assert (events[0]["id"], events[0]["path"]) == (watch["id"], "/home/user/src")
    assert (events[1]["change"], events[1]["path"]) == ("created", "a")
    assert events[3]["reason"] == "ok"
    assert (await client.request("DELETE", path)).status == 204
    rest = await client.get(f"{path}/events?after=3", accept=NDJSON)
    assert rest.lines() == events[3:]


async def test_the_events_of_a_watch_outlive_its_sandbox(client: Client, sandbox_id: str) -> None:
    made = await client.post(f"/v1/sandboxes/{sandbox_id}/watches", {"path": "src"})
    path = f"/v1/watches/{made.json()['id']}"
    await client.request("DELETE", f"/v1/sandboxes/{sandbox_id}")

    events = (await client.get(f"{path}/events", accept=NDJSON)).lines()

    assert events[-1]["reason"] == "killed"
    assert (await client.request("DELETE", path)).status == 204


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"path": "/missing"}, 404, "path_not_found"),
        ({"path": ""}, 400, "invalid_request"),
        ({}, 400, "invalid_request"),
        ({"path": "a", "recursive": 1}, 400, "invalid_request"),
    ],
)
async def test_what_cannot_be_watched_is_refused(
    client: Client, sandbox_id: str, body: object, status: int, code: str
) -> None:
    reply = await client.post(f"/v1/sandboxes/{sandbox_id}/watches", body)

    assert (reply.status, reply.code) == (status, code)


async def test_too_many_watches_answer_429(client: Client, sandbox_id: str) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/watches"
    replies = [await client.post(path, {"path": "a"}) for _ in range(33)]

    assert (replies[-1].status, replies[-1].code) == (429, "quota")


async def test_an_execution_is_no_watch(client: Client, sandbox_id: str) -> None:
    outcome = await client.execute(sandbox_id, "")

    for method, rest in (("GET", "/events"), ("DELETE", "")):
        reply = await client.request(method, f"/v1/watches/{outcome['id']}{rest}")
        assert (reply.status, reply.code) == (404, "not_found")
