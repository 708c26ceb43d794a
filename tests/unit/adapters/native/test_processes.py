"""Processes over the API."""

import base64
from typing import Any

import anyio
import pytest

from tests.support.native import ORIGIN, Client

NDJSON = "application/x-ndjson"
JSON = "application/json"


def processes(sandbox_id: str) -> str:
    return f"/v1/sandboxes/{sandbox_id}/processes"


async def start(client: Client, sandbox_id: str, *argv: str, **fields: object) -> Any:
    """Start a command in the background and give what is known of it."""
    body = {"argv": argv, "background": True, **fields}
    reply = await client.post(processes(sandbox_id), body)
    assert reply.status == 202, reply
    return reply.json()


async def test_lines_tell_a_process(client: Client, sandbox_id: str) -> None:
    reply = await client.post(
        processes(sandbox_id), {"argv": ["echo", "hi", "there"]}, accept=NDJSON
    )

    started, written, exited = reply.lines()
    assert reply.headers["headrace-process-id"] == started["id"]
    assert reply.headers["location"] == f"{ORIGIN}/v1/processes/{started['id']}"
    assert started == {
        "type": "started",
        "seq": 1,
        "timestamp": started["timestamp"],
        "id": started["id"],
        "pid": started["pid"],
    }
    assert (written["type"], written["text"]) == ("stdout", "hi there\n")
    assert (exited["type"], exited["reason"], exited["exit_code"]) == ("exited", "ok", 0)


async def test_json_waits_for_the_end_of_a_process(client: Client, sandbox_id: str) -> None:
    reply = await client.post(processes(sandbox_id), {"argv": ["echo", "hi"]}, accept=JSON)

    outcome = reply.json()
    assert (outcome["stdout"], outcome["stderr"], outcome["reason"]) == ("hi\n", "", "ok")
    assert outcome["pid"] > 0
    assert "results" not in outcome
    assert "total;dur=" in reply.headers["server-timing"]


async def test_a_terminal_has_one_stream(client: Client, sandbox_id: str) -> None:
    body = {"argv": ["echo", "hi"], "pty": {"cols": 100, "rows": 30}}

    outcome = (await client.post(processes(sandbox_id), body, accept=JSON)).json()

    assert outcome["pty"] == "hi\n"
    assert "stdout" not in outcome


async def test_a_command_goes_through_a_shell(client: Client, sandbox_id: str) -> None:
    # The fake agent has no shell, and says so.
    reply = await client.post(processes(sandbox_id), {"command": "echo hi"}, accept=JSON)

    assert (reply.status, reply.code) == (404, "path_not_found")
    assert "/bin/bash" in reply.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"command": "a", "argv": ["a"]},
        {"argv": []},
        {"argv": ["a", 1]},
        {"argv": ["a\0b"]},
        {"argv": "ls"},
        {"command": ""},
        {"argv": ["a"], "user": "nobody"},
        {"argv": ["a"], "pty": {"cols": 0}},
        {"argv": ["a"], "pty": True},
        {"argv": ["a"], "on_disconnect": "interrupt"},
        {"argv": ["a"], "timeout": -1},
        {"argv": ["a"], "colour": "red"},
    ],
)
async def test_what_is_no_process_is_refused(
    client: Client, sandbox_id: str, body: dict[str, object]
) -> None:
    reply = await client.post(processes(sandbox_id), body)

    if body == {"command": ""}:
        # A shell that does nothing is a process.
        assert reply.code == "path_not_found"
    else:
        assert (reply.status, reply.code) == (400, "invalid_request")


async def test_a_process_is_shown_while_it_runs_and_after(client: Client, sandbox_id: str) -> None:
    shape = await start(client, sandbox_id, "sleep", tag="mine", cwd="work")
    path = f"/v1/processes/{shape['id']}"

    assert shape == {
        "id": shape["id"],
        "sandbox_id": sandbox_id,
        "pid": shape["pid"],
        "argv": ["sleep"],
        "cwd": "/home/user/work",
        "user": "user",
        "tag": "mine",
        "has_pty": False,
        "state": "running",
        "last_seq": 1,
    }
    assert (await client.get(path)).json() == shape
    assert (await client.get(processes(sandbox_id))).json() == {"processes": [shape]}

    assert (await client.request("DELETE", path)).status == 204
    await client.get(f"{path}/events")

    ended = (await client.get(path)).json()
    assert (ended["state"], ended["exited"]["signal"]) == ("finished", 9)
    assert "state_lost" not in ended["exited"]
    assert (await client.get(processes(sandbox_id))).json() == {"processes": []}
    again = await client.request("DELETE", path)
    assert (again.status, again.code) == (404, "process_not_found")


