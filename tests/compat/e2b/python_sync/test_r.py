# Made from the async face by scripts/generate-sync; change that one.
"""The kernel of R, where there is one."""

from e2b_code_interpreter import Sandbox


def test_r_prints_and_keeps_its_state(sandbox: Sandbox) -> None:
    sandbox.run_code("x <- 41", language="r")

    printed = sandbox.run_code('print("x")', language="r")
    value = sandbox.run_code("x + 1", language="r")

    assert "".join(printed.logs.stdout) == '[1] "x"\n'
    assert value.text is not None
    assert "42" in value.text


def test_variables_are_there_for_one_execution(sandbox: Sandbox) -> None:
    code = 'cat(Sys.getenv("OWN"))'

    during = sandbox.run_code(code, language="r", envs={"OWN": 'a "b" \\ ü'})
    after = sandbox.run_code(code, language="r")

    assert "".join(during.logs.stdout) == 'a "b" \\ ü'
    assert "".join(after.logs.stdout) == ""


def test_code_starts_in_the_home(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("cat(getwd())", language="r")

    assert "".join(execution.logs.stdout) == "/home/user"
