"""The WebSocket: several logs over one connection, and everything that they take."""

import base64
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.adapters.native import stream
from headrace.adapters.native.app import NativeSettings
from tests.support.native import (
    OURS,
    Client,
    NativeService,
    SocketConversation,
    eventually,
    open_native,
    open_socket,
)

NDJSON = "application/x-ndjson"


def path_of(sandbox_id: str) -> str:
    return f"/v1/sandboxes/{sandbox_id}/stream"


async def refused(socket: SocketConversation, request: str | None) -> Any:
    """Wait for the refusal of a request; gives the error."""
    (message,) = await socket.wait_for(type="request_failed", request=request)
    return message["error"]


async def test_code_is_run_and_told(client: Client, sandbox_id: str) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "execute", "request": "r1", "code": "out hi\nmain 2"})
        await socket.wait_for(type="finished")

    accepted, *events = socket.messages
    assert accepted == {"type": "accepted", "request": "r1", "log": events[0]["id"]}
    assert [event["type"] for event in events] == ["started", "stdout", "result", "finished"]
    assert all((event["log"], event["request"]) == (events[0]["id"], "r1") for event in events)
    lines = await client.get(f"/v1/executions/{events[0]['id']}/events", accept=NDJSON)
    plain = [{k: v for k, v in event.items() if k not in ("log", "request")} for event in events]
    assert lines.lines() == plain


async def test_executions_and_processes_share_a_connection(client: Client, sandbox_id: str) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "execute", "request": "a", "code": "out go\nwait"})
        socket.say({"type": "start_process", "request": "b", "argv": ["cat"], "stdin": True})
        (go,) = await socket.wait_for(type="stdout", request="a")
        (process,) = await socket.wait_for(type="accepted", request="b")
        for text in ("one ", "two "):
            socket.say({"type": "stdin", "id": process["log"], "text": text})
        three = base64.b64encode(b"three\xff").decode()
        socket.say({"type": "stdin", "id": process["log"], "base64": three})
        socket.say({"type": "close_stdin", "id": process["log"]})
        await socket.wait_for(type="exited", request="b")
        socket.say({"type": "interrupt", "id": go["log"]})
        (finished,) = await socket.wait_for(type="finished", request="a")

    written = "".join(message["text"] for message in socket.find(type="stdout", request="b"))
    assert written == "one two three\ufffd"
    assert finished["reason"] == "interrupted"
    assert socket.find(type="request_failed") == []


async def test_code_that_asks_is_answered(client: Client, sandbox_id: str) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "execute", "code": "input name?", "accepts_input": True})
        (asked,) = await socket.wait_for(type="input_requested")
        socket.say({"type": "input", "id": asked["log"], "text": "Ada"})
        (answer,) = await socket.wait_for(type="stdout")

    assert answer["text"] == "Ada\n"


@pytest.mark.parametrize(
    ("message", "number"),
    [({"type": "kill"}, 9), ({"type": "signal", "signal": "SIGTERM"}, 15)],
)
async def test_a_process_is_signalled(
    client: Client, sandbox_id: str, message: dict[str, object], number: int
) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "start_process", "argv": ["sleep"], "pty": {}})
        (started,) = await socket.wait_for(type="started")
        socket.say({"type": "resize", "id": started["log"], "cols": 9, "rows": 9})
        socket.say({**message, "id": started["log"]})
        (exited,) = await socket.wait_for(type="exited")

    assert exited["signal"] == number
    assert socket.find(type="request_failed") == []


async def test_a_log_is_followed_from_any_event_on(client: Client, sandbox_id: str) -> None:
    outcome = await client.execute(sandbox_id, "out one\nout two")
    watch = await client.post(f"/v1/sandboxes/{sandbox_id}/watches", {"path": "/removed"})

    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "follow", "request": "a", "id": outcome["id"], "after": 2})
        socket.say({"type": "follow", "request": "b", "id": watch.json()["id"]})
        await socket.wait_for(type="finished")
        await socket.wait_for(type="ended")

    assert [message["seq"] for message in socket.find(request="a")] == [3, 4]
    assert [message["seq"] for message in socket.find(request="b")] == [1, 2, 3, 4]


