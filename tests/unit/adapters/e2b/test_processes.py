"""Streams of processes and terminals over RPC: started, joined, ended."""

import base64

import anyio
import pytest

from headrace.adapters.e2b import following
from headrace.adapters.e2b.envd.processes import make_request
from headrace.adapters.e2b.schemas.processes import StartRequest
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import DeadlineError
from headrace.model.specs import Limits
from tests.support.e2b import E2bService, open_envelopes
from tests.support.e2b_processes import KILLED, SUCCESS, Caller, encoded, output, started
from tests.support.fakes import NO_DIRECTORY
from tests.support.native import eventually


@pytest.fixture
def caller(service: E2bService, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Caller:
    """A client of the process service, whose leaving is noticed at once."""
    monkeypatch.setattr(following, "ALONE", 0.0)
    caller = Caller(service, sandbox)
    caller.agent.files["/home/user"] = b""
    return caller


# --- starting -------------------------------------------------------------------------------


async def test_a_command_is_told_from_start_to_end(caller: Caller) -> None:
    first, written, end, last = await caller.start("echo", "hi", "there")

    pid = first[1]["event"]["start"]["pid"]
    assert first == (0, started(pid))
    assert written == (0, output(b"hi there\n"))
    assert (end, last) == ((0, SUCCESS), (2, {}))


async def test_a_command_that_fails_says_its_status(caller: Caller) -> None:
    _, (_, end), last = await caller.start("exit", "3")

    assert end["event"]["end"] == {
        "exitCode": 3,
        "exited": True,
        "status": "exit status 3",
        "error": "exit status 3",
    }
    assert last == (2, {})


async def test_a_command_runs_as_it_was_asked_for(caller: Caller) -> None:
    config = {"cmd": "echo", "args": ["a b", "$c"], "envs": {"A": "1"}, "cwd": "/tmp"}

    await caller.stream("Start", {"process": config, "tag": "mine", "unknown": {}})

    (asked,) = caller.agent.requests
    assert (asked["argv"], asked["cwd"], asked["user"]) == (["echo", "a b", "$c"], "/tmp", "user")
    assert asked["pty"] is None
    assert asked["env"] == {
        "E2B_SANDBOX": "true",
        "E2B_SANDBOX_ID": caller.sandbox.id,
        "E2B_TEMPLATE_ID": caller.sandbox.spec.template,
        "A": "1",
    }


async def test_the_environment_of_the_sandbox_comes_before_that_of_the_command(
    service: E2bService,
) -> None:
    sandbox = await service.create(env={"A": "sandbox", "B": "sandbox", "E2B_SANDBOX": "no"})
    caller = Caller(service, sandbox)
    envs = {"B": "command", "E2B_SANDBOX_ID": "mine"}

    await caller.stream("Start", {"process": {"cmd": "echo", "envs": envs}})

    (asked,) = caller.agent.requests
    assert asked["env"] == {
        "A": "sandbox",
        "B": "command",
        "E2B_SANDBOX": "no",
        "E2B_SANDBOX_ID": "mine",
        "E2B_TEMPLATE_ID": sandbox.spec.template,
    }


@pytest.mark.parametrize(
    ("user", "cwd", "found"),
    [
        ("user", None, "/home/user"),
        ("user", "", "/home/user"),
        ("user", "~", "/home/user"),
        ("user", "~/work", "/home/user/work"),
        ("user", "work", "/home/user/work"),
        ("root", "work", "/root/work"),
        ("root", None, "/root"),
        ("root", "/tmp", "/tmp"),
    ],
)
async def test_a_directory_is_taken_from_the_home_of_the_user(
    caller: Caller, user: str, cwd: str | None, found: str
) -> None:
    authorization = f"Basic {encoded(f'{user}:'.encode())}"

    await caller.stream(
        "Start", {"process": {"cmd": "echo", "cwd": cwd}}, authorization=authorization
    )

    (asked,) = caller.agent.requests
    assert (asked["user"], asked["cwd"]) == (user, found)


async def test_a_user_that_is_not_there_is_refused(caller: Caller) -> None:
    authorization = f"Basic {encoded(b'nobody:')}"

    found = await caller.fail("Start", {"process": {"cmd": "echo"}}, authorization=authorization)

    assert found == ("unauthenticated", "invalid username: 'nobody'")


async def test_a_directory_that_is_not_there_is_named(caller: Caller) -> None:
    found = await caller.fail("Start", {"process": {"cmd": "echo", "cwd": NO_DIRECTORY}})

    assert found == ("invalid_argument", "cwd '/it's/not' does not exist")


async def test_a_command_that_is_not_there_is_named(caller: Caller) -> None:
    code, message = await caller.fail("Start", {"process": {"cmd": "nosuch"}})

    assert code == "invalid_argument"
    assert message == "error starting process: nosuch: no such file or directory"
    assert caller.pids == []


@pytest.mark.parametrize(
    ("pty", "size"),
    [
        ({"size": {"cols": 100, "rows": 30}}, {"cols": 100, "rows": 30}),
        ({"size": {"cols": "100", "rows": 30.0}}, {"cols": 100, "rows": 30}),
        ({"size": {"rows": 30}}, {"cols": 80, "rows": 30}),
        ({"size": None}, {"cols": 80, "rows": 24}),
        ({}, {"cols": 80, "rows": 24}),
    ],
)
async def test_a_terminal_has_its_own_stream_and_size(
    caller: Caller, pty: dict[str, object], size: dict[str, int]
) -> None:
    messages = await caller.start("echo", "hi", pty=pty)

    assert messages[1] == (0, output(b"hi\n", "pty"))
    assert caller.agent.requests[0]["pty"] == size


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"process": None},
        {"process": {}},
        {"process": {"cmd": ""}},
        {"process": {"cmd": 1}},
        {"process": "echo"},
        {"process": {"cmd": "a\0b"}},
        {"process": {"cmd": "echo", "args": "a"}},
        {"process": {"cmd": "echo", "args": [1]}},
        {"process": {"cmd": "echo", "args": [None]}},
        {"process": {"cmd": "echo", "args": False}},
        {"process": {"cmd": "echo", "args": [0] * 1000}},
        {"process": {"cmd": "echo", "args": ["x" * 200_000]}},
        {"process": {"cmd": "echo", "envs": {"A": 1}}},
        {"process": {"cmd": "echo", "envs": {"A": None}}},
        {"process": {"cmd": "echo", "envs": {"A=B": "c"}}},
        {"process": {"cmd": "echo", "envs": []}},
        {"process": {"cmd": "echo", "cwd": 1}},
        {"process": {"cmd": "echo", "cwd": "~other/x"}},
        {"process": {"cmd": "echo", "cwd": "x" * 5000}},
        {"process": {"cmd": "echo"}, "pty": True},
        {"process": {"cmd": "echo"}, "pty": {"size": {"cols": -1}}},
        {"process": {"cmd": "echo"}, "pty": {"size": {"cols": 5000}}},
        {"process": {"cmd": "echo"}, "pty": {"size": {"cols": True}}},
        {"process": {"cmd": "echo"}, "pty": {"size": {"cols": "1e2"}}},
        {"process": {"cmd": "echo"}, "stdin": "true"},
        {"process": {"cmd": "echo"}, "stdin": 1},
        {"process": {"cmd": "echo"}, "tag": 1},
        {"process": {"cmd": "echo"}, "tag": "x" * 1025},
        [],
        None,
        "x",
    ],
)
async def test_what_is_no_command_is_refused(caller: Caller, message: object) -> None:
    code, text = await caller.fail("Start", message)

    assert code == "invalid_argument"
    assert len(text) < 400
    assert caller.agent.requests == []


