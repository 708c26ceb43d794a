"""Processes that run, over RPC: listed, signalled, resized, written to."""

import base64
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from headrace.adapters.e2b import following
from headrace.engine.sandbox import Sandbox
from tests.support.e2b import E2bService, open_envelopes
from tests.support.e2b_processes import Caller, encoded
from tests.support.native import Reply

MIB = 1024 * 1024


@pytest.fixture
def caller(service: E2bService, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """A client of the process service, whose leaving is noticed at once."""
    monkeypatch.setattr(following, "ALONE", 0.0)
    caller = Caller(service, sandbox)
    caller.agent.files["/home/user"] = b""
    return caller


# --- unary calls ----------------------------------------------------------------------------


async def test_the_processes_that_run_are_listed(caller: Caller) -> None:
    config = {"cmd": "sleep", "envs": {"OWN": "x"}, "cwd": "/tmp"}
    async with anyio.create_task_group() as tasks:
        talk = caller.begin(tasks, "Start", {"process": config, "tag": "mine"})
        await talk.wait_for(b"start")
        talk.disconnect()
    other = await caller.run_on("sleep")
    await caller.start("echo")

    reply = await caller.unary("List", {})

    found = reply.json()["processes"]
    variables = [each["config"].pop("envs") for each in found]
    assert found == [
        {"config": {"cmd": "sleep", "cwd": "/tmp"}, "pid": 101, "tag": "mine"},
        {"config": {"cmd": "sleep", "cwd": "/home/user"}, "pid": other},
    ]
    assert variables[0] == {**variables[1], "OWN": "x"}
    assert variables[1]["E2B_SANDBOX"] == "true"


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ("SIGNAL_SIGKILL", "signal: killed"),
        (9, "signal: killed"),
        ("SIGNAL_SIGTERM", "signal: terminated"),
        (15, "signal: terminated"),
    ],
)
async def test_a_signal_is_named_or_numbered(caller: Caller, given: object, status: str) -> None:
    pid = await caller.run_on("sleep")
    process = caller.sandbox.process(pid)

    reply = await caller.unary("SendSignal", {"process": {"pid": str(pid)}, "signal": given})

    assert reply.status == 200
    await process.wait()
    _, (_, end), _ = await caller.stream("Connect", {"process": {"pid": pid}})
    assert end["event"]["end"]["status"] == status


@pytest.mark.parametrize(
    ("given", "code", "status"),
    [
        (None, "unimplemented", 501),
        (0, "unimplemented", 501),
        ("SIGNAL_UNSPECIFIED", "unimplemented", 501),
        ("SIGKILL", "unimplemented", 501),
        (2, "unimplemented", 501),
        ([], "invalid_argument", 400),
        (True, "invalid_argument", 400),
        (1.5, "invalid_argument", 400),
    ],
)
async def test_other_signals_are_refused(
    caller: Caller, given: object, code: str, status: int
) -> None:
    pid = await caller.run_on("sleep")

    reply = await caller.unary("SendSignal", {"process": {"pid": pid}, "signal": given})

    assert (reply.status, reply.json()["code"]) == (status, code)
    assert caller.pids == [pid]


async def test_a_process_that_has_ended_takes_nothing_any_more(caller: Caller) -> None:
    (_, first), *_ = await caller.start("echo")
    process = {"process": first["event"]["start"]}
    calls: dict[str, dict[str, object]] = {
        "SendInput": {"input": {"stdin": ""}},
        "SendSignal": {"signal": "SIGNAL_SIGKILL"},
        "CloseStdin": {},
        "Update": {},
    }

    for method, fields in calls.items():
        reply = await caller.unary(method, {**process, **fields})
        assert (reply.status, reply.json()["code"]) == (404, "not_found")
    assert (await caller.fail("StreamInput", {"start": process}))[0] == "not_found"