async def test_a_background_run_is_accepted_and_not_followed(
    client: Client, sandbox_id: str
) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "execute", "code": "out hi", "background": True})
        (accepted,) = await socket.wait_for(type="accepted")
        await client.get(f"/v1/executions/{accepted['log']}/events")
        socket.say({"type": "execute", "code": "", "request": "next"})
        await socket.wait_for(type="finished", request="next")

    assert socket.find(log=accepted["log"]) == [accepted]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("{", "invalid_request"),
        ("[]", "invalid_request"),
        ("null", "invalid_request"),
        ("", "invalid_request"),
        (b"\xff", "invalid_request"),
        ("[" * 100_000, "invalid_request"),
        ({"type": "dance"}, "invalid_request"),
        ({"code": "1"}, "invalid_request"),
        ({"type": "execute"}, "invalid_request"),
        ({"type": "execute", "code": "1", "colour": 1}, "invalid_request"),
        ({"type": "execute", "code": "", "context_id": "none"}, "context_not_found"),
        ({"type": "start_process"}, "invalid_request"),
        ({"type": "start_process", "argv": ["no-such"]}, "path_not_found"),
        ({"type": "follow", "id": "none"}, "execution_not_found"),
        ({"type": "follow", "id": "x", "after": -1}, "invalid_request"),
        ({"type": "interrupt", "id": "none"}, "execution_not_found"),
        ({"type": "input", "id": "none", "text": "x"}, "execution_not_found"),
        ({"type": "kill", "id": "none"}, "process_not_found"),
        ({"type": "stdin", "id": "none", "text": "x"}, "process_not_found"),
        ({"type": "signal", "id": "none", "signal": "SIGX"}, "process_not_found"),
    ],
)
async def test_what_cannot_be_done_is_said_and_ends_nothing(
    client: Client, sandbox_id: str, message: object, code: str
) -> None:
    if isinstance(message, dict):
        message = {**message, "request": "r"}
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say(message)
        error = await refused(socket, "r" if isinstance(message, dict) else None)
        socket.say({"type": "execute", "code": "out still here"})
        await socket.wait_for(type="finished")

    assert error["code"] == code
    assert error["request_id"] == "request-1"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"text": "a", "base64": "YQ=="},
        {"base64": "?"},
        {"base64": "YQ"},
        {"text": "x" * (1024 * 1024 + 1)},
    ],
)
async def test_input_that_cannot_be_read_is_refused(
    client: Client, sandbox_id: str, fields: dict[str, object]
) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "start_process", "argv": ["cat"], "stdin": True})
        (process,) = await socket.wait_for(type="accepted")
        socket.say({"type": "stdin", "id": process["log"], "request": "r", **fields})

        assert (await refused(socket, "r"))["code"] == "invalid_request"


async def test_a_log_of_another_sandbox_is_not_found(client: Client, sandbox_id: str) -> None:
    other = await client.create()
    outcome = await client.execute(other, "")

    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "follow", "request": "r", "id": outcome["id"]})

        assert (await refused(socket, "r"))["code"] == "execution_not_found"


async def test_only_so_many_logs_are_followed(
    client: Client, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_FOLLOWED", 2)
    waiting = await client.execute(sandbox_id, "wait", background=True)
    over = await client.execute(sandbox_id, "", background=True)

    async with open_socket(client, path_of(sandbox_id)) as socket:
        for request in ("a", "b", "c"):
            socket.say({"type": "follow", "request": request, "id": waiting["id"]})
        assert (await refused(socket, "c"))["code"] == "quota"
        socket.say({"type": "execute", "request": "d", "code": ""})
        assert (await refused(socket, "d"))["code"] == "quota"
        # Those that have ended count no more.
        socket.say({"type": "interrupt", "id": waiting["id"]})
        await socket.wait_for(2, type="finished", log=waiting["id"])
        socket.say({"type": "follow", "request": "e", "id": over["id"]})
        await socket.wait_for(type="finished", request="e")

    assert (
        len((await client.get(f"/v1/sandboxes/{sandbox_id}/executions")).json()["executions"]) == 2
    )


async def test_a_message_that_is_too_large_ends_the_connection(tmp_path: Path) -> None:
    settings = NativeSettings(max_body=100)
    async with open_native(tmp_path, settings=settings) as service:
        sandbox_id = await service.client.create()
        async with open_socket(service.client, path_of(sandbox_id)) as socket:
            socket.say("x" * 101)
            await eventually(lambda: socket.close_code is not None)

    assert socket.close_code == 1009


async def test_a_client_that_leaves_leaves_no_task_and_stops_what_it_asked(
    client: Client, sandbox_id: str
) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        stopping = {"on_disconnect": "interrupt", "request": "a"}
        socket.say({"type": "execute", "code": "out go\nwait", **stopping})
        socket.say({"type": "start_process", "argv": ["sleep"], "request": "b"})
        killing = {"on_disconnect": "kill", "request": "c"}
        socket.say({"type": "start_process", "argv": ["sleep"], **killing})
        (stopped,) = await socket.wait_for(type="stdout", request="a")
        (going,) = await socket.wait_for(type="started", request="b")
        (killed,) = await socket.wait_for(type="started", request="c")

    path = f"/v1/executions/{stopped['log']}/events"
    assert (await client.get(path, accept=NDJSON)).lines()[-1]["reason"] == "interrupted"
    assert (await client.get(f"/v1/processes/{going['log']}")).json()["state"] == "running"
    ended = await client.get(f"/v1/processes/{killed['log']}/events", accept=NDJSON)
    assert ended.lines()[-1]["signal"] == 9


async def test_what_ended_by_itself_is_not_stopped_again(
    client: Client, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped: list[object] = []

    async def interrupt(self: object) -> None:
        stopped.append(self)

    monkeypatch.setattr("headrace.engine.execution.Execution.interrupt", interrupt)
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "execute", "code": "out hi", "on_disconnect": "interrupt"})
        await socket.wait_for(type="finished")

    assert stopped == []


