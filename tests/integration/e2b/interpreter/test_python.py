"""Python code over HTTP: streams, values, errors, and output of every size."""

import json

import anyio
import pytest

from headrace.engine.engine import Engine
from headrace.model.specs import Limits
from tests.support.interpreting import END, HOSTILE, Interpreter, open_interpreter

pytestmark = pytest.mark.sandbox

DOCUMENTED = """
    import time
    import sys
    print("This goes first to stdout")
    time.sleep(0.3)
    print("This goes later to stderr", file=sys.stderr)
    time.sleep(0.3)
    print("This goes last")
"""


async def test_the_documented_program_streams_line_by_line(shared: Interpreter) -> None:
    arrived = [(anyio.current_time(), line) async for line in shared.follow(DOCUMENTED)]
    lines = [line for _, line in arrived]
    for line in lines:
        line.pop("timestamp", None)
    assert lines[1:] == [
        {"type": "stdout", "text": "This goes first to stdout\n"},
        {"type": "stderr", "text": "This goes later to stderr\n"},
        {"type": "stdout", "text": "This goes last\n"},
        END,
    ]
    times = [at for at, _ in arrived]
    assert times[2] - times[1] > 0.2
    assert times[3] - times[2] > 0.2


@pytest.mark.parametrize(
    "code",
    [
        "    import os\n    os.environ['GIVEN']",
        "\timport os\n\tif True:\n\t\tx = os.environ['GIVEN']\n\tx",
        "\n\n    import os\n    os.environ['GIVEN']\n    ",
        "import os; os.environ['GIVEN']",
    ],
)
async def test_indented_code_runs_also_with_variables(shared: Interpreter, code: str) -> None:
    result = await shared.main(f"{code}", env_vars={"GIVEN": "here"})
    assert result == "here"


async def test_variables_are_gone_afterwards_and_those_of_the_sandbox_stay(
    shared: Interpreter,
) -> None:
    code = "import os\nprint(os.environ.get('GIVEN'), os.environ['OURS'], os.getcwd(), sep='|')"
    given = await shared.outcome(code, env_vars={"GIVEN": HOSTILE})
    assert given.stdout == f"{HOSTILE}|of the sandbox|/home/user\n"
    after = await shared.outcome(code)
    assert after.stdout == "None|of the sandbox|/home/user\n"


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("display(1); display('a')\n2", [("1", False), ("a", False), ("2", True)]),
        ("5;", []),
        ("None", []),
        ("x = 5", []),
        ("'one pair'", [("one pair", True)]),
        ("import asyncio\nawait asyncio.sleep(0)\n'awaited'", [("awaited", True)]),
        ("%pwd", [("/home/user", True)]),
        ("{1, 2}", [("{1, 2}", True)]),
        ("h = display(1, display_id='d')\nh.update(2)", [("1", False), ("2", False)]),
    ],
)
async def test_values_and_displays_are_results(
    shared: Interpreter, code: str, expected: list[tuple[str, bool]]
) -> None:
    outcome = await shared.outcome(code)
    assert outcome.error is None
    assert [(each["text"], each["is_main_result"]) for each in outcome.results] == expected
    assert all(each["extra"] == {} for each in outcome.results)


async def test_commands_of_the_shell_write_to_stdout(shared: Interpreter) -> None:
    outcome = await shared.outcome("!echo out; echo err >&2")
    assert (outcome.stdout, outcome.stderr) == ("out\n", "err\n")


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("1/0", "ZeroDivisionError", "division by zero"),
        ("x = ", "SyntaxError", "invalid syntax"),
        ("if 1:\nx", "IndentationError", "expected an indented block"),
        ("import sys; sys.exit(3)", "SystemExit", "3"),
        ("exit()", "SystemExit", ""),
        ("input('name? ')", "StdinNotImplementedError", "input"),
        ("raise KeyError('é')", "KeyError", "'é'"),
    ],
)
async def test_errors_have_name_value_and_a_plain_traceback(
    shared: Interpreter, code: str, name: str, value: str
) -> None:
    outcome = await shared.outcome(code)
    assert outcome.error is not None
    assert outcome.error["name"] == name
    assert value in outcome.error["value"]
    assert name in outcome.error["traceback"]
    assert "\x1b" not in outcome.error["traceback"]
    assert await shared.main("1 + 1") == "2"


async def test_long_sequences_are_whole(shared: Interpreter) -> None:
    (result,) = (await shared.outcome("list(range(5000))")).results
    assert result["text"].endswith("4999]")
    assert "..." not in result["text"]
    assert result["json"] == list(range(5000))


async def test_text_of_all_kinds_arrives_as_it_was_written(shared: Interpreter) -> None:
    text = "é \u2028 \x85 \U0001f600 \x0c \x1e"
    outcome = await shared.outcome(f"print({text!r})\n{text!r}")
    assert outcome.stdout == f"{text}\n"


async def test_silence_is_broken_by_keepalives(shared: Interpreter) -> None:
    lines = await shared.run("import time; time.sleep(1.4); print('end')")
    kinds = [line["type"] for line in lines]
    assert kinds.count("keepalive") >= 2
    assert kinds[-2:] == ["stdout", "end_of_execution"]


async def test_ten_megabytes_arrive_whole(shared: Interpreter) -> None:
    outcome = await shared.outcome("for i in range(100_000): print(f'{i:099d}')")
    assert outcome.stdout == "".join(f"{i:099d}\n" for i in range(100_000))


async def test_prints_that_follow_one_another_are_lines_of_their_own(shared: Interpreter) -> None:
    code = "import json\nfor i in range(200): print(json.dumps({'step': i}), flush=True)"
    lines = [line for line in await shared.run(code) if line["type"] == "stdout"]
    assert [json.loads(line["text"]) for line in lines] == [{"step": i} for i in range(200)]


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("python", "print('x' * 3_000_000)"),
        ("python", "print('before'); print('x' * 3_000_000)"),
        ("js", "console.log('x'.repeat(3_000_000))"),
        ("bash", "printf '%s\\n' \"$(head -c 3000000 /dev/zero | tr '\\0' x)\""),
    ],
)
async def test_one_line_of_three_megabytes_is_one_piece(
    shared: Interpreter, language: str, code: str
) -> None:
    lines = [line for line in await shared.run(code, language=language) if "timestamp" in line]
    assert lines[-1]["text"] == "x" * 3_000_000 + "\n"
    assert len(lines) <= 2


async def test_a_text_without_a_newline_is_not_held_back(shared: Interpreter) -> None:
    code = "import time\nprint('.' * 10_000, end='', flush=True)\ntime.sleep(0.4)\nprint('end')"
    times = [anyio.current_time() async for line in shared.follow(code) if "timestamp" in line]
    assert len(times) == 2
    assert times[1] - times[0] > 0.3


async def test_too_much_output_is_cut_and_told(engine: Engine, url: str) -> None:
    async with open_interpreter(engine, url, limits=Limits(output=100_000)) as interpreter:
        outcome = await interpreter.outcome("while True: print('x' * 99)")
        assert outcome.error is not None
        assert outcome.error["name"] == "OutputLimitExceeded"
        assert "100000 bytes" in outcome.error["value"]
        assert await interpreter.main("1 + 1") == "2"
