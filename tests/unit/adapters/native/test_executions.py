"""Executions over the API: three forms of answer, and everything that is done to them."""

import base64
import re
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.adapters.native.app import NativeSettings
from tests.support.native import ORIGIN, Client, NativeService, open_native

NDJSON = "application/x-ndjson"
JSON = "application/json"
CODE = "out one\nerr two\nhex ff\nmain 3\nerror E v"


def executions(sandbox_id: str) -> str:
    return f"/v1/sandboxes/{sandbox_id}/executions"


async def test_lines_tell_everything_in_order(client: Client, sandbox_id: str) -> None:
    reply = await client.post(executions(sandbox_id), {"code": CODE}, accept=NDJSON)

    assert reply.status == 200
    assert reply.is_complete
    assert reply.headers["content-type"] == NDJSON
    assert reply.headers["cache-control"] == "no-store"
    assert reply.headers["x-accel-buffering"] == "no"
    assert "content-encoding" not in reply.headers
    events = reply.lines()
    assert [event["seq"] for event in events] == list(range(1, 7 + 1))
    assert [event["type"] for event in events] == [
        "started",
        "stdout",
        "stderr",
        "stdout",
        "result",
        "error",
        "finished",
    ]
    assert reply.headers["headrace-execution-id"] == events[0]["id"]
    assert reply.headers["location"] == f"{ORIGIN}/v1/executions/{events[0]['id']}"
    assert events[3]["base64"] == base64.b64encode(b"\xff").decode()
    assert events[-1]["reason"] == "error"


@pytest.mark.parametrize("accept", ["text/event-stream", "*/*", None])
async def test_server_sent_events_are_the_preferred_form(
    client: Client, sandbox_id: str, accept: str | None
) -> None:
    headers = {} if accept is None else {"accept": accept}

    reply = await client.post(executions(sandbox_id), {"code": "out hi"}, **headers)

    assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
    started, written, finished, rest = reply.body.split(b"\n\n")
    assert started.startswith(b"id: 1\nevent: started\ndata: {")
    assert written.startswith(b'id: 2\nevent: stdout\ndata: {"type":"stdout"')
    assert finished.startswith(b"id: 3\nevent: finished\ndata: {")
    assert rest == b""


async def test_json_waits_for_the_outcome(client: Client, sandbox_id: str) -> None:
    reply = await client.post(executions(sandbox_id), {"code": CODE}, accept=JSON)

    outcome = reply.json()
    assert reply.headers["headrace-execution-id"] == outcome["id"]
    assert outcome["stdout"] == "one\n\ufffd"
    assert outcome["stdout_base64"] == base64.b64encode(b"one\n\xff").decode()
    assert outcome["stderr"] == "two\n"
    assert outcome["results"][0]["text"] == "3"
    assert outcome["error"]["name"] == "E"
    assert (outcome["reason"], outcome["last_seq"]) == ("error", 7)
    assert outcome["execution_count"] == 1
    timing = reply.headers["server-timing"]
    assert re.fullmatch(
        r"queue;dur=\d+\.\d{3}, first_byte;dur=\d+\.\d{3}, total;dur=\d+\.\d{3}", timing
    )


async def test_an_outcome_without_output_has_no_first_byte(client: Client, sandbox_id: str) -> None:
    reply = await client.post(executions(sandbox_id), {"code": ""}, accept=JSON)

    assert "first_byte" not in reply.headers["server-timing"]
    assert reply.json()["reason"] == "ok"


async def test_a_stream_that_began_at_once_says_how_long_it_waited(
    client: Client, sandbox_id: str
) -> None:
    await client.execute(sandbox_id, "out ready")

    reply = await client.post(executions(sandbox_id), {"code": ""}, accept=NDJSON)

    assert reply.headers["server-timing"].startswith("queue;dur=")


async def test_what_a_request_asks_for_reaches_the_code(client: Client, sandbox_id: str) -> None:
    asked = {"env": {"A": "7"}, "cwd": "work", "language": "python", "timeout": 5}

    outcome = await client.execute(sandbox_id, "env A\ncwd", **asked)

    assert outcome["stdout"] == "7\n/home/user/work\n"


