"""A Java context behaves as people know it from JShell."""

from typing import Any

import anyio
import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from headrace.model.specs import ExecutionRequest, Language
from tests.support.running import Outcome, run_process, run_python


async def run(sandbox: Sandbox, code: str, **request: Any) -> Outcome:
    """Run code in the default Java context."""
    return await run_python(sandbox, code, language=Language.JAVA, **request)


async def interrupt(sandbox: Sandbox, code: str) -> Outcome:
    """Run code and interrupt it when it has printed something."""
    execution = await sandbox.execute(ExecutionRequest(code, language=Language.JAVA))
    events = []
    with anyio.fail_after(30):
        async for event in execution.events():
            events.append(event)
            if len(events) == 2:
                await execution.interrupt()
    return Outcome(tuple(events))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("1 + 1", "2"),
        ('"größer 😀"', '"größer 😀"'),
        ("null", "null"),
        ("'c'", "'c'"),
        ("new int[] {1, 2}", "int[2] { 1, 2 }"),
        ("var l = new ArrayList<Integer>(); l.add(1); l", "[1]"),
        ("int q; q = 5", "5"),
        ("record P(int a, int b) {}\nnew P(1, 2)", "P[a=1, b=2]"),
        ("List.of(1, 2).stream().mapToInt(n -> n).sum()", "3"),
        ("// a comment\n1 + 2 // another\n", "3"),
    ],
)
async def test_the_last_expression_has_the_text_that_jshell_shows(
    sandbox: Sandbox, code: str, text: str
) -> None:
    outcome = await run(sandbox, code)
    assert [(result.text, result.is_main) for result in outcome.results] == [(text, True)]


@pytest.mark.parametrize(
    "code",
    [
        "int x = 5;",
        "var list = List.of(1);",
        "void f() {}",
        "class A {}",
        "import java.time.*;",
        "System.out.flush();",
        "1 + 1; int y = 2;",
        "if (true) System.out.flush()",
        "/* nothing */ // at all",
    ],
)
async def test_what_is_no_last_expression_has_no_result(sandbox: Sandbox, code: str) -> None:
    outcome = await run(sandbox, code)
    assert (outcome.finished.reason, outcome.results) == (FinishReason.OK, [])


async def test_declarations_may_come_later_and_again(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "int twice() { return 2 * base; }\ntwice()")
    (raised,) = outcome.errors
    assert raised.error.name == "UnresolvedReferenceException"
    assert raised.error.value == "twice needs what is not declared: variable base"
    assert (await run(sandbox, "int base = 4; twice()")).results[0].text == "8"
    assert (await run(sandbox, 'String base = "now text"; base')).results[0].text == '"now text"'


async def test_code_that_does_not_compile_has_line_and_column(sandbox: Sandbox) -> None:
    code = (
        'System.out.println("ran")\n;/* c */ int a = nosuch;\nSystem.out.println("never"); // end\n'
    )
    outcome = await run(sandbox, code)
    (raised,) = outcome.errors
    assert raised.error.name == "CompileError"
    assert raised.error.value == "line 2, column 18: cannot find symbol, symbol: variable nosuch"
    assert raised.error.traceback == (
        f"CompileError: {raised.error.value}\n;/* c */ int a = nosuch;\n{' ' * 17}^\n"
    )
    assert outcome.stdout == "ran\n"


@pytest.mark.parametrize(
    "broken", ["int b = ;", "int f( { }", "while (true) {", '"no end', "/* no"]
)
async def test_nothing_of_code_with_a_syntax_error_runs(sandbox: Sandbox, broken: str) -> None:
    outcome = await run(sandbox, f'System.out.println("never");\n\n{broken}')
    (raised,) = outcome.errors
    assert raised.error.name == "SyntaxError"
    assert raised.error.value.startswith("line 3, column ")
    assert outcome.stdout == ""


async def test_an_exception_has_its_class_its_lines_and_its_causes(sandbox: Sandbox) -> None:
    await run(
        sandbox,
        "class Odd extends Exception { Odd(String m, Throwable c) { super(m, c); } }\n"
        "void parse() throws Odd {\n"
        '  try { Integer.parseInt("x"); } catch (Exception e) { throw new Odd("outer", e); }\n'
        "}",
    )
    (raised,) = (await run(sandbox, "int a = 1;\n// a comment\n\nparse();")).errors
    assert (raised.error.name, raised.error.value) == ("Odd", "outer")
    lines = raised.error.traceback.splitlines()
    assert lines[0] == "Odd: outer"
    assert lines[2] == "    at (line 4)"
    assert 'Caused by: java.lang.NumberFormatException: For input string: "x"' in lines


