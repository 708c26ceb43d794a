"""Following a log: from any event on, in every form, for as long as the client is there."""

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.adapters.native import streams
from headrace.adapters.native.app import NativeSettings
from headrace.engine.event_log import EventLog
from headrace.model.errors import UnavailableError
from tests.support.native import Client, Conversation, NativeService, eventually, open_native

NDJSON = "application/x-ndjson"
SSE = "text/event-stream"
JSON = "application/json"
CODE = "out one\nerr two\nhex c3\nhex a4ff\nmain 3\nout four"


async def run(client: Client, sandbox_id: str, code: str = CODE) -> tuple[str, list[Any]]:
    """Run code; gives the path of its events, and all of them."""
    outcome = await client.execute(sandbox_id, code)
    path = f"/v1/executions/{outcome['id']}/events"
    return path, (await client.get(path, accept=NDJSON)).lines()


def read_sse(body: bytes) -> list[Any]:
    """Read server-sent events; checks id and event of each."""
    found = []
    for block in body.split(b"\n\n")[:-1]:
        head = dict(line.split(b": ", 1) for line in block.split(b"\n"))
        data = json.loads(head[b"data"])
        assert (head[b"id"], head[b"event"]) == (b"%d" % data["seq"], data["type"].encode())
        found.append(data)
    return found


async def test_every_position_gives_exactly_the_rest(client: Client, sandbox_id: str) -> None:
    path, events = await run(client, sandbox_id)

    for after in range(len(events)):
        lines = (await client.get(f"{path}?after={after}", accept=NDJSON)).lines()
        sent = read_sse((await client.get(path, last_event_id=str(after))).body)
        page = (await client.get(f"{path}?after={after}", accept=JSON)).json()
        assert lines == sent == page["events"] == events[after:]
        assert (page["last_seq"], page["is_finished"]) == (len(events), True)


async def test_behind_the_last_event_there_is_nothing(client: Client, sandbox_id: str) -> None:
    path, events = await run(client, sandbox_id)
    query = f"{path}?after={len(events)}"

    # A browser connects again and again until it is told 204.
    assert (await client.get(query, accept=SSE)).status == 204
    lines = await client.get(query, accept=NDJSON)
    assert (lines.status, lines.body) == (200, b"")
    assert (await client.get(query, accept=JSON)).json()["events"] == []


async def test_the_number_that_a_browser_sends_wins_over_its_url(
    client: Client, sandbox_id: str
) -> None:
    path, events = await run(client, sandbox_id)

    reply = await client.get(f"{path}?after=1", accept=SSE, last_event_id="4")

    assert read_sse(reply.body) == events[4:]


@pytest.mark.parametrize("number", ["x", "-1", "1.5", "9" * 30, "٣"])
async def test_a_number_that_is_none_is_refused(
    client: Client, sandbox_id: str, number: str
) -> None:
    path, _ = await run(client, sandbox_id)
    header = number.encode().decode("latin-1")

    assert (await client.get(path, last_event_id=header)).code == "invalid_request"
    assert (await client.get(f"{path}?after={header}")).code == "invalid_request"


async def test_a_number_that_was_never_given_is_refused(client: Client, sandbox_id: str) -> None:
    path, events = await run(client, sandbox_id)

    reply = await client.get(f"{path}?after={len(events) + 1}")

    assert (reply.status, reply.code) == (400, "invalid_request")
    assert reply.json()["error"]["details"] == {
        "after": len(events) + 1,
        "last_seq": len(events),
    }


async def test_many_readers_see_the_same_while_it_happens(client: Client, sandbox_id: str) -> None:
    execution = await client.execute(
        sandbox_id, "input a\nout b\ninput c\nout d", accepts_input=True, background=True
    )
    path = f"/v1/executions/{execution['id']}"
    async with anyio.create_task_group() as tasks:
        readers = [client.begin(tasks, "GET", f"{path}/events", accept=NDJSON) for _ in range(10)]
        for prompt in (b'"a"', b'"c"'):
            for reader in readers:
                await reader.wait_for(b'"prompt":' + prompt)
            late = client.begin(tasks, "GET", f"{path}/events?after=2", accept=NDJSON)
            readers.append(late)
            await client.post(f"{path}/input", {"text": "x"})

    whole = readers[0].body
    assert whole.count(b"\n") == 8
    assert all(reader.body == whole for reader in readers[:10])
    assert readers[10].body == readers[11].body == whole.split(b"\n", 2)[2]


