# Made from the async face by scripts/generate-sync; change that one.
"""The kernel of Java, where there is one."""

from e2b_code_interpreter import Sandbox


def test_java_prints_and_keeps_its_state(sandbox: Sandbox) -> None:
    sandbox.run_code("int x = 41;", language="java")

    execution = sandbox.run_code('System.out.println("x is " + (x + 1));', language="java")

    assert execution.error is None
    assert "".join(execution.logs.stdout) == "x is 42\n"


def test_variables_are_properties_of_the_system(sandbox: Sandbox) -> None:
    code = 'System.out.println(System.getProperty("OWN"));'

    during = sandbox.run_code(code, language="java", envs={"OWN": 'a "b" \\ ü'})
    after = sandbox.run_code(code, language="java")

    assert "".join(during.logs.stdout) == 'a "b" \\ ü\n'
    assert "".join(after.logs.stdout) == "null\n"


def test_code_starts_in_the_home(sandbox: Sandbox) -> None:
    code = 'System.out.println(System.getProperty("user.dir"));'

    execution = sandbox.run_code(code, language="java")

    assert "".join(execution.logs.stdout) == "/home/user\n"
