"""The interpreter's port: who may use it, code that is run, and the end of whoever asked."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.adapters.e2b.access import Purpose
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.context import MAX_QUEUE
from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from headrace.model.specs import Limits
from tests.support.e2b import TOKENS, E2bService, open_e2b
from tests.support.native import Client, Reply, eventually

END = {"type": "end_of_execution"}


@pytest.fixture
def client(service: E2bService, sandbox: Sandbox) -> Client:
    """A client of the interpreter."""
    return service.interpreter(sandbox)


def body_of(code: str, **fields: object) -> dict[str, object]:
    """Give the body of an execution as the Python SDK sends it."""
    return {"code": code, "context_id": None, "language": None, "env_vars": None, **fields}


async def run(client: Client, code: str, **fields: object) -> list[Any]:
    """Run code to its end and give the lines."""
    reply = await client.post("/execute", body_of(code, **fields))
    assert reply.status == 200, reply
    assert reply.is_complete
    return lines_of(reply.body)


def lines_of(body: bytes) -> list[Any]:
    """Read lines as the SDKs do."""
    assert body.isascii()
    return [json.loads(line) for line in body.decode().splitlines()]


def told(reply: Reply) -> str:
    """Give the text of a refusal."""
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    return reply.body.decode()


# --- who may --------------------------------------------------------------------------------------


async def test_health_needs_no_token(service: E2bService, sandbox: Sandbox) -> None:
    nobody = service.interpreter(sandbox, **{"e2b-traffic-access-token": ""})
    reply = await nobody.get("/health")
    assert (reply.status, reply.body) == (200, b'"OK"')
    assert (await nobody.request("HEAD", "/health")).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/execute"), ("GET", "/contexts"), ("DELETE", "/contexts/x"), ("GET", "/other")],
)
async def test_everything_else_needs_a_token(
    service: E2bService, sandbox: Sandbox, method: str, path: str
) -> None:
    stranger = await service.create()
    for token in ("", "x", TOKENS.make(Purpose.TRAFFIC, stranger.id)):
        client = service.interpreter(sandbox, **{"e2b-traffic-access-token": token})
        reply = await client.request(method, path, body_of("out never"))
        assert reply.status == 403
        assert reply.json()["sandboxId"] == sandbox.id
        assert reply.json()["code"] == 403
    assert not sandbox.contexts[0].executions


async def test_either_token_of_the_sandbox_opens_it(service: E2bService, sandbox: Sandbox) -> None:
    by_traffic = service.interpreter(sandbox)
    by_agent = service.interpreter(
        sandbox,
        **{
            "e2b-traffic-access-token": "",
            "x-access-token": TOKENS.make(Purpose.AGENT, sandbox.id),
        },
    )
    for client in (by_traffic, by_agent):
        assert (await run(client, "out hi"))[-1] == END


async def test_unknown_paths_and_methods_are_plain_text(client: Client) -> None:
    reply = await client.get("/nowhere")
    assert (reply.status, told(reply)) == (404, "there is nothing at this path")
    reply = await client.get("/execute")
    assert (reply.status, told(reply)) == (405, "GET is not possible here, only POST")


async def test_a_sandbox_that_is_gone_is_told_as_such(
    service: E2bService, sandbox: Sandbox
) -> None:
    await sandbox.kill()
    reply = await service.interpreter(sandbox).post("/execute", body_of("out hi"))
    assert reply.status == 502
    assert reply.json()["message"] == "The sandbox was not found"


# --- code -----------------------------------------------------------------------------------------


async def test_lines_tell_everything_in_order(client: Client) -> None:
    reply = await client.post(
        "/execute", body_of("out one\nerr two\nresult r\nmain 'm'\nerror E v")
    )
    assert reply.headers["content-type"] == "application/x-ndjson"
    lines = lines_of(reply.body)
    for line in lines:
        line.pop("timestamp", None)
    assert lines == [
        {"type": "number_of_executions", "execution_count": 1},
        {"type": "stdout", "text": "one\n"},
        {"type": "stderr", "text": "two\n"},
        {"type": "result", "text": "r", "extra": {}, "is_main_result": False},
        {"type": "result", "text": "m", "extra": {}, "is_main_result": True},
        {"type": "error", "name": "E", "value": "v", "traceback": "E v"},
        END,
    ]


async def test_executions_are_counted(client: Client) -> None:
    counts = [(await run(client, code))[0]["execution_count"] for code in ("out 1", "error E v")]
    assert counts == [1, 2]


async def test_absent_fields_are_as_good_as_null(client: Client) -> None:
    reply = await client.post("/execute", {"code": "out hi", "unknown": [1]})
    assert [line["type"] for line in reply.lines()][1:] == ["stdout", "end_of_execution"]


async def test_variables_are_those_of_one_execution(service: E2bService) -> None:
    sandbox = await service.create(env={"OURS": "sandbox"})
    client = service.interpreter(sandbox)
    given = await run(client, "env GIVEN\nenv OURS", env_vars={"GIVEN": "a \"b' $c`"})
    assert [line["text"] for line in given[1:-1]] == ["a \"b' $c`\n", "sandbox\n"]
    after = await run(client, "env GIVEN", env_vars={})
    assert after[1]["text"] == "(none)\n"


@pytest.mark.parametrize("name", ["python", " Python\n", "", "PYTHON"])
async def test_names_of_languages_are_read_generously(client: Client, name: str) -> None:
    assert (await run(client, "out hi", language=name))[1]["text"] == "hi\n"


@pytest.mark.parametrize("path", ["/execute", "/contexts"])
@pytest.mark.parametrize(("name", "told_as"), [("cobol", "'cobol'"), ("js", "javascript")])
async def test_a_language_that_cannot_start_is_500(
    client: Client, path: str, name: str, told_as: str
) -> None:
    reply = await client.post(path, {"code": "out hi", "language": name})
    assert reply.status == 500
    assert told_as in told(reply)


async def test_context_and_language_exclude_each_other(client: Client, sandbox: Sandbox) -> None:
    context = sandbox.contexts[0].id
    reply = await client.post("/execute", body_of("out hi", context_id=context, language="python"))
    assert reply.status == 400
    assert told(reply) == "Only one of context_id or language can be provided"


async def test_an_unknown_context_is_named(client: Client) -> None:
    reply = await client.post("/execute", body_of("out hi", context_id="ctx-é"))
    assert (reply.status, told(reply)) == (404, "Context ctx-é not found")


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "code: Field required"),
        (b"[]", "object"),
        (b"{", "Invalid JSON"),
        (b'{"code": 1}', "code"),
        (b'{"code": "\\u0000"}', "NUL"),
        (b'{"code": "1", "env_vars": {"A": 1}}', "env_vars.A"),
        (b'{"code": "1", "env_vars": {"A=B": "1"}}', "A=B"),
        (b'{"code": "1", "env_vars": []}', "env_vars"),
        (b'{"code": "1", "language": 5}', "language"),
        (b'{"code": "1", "context_id": 5}', "context_id"),
    ],
)
async def test_what_is_wrong_with_a_body_is_said(client: Client, body: bytes, fault: str) -> None:
    reply = await client.request("POST", "/execute", content=body)
    assert reply.status == 400
    assert fault in told(reply)


async def test_code_that_is_too_long_is_refused(tmp_path: Path) -> None:
    async with open_e2b(tmp_path, settings=E2bSettings(max_body=1000)) as service:
        client = service.interpreter(await service.create())
        reply = await client.post("/execute", body_of("x" * 1000))
    assert reply.status == 413
    assert "1000 bytes" in told(reply)


NO_TEXT = st.none() | st.integers() | st.lists(st.integers(), max_size=2)
FIELD = NO_TEXT | st.text(max_size=20)
NAMES = st.sampled_from(["", "python", " Py", "js", "java", "cobol", "\ud800"])
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "code": NO_TEXT | st.sampled_from(["", "out hi", "\ud800", "\0"]),
        "context_id": FIELD,
        "language": FIELD | NAMES,
        "cwd": FIELD,
        "env_vars": FIELD | st.dictionaries(st.text(max_size=5), FIELD, max_size=3),
    },
)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(path=st.sampled_from(["/execute", "/contexts"]), body=BODIES | FIELD | st.binary())
async def test_no_body_is_more_than_a_refusal(
    service: E2bService, sandbox: Sandbox, path: str, body: Any
) -> None:
    client = service.interpreter(sandbox)
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    reply = await client.request("POST", path, content=content)
    assert reply.is_complete
    if reply.status == 500:
        assert "language" in told(reply) or "not available" in told(reply)
    else:
        assert reply.status in (200, 400, 404, 429)
    for context in sandbox.contexts:
        if not sandbox.is_default(context.id):
            await sandbox.remove_context(context.id)


# --- streaming ------------------------------------------------------------------------------------


async def test_the_answer_begins_before_the_kernel_is_ready(tmp_path: Path) -> None:
    async with open_e2b(tmp_path) as service, anyio.create_task_group() as tasks:
        sandbox = await service.create()
        client = service.interpreter(sandbox)
        first = client.begin(tasks, "POST", "/execute", body_of("out go\nwait"))
        await first.wait_for(b"go")
        waiting = client.begin(tasks, "POST", "/execute", body_of("out later"))
        await eventually(lambda: waiting.status == 200)
        assert waiting.body == b""
        await sandbox.contexts[0].interrupt()
        await eventually(lambda: waiting.is_complete)


async def test_silence_is_broken_by_keepalives(tmp_path: Path) -> None:
    quiet = E2bSettings(keepalive=0.02)
    async with open_e2b(tmp_path, settings=quiet) as service, anyio.create_task_group() as tasks:
        sandbox = await service.create()
        conversation = service.interpreter(sandbox).begin(
            tasks, "POST", "/execute", body_of("out go\nwait")
        )
        await conversation.wait_for(b'{"type":"keepalive"}\n{"type":"keepalive"}\n')
        await sandbox.contexts[0].interrupt()
        await eventually(lambda: conversation.is_complete)
        lines = lines_of(conversation.body)
        assert {line["type"] for line in lines[2:-2]} == {"keepalive"}
        assert [line["type"] for line in lines[-2:]] == ["error", "end_of_execution"]


async def test_what_comes_at_once_is_one_write(client: Client) -> None:
    async with anyio.create_task_group() as tasks:
        conversation = client.begin(
            tasks, "POST", "/execute", body_of("\n".join(f"main {i}" for i in range(200)))
        )
        await eventually(lambda: conversation.is_complete)
    assert len(lines_of(conversation.body)) == 202
    assert conversation.sends < 100


# --- ends -----------------------------------------------------------------------------------------


async def test_a_client_that_leaves_interrupts_its_code(client: Client, sandbox: Sandbox) -> None:
    context = sandbox.contexts[0]
    async with anyio.create_task_group() as tasks:
        conversation = client.begin(tasks, "POST", "/execute", body_of("out go\nwait"))
        await conversation.wait_for(b"go")
        conversation.disconnect()
        with anyio.fail_after(5):
            end = await context.executions[0].wait()
    assert end.reason is FinishReason.INTERRUPTED
    assert (await run(client, "out next"))[1]["text"] == "next\n"


async def test_code_that_heeds_no_interrupt_holds_up_nobody(
    client: Client, sandbox: Sandbox
) -> None:
    async with anyio.create_task_group() as tasks:
        conversation = client.begin(tasks, "POST", "/execute", body_of("out go\nstubborn"))
        await conversation.wait_for(b"go")
        conversation.disconnect()
        with anyio.fail_after(5):
            end = await sandbox.contexts[0].executions[0].wait()
    assert end.state_lost
    assert (await run(client, "out next"))[1]["text"] == "next\n"


async def test_waiting_code_of_a_client_that_leaves_never_runs(
    client: Client, sandbox: Sandbox
) -> None:
    context = sandbox.contexts[0]
    async with anyio.create_task_group() as tasks:
        first = client.begin(tasks, "POST", "/execute", body_of("out go\nwait"))
        await first.wait_for(b"go")
        second = client.begin(tasks, "POST", "/execute", body_of("out never"))
        await eventually(lambda: second.status == 200)
        second.disconnect()
        with anyio.fail_after(5):
            end = await context.executions[1].wait()
        assert end.reason is FinishReason.INTERRUPTED
        assert not context.executions[0].is_finished
        first.disconnect()
    assert (await run(client, "out next"))[0]["execution_count"] == 2


async def test_a_sandbox_that_is_killed_breaks_its_streams_off(
    client: Client, sandbox: Sandbox
) -> None:
    async with anyio.create_task_group() as tasks:
        conversation = client.begin(tasks, "POST", "/execute", body_of("out go\nwait"))
        await conversation.wait_for(b"go")
        await sandbox.kill()
    assert not conversation.is_complete
    assert [line["type"] for line in lines_of(conversation.body)][1:] == ["stdout"]


@pytest.mark.parametrize(
    ("code", "cause"),
    [("die 7", "status 7"), ("signal 11", "SIGSEGV"), ("oom", "memory")],
)
async def test_a_kernel_that_dies_is_an_error_that_tells_why(
    client: Client, code: str, cause: str
) -> None:
    *_, error, end = await run(client, code)
    assert error["name"] == "UnexpectedEndOfExecution"
    assert cause in error["value"]
    assert "state of the context is lost" in error["value"]
    assert end == END
    assert (await run(client, "out next"))[1]["text"] == "next\n"


async def test_a_restart_is_told_to_whom_it_ends_and_not_to_who_waits(
    client: Client, sandbox: Sandbox
) -> None:
    context = sandbox.contexts[0].id
    async with anyio.create_task_group() as tasks:
        running = client.begin(tasks, "POST", "/execute", body_of("out go\nwait"))
        await running.wait_for(b"go")
        waiting = client.begin(tasks, "POST", "/execute", body_of("out later"))
        await eventually(lambda: waiting.status == 200)
        assert (await client.post(f"/contexts/{context}/restart")).status == 200
        await eventually(lambda: running.is_complete and waiting.is_complete)
    *_, error, end = lines_of(running.body)
    assert (error["name"], end) == ("ContextRestarting", END)
    assert [line["type"] for line in lines_of(waiting.body)][1:] == ["stdout", "end_of_execution"]


async def test_a_context_that_is_removed_ends_what_it_runs_and_what_waits(
    client: Client, sandbox: Sandbox
) -> None:
    context = sandbox.contexts[0].id
    async with anyio.create_task_group() as tasks:
        running = client.begin(tasks, "POST", "/execute", body_of("out go\nwait"))
        await running.wait_for(b"go")
        waiting = client.begin(tasks, "POST", "/execute", body_of("out never"))
        await eventually(lambda: waiting.status == 200)
        assert (await client.request("DELETE", f"/contexts/{context}")).status == 200
        await eventually(lambda: running.is_complete and waiting.is_complete)
    for conversation in (running, waiting):
        *_, error, end = lines_of(conversation.body)
        assert (error["name"], end) == ("UnexpectedEndOfExecution", END)
        assert "the context was removed" in error["value"]
    assert b"never" not in waiting.body


async def test_too_much_output_is_an_error_that_names_the_limit(service: E2bService) -> None:
    sandbox = await service.create(limits=Limits(output=1024))
    lines = await run(service.interpreter(sandbox), "flood 5000\nwait")
    *_, error, end = lines
    assert error["name"] == "OutputLimitExceeded"
    assert "1024 bytes" in error["value"]
    assert end == END
    assert sum(line["type"] == "error" for line in lines) == 1
    assert any("missing here" in line.get("text", "") for line in lines)


async def test_contexts_run_side_by_side(client: Client) -> None:
    other = (await client.post("/contexts")).json()["id"]
    async with anyio.create_task_group() as tasks:
        running = client.begin(tasks, "POST", "/execute", body_of("out go\nwait"))
        await running.wait_for(b"go")
        assert (await run(client, "out beside", context_id=other))[1]["text"] == "beside\n"
        running.disconnect()


async def test_more_code_than_can_wait_is_refused(client: Client, sandbox: Sandbox) -> None:
    async with anyio.create_task_group() as tasks:
        running = client.begin(tasks, "POST", "/execute", body_of("out go\nwait"))
        await running.wait_for(b"go")
        waiting = [
            client.begin(tasks, "POST", "/execute", body_of("out never")) for _ in range(MAX_QUEUE)
        ]
        await eventually(lambda: all(each.status == 200 for each in waiting))
        reply = await client.post("/execute", body_of("out hi"))
        assert reply.status == 429
        assert "wait in the context" in told(reply)
        for each in waiting:
            each.disconnect()
        executions = list(sandbox.contexts[0].executions)[1:]
        await eventually(lambda: all(each.is_finished for each in executions))
        running.disconnect()
    assert (await run(client, "out next"))[0]["execution_count"] == 2
