"""The kernel of R, where there is one."""

from e2b_code_interpreter import AsyncSandbox


async def test_r_prints_and_keeps_its_state(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("x <- 41", language="r")

    printed = await sandbox.run_code('print("x")', language="r")
    value = await sandbox.run_code("x + 1", language="r")

    assert "".join(printed.logs.stdout) == '[1] "x"\n'
    assert value.text is not None
    assert "42" in value.text


async def test_variables_are_there_for_one_execution(sandbox: AsyncSandbox) -> None:
    code = 'cat(Sys.getenv("OWN"))'

    during = await sandbox.run_code(code, language="r", envs={"OWN": 'a "b" \\ ü'})
    after = await sandbox.run_code(code, language="r")

    assert "".join(during.logs.stdout) == 'a "b" \\ ü'
    assert "".join(after.logs.stdout) == ""


async def test_code_starts_in_the_home(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code("cat(getwd())", language="r")

    assert "".join(execution.logs.stdout) == "/home/user"
