"""Contexts over the API."""

import anyio
import pytest

from tests.support.native import Client


async def test_the_default_context_is_there_at_once(client: Client, sandbox_id: str) -> None:
    await client.execute(sandbox_id, "out ready")

    (context,) = (await client.get(f"/v1/sandboxes/{sandbox_id}/contexts")).json()["contexts"]

    assert context == {
        "id": context["id"],
        "language": "python",
        "cwd": "/home/user",
        "state": "idle",
        "is_default": True,
    }
    shown = await client.get(f"/v1/sandboxes/{sandbox_id}/contexts/{context['id']}")
    assert shown.json() == context


async def test_a_context_is_made_used_and_removed(client: Client, sandbox_id: str) -> None:
    base = f"/v1/sandboxes/{sandbox_id}/contexts"

    made = await client.post(base, {"env": {"A": "7"}})

    assert made.status == 201
    context = made.json()
    assert (context["is_default"], context["state"]) == (False, "idle")
    outcome = await client.execute(sandbox_id, "env A", context_id=context["id"])
    assert (outcome["stdout"], outcome["context_id"]) == ("7\n", context["id"])
    assert (await client.request("DELETE", f"{base}/{context['id']}")).status == 204
    gone = await client.get(f"{base}/{context['id']}")
    assert (gone.status, gone.code) == (404, "context_not_found")
    assert len((await client.get(base)).json()["contexts"]) == 1


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"language": "r"}, 400, "language_unavailable"),
        ({"language": "cobol"}, 400, "invalid_request"),
        ({"cwd": "../x"}, 400, "invalid_request"),
        ({"cwd": "/missing"}, 404, "path_not_found"),
        ({"cwd": "a\0b"}, 400, "invalid_request"),
        ({"env": {"": "x"}}, 400, "invalid_request"),
    ],
)
async def test_a_context_that_cannot_be_is_refused(
    client: Client, sandbox_id: str, body: object, status: int, code: str
) -> None:
    reply = await client.post(f"/v1/sandboxes/{sandbox_id}/contexts", body)

    assert (reply.status, reply.code) == (status, code)


async def test_a_context_is_restarted(client: Client, sandbox_id: str) -> None:
    first = await client.execute(sandbox_id, "out a")
    base = f"/v1/sandboxes/{sandbox_id}/contexts/{first['context_id']}"
    running = await client.execute(sandbox_id, "wait", background=True)

    reply = await client.post(f"{base}/restart")

    assert (reply.status, reply.json()["state"]) == (200, "idle")
    ended = (await client.get(f"/v1/executions/{running['id']}")).json()
    assert ended["finished"]["reason"] == "killed"


async def test_what_a_context_runs_is_interrupted(client: Client, sandbox_id: str) -> None:
    idle = await client.execute(sandbox_id, "out a")
    base = f"/v1/sandboxes/{sandbox_id}/contexts/{idle['context_id']}"
    assert (await client.post(f"{base}/interrupt")).json() == {"interrupted": False}

    async with anyio.create_task_group() as tasks:
        path = f"/v1/sandboxes/{sandbox_id}/executions"
        running = client.begin(tasks, "POST", path, {"code": "out go\nwait"})
        await running.wait_for(b"go")
        assert (await client.post(f"{base}/interrupt")).json() == {"interrupted": True}
        await running.wait_for(b'"reason":"interrupted"')


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_context_is_not_found(
    client: Client, sandbox_id: str, method: str
) -> None:
    reply = await client.request(method, f"/v1/sandboxes/{sandbox_id}/contexts/none")

    assert (reply.status, reply.code) == (404, "context_not_found")
