"""A Python context behaves as people know it from notebooks."""

import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import ContextNotFoundError
from headrace.model.events import (
    CodeRaised,
    ExecutionStarted,
    FinishReason,
    InputRequested,
    OutputWritten,
    ResultDisplayed,
)
from headrace.model.ids import ContextId
from headrace.model.specs import ContextSpec, ExecutionRequest, Language
from tests.support.running import run_python


async def test_the_last_expression_is_the_main_result(sandbox: Sandbox) -> None:
    outcome = await run_python(sandbox, "x = 20\nx + 22")
    assert [(r.text, r.is_main) for r in outcome.results] == [("42", True)]
    assert outcome.finished.reason is FinishReason.OK


async def test_state_is_kept_between_executions(sandbox: Sandbox) -> None:
    await run_python(sandbox, "import math\nkept = math.pi")
    outcome = await run_python(sandbox, "kept")
    assert outcome.results[0].text == "3.141592653589793"


async def test_executions_are_counted_and_numbered_without_gaps(sandbox: Sandbox) -> None:
    counts = []
    for code in ("1", "1/0", "2"):
        outcome = await run_python(sandbox, code)
        assert [event.seq for event in outcome.events] == [*range(1, len(outcome.events) + 1)]
        started = outcome.events[0]
        assert isinstance(started, ExecutionStarted)
        counts.append(started.execution_count)
    assert counts == [1, 2, 3]


async def test_pandas_is_there_and_shows_a_table(sandbox: Sandbox) -> None:
    outcome = await run_python(sandbox, "import pandas as pd\npd.DataFrame({'a': [1, 2]})")
    bundle = outcome.results[0].bundle
    assert "a" in str(bundle["text/plain"])
    assert "<table" in str(bundle["text/html"])


async def test_a_figure_is_shown_once(sandbox: Sandbox) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.show()"
    outcome = await run_python(sandbox, code)
    assert [("image/png" in r.bundle) for r in outcome.results] == [True]


async def test_top_level_await_and_asyncio_run_both_work(sandbox: Sandbox) -> None:
    first = await run_python(sandbox, "import asyncio\nawait asyncio.sleep(0, 'awaited')")
    assert first.results[0].text == "'awaited'"
    second = await run_python(sandbox, "asyncio.run(asyncio.sleep(0, 'run'))")
    assert second.results[0].text == "'run'"


async def test_magics_and_shell_commands_work(sandbox: Sandbox) -> None:
    outcome = await run_python(sandbox, "%env SHOWN=1\n!echo from the shell: $SHOWN")
    assert "from the shell: 1\n" in outcome.stdout


async def test_an_error_is_data_without_colour_codes(sandbox: Sandbox) -> None:
    outcome = await run_python(sandbox, "def f():\n    return 1/0\nf()")
    (raised,) = outcome.errors
    assert (raised.error.name, raised.error.value) == ("ZeroDivisionError", "division by zero")
    assert "\x1b" not in raised.error.traceback
    assert "return 1/0" in raised.error.traceback
    assert outcome.finished.reason is FinishReason.ERROR


async def test_an_exception_group_comes_with_its_parts(sandbox: Sandbox) -> None:
    code = "raise ExceptionGroup('both', [ValueError('a'), KeyError('b')])"
    outcome = await run_python(sandbox, code)
    error = outcome.errors[0].error
    assert error.name == "ExceptionGroup"
    assert [part.name for part in error.parts] == ["ValueError", "KeyError"]


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        ("import sys; sys.exit()", FinishReason.OK, 0),
        ("import sys; sys.exit(0)", FinishReason.OK, 0),
        ("import sys; sys.exit(3)", FinishReason.ERROR, 3),
        ("raise SystemExit(4)", FinishReason.ERROR, 4),
    ],
)
async def test_sys_exit_gives_its_code(
    sandbox: Sandbox, code: str, reason: FinishReason, exit_code: int
) -> None:
    outcome = await run_python(sandbox, code)
    assert (outcome.finished.reason, outcome.finished.exit_code) == (reason, exit_code)
    assert [raised.error.name for raised in outcome.errors] == ["SystemExit"]
    assert not outcome.finished.state_lost