@pytest.mark.parametrize(("given", "number"), [(15, 15), ("SIGTERM", 15), ("SIGUSR1", 10)])
async def test_a_signal_is_named_or_numbered(
    client: Client, sandbox_id: str, given: object, number: int
) -> None:
    shape = await start(client, sandbox_id, "sleep")

    reply = await client.post(f"/v1/processes/{shape['id']}/signal", {"signal": given})

    assert reply.status == 204
    events = await client.get(f"/v1/processes/{shape['id']}/events", accept=NDJSON)
    assert events.lines()[-1]["signal"] == number


@pytest.mark.parametrize("given", [0, 65, "TERM", "SIGNONE", None, True, 1.5, "sigterm"])
async def test_what_is_no_signal_is_refused(client: Client, sandbox_id: str, given: object) -> None:
    shape = await start(client, sandbox_id, "sleep")

    reply = await client.post(f"/v1/processes/{shape['id']}/signal", {"signal": given})

    assert (reply.status, reply.code) == (400, "invalid_request")


async def test_bytes_reach_the_input_as_they_are(client: Client, sandbox_id: str) -> None:
    shape = await start(client, sandbox_id, "cat", stdin=True)
    path = f"/v1/processes/{shape['id']}"
    data = bytes(range(256))

    first = await client.request("POST", f"{path}/stdin", content=[data, b"", b"more"])
    assert (await client.request("POST", f"{path}/stdin", content=b"")).status == 204
    closed = await client.post(f"{path}/stdin/close")

    assert (first.status, closed.status) == (204, 204)
    events = (await client.get(f"{path}/events", accept=NDJSON)).lines()
    written = b"".join(
        base64.b64decode(event["base64"]) if "base64" in event else event["text"].encode()
        for event in events[1:-1]
    )
    assert written == data + b"more"
    late = await client.request("POST", f"{path}/stdin", content=b"x")
    assert (late.status, late.code) == (409, "wrong_state")


async def test_a_process_without_input_takes_none(client: Client, sandbox_id: str) -> None:
    shape = await start(client, sandbox_id, "sleep")

    reply = await client.request("POST", f"/v1/processes/{shape['id']}/stdin", content=b"x")

    assert (reply.status, reply.code) == (409, "wrong_state")


async def test_a_terminal_is_resized(client: Client, sandbox_id: str) -> None:
    terminal = await start(client, sandbox_id, "sleep", pty={})
    plain = await start(client, sandbox_id, "sleep")
    size = {"cols": 100, "rows": 30}

    done = await client.post(f"/v1/processes/{terminal['id']}/resize", size)
    refused = await client.post(f"/v1/processes/{plain['id']}/resize", size)
    wrong = await client.post(f"/v1/processes/{terminal['id']}/resize", {"cols": 1})

    assert terminal["has_pty"] is True
    assert done.status == 204
    assert (refused.status, refused.code) == (409, "wrong_state")
    assert (wrong.status, wrong.code) == (400, "invalid_request")


async def await_running(client: Client, sandbox_id: str) -> Any:
    """Wait until something runs and give it."""
    with anyio.fail_after(5):
        while True:
            found = (await client.get(processes(sandbox_id))).json()["processes"]
            if found:
                return found
            await anyio.sleep(0.01)


@pytest.mark.parametrize(
    ("on_disconnect", "state"), [("kill", "finished"), ("continue", "running")]
)
@pytest.mark.parametrize("accept", [NDJSON, JSON])
async def test_a_client_that_leaves_stops_a_process_only_if_it_asked(
    client: Client, sandbox_id: str, on_disconnect: str, state: str, accept: str
) -> None:
    body = {"argv": ["sleep"], "on_disconnect": on_disconnect}
    async with anyio.create_task_group() as tasks:
        leaving = client.begin(tasks, "POST", processes(sandbox_id), body, accept=accept)
        running = await await_running(client, sandbox_id)
        leaving.disconnect()

    path = f"/v1/processes/{running[0]['id']}"
    if state == "finished":
        await client.get(f"{path}/events")
    assert (await client.get(path)).json()["state"] == state


async def test_the_events_of_a_process_outlive_its_sandbox(client: Client, sandbox_id: str) -> None:
    shape = await start(client, sandbox_id, "sleep")
    path = f"/v1/processes/{shape['id']}"
    await client.request("DELETE", f"/v1/sandboxes/{sandbox_id}")

    events = (await client.get(f"{path}/events", accept=NDJSON)).lines()

    assert events[-1]["reason"] == "killed"
    assert (await client.get(path)).status == 404


async def test_an_execution_is_no_process(client: Client, sandbox_id: str) -> None:
    outcome = await client.execute(sandbox_id, "")

    for path in ("", "/events"):
        reply = await client.get(f"/v1/processes/{outcome['id']}{path}")
        assert (reply.status, reply.code) == (404, "process_not_found")