async def test_nulls_stand_for_what_is_absent(caller: Caller) -> None:
    config = {"cmd": "echo", "args": None, "envs": None, "cwd": None}

    messages = await caller.stream(
        "Start", {"process": config, "pty": None, "tag": None, "stdin": None}
    )

    assert messages[1] == (0, output(b"\n"))


async def test_one_process_too_many_is_refused(service: E2bService) -> None:
    sandbox = await service.create(limits=Limits(processes=8))
    caller = Caller(service, sandbox)
    for _ in range(8):
        await caller.run_on("sleep")

    code, _ = await caller.fail("Start", {"process": {"cmd": "echo"}})

    assert code == "resource_exhausted"


# --- deadlines ------------------------------------------------------------------------------


async def test_the_time_of_the_call_is_that_of_the_process(caller: Caller) -> None:
    message = {"process": {"cmd": "sleep"}}

    first, last = await caller.stream("Start", message, connect_timeout_ms="500")

    assert first == (0, started(101))
    assert last[0] == 2
    assert last[1]["error"]["code"] == "deadline_exceeded"
    assert caller.pids == []
    assert [each["signal"] for each in caller.agent.requests[1:]] == [9]


async def test_a_process_runs_out_of_time_although_its_client_has_left(caller: Caller) -> None:
    async with anyio.create_task_group() as tasks:
        message = {"process": {"cmd": "sleep"}}
        talk = caller.begin(tasks, "Start", message, connect_timeout_ms="500")
        await talk.wait_for(b"start")
        talk.disconnect()

    await eventually(lambda: not caller.pids)