async def test_the_size_of_a_terminal_is_changed(caller: Caller) -> None:
    pid = await caller.run_on("sleep", pty={})
    plain = await caller.run_on("sleep")
    size = {"size": {"cols": 120, "rows": 40}}

    done = await caller.unary("Update", {"process": {"pid": pid}, "pty": size})
    nothing = await caller.unary("Update", {"process": {"pid": plain}})
    refused = await caller.unary("Update", {"process": {"pid": plain}, "pty": size})

    assert (done.status, done.json(), nothing.status) == (200, {}, 200)
    (asked,) = [each for each in caller.agent.requests if each["op"] == "resize"]
    assert (asked["pid"], asked["cols"], asked["rows"]) == (pid, 120, 40)
    assert (refused.status, refused.json()["code"]) == (500, "internal")


# --- input ----------------------------------------------------------------------------------


async def follow_input(caller: Caller, feed: Callable[[int], Any], **fields: object) -> bytes:
    """Start ``cat``, have it fed, close its input; gives what it has read."""
    async with anyio.create_task_group() as tasks:
        talk = caller.begin(tasks, "Start", {"process": {"cmd": "cat"}, **fields})
        await talk.wait_for(b"start")
        (pid,) = caller.pids
        await feed(pid)
        await caller.unary("CloseStdin", {"process": {"pid": pid}})
    return b"".join(
        base64.b64decode(message["event"]["data"]["stdout"])
        for _, message in open_envelopes(talk.body)[1:-2]
    )


@pytest.mark.parametrize("fields", [{}, {"stdin": True}, {"stdin": None}])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("AAEC/+8=", b"\x00\x01\x02\xff\xef"),
        ("AAEC_-8", b"\x00\x01\x02\xff\xef"),
        ("", b""),
    ],
)
async def test_input_is_base64_and_there_unless_it_is_switched_off(
    caller: Caller, fields: dict[str, object], text: str, expected: bytes
) -> None:
    async def feed(pid: int) -> None:
        reply = await caller.unary("SendInput", {"process": {"pid": pid}, "input": {"stdin": text}})
        assert (reply.status, reply.json()) == (200, {})

    assert await follow_input(caller, feed, **fields) == expected


async def test_more_input_than_the_engine_takes_at_once_arrives_whole(caller: Caller) -> None:
    content = bytes(range(256)) * (20 * 1024)

    async def feed(pid: int) -> None:
        message = {"process": {"pid": pid}, "input": {"stdin": encoded(content)}}
        assert (await caller.unary("SendInput", message)).status == 200

    assert await follow_input(caller, feed) == content


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"stdin": None},
        {"stdin": "eA==", "pty": "eA=="},
        {"stdin": 1},
        {"stdin": "x"},
        {
            "stdin": "====",
        },
        {"stdin": "eA=\n="},
        {"stdin": "e A="},
        {"stdin": "\u00e9AAA"},
        {"pty": ["eA=="]},
        [],
    ],
)
async def test_what_is_no_input_is_refused(caller: Caller, given: object) -> None:
    pid = await caller.run_on("cat")

    reply = await caller.unary("SendInput", {"process": {"pid": pid}, "input": given})

    assert (reply.status, reply.json()["code"]) == (400, "invalid_argument")


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({"stdin": False}, {"stdin": "eA=="}),
        ({}, {"pty": "eA=="}),
        ({"pty": {}}, {"stdin": "eA=="}),
    ],
)
async def test_input_that_a_process_does_not_have_is_refused(
    caller: Caller, fields: dict[str, object], given: object
) -> None:
    pid = await caller.run_on("sleep", **fields)

    reply = await caller.unary("SendInput", {"process": {"pid": pid}, "input": given})

    assert (reply.status, reply.json()["code"]) == (500, "internal")


async def test_input_that_was_closed_takes_no_more(caller: Caller) -> None:
    process = {"process": {"pid": await caller.run_on("sleep")}}

    first = await caller.unary("CloseStdin", process)
    again = await caller.unary("CloseStdin", process)
    late = await caller.unary("SendInput", {**process, "input": {"stdin": "eA=="}})

    assert (first.status, again.status) == (200, 200)
    assert (late.status, late.json()["code"]) == (500, "internal")