async def test_a_client_that_does_not_read_costs_one_message(
    client: Client, sandbox_id: str
) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "execute", "request": "a", "code": "out go\nflood 3000000"})
        await socket.wait_for(type="stdout")
        socket.is_reading = False
        finished = client.execute(sandbox_id, "flood 3000000\nout more")
        socket.say({"type": "execute", "request": "b", "code": "out hi"})
        outcome = await finished
        at_rest = len(socket.messages)
        await anyio.wait_all_tasks_blocked()
        assert (socket.waiting, len(socket.messages)) == (1, at_rest)
        socket.read_on()
        await socket.wait_for(2, type="finished")

    assert outcome["stdout"].endswith("more\n")
    flood = "".join(message["text"] for message in socket.find(type="stdout", request="a"))
    assert len(flood) == len("go\n") + 3_000_000


@pytest.mark.parametrize(
    ("protocols", "chosen"),
    [(("headrace", f"headrace.key.{OURS}"), "headrace"), ((f"headrace.key.{OURS}",), None)],
)
async def test_a_browser_gives_its_key_among_the_protocols(
    service: NativeService, sandbox_id: str, protocols: tuple[str, ...], chosen: str | None
) -> None:
    path = path_of(sandbox_id)

    async with open_socket(service.nobody, path, protocols=protocols) as socket:
        assert socket.is_accepted

    assert socket.subprotocol == chosen


@pytest.mark.parametrize("protocols", [(), ("headrace",), ("headrace.key.wrong",)])
async def test_a_connection_without_a_key_is_refused(
    service: NativeService, sandbox_id: str, protocols: tuple[str, ...]
) -> None:
    path = path_of(sandbox_id)

    async with open_socket(service.nobody, path, protocols=protocols) as socket:
        pass

    assert not socket.is_accepted
    assert (socket.refusal.status, socket.refusal.code) == (401, "unauthenticated")


async def test_the_stream_of_another_tenant_does_not_exist(
    service: NativeService, sandbox_id: str
) -> None:
    async with open_socket(service.stranger, path_of(sandbox_id)) as foreign:
        pass
    async with open_socket(service.client, "/v1/elsewhere") as nowhere:
        pass
    async with open_socket(service.client, path_of("none"), has_answers=False) as plain:
        pass

    assert (foreign.refusal.status, foreign.refusal.code) == (404, "sandbox_not_found")
    assert (nowhere.refusal.status, nowhere.refusal.code) == (404, "not_found")
    assert plain.close_code == 1008


async def test_a_plain_request_for_the_stream_is_refused(client: Client, sandbox_id: str) -> None:
    reply = await client.get(path_of(sandbox_id))

    assert (reply.status, reply.code) == (400, "invalid_request")


async def test_a_defect_is_said_without_its_details(
    client: Client,
    sandbox_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(_self: object, _request: object) -> None:
        raise ZeroDivisionError("the secret")

    monkeypatch.setattr("headrace.engine.sandbox.Sandbox.execute", fail)
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "execute", "request": "r", "code": ""})
        error = await refused(socket, "r")

    assert error["code"] == "internal"
    assert "secret" not in str(error)
    assert "the secret" in caplog.text


async def test_a_client_that_went_away_while_it_was_told_is_no_defect(
    client: Client, sandbox_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_socket(client, path_of(sandbox_id)) as socket:
        socket.say({"type": "execute", "code": "out go\nwait"})
        await socket.wait_for(type="stdout")
        socket.is_broken = True
        socket.say({"type": "dance"})
        socket.say({"type": "execute", "code": "out more"})

    assert caplog.text == ""