async def test_without_a_time_the_process_has_none(caller: Caller) -> None:
    pid = await caller.run_on("sleep")

    assert caller.sandbox.process(pid).request.timeout is None


async def test_a_call_that_comes_too_late_starts_nothing(caller: Caller) -> None:
    message = {"process": {"cmd": "echo"}}

    code, _ = await caller.fail("Start", message, connect_timeout_ms="0")

    assert code == "deadline_exceeded"
    assert caller.agent.requests == []


async def test_a_call_whose_time_ends_before_the_start_starts_nothing(sandbox: Sandbox) -> None:
    message = StartRequest.model_validate({"process": {"cmd": "echo"}})

    with pytest.raises(DeadlineError, match="before the process was started"):
        make_request(message, "user", sandbox, 0.0)


async def test_the_longest_time_that_can_be_said_is_taken(caller: Caller) -> None:
    message = {"process": {"cmd": "echo"}}

    messages = await caller.stream("Start", message, connect_timeout_ms="9999999999")

    assert messages[-1] == (2, {})


async def test_the_time_of_a_connection_ends_the_connection_alone(caller: Caller) -> None:
    pid = await caller.run_on("sleep")

    first, last = await caller.stream("Connect", {"process": {"pid": pid}}, connect_timeout_ms="99")

    assert first == (0, started(pid))
    assert last[1]["error"]["code"] == "deadline_exceeded"
    assert caller.pids == [pid]


# --- connecting -----------------------------------------------------------------------------


async def test_a_client_that_leaves_does_not_stop_its_process(caller: Caller) -> None:
    pid = await caller.run_on("sleep")

    assert caller.pids == [pid]


@pytest.mark.parametrize("key", ["pid", "tag"])
async def test_who_connects_sees_what_is_written_afterwards(caller: Caller, key: str) -> None:
    async with anyio.create_task_group() as tasks:
        first = caller.begin(tasks, "Start", {"process": {"cmd": "cat"}, "tag": "mine"})
        await first.wait_for(b"start")
        (pid,) = caller.pids
        by_pid = {"process": {"pid": pid}}
        await caller.unary("SendInput", {**by_pid, "input": {"stdin": encoded(b"one")}})
        await first.wait_for(encoded(b"one").encode())

        second = caller.begin(
            tasks, "Connect", by_pid if key == "pid" else {"process": {"tag": "mine"}}
        )
        await second.wait_for(b"start")
        await caller.unary("SendInput", {**by_pid, "input": {"stdin": encoded(b"two")}})
        await second.wait_for(encoded(b"two").encode())
        await caller.unary("CloseStdin", by_pid)

    end = [(0, SUCCESS), (2, {})]
    assert open_envelopes(first.body) == [
        *((0, started(pid)), (0, output(b"one")), (0, output(b"two"))),
        *end,
    ]
    assert open_envelopes(second.body) == [(0, started(pid)), (0, output(b"two")), *end]


@pytest.mark.parametrize("key", ["pid", "tag"])
async def test_of_a_process_that_has_ended_there_is_the_end(caller: Caller, key: str) -> None:
    (_, first), *_ = await caller.start("exit", "4", tag="mine")
    pid = first["event"]["start"]["pid"]

    found = await caller.stream("Connect", {"process": {key: pid if key == "pid" else "mine"}})

    (_, start), (_, end), last = found
    assert (start, end["event"]["end"]["exitCode"], last) == (started(pid), 4, (2, {}))


