"""What every user does first: run code, run commands, several at once."""

import json
import time
from typing import Any

from e2b_code_interpreter import AsyncSandbox, CommandExitException
from face_async import all_of, pause


async def test_an_error_leaves_the_state_as_it_was(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("x = 20")

    failed = await sandbox.run_code("1/0")
    after = await sandbox.run_code("x + 1")

    assert failed.error is not None
    assert (failed.error.name, failed.error.value) == ("ZeroDivisionError", "division by zero")
    assert "1/0" in failed.error.traceback
    assert after.text == "21"


# covers: commands.run
async def test_a_command_is_streamed_while_it_runs(sandbox: AsyncSandbox) -> None:
    arrivals: list[tuple[float, str]] = []

    result = await sandbox.commands.run(
        'for i in 1 2 3; do echo "Line $i"; sleep 0.7; done',
        on_stdout=lambda data: arrivals.append((time.monotonic(), data)),
    )

    assert [data for _, data in arrivals] == ["Line 1\n", "Line 2\n", "Line 3\n"]
    times = [moment for moment, _ in arrivals]
    assert times[1] - times[0] > 0.4
    assert times[2] - times[1] > 0.4
    assert result.exit_code == 0
    assert result.stdout == "Line 1\nLine 2\nLine 3\n"
    assert result.stderr == ""


# covers: commands.run
async def test_a_command_that_fails_raises_with_its_exit_code(sandbox: AsyncSandbox) -> None:
    raised = None
    try:
        await sandbox.commands.run("echo so far; echo wrong >&2; exit 3")
    except CommandExitException as error:
        raised = error

    assert raised is not None
    assert raised.exit_code == 3
    assert raised.stdout == "so far\n"
    assert raised.stderr == "wrong\n"
    assert raised.error == "exit status 3"


# covers: handle.wait
async def test_a_background_command_returns_at_once(sandbox: AsyncSandbox) -> None:
    begun = time.monotonic()

    command = await sandbox.commands.run("sleep 2; echo done", background=True)
    returned = time.monotonic()
    result = await command.wait()

    assert returned - begun < 1.5
    assert command.pid > 0
    assert result.stdout == "done\n"
    assert time.monotonic() - begun > 1.5


async def test_structured_events_arrive_one_by_one(sandbox: AsyncSandbox) -> None:
    code = """
import json

def emit(event_type: str, data: dict):
    print(json.dumps({"type": event_type, "data": data}), flush=True)

emit("progress", {"percent": 50})
emit("result", {"value": 42})
emit("complete", {})
"""
    events: list[Any] = []

    await sandbox.run_code(code, on_stdout=lambda data: events.append(json.loads(data.line)))

    assert events == [
        {"type": "progress", "data": {"percent": 50}},
        {"type": "result", "data": {"value": 42}},
        {"type": "complete", "data": {}},
    ]


async def test_five_commands_stream_side_by_side(sandbox: AsyncSandbox) -> None:
    seen: list[str] = []

    async def run(name: str) -> None:
        await sandbox.commands.run(
            f"for i in 1 2 3; do echo {name}$i; sleep 0.5; done", on_stdout=seen.append
        )

    begun = time.monotonic()
    await all_of(*(lambda name=name: run(name) for name in "abcde"))

    assert time.monotonic() - begun < 6
    lines = "".join(seen).split()
    assert sorted(lines) == sorted(f"{name}{i}" for name in "abcde" for i in (1, 2, 3))
    # All have begun before any has ended.
    firsts = [lines.index(f"{name}1") for name in "abcde"]
    lasts = [lines.index(f"{name}3") for name in "abcde"]
    assert max(firsts) < min(lasts)


async def test_five_sandboxes_stream_side_by_side() -> None:
    seen: list[str] = []

    async def run(number: int) -> str:
        sandbox = await AsyncSandbox.create()
        try:
            code = f"import time\nfor i in range(3):\n    print({number}, i)\n    time.sleep(0.5)"
            await sandbox.run_code(code, on_stdout=lambda data: seen.append(data.line.strip()))
            return sandbox.sandbox_id
        finally:
            await sandbox.kill()

    ids = await all_of(*(lambda number=number: run(number) for number in range(5)))

    assert len(set(ids)) == 5
    assert sorted(seen) == [f"{number} {i}" for number in range(5) for i in range(3)]
    firsts = [seen.index(f"{number} 0") for number in range(5)]
    lasts = [seen.index(f"{number} 2") for number in range(5)]
    assert max(firsts) < min(lasts)


async def test_output_arrives_soon_after_it_was_written(sandbox: AsyncSandbox) -> None:
    delays: list[float] = []
    code = "import time\nfor _ in range(20):\n    print(time.time())\n    time.sleep(0.05)"

    await sandbox.run_code(
        code, on_stdout=lambda data: delays.append(time.time() - float(data.line))
    )
    await pause(0)

    # The aim is 20 ms; a machine that is busy is allowed more.
    assert len(delays) == 20
    assert sorted(delays)[10] < 0.1
