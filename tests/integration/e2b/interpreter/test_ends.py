"""Executions that do not end by themselves, and what their clients are told."""

import anyio
import httpx
import pytest

from headrace.engine.engine import Engine
from headrace.model.events import FinishReason
from headrace.model.specs import MIB, Limits
from tests.support.interpreting import Interpreter, Outcome, open_interpreter

pytestmark = pytest.mark.sandbox


@pytest.mark.parametrize(
    "language",
    ["python", "javascript", "bash", "java", "r"],
)
async def test_a_client_that_leaves_interrupts_its_code(fresh: Interpreter, language: str) -> None:
    codes = {
        "python": "import time\nx = 5\nprint('go')\ntime.sleep(300)",
        "javascript": "var x = 5; console.log('go'); await new Promise(() => {})",
        "bash": "x=5; echo go; sleep 300",
        "java": 'int x = 5;\nSystem.out.println("go");\nThread.sleep(300000);',
        "r": 'x <- 5\ncat("go\\n")\nSys.sleep(300)',
    }
    kept = {"python": "print(x)", "javascript": "console.log(x)", "bash": "echo $x"}
    kept |= {"java": "System.out.println(x);", "r": 'cat(x, "\\n", sep="")'}
    async for line in fresh.follow(codes[language], language=language):
        if line["type"] == "stdout":
            break
    with anyio.fail_after(10):
        assert (await fresh.outcome(kept[language], language=language)).stdout == "5\n"


async def test_waiting_code_of_a_client_that_leaves_never_runs(fresh: Interpreter) -> None:
    async def leave_soon() -> None:
        with anyio.move_on_after(0.5):
            await fresh.run("open('never', 'w').close()")

    running = fresh.follow("print('go')\nimport time; time.sleep(1.5)")
    async for line in running:
        if line["type"] == "stdout":
            await leave_soon()
    assert await fresh.main("import os; os.path.exists('never')") == "False"
    (context,) = [each for each in fresh.sandbox.contexts if each.language == "python"]
    ends = [await each.wait() for each in context.executions]
    assert [end.reason for end in ends] == [
        FinishReason.OK,
        FinishReason.INTERRUPTED,
        FinishReason.OK,
    ]


async def test_a_client_that_leaves_a_flood_stops_it(fresh: Interpreter) -> None:
    async for line in fresh.follow("while True: print('x' * 1000)"):
        if line["type"] == "stdout":
            break
    with anyio.fail_after(10):
        assert await fresh.main("1 + 1") == "2"


async def test_a_sandbox_that_is_killed_breaks_the_connection(engine: Engine, url: str) -> None:
    async with open_interpreter(engine, url) as interpreter:

        async def follow() -> None:
            async for line in interpreter.follow("print('go')\nimport time; time.sleep(300)"):
                if line["type"] == "stdout":
                    await interpreter.sandbox.kill()

        with pytest.raises(httpx.RemoteProtocolError):
            await follow()
        answer = await interpreter.http.get("/health")
        assert answer.status_code == 502
        assert "was not found" in answer.json()["message"]


@pytest.mark.parametrize(
    ("code", "cause"),
    [
        ("import os; os._exit(7)", "status 7"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
        ("import os; os.kill(os.getpid(), 9)", "SIGKILL"),
    ],
)
async def test_a_kernel_that_dies_tells_why(fresh: Interpreter, code: str, cause: str) -> None:
    outcome = await fresh.outcome(f"print('before', flush=True)\n{code}")
    assert outcome.stdout == "before\n"
    assert outcome.error is not None
    assert outcome.error["name"] == "UnexpectedEndOfExecution"
    assert cause in outcome.error["value"]
    assert await fresh.main("1 + 1") == "2"


async def test_a_kernel_without_memory_says_so(engine: Engine, url: str) -> None:
    limits = Limits(memory=300 * MIB)
    async with open_interpreter(engine, url, limits=limits) as interpreter:
        outcome = await interpreter.outcome("x = []\nwhile True: x.append(bytearray(10_000_000))")
    assert outcome.error is not None
    if outcome.error["name"] != "MemoryError":
        assert outcome.error["name"] == "UnexpectedEndOfExecution"
        assert "memory" in outcome.error["value"]


async def test_a_restart_is_told_to_whom_it_ends(fresh: Interpreter) -> None:
    lines = []
    async for line in fresh.follow("print('go')\nimport time; time.sleep(300)"):
        lines.append(line)
        if line["type"] == "stdout":
            context = fresh.sandbox.contexts[0].id
            assert (await fresh.http.post(f"/contexts/{context}/restart")).status_code == 200
    outcome = Outcome(lines)
    assert outcome.error is not None
    assert outcome.error["name"] == "ContextRestarting"