async def test_of_several_with_a_tag_the_newest_is_meant(caller: Caller) -> None:
    await caller.start("echo", tag="mine")
    await caller.run_on("sleep", tag="mine")
    newest = await caller.run_on("sleep", tag="mine")

    await caller.unary("SendSignal", {"process": {"tag": "mine"}, "signal": "SIGNAL_SIGKILL"})

    await eventually(lambda: newest not in caller.pids)
    assert len(caller.pids) == 1


@pytest.mark.parametrize(
    ("process", "code"),
    [
        ({"pid": 9999}, "not_found"),
        ({"pid": 0}, "not_found"),
        ({"tag": "nosuch"}, "not_found"),
        ({"tag": ""}, "not_found"),
        ({"pid": 1, "tag": None, "later": 1}, "not_found"),
        ({}, "invalid_argument"),
        (None, "invalid_argument"),
        ({"pid": None, "tag": None}, "invalid_argument"),
        ({"pid": 1, "tag": "x"}, "invalid_argument"),
        ({"pid": -1}, "invalid_argument"),
        ({"pid": 2**32}, "invalid_argument"),
        ({"pid": 1.5}, "invalid_argument"),
        ({"pid": True}, "invalid_argument"),
        ({"pid": "x"}, "invalid_argument"),
        ({"tag": 1}, "invalid_argument"),
    ],
)
@pytest.mark.parametrize(
    "method", ["Connect", "SendInput", "StreamInput", "CloseStdin", "SendSignal", "Update"]
)
async def test_a_process_that_is_not_there_is_told_from_a_question_that_is_none(
    caller: Caller, method: str, process: object, code: str
) -> None:
    await caller.run_on("sleep")
    message: dict[str, object] = {"process": process, "input": {"stdin": ""}}

    if method in ("Connect", "StreamInput"):
        asked = {"start": message} if method == "StreamInput" else message
        found, _ = await caller.fail(method, asked)
    else:
        reply = await caller.unary(method, message)
        found = reply.json()["code"]
        assert reply.status == {"not_found": 404, "invalid_argument": 400}[code]

    assert found == code


# --- ends -----------------------------------------------------------------------------------


async def test_a_process_that_is_killed_has_an_end(caller: Caller) -> None:
    async with anyio.create_task_group() as tasks:
        talk = caller.begin(tasks, "Start", {"process": {"cmd": "sleep"}})
        await talk.wait_for(b"start")
        (pid,) = caller.pids
        reply = await caller.unary(
            "SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"}
        )

    assert (reply.status, reply.json()) == (200, {})
    assert open_envelopes(talk.body) == [(0, started(pid)), (0, KILLED), (2, {})]
    assert talk.is_complete


async def test_a_process_whose_sandbox_is_killed_has_none(caller: Caller) -> None:
    async with anyio.create_task_group() as tasks:
        talk = caller.begin(tasks, "Start", {"process": {"cmd": "sleep"}})
        await talk.wait_for(b"start")
        (pid,) = caller.pids
        connected = caller.begin(tasks, "Connect", {"process": {"pid": pid}})
        await connected.wait_for(b"start")
        await caller.sandbox.kill()

    for each in (talk, connected):
        assert open_envelopes(each.body) == [(0, started(pid))]
        assert not each.is_complete


async def test_output_beyond_the_limit_ends_the_process_and_is_told(service: E2bService) -> None:
    sandbox = await service.create(limits=Limits(output=1024))
    caller = Caller(service, sandbox)

    messages = await caller.start("flood", "500000")

    (_, end), last = messages[-2:]
    written = b"".join(
        base64.b64decode(message["event"]["data"]["stdout"]) for _, message in messages[1:-2]
    )
    assert written == b"x" * 1024
    assert end["event"]["end"]["exitCode"] == -1
    assert "output limit of 1024 bytes" in end["event"]["end"]["error"]
    assert last == (2, {})


async def test_a_lot_of_output_arrives_in_chunks_of_at_most_32_kib(caller: Caller) -> None:
    messages = await caller.start("flood", "1000000")

    chunks = [base64.b64decode(message["event"]["data"]["stdout"]) for _, message in messages[1:-2]]
    assert b"".join(chunks) == b"x" * 1_000_000
    assert max(map(len, chunks)) <= 32 * 1024