@pytest.mark.parametrize(
    ("code", "name"),
    [
        ("int deep(int n) { return deep(n) + 1; }\ndeep(1)", "java.lang.StackOverflowError"),
        ("var big = new int[2_000_000_000];", "java.lang.OutOfMemoryError"),
        (
            "class T { public String toString() { return null + toString(); } }\nnew T()",
            "java.lang.StackOverflowError",
        ),
        ("throw new ThreadDeath();", "java.lang.ThreadDeath"),
    ],
)
async def test_what_java_cannot_do_is_an_error_and_keeps_the_state(
    sandbox: Sandbox, code: str, name: str
) -> None:
    await run(sandbox, "int kept = 42;")
    (raised,) = (await run(sandbox, code)).errors
    assert raised.error.name == name
    assert len(raised.error.traceback.splitlines()) < 50
    assert (await run(sandbox, "kept")).results[0].text == "42"


async def test_threads_that_run_on_hold_nothing_up(sandbox: Sandbox) -> None:
    code = 'new Thread(() -> { while (true); }).start(); "gone on"'
    assert (await run(sandbox, code)).results[0].text == '"gone on"'


@pytest.mark.parametrize(
    "code",
    [
        "try { Thread.sleep(60_000); } finally { System.out.println(2); }",
        'Runtime.getRuntime().exec(new String[] {"sleep", "60"}).waitFor(); while (true);',
        "for (int i = 0; i < 3; i++) { try { while (true); } catch (Throwable t) {} }",
        "new Scanner(new java.io.PipedInputStream(new PipedOutputStream())).next();",
        "class S { public String toString() { while (true); } }\nnew S()",
        "synchronized (System.out) { while (true); }",
    ],
)
async def test_an_interrupt_ends_what_user_code_does(sandbox: Sandbox, code: str) -> None:
    await run(sandbox, "int kept = 42;")
    outcome = await interrupt(sandbox, f"System.out.println(1);\n{code}")
    assert outcome.finished.reason is FinishReason.INTERRUPTED
    assert not outcome.finished.state_lost
    assert outcome.errors == []
    assert (await run(sandbox, "kept")).results[0].text == "42"


async def test_no_line_that_is_printed_during_an_interrupt_comes_twice(sandbox: Sandbox) -> None:
    for _ in range(5):
        outcome = await interrupt(sandbox, "for (int i = 0; ; i++) System.out.println(i);")
        assert outcome.finished.reason is FinishReason.INTERRUPTED
        lines = outcome.stdout.splitlines()
        assert lines == [str(number) for number in range(len(lines))]


async def test_what_comes_after_an_interrupted_snippet_does_not_run(sandbox: Sandbox) -> None:
    outcome = await interrupt(
        sandbox, "System.out.println(1);\nThread.sleep(60_000);\nSystem.out.println(2);"
    )
    assert outcome.stdout == "1\n"


SHOW = (
    'new ProcessBuilder("sh", "-c", "pwd; echo $GIVEN $HOME").inheritIO().start().waitFor();\n'
    'new FileWriter("made").close();\n'
    'var path = new File("made").getAbsolutePath();\n'
    'System.out.println(Files.exists(Path.of("made")) + " " + path);\n'
    'System.out.println(System.getProperty("GIVEN"));'
)


async def test_variables_and_directory_of_an_execution_reach_files_and_children(
    sandbox: Sandbox,
) -> None:
    outcome = await run(sandbox, SHOW, env={"GIVEN": "ä", "HOME": "/x"}, cwd="/tmp")
    assert outcome.stdout == "/tmp\nä /x\ntrue /tmp/made\nä\n"
    outcome = await run(sandbox, SHOW)
    assert outcome.stdout == "/home/user\n/home/user\ntrue /home/user/made\nnull\n"
    assert outcome.stderr == ""


async def test_a_variable_that_is_set_to_nothing_is_there(sandbox: Sandbox) -> None:
    assert (await run(sandbox, 'System.getenv("E")', env={"E": ""})).results[0].text == '""'
    assert (await run(sandbox, 'System.getenv("E")')).results[0].text == "null"


async def test_texts_that_are_too_large_are_named_with_their_size(sandbox: Sandbox) -> None:
    (result,) = (await run(sandbox, '"x".repeat(9_000_000)')).results
    assert (dict(result.bundle), dict(result.omitted)) == ({}, {"text/plain": 9_000_002})
    # In JSON as many characters have six times their size.
    (result,) = (await run(sandbox, '"ä".repeat(4_000_000)')).results
    assert result.omitted == {"text/plain": 8_000_002}
    (result,) = (await run(sandbox, '"x".repeat(1_000_000)')).results
    assert result.text == f'"{"x" * 1_000_000}"'


async def test_every_print_is_written_at_once_without_a_newline(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, 'System.out.print("a"); System.err.print("b"); System.exit(0);')
    assert (outcome.stdout, outcome.stderr) == ("a", "b")
    assert outcome.finished.reason is FinishReason.KERNEL_DIED


async def test_a_signal_that_comes_while_nothing_runs_does_nothing(sandbox: Sandbox) -> None:
    await run(sandbox, "int kept = 42;")
    process = await run_process(sandbox, "pkill", "-INT", "java")
    assert process.exited.exit_code == 0
    outcome = await run(sandbox, "Thread.sleep(100); kept")
    assert outcome.finished.reason is FinishReason.OK
    assert outcome.results[0].text == "42"