async def test_a_terminal_takes_input_and_cannot_be_closed(caller: Caller) -> None:
    async with anyio.create_task_group() as tasks:
        talk = caller.begin(tasks, "Start", {"process": {"cmd": "cat"}, "pty": {}})
        await talk.wait_for(b"start")
        process = {"process": {"pid": caller.pids[0]}}
        await caller.unary("SendInput", {**process, "input": {"pty": encoded(b"typed")}})
        await talk.wait_for(b'"pty":"' + encoded(b"typed").encode())
        refused = await caller.unary("CloseStdin", process)
        talk.disconnect()

    assert (refused.status, refused.json()["code"]) == (500, "internal")
    assert "0x04" in refused.json()["message"]


async def test_input_that_nobody_reads_waits_no_longer_than_its_call(caller: Caller) -> None:
    pid = await caller.run_on("sleep")
    message = {"process": {"pid": pid}, "input": {"stdin": encoded(bytes(MIB))}}

    reply = await caller.unary("SendInput", message, **{"connect-timeout-ms": "50"})

    assert (reply.status, reply.json()["code"]) == (504, "deadline_exceeded")


async def test_input_that_waits_when_its_sandbox_ends_is_told_so(caller: Caller) -> None:
    pid = await caller.run_on("sleep")
    message = {"process": {"pid": pid}, "input": {"stdin": encoded(bytes(MIB))}}
    replies: list[Reply] = []

    async def send() -> None:
        replies.append(await caller.unary("SendInput", message))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(send)
        await anyio.wait_all_tasks_blocked()
        await caller.sandbox.kill()

    assert replies[0].status == 502


async def test_a_stream_of_input_is_written_as_it_comes(caller: Caller) -> None:
    async with anyio.create_task_group() as tasks:
        reader = caller.begin(tasks, "Start", {"process": {"cmd": "cat"}})
        await reader.wait_for(b"start")
        (pid,) = caller.pids
        writer = caller.begin(
            tasks,
            "StreamInput",
            {"start": {"process": {"pid": pid}}},
            {"keepalive": {}},
            {"data": {"input": {"stdin": encoded(b"one")}}},
            {"data": {"input": {"stdin": encoded(b"two")}}},
            withheld=1,
        )
        await reader.wait_for(encoded(b"one").encode())
        assert encoded(b"two").encode() not in reader.body
        writer.disconnect()
        reader.disconnect()

    assert caller.pids == [pid]


async def test_a_stream_of_input_is_answered_when_all_is_written(caller: Caller) -> None:
    async def feed(pid: int) -> None:
        start = {"start": {"process": {"pid": pid}}}
        words = [{"data": {"input": {"stdin": encoded(b"%d " % n)}}} for n in range(100)]
        assert await caller.stream("StreamInput", start, *words) == [(0, {}), (2, {})]

    assert await follow_input(caller, feed) == b"".join(b"%d " % n for n in range(100))


@pytest.mark.parametrize(
    "steps",
    [
        ["data"],
        ["keepalive", "data"],
        ["start", "start"],
        [{}],
        ["start", {"start": None}],
        ["start", {"data": {}}],
        ["start", {"data": {"input": {"stdin": "!"}}}],
        [{"start": {}}],
        [{"keepalive": {}, "data": {"input": {"stdin": ""}}}],
        [{"keepalive": 1}],
    ],
)
async def test_a_stream_of_input_that_makes_no_sense_is_refused(
    caller: Caller, steps: list[object]
) -> None:
    known: dict[object, object] = {
        "start": {"start": {"process": {"pid": await caller.run_on("sleep")}}},
        "data": {"data": {"input": {"stdin": "eA=="}}},
        "keepalive": {"keepalive": {}},
    }
    messages = [known[step] if isinstance(step, str) else step for step in steps]

    code, _ = await caller.fail("StreamInput", *messages)

    assert code == "invalid_argument"


async def test_a_stream_without_input_is_one(caller: Caller) -> None:
    assert await caller.stream("StreamInput") == [(0, {}), (2, {})]