async def test_a_time_limit_is_kept(client: Client, sandbox_id: str) -> None:
    outcome = await client.execute(sandbox_id, "wait", timeout=0.05)

    assert (outcome["reason"], outcome["limit"], outcome["limit_value"]) == (
        "timeout",
        "timeout",
        0.05,
    )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"code": "", "context_id": "none"}, 404, "context_not_found"),
        ({"code": "", "language": "java"}, 400, "language_unavailable"),
        ({"code": "a\0b"}, 400, "invalid_request"),
        ({"code": "", "cwd": "../.."}, 400, "invalid_request"),
        ({"code": "", "env": {"A=": ""}}, 400, "invalid_request"),
        ({}, 400, "invalid_request"),
    ],
)
@pytest.mark.parametrize("accept", [NDJSON, JSON])
async def test_what_cannot_run_is_refused_before_anything_is_answered(
    client: Client, sandbox_id: str, body: object, status: int, code: str, accept: str
) -> None:
    reply = await client.post(executions(sandbox_id), body, accept=accept)

    assert (reply.status, reply.code) == (status, code)


async def test_code_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with open_native(tmp_path) as service:
        sandbox_id = await service.client.create()
        code = "\u0001" * (17 * 1024 * 1024 // 6)

        reply = await service.client.post(executions(sandbox_id), {"code": code * 6})

    assert reply.status in (400, 413)


async def test_a_background_run_is_answered_at_once(client: Client, sandbox_id: str) -> None:
    reply = await client.post(executions(sandbox_id), {"code": "wait", "background": True})

    assert reply.status == 202
    shape = reply.json()
    assert reply.headers["headrace-execution-id"] == shape["id"]
    assert shape == {
        "id": shape["id"],
        "sandbox_id": sandbox_id,
        "state": shape["state"],
        "context_id": shape["context_id"],
        "last_seq": shape["last_seq"],
    }


async def test_an_execution_is_shown_from_queue_to_end(client: Client, sandbox_id: str) -> None:
    await client.execute(sandbox_id, "out ready")
    first = await client.execute(sandbox_id, "wait", background=True)
    second = await client.execute(sandbox_id, "out b", background=True)

    async def show(thing: Any) -> Any:
        return (await client.get(f"/v1/executions/{thing['id']}")).json()

    running, queued = await show(first), await show(second)
    assert (running["state"], running["last_seq"]) == ("running", 1)
    assert queued == {
        "id": second["id"],
        "sandbox_id": sandbox_id,
        "state": "queued",
        "context_id": None,
        "last_seq": 0,
    }
    listed = (await client.get(executions(sandbox_id))).json()["executions"]
    assert [each["state"] for each in listed] == ["finished", "running", "queued"]

    assert (await client.post(f"/v1/executions/{first['id']}/interrupt")).status == 202
    await client.get(f"/v1/executions/{second['id']}/events")

    ended = await show(first)
    assert ended["state"] == "finished"
    assert ended["context_id"] == running["context_id"]
    assert ended["finished"]["reason"] == "interrupted"
    assert set(ended["finished"]) == {
        "reason",
        "duration",
        "exit_code",
        "signal",
        "state_lost",
        "limit",
        "limit_value",
        "detail",
    }


async def test_an_execution_outlives_its_sandbox(client: Client, sandbox_id: str) -> None:
    outcome = await client.execute(sandbox_id, "out kept")
    await client.request("DELETE", f"/v1/sandboxes/{sandbox_id}")

    path = f"/v1/executions/{outcome['id']}"

    assert (await client.get(path)).json()["context_id"] == outcome["context_id"]
    assert (await client.get(f"{path}/events", accept=NDJSON)).lines()[1]["text"] == "kept\n"
    assert (await client.post(f"{path}/interrupt")).status == 202
    late = await client.post(f"{path}/input", {"text": "x"})
    assert (late.status, late.code) == (409, "wrong_state")


async def test_an_interrupt_after_the_end_does_nothing(client: Client, sandbox_id: str) -> None:
    outcome = await client.execute(sandbox_id, "")

    reply = await client.post(f"/v1/executions/{outcome['id']}/interrupt")

    assert (reply.status, reply.json()) == (202, {})


@pytest.mark.parametrize(("text", "printed"), [("Ada", "Ada\n"), (None, "None\n")])
async def test_code_that_asks_is_answered(
    client: Client, sandbox_id: str, text: str | None, printed: str
) -> None:
    async with anyio.create_task_group() as tasks:
        asking = client.begin(
            tasks,
            "POST",
            executions(sandbox_id),
            {"code": "input name?", "accepts_input": True},
            accept=NDJSON,
        )
        await asking.wait_for(b"input_requested")
        path = f"/v1/executions/{asking.headers['headrace-execution-id']}/input"
        assert (await client.post(path, {"text": text})).status == 204
    events = asking.reply().lines()
    assert events[1] == {**events[1], "prompt": "name?", "is_password": False}
    assert events[2]["text"] == printed


@pytest.mark.parametrize(
    ("body", "status"), [({"text": "x"}, 409), ({}, 400), ({"text": 1}, 400), ({"text": "\0"}, 400)]
)
async def test_input_that_nobody_waits_for_is_refused(
    client: Client, sandbox_id: str, body: object, status: int
) -> None:
    execution = await client.execute(sandbox_id, "wait", background=True)

    reply = await client.post(f"/v1/executions/{execution['id']}/input", body)

    assert reply.status == status


async def test_a_process_is_no_execution(client: Client, sandbox_id: str) -> None:
    process = await client.post(
        f"/v1/sandboxes/{sandbox_id}/processes", {"argv": ["sleep"], "background": True}
    )

    for path in ("", "/events"):
        reply = await client.get(f"/v1/executions/{process.json()['id']}{path}")
        assert (reply.status, reply.code) == (404, "execution_not_found")


@pytest.mark.parametrize("accept", [NDJSON, "text/event-stream", JSON])
async def test_a_client_that_leaves_does_not_stop_the_code(
    client: Client, sandbox_id: str, accept: str
) -> None:
    async with anyio.create_task_group() as tasks:
        leaving = client.begin(
            tasks, "POST", executions(sandbox_id), {"code": "out go\nwait"}, accept=accept
        )
        (execution,) = await await_executions(client, sandbox_id)
        leaving.disconnect()

    shown = (await client.get(f"/v1/executions/{execution['id']}")).json()
    assert shown["state"] == "running"


@pytest.mark.parametrize("accept", [NDJSON, "text/event-stream", JSON])
async def test_a_client_may_ask_that_its_leaving_stops_the_code(
    client: Client, sandbox_id: str, accept: str
) -> None:
    async with anyio.create_task_group() as tasks:
        leaving = client.begin(
            tasks,
            "POST",
            executions(sandbox_id),
            {"code": "out go\nwait", "on_disconnect": "interrupt"},
            accept=accept,
        )
        (execution,) = await await_executions(client, sandbox_id)
        leaving.disconnect()

    events = await client.get(f"/v1/executions/{execution['id']}/events", accept=NDJSON)
    assert events.lines()[-1]["reason"] == "interrupted"


async def await_executions(client: Client, sandbox_id: str) -> list[Any]:
    """Wait until the only execution has printed something."""
    with anyio.fail_after(5):
        while True:
            found: list[Any] = (await client.get(executions(sandbox_id))).json()["executions"]
            if found and found[0]["last_seq"] > 1:
                return found
            await anyio.sleep(0.01)


async def test_an_end_is_no_disconnect(
    service: NativeService, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[object] = []

    async def interrupt(self: object) -> None:
        stopped.append(self)

    monkeypatch.setattr("headrace.engine.execution.Execution.interrupt", interrupt)
    for accept in (NDJSON, "text/event-stream", JSON):
        body = {"code": "out hi", "on_disconnect": "interrupt"}
        await service.client.post(executions(sandbox_id), body, accept=accept)

    assert stopped == []


async def test_an_outcome_that_is_too_large_names_the_execution(tmp_path: Path) -> None:
    settings = NativeSettings(max_outcome=10)
    async with open_native(tmp_path, settings=settings) as service:
        client = service.client
        sandbox_id = await client.create()
        body = {"code": "out 0123456789\nout more", "on_disconnect": "interrupt"}

        reply = await client.post(executions(sandbox_id), body, accept=JSON)

        assert (reply.status, reply.code) == (413, "output_too_large")
        execution_id = reply.json()["error"]["details"]["id"]
        assert reply.headers["headrace-execution-id"] == execution_id
        events = await client.get(f"/v1/executions/{execution_id}/events", accept=NDJSON)
        assert [event["type"] for event in events.lines()][-2:] == ["stdout", "finished"]
        assert events.lines()[-1]["reason"] == "ok"


async def test_a_kernel_that_dies_is_data(client: Client, sandbox_id: str) -> None:
    outcome = await client.execute(sandbox_id, "out a\ndie 3")

    assert (outcome["reason"], outcome["exit_code"], outcome["state_lost"]) == (
        "kernel_died",
        3,
        True,
    )


async def test_too_many_that_wait_answer_429(client: Client, sandbox_id: str) -> None:
    await client.execute(sandbox_id, "wait", background=True)
    body = {"code": "", "background": True}
    replies = [await client.post(executions(sandbox_id), body) for _ in range(258)]

    assert replies[0].status == 202
    assert (replies[-1].status, replies[-1].code) == (429, "quota")
