"""Running Python code: state, output, errors, the end before its time."""

import time
from typing import Any

import pytest
from e2b_code_interpreter import (
    AsyncSandbox,
    InvalidArgumentException,
    NotFoundException,
    TimeoutException,
)
from face_async import Started, pause, until


# covers: Sandbox.run_code
async def test_the_last_expression_is_the_result(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code("x = 1; x += 1; x")

    assert execution.text == "2"
    assert execution.error is None
    assert execution.execution_count == 1
    assert len(execution.results) == 1
    assert execution.results[0].is_main_result


async def test_state_is_kept_and_executions_are_counted(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("import math\ndef double(n):\n    return 2 * n")
    await sandbox.run_code("1/0")
    execution = await sandbox.run_code("double(math.floor(21.5))")

    assert execution.text == "42"
    assert execution.execution_count == 3


async def test_nothing_is_shown_for_what_has_no_value(sandbox: AsyncSandbox) -> None:
    for code in ("x = 1", "None", "1 + 1;", ""):
        execution = await sandbox.run_code(code)
        assert execution.results == []
        assert execution.text is None
        assert execution.error is None


async def test_every_callback_is_called_and_all_is_in_the_result(sandbox: AsyncSandbox) -> None:
    seen: list[tuple[str, Any]] = []
    code = "import sys\nprint('out')\nprint('err', file=sys.stderr)\ndisplay('shown')\n1/0"

    execution = await sandbox.run_code(
        code,
        on_stdout=lambda message: seen.append(("stdout", message.line)),
        on_stderr=lambda message: seen.append(("stderr", message.line)),
        on_result=lambda result: seen.append(("result", result.text)),
        on_error=lambda error: seen.append(("error", error.name)),
    )

    assert seen == [
        ("stdout", "out\n"),
        ("stderr", "err\n"),
        ("result", "shown"),
        ("error", "ZeroDivisionError"),
    ]
    assert execution.logs.stdout == ["out\n"]
    assert execution.logs.stderr == ["err\n"]
    assert [result.is_main_result for result in execution.results] == [False]
    assert execution.error is not None


async def test_a_message_has_a_time_and_says_which_stream_it_is(sandbox: AsyncSandbox) -> None:
    messages: list[Any] = []

    await sandbox.run_code(
        "import sys\nprint('a')\nprint('b', file=sys.stderr)",
        on_stdout=messages.append,
        on_stderr=messages.append,
    )

    assert [message.error for message in messages] == [False, True]
    assert all(message.timestamp for message in messages)


async def test_unflushed_output_arrives_at_once(sandbox: AsyncSandbox) -> None:
    arrivals: list[float] = []
    code = "import time\nprint('no newline', end='')\ntime.sleep(2)\nprint('end')"

    await sandbox.run_code(code, on_stdout=lambda _: arrivals.append(time.monotonic()))

    assert len(arrivals) == 2
    assert arrivals[1] - arrivals[0] > 1.5


async def test_output_of_child_processes_is_seen_in_order(sandbox: AsyncSandbox) -> None:
    code = """
import subprocess, os
print("first")
subprocess.run(["echo", "second"])
os.system("echo third")
!echo fourth
print("fifth")
"""
    execution = await sandbox.run_code(code)

    assert "".join(execution.logs.stdout) == "first\nsecond\nthird\nfourth\nfifth\n"


async def test_conveniences_of_a_notebook_work(sandbox: AsyncSandbox) -> None:
    awaited = await sandbox.run_code("import asyncio\nawait asyncio.sleep(0, 'awaited')")
    magic = await sandbox.run_code("%timeit -n1 -r1 pass")
    shell = await sandbox.run_code("lines = !echo one && echo two\nlines")
    pip = await sandbox.run_code("%pip --version")

    assert awaited.text == "awaited"
    assert "loop" in "".join(magic.logs.stdout)
    assert shell.text == "['one', 'two']"
    assert "pip" in "".join(pip.logs.stdout)


@pytest.mark.parametrize(
    ("code", "name", "value"),
    [
        ("1/0", "ZeroDivisionError", "division by zero"),
        ("raise ValueError('a', 2)", "ValueError", "('a', 2)"),
        ("x = = 1", "SyntaxError", "invalid syntax"),
        ("if True:\nx = 1", "IndentationError", "expected an indented block"),
        ("import sys\nsys.exit(3)", "SystemExit", "3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt", ""),
        ("class Own(Exception): pass\nraise Own('ü\\u2028')", "Own", "ü\u2028"),
    ],
)
async def test_an_exception_is_told(
    sandbox: AsyncSandbox, code: str, name: str, value: str
) -> None:
    execution = await sandbox.run_code(code)

    assert execution.error is not None
    assert execution.error.name == name
    assert value in execution.error.value
    assert name in execution.error.traceback
    assert "\x1b" not in execution.error.traceback


async def test_input_is_not_to_be_had(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code("input()")

    assert execution.error is not None
    assert execution.error.name == "StdinNotImplementedError"


# covers: Sandbox.run_code
async def test_variables_are_there_for_one_execution(sandbox: AsyncSandbox) -> None:
    value = 'it\'s "quoted"\n\\ and {braces} ü'
    code = "    import os\n    print(os.environ.get('OWN'), end='')"

    during = await sandbox.run_code(code, envs={"OWN": value})
    after = await sandbox.run_code(code)

    assert "".join(during.logs.stdout) == value
    assert "".join(after.logs.stdout) == "None"


async def test_a_variable_of_the_sandbox_comes_back_after_an_execution() -> None:
    sandbox = await AsyncSandbox.create(envs={"LEVEL": "sandbox"})
    try:
        during = await sandbox.run_code("import os; os.environ['LEVEL']", envs={"LEVEL": "own"})
        after = await sandbox.run_code("import os; os.environ['LEVEL']")
    finally:
        await sandbox.kill()

    assert (during.text, after.text) == ("own", "sandbox")


@pytest.mark.parametrize(
    "text",
    [
        "ü€",
        "\U0001f600\U0001f3fd",
        "a\u2028b\u2029c\x85d\x0be\x1cf",
        "\r\n\t\x00\x1b[31m",
        "\\ud800",
    ],
)
async def test_every_character_survives(sandbox: AsyncSandbox, text: str) -> None:
    lines: list[str] = []

    execution = await sandbox.run_code(
        f"text = {text!r}\nprint(text, end='')\ntext", on_stdout=lambda m: lines.append(m.line)
    )

    assert execution.error is None
    assert "".join(lines) == text
    assert execution.text == repr(text)[1:-1]


async def test_many_characters_survive_in_small_and_large_pieces(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code("print('\U0001f600ü€' * 200_000)")

    assert "".join(execution.logs.stdout) == "\U0001f600ü€" * 200_000 + "\n"


async def test_many_lines_arrive_whole_and_in_order(sandbox: AsyncSandbox) -> None:
    lines: list[str] = []

    await sandbox.run_code(
        "for i in range(100_000): print(i)", on_stdout=lambda m: lines.append(m.line)
    )

    assert "".join(lines) == "".join(f"{i}\n" for i in range(100_000))


async def test_a_long_value_is_not_shortened(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code("list(range(5000))")

    assert execution.text is not None
    assert " ".join(execution.text.split()) == str(list(range(5000)))


# covers: Sandbox.run_code
async def test_code_that_takes_too_long_is_interrupted(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("x = 'kept'")

    with pytest.raises(TimeoutException):
        await sandbox.run_code("import time\ntime.sleep(300)", timeout=1)
    begun = time.monotonic()
    execution = await sandbox.run_code("x")

    assert execution.text == "kept"
    assert time.monotonic() - begun < 5


async def test_executions_of_one_context_wait_for_each_other(sandbox: AsyncSandbox) -> None:
    order: list[str] = []
    first = Started(
        lambda: sandbox.run_code(
            "import time\nprint('begun')\ntime.sleep(1)\nx = 1\nprint('ended')",
            on_stdout=lambda m: order.append(m.line),
        )
    )
    await until(lambda: order)

    second = await sandbox.run_code("x", on_result=lambda r: order.append(r.text or ""))

    await first.result()
    assert second.text == "1"
    assert "".join(order) == "begun\nended\n1"


async def test_code_that_kills_its_interpreter_is_told_and_the_next_one_works(
    sandbox: AsyncSandbox,
) -> None:
    await sandbox.files.write("kept.txt", "kept")

    killed = await sandbox.run_code("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)")
    after = await sandbox.run_code("open('kept.txt').read()")

    assert killed.error is not None
    assert after.text == "kept"


async def test_a_sandbox_that_is_killed_ends_its_executions_with_a_timeout() -> None:
    sandbox = await AsyncSandbox.create()
    seen: list[str] = []
    running = Started(
        lambda: sandbox.run_code(
            "import time\nprint('begun')\ntime.sleep(300)",
            on_stdout=lambda m: seen.append(m.line),
        )
    )
    await until(lambda: seen)

    await sandbox.kill()
    begun = time.monotonic()
    error = await running.error()

    assert isinstance(error, TimeoutException)
    assert "killed" in str(error)
    assert time.monotonic() - begun < 10
    assert not await sandbox.is_running()


async def test_a_sandbox_that_times_out_ends_its_executions() -> None:
    sandbox = await AsyncSandbox.create(timeout=2)
    running = Started(lambda: sandbox.run_code("import time\ntime.sleep(300)"))

    error = await running.error()

    assert isinstance(error, TimeoutException)


async def test_a_context_and_a_language_are_too_much(sandbox: AsyncSandbox) -> None:
    context = await sandbox.create_code_context()

    with pytest.raises(InvalidArgumentException):
        await sandbox.run_code("1", context=context, language="python")


async def test_a_context_that_is_not_there_is_not_found(sandbox: AsyncSandbox) -> None:
    context = await sandbox.create_code_context()
    await sandbox.remove_code_context(context)

    with pytest.raises(NotFoundException, match=context.id):
        await sandbox.run_code("1", context=context)
    with pytest.raises(NotFoundException):
        await sandbox.restart_code_context("no-such-context")
    with pytest.raises(NotFoundException):
        await sandbox.remove_code_context(context)


async def test_silence_does_not_end_a_stream(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code("import time\ntime.sleep(7)\n'awake'")
    await pause(0)

    assert execution.text == "awake"
