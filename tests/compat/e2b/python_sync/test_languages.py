# Made from the async face by scripts/generate-sync; change that one.
"""Kernels of other languages that every machine has."""

import time

import pytest
from e2b_code_interpreter import Sandbox, TimeoutException
from programs import AWAITED, DIRECTORY, PRINT, SLEEP, STATE, VARIABLE

LANGUAGES = sorted(PRINT)


@pytest.mark.parametrize("language", LANGUAGES)
def test_output_is_streamed(sandbox: Sandbox, language: str) -> None:
    out: list[str] = []
    err: list[str] = []

    execution = sandbox.run_code(
        PRINT[language],
        language=language,
        on_stdout=lambda m: out.append(m.line),
        on_stderr=lambda m: err.append(m.line),
    )

    assert execution.error is None
    assert "".join(out) == "out ü\n"
    assert "".join(err) == "err\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_state_is_kept(sandbox: Sandbox, language: str) -> None:
    first, second, text = STATE[language]
    sandbox.run_code(first, language=language)

    execution = sandbox.run_code(second, language=language)

    assert (execution.text or "".join(execution.logs.stdout).strip()) == "42"
    assert execution.text == text


@pytest.mark.parametrize("language", LANGUAGES)
def test_variables_are_there_for_one_execution(sandbox: Sandbox, language: str) -> None:
    value = 'it\'s "quoted" $HOME `x` \\ ü'

    during = sandbox.run_code(VARIABLE[language], language=language, envs={"OWN": value})
    after = sandbox.run_code(VARIABLE[language], language=language)

    assert "".join(during.logs.stdout) == f"{value}\n"
    assert "".join(after.logs.stdout).strip() in ("", "undefined")


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_variable_of_the_sandbox_is_seen(language: str) -> None:
    sandbox = Sandbox.create(envs={"OWN": "of the sandbox"})
    try:
        execution = sandbox.run_code(VARIABLE[language], language=language)
    finally:
        sandbox.kill()

    assert "".join(execution.logs.stdout) == "of the sandbox\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_code_starts_in_the_home(sandbox: Sandbox, language: str) -> None:
    execution = sandbox.run_code(DIRECTORY[language], language=language)

    assert "".join(execution.logs.stdout) == "/home/user\n"


@pytest.mark.parametrize("language", LANGUAGES)
def test_code_that_takes_too_long_is_interrupted(sandbox: Sandbox, language: str) -> None:
    sandbox.run_code("1" if language != "bash" else "true", language=language)

    with pytest.raises(TimeoutException):
        sandbox.run_code(SLEEP[language], language=language, timeout=1)
    begun = time.monotonic()
    execution = sandbox.run_code(PRINT[language], language=language)

    assert "".join(execution.logs.stdout) == "out ü\n"
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("language", ["javascript", "typescript"])
def test_top_level_await_and_imports_work(sandbox: Sandbox, language: str) -> None:
    execution = sandbox.run_code(
        AWAITED,
        language=language,
    )

    assert execution.error is None
    assert execution.text == "b.txt"


def test_an_exception_of_javascript_is_told(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("throw new TypeError('wrong ü')", language="javascript")

    assert execution.error is not None
    assert execution.error.name == "TypeError"
    assert execution.error.value == "wrong ü"


def test_a_command_of_bash_that_fails_does_not_end_the_context(
    sandbox: Sandbox,
) -> None:
    sandbox.run_code("x=1; no-such-program", language="bash")

    execution = sandbox.run_code("echo $x", language="bash")

    assert "".join(execution.logs.stdout) == "1\n"


def test_output_of_bash_arrives_while_it_runs(sandbox: Sandbox) -> None:
    arrivals: list[float] = []

    sandbox.run_code(
        "echo one; sleep 1.5; echo two",
        language="bash",
        on_stdout=lambda _: arrivals.append(time.monotonic()),
    )

    assert len(arrivals) == 2
    assert arrivals[1] - arrivals[0] > 1