async def test_prints_results_and_errors_keep_their_order(sandbox: Sandbox) -> None:
    code = (
        "import sys, os, subprocess\n"
        "for i in range(200):\n"
        "    print('o', i)\n"
        "    print('e', i, file=sys.stderr)\n"
        "    display(i)\n"
        "    if i % 50 == 0:\n"
        "        subprocess.run(['echo', 'c', str(i)])\n"
        "        os.write(2, b'w %d\\n' % i)\n"
        "1/0\n"
    )
    outcome = await run_python(sandbox, code)
    seen: list[str] = []
    for event in outcome.events:
        match event:
            case OutputWritten():
                seen += event.text.splitlines()
            case ResultDisplayed():
                seen.append(f"d {event.result.text}")
            case CodeRaised():
                seen.append("raised")
            case _:
                pass
    expected: list[str] = []
    for i in range(200):
        expected += [f"o {i}", f"e {i}", f"d {i}"]
        if i % 50 == 0:
            expected += [f"c {i}", f"w {i}"]
    assert seen == [*expected, "raised"]


async def test_environment_variables_of_an_execution_are_gone_afterwards(sandbox: Sandbox) -> None:
    show = "import os\nos.environ.get('GIVEN'), os.environ.get('HOME')"
    outcome = await run_python(sandbox, show, env={"GIVEN": "x 'y'", "HOME": "/tmp"})
    assert outcome.results[0].text == "(\"x 'y'\", '/tmp')"
    outcome = await run_python(sandbox, show)
    assert outcome.results[0].text == "(None, '/home/user')"


async def test_the_working_directory_of_an_execution_is_gone_afterwards(sandbox: Sandbox) -> None:
    outcome = await run_python(sandbox, "import os; os.getcwd()", cwd="/tmp")
    assert outcome.results[0].text == "'/tmp'"
    outcome = await run_python(sandbox, "os.getcwd()")
    assert outcome.results[0].text == "'/home/user'"
    outcome = await run_python(sandbox, "os.getcwd()", cwd="/missing")
    assert outcome.errors[0].error.name == "FileNotFoundError"


async def test_contexts_are_apart(sandbox: Sandbox) -> None:
    one = await sandbox.create_context(ContextSpec(cwd="/tmp", env={"WHO": "one"}))
    two = await sandbox.create_context(ContextSpec())
    await run_python(sandbox, "x = 1", context=one)
    outcome = await run_python(sandbox, "'x' in globals()", context=two)
    assert outcome.results[0].text == "False"
    outcome = await run_python(sandbox, "import os; os.getcwd(), os.environ['WHO']", context=one)
    assert outcome.results[0].text == "('/tmp', 'one')"


async def test_contexts_run_in_parallel_and_executions_of_one_queue(sandbox: Sandbox) -> None:
    other = await sandbox.create_context(ContextSpec())
    first = await sandbox.execute(ExecutionRequest("import time; time.sleep(0.5); order = ['a']"))
    second = await sandbox.execute(ExecutionRequest("order.append('b'); order"))
    parallel = await run_python(sandbox, "'done'", context=other)
    assert not first.log.is_finished
    assert parallel.results[0].text == "'done'"
    await second.wait()
    events = [event async for event in second.events()]
    assert [e.result.text for e in events if isinstance(e, ResultDisplayed)] == ["['a', 'b']"]


async def test_input_is_asked_for_when_it_was_offered(sandbox: Sandbox) -> None:
    request = ExecutionRequest("name = input('who? ')\nname.upper()", accepts_input=True)
    execution = await sandbox.execute(request)
    results = []
    async for event in execution.events():
        if isinstance(event, InputRequested):
            assert event.prompt == "who? "
            await execution.send_input("ada")
        elif isinstance(event, ResultDisplayed):
            results.append(event.result.text)
    assert results == ["'ADA'"]


async def test_input_is_an_error_when_it_was_not_offered(sandbox: Sandbox) -> None:
    outcome = await run_python(sandbox, "input('who? ')")
    assert "accepts_input" in outcome.errors[0].error.value


async def test_an_unknown_context_is_refused_and_changes_nothing(sandbox: Sandbox) -> None:
    unknown = ContextId(f"{sandbox.id}-nonsense")
    with pytest.raises(ContextNotFoundError, match="nonsense"):
        await sandbox.execute(ExecutionRequest("1", context_id=unknown))
    assert (await run_python(sandbox, "1")).events[0].seq == 1


async def test_restart_gives_fresh_state(sandbox: Sandbox) -> None:
    await run_python(sandbox, "x = 1")
    context = await sandbox.default_context(Language.PYTHON)
    await context.restart()
    outcome = await run_python(sandbox, "'x' in globals()")
    assert outcome.results[0].text == "False"
