"""The other languages over HTTP: what each prints, is worth and fails with."""

import pytest

from tests.support.interpreting import (
    HOSTILE,
    Interpreter,
)

pytestmark = pytest.mark.sandbox


@pytest.mark.parametrize(
    ("language", "code", "stdout", "value"),
    [
        ("javascript", "console.log('hi'); 'text'", "hi\n", "text"),
        ("js", "const p = await Promise.resolve(42); p", "", "42"),
        ("js", "import os from 'os'; typeof os.cpus", "", "function"),
        ("js", "process.cwd()", "", "/home/user"),
        (" TS\n", "enum E { A = 3 }\nconst y: number = E.A; y", "", "3"),
        ("typescript", "console.log('hi' as string)", "hi\n", None),
        ("bash", "echo hi; pwd", "hi\n/home/user\n", None),
        ("java", 'System.out.println("hi"); "text"', "hi\n", "text"),
        ("Java", 'System.getProperty("user.dir")', "", "/home/user"),
        ("java", "int x = 40;\nx + 2", "", "42"),
        ("r", 'print("hi")', '[1] "hi"\n', None),
        ("r", "x <- 40\nx + 2", "", "[1] 42"),
        ("r", "getwd()", "", '[1] "/home/user"'),
    ],
)
async def test_every_language_prints_and_has_values(
    shared: Interpreter, language: str, code: str, stdout: str, value: str | None
) -> None:
    outcome = await shared.outcome(code, language=language)
    assert outcome.error is None
    assert outcome.stdout == stdout
    texts = [each["text"] for each in outcome.results if each["is_main_result"]]
    assert texts == ([] if value is None else [value])


async def test_a_line_of_r_is_one_piece_unless_its_end_is_long_in_coming(
    shared: Interpreter,
) -> None:
    part = 'cat("%s"); flush(stdout()); Sys.sleep(%g); cat("%s\\n");'
    code = part % ("a", 0.05, "b") + part % ("c", 1.5, "d")
    outcome = await shared.outcome(code, language="r")
    pieces = [line["text"] for line in outcome.lines if line["type"] == "stdout"]
    assert pieces == ["ab\n", "c", "d\n"]


@pytest.mark.parametrize(
    ("language", "code"),
    [
        ("js", "console.log(`${process.env.GIVEN ?? 'gone'} ${process.env.OURS}`)"),
        ("ts", "console.log(`${process.env.GIVEN ?? 'gone'} ${process.env.OURS}`)"),
        ("bash", 'printf "%s %s\\n" "${GIVEN-gone}" "$OURS"'),
        (
            "java",
            "import java.util.Optional;\n"
            'System.out.println(Optional.ofNullable(System.getenv("GIVEN")).orElse("gone")'
            ' + " " + System.getenv("OURS"));',
        ),
        (
            "java",
            'System.out.println(System.getProperty("GIVEN", "gone") + " "'
            ' + System.getenv("OURS"));',
        ),
        ("r", 'cat(Sys.getenv("GIVEN", "gone"), Sys.getenv("OURS"))\ncat("\\n")'),
    ],
)
async def test_variables_hold_for_one_execution_in_every_language(
    shared: Interpreter, language: str, code: str
) -> None:
    given = await shared.outcome(code, language=language, env_vars={"GIVEN": HOSTILE})
    assert given.stdout == f"{HOSTILE} of the sandbox\n"
    after = await shared.outcome(code, language=language)
    assert after.stdout == "gone of the sandbox\n"


async def test_java_has_all_variables_as_properties_too(shared: Interpreter) -> None:
    code = 'System.getProperty("OURS")'
    assert await shared.main(code, language="java") == "of the sandbox"
    given = {"OURS": "of the execution"}
    assert await shared.main(code, language="java", env_vars=given) == "of the execution"
    assert await shared.main(code, language="java") == "of the sandbox"


@pytest.mark.parametrize(
    ("language", "code", "name", "value"),
    [
        ("js", "throw new TypeError('bad')", "TypeError", "bad"),
        ("ts", "const x: = 1", "SyntaxError", ""),
        ("bash", "(exit 3)", "ExitStatus", "3"),
        ("java", 'throw new IllegalStateException("bad");', "IllegalStateException", "bad"),
        ("r", 'stop("bad")', "simpleError", "bad"),
        ("js", "process.exit(3)", "UnexpectedEndOfExecution", "status 3"),
        ("bash", "exit 4", "UnexpectedEndOfExecution", "status 4"),
    ],
)
async def test_every_language_tells_its_errors(
    shared: Interpreter, language: str, code: str, name: str, value: str
) -> None:
    outcome = await shared.outcome(code, language=language)
    assert outcome.error is not None
    assert outcome.error["name"].endswith(name)
    assert value in outcome.error["value"]
    assert outcome.error["traceback"]
    assert "\x1b" not in outcome.error["traceback"]
