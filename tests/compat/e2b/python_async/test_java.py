"""The kernel of Java, where there is one."""

from e2b_code_interpreter import AsyncSandbox


async def test_java_prints_and_keeps_its_state(sandbox: AsyncSandbox) -> None:
    await sandbox.run_code("int x = 41;", language="java")

    execution = await sandbox.run_code('System.out.println("x is " + (x + 1));', language="java")

    assert execution.error is None
    assert "".join(execution.logs.stdout) == "x is 42\n"


async def test_variables_are_properties_of_the_system(sandbox: AsyncSandbox) -> None:
    code = 'System.out.println(System.getProperty("OWN"));'

    during = await sandbox.run_code(code, language="java", envs={"OWN": 'a "b" \\ ü'})
    after = await sandbox.run_code(code, language="java")

    assert "".join(during.logs.stdout) == 'a "b" \\ ü\n'
    assert "".join(after.logs.stdout) == "null\n"


async def test_code_starts_in_the_home(sandbox: AsyncSandbox) -> None:
    code = 'System.out.println(System.getProperty("user.dir"));'

    execution = await sandbox.run_code(code, language="java")

    assert "".join(execution.logs.stdout) == "/home/user\n"