async def test_a_page_is_bounded(
    client: Client, sandbox_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, events = await run(client, sandbox_id)

    monkeypatch.setattr(streams, "PAGE_EVENTS", 3)
    page = (await client.get(path, accept=JSON)).json()
    assert (page["events"], page["last_seq"]) == (events[:3], len(events))

    monkeypatch.setattr(streams, "PAGE_BYTES", 1)
    page = (await client.get(f"{path}?after=1", accept=JSON)).json()
    assert page["events"] == events[1:2]


async def test_a_page_of_what_runs_does_not_wait(client: Client, sandbox_id: str) -> None:
    await client.execute(sandbox_id, "out ready")
    execution = await client.execute(sandbox_id, "wait", background=True)

    page = (await client.get(f"/v1/executions/{execution['id']}/events", accept=JSON)).json()

    assert [event["type"] for event in page["events"]] == ["started"]
    assert (page["last_seq"], page["is_finished"]) == (1, False)


def has_beaten(reader: Conversation, beat: bytes, count: int) -> bool:
    """Say whether so many heartbeats have come."""
    return reader.body.count(beat) >= count


@pytest.mark.parametrize(("accept", "beat"), [(SSE, b": heartbeat\n\n"), (NDJSON, b"heartbeat")])
async def test_a_stream_that_is_silent_says_that_it_lives(
    tmp_path: Path, accept: str, beat: bytes
) -> None:
    settings = NativeSettings(heartbeat=0.02)
    async with open_native(tmp_path, settings=settings) as service:
        client = service.client
        sandbox_id = await client.create()
        execution = await client.execute(sandbox_id, "wait", background=True)
        path = f"/v1/executions/{execution['id']}"
        async with anyio.create_task_group() as tasks:
            reader = client.begin(tasks, "GET", f"{path}/events", accept=accept)
            for count in range(1, 4):
                await eventually(partial(has_beaten, reader, beat, count))
            await client.post(f"{path}/interrupt")

    assert reader.is_complete
    if accept == NDJSON:
        lines = reader.reply().lines()
        beats = [line for line in lines if line["type"] == "heartbeat"]
        assert all(set(beat) == {"type", "timestamp"} for beat in beats)
        assert abs(beats[0]["timestamp"] - time.time()) < 60
        assert [line["seq"] for line in lines if line not in beats] == [1, 2, 3]


async def test_a_stream_that_is_not_silent_has_no_heartbeat(
    client: Client, sandbox_id: str
) -> None:
    reply = await client.post(
        f"/v1/sandboxes/{sandbox_id}/executions", {"code": "\n".join(["out x"] * 200)}
    )

    assert b"heartbeat" not in reply.body


async def test_a_client_that_leaves_leaves_no_task(client: Client, sandbox_id: str) -> None:
    execution = await client.execute(sandbox_id, "wait", background=True)
    for accept in (SSE, NDJSON):
        with anyio.fail_after(5):
            async with anyio.create_task_group() as tasks:
                path = f"/v1/executions/{execution['id']}/events"
                reader = client.begin(tasks, "GET", path, accept=accept)
                await reader.wait_for(b"started")
                reader.disconnect()
        assert not reader.is_complete


@pytest.mark.parametrize("accept", [SSE, NDJSON])
async def test_a_failure_in_mid_stream_is_the_last_record(
    client: Client, sandbox_id: str, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    path, _ = await run(client, sandbox_id)
    whole = EventLog.next_batch

    async def fail_later(self: EventLog[Any], position: int) -> list[Any]:
        if position >= 2:
            raise UnavailableError("the log was closed")
        return (await whole(self, position))[: 2 - position]

    monkeypatch.setattr(EventLog, "next_batch", fail_later)

    reply = await client.get(path, accept=accept)

    assert reply.is_complete
    if accept == NDJSON:
        last = reply.lines()[-1]
    else:
        block = reply.body.split(b"\n\n")[-2]
        assert block.startswith(b"event: failed\ndata: ")
        last = json.loads(block.partition(b"data: ")[2])
    assert last == {
        "type": "failed",
        "error": {
            "code": "unavailable",
            "message": "the log was closed",
            "details": {},
            "request_id": "request-1",
        },
    }


async def test_a_defect_in_mid_stream_reveals_nothing(
    client: Client,
    sandbox_id: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path, _ = await run(client, sandbox_id)

    async def fail(_self: object, _position: int) -> list[Any]:
        raise ZeroDivisionError("the secret")

    monkeypatch.setattr(EventLog, "next_batch", fail)

    reply = await client.get(path, accept=NDJSON)

    (last,) = reply.lines()
    assert last["error"]["code"] == "internal"
    assert b"secret" not in reply.body
    assert "the secret" in caplog.text


async def test_a_reader_that_does_not_read_costs_one_batch(
    service: NativeService, sandbox_id: str
) -> None:
    client = service.client
    async with anyio.create_task_group() as tasks:
        execution = await client.execute(
            sandbox_id,
            "out begin\ninput go\nflood 20000000\nout end",
            accepts_input=True,
            background=True,
        )
        path = f"/v1/executions/{execution['id']}"
        slow = client.begin(tasks, "GET", f"{path}/events", accept=NDJSON)
        await slow.wait_for(b"input_requested")
        slow.stop_reading()
        await client.post(f"{path}/input", {"text": "x"})
        quick = await client.get(f"{path}/events", accept=NDJSON)

        assert quick.lines()[-1]["reason"] == "ok"
        assert slow.waits_for_reader == 1
        assert len(slow.body) < 10_000
        slow.read_on()

    assert slow.body == quick.body
