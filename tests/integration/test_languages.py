"""Every language behaves the same way: one table of behaviours, one entry per language."""

from dataclasses import dataclass, replace
from typing import Any

import anyio
import pytest

from headrace.engine.context_state import ContextState
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason, OutputWritten
from headrace.model.specs import MIB, ContextSpec, ExecutionRequest, Language, Limits, SandboxSpec
from tests.support.running import Outcome, run_python


@dataclass(frozen=True)
class Case:
    """How one language does what all can do. Programs print with a newline.

    ``set_state`` and ``show_state`` run one after the other, the second prints ``kept 42``.
    ``value`` is code and the text of its result, None where the language has no values.
    ``crash_signal`` is what ends the interpreter after ``crash``; a JVM aborts by itself.
    ``failing`` is code and the name of its error, None where failing is an exit status.
    """

    language: Language
    print_hello: str
    print_stderr: str
    print_unicode: str
    two_prints: str
    set_state: str
    show_state: str
    value: tuple[str, str] | None
    failing: tuple[str, str | None]
    broken_syntax: str
    ten_megabytes: str
    endless: str
    waiting: str
    exit_with_3: str
    crash: str
    show_given: str
    show_directory: str
    run_echo: str
    eat_memory: str
    read_stdin: str
    crash_signal: int = 11


BASH = Case(
    language=Language.BASH,
    print_hello="echo hello",
    print_stderr="echo oops >&2",
    print_unicode="echo 'größer 😀'",
    two_prints="echo one; sleep 0.3; echo two",
    set_state='x=42; show() { echo "kept $x"; }',
    show_state="show",
    value=None,
    failing=("(exit 7)", None),
    broken_syntax="if true; then",
    ten_megabytes="head -c 10000000 /dev/zero | tr '\\0' x",
    endless="while :; do :; done",
    waiting="sleep 60",
    exit_with_3="exit 3",
    crash="kill -SEGV $BASHPID",
    show_given='echo "[$GIVEN] [$HOME]"',
    show_directory="pwd",
    run_echo="/bin/echo from a child",
    eat_memory="x=x; while :; do x=$x$x; done",
    read_stdin='read line; echo "[$line]"',
)

JAVASCRIPT = Case(
    language=Language.JAVASCRIPT,
    print_hello="console.log('hello')",
    print_stderr="console.error('oops')",
    print_unicode="console.log('größer 😀')",
    two_prints=(
        "console.log('one'); await new Promise(done => setTimeout(done, 300)); console.log('two')"
    ),
    set_state="const x = 42; function show() { console.log(`kept ${x}`) }",
    show_state="show()",
    value=("const y = 20; y + 22", "42"),
    failing=("function f() { throw new TypeError('bad') }\nf()", "TypeError"),
    broken_syntax="let z = ;",
    ten_megabytes="console.log('x'.repeat(10_000_000))",
    endless="while (true) {}",
    waiting="await new Promise(() => {})",
    exit_with_3="process.exit(3)",
    crash="process.kill(process.pid, 'SIGSEGV'); while (true) {}",
    show_given="console.log(`[${process.env.GIVEN ?? ''}] [${process.env.HOME}]`)",
    show_directory="console.log(process.cwd())",
    run_echo=(
        "require('child_process').execFileSync('/bin/echo', ['from a child'], {stdio: 'inherit'});"
        "void 0"
    ),
    eat_memory="const kept = []; while (true) kept.push(Buffer.alloc(4_000_000, 1))",
    read_stdin="console.log(`[${require('fs').readFileSync(0, 'utf8')}]`)",
)

TYPESCRIPT = replace(
    JAVASCRIPT,
    language=Language.TYPESCRIPT,
    set_state="const x: number = 42; function show(): void { console.log(`kept ${x}`) }",
    value=("enum E { A = 20 }\nconst y: number = E.A; (y as number) + 22", "42"),
    failing=("function f(): never { throw new TypeError('bad') }\nf()", "TypeError"),
    broken_syntax="let z: = 3",
)

R = Case(
    language=Language.R,
    print_hello="cat('hello\\n')",
    print_stderr="message('oops')",
    print_unicode="cat('größer 😀\\n')",
    two_prints="cat('one\\n'); Sys.sleep(0.3); cat('two\\n')",
    set_state="x <- 42; show <- function() cat(sprintf('kept %d\\n', x))",
    show_state="show()",
    value=("y <- 20; y + 22", "[1] 42"),
    failing=("f <- function(n) stop('bad ', n)\nf(7)", "simpleError"),
    broken_syntax="cat('never')\nx <- ) 1",
    ten_megabytes="cat(strrep('x', 1e7), '\\n', sep = '')",
    endless="repeat {}",
    waiting="Sys.sleep(60)",
    exit_with_3="quit(status = 3)",
    crash="tools::pskill(Sys.getpid(), 11); repeat {}",
    show_given="cat(sprintf('[%s] [%s]\\n', Sys.getenv('GIVEN'), Sys.getenv('HOME')))",
    show_directory="cat(getwd(), '\\n', sep = '')",
    run_echo="invisible(system('/bin/echo from a child'))",
    eat_memory="x <- list(); repeat x[[length(x) + 1]] <- rnorm(1e6)",
    read_stdin="cat(sprintf('[%s]\\n', paste(readLines('stdin'), collapse = '')))",
)

JAVA = Case(
    language=Language.JAVA,
    print_hello='System.out.println("hello");',
    print_stderr='System.err.println("oops");',
    print_unicode='System.out.println("größer 😀");',
    two_prints='System.out.println("one"); Thread.sleep(300); System.out.println("two");',
    set_state='int x = 42;\nvoid show() { System.out.println("kept " + x); }',
    show_state="show();",
    value=("int y = 20;\ny + 22", "42"),
    failing=(
        'void f(int n) { throw new IllegalStateException("bad " + n); }\nf(7);',
        "java.lang.IllegalStateException",
    ),
    broken_syntax='System.out.println("never");\nint z = ;',
    ten_megabytes='System.out.println("x".repeat(10_000_000));',
    endless="while (true) {}",
    waiting="Thread.sleep(60_000);",
    exit_with_3="System.exit(3);",
    crash='new ProcessBuilder("kill", "-SEGV", "" + ProcessHandle.current().pid()).start();'
    "while (true) {}",
    crash_signal=6,
    show_given=(
        'System.out.println("[" + Objects.toString(System.getenv("GIVEN"), "") + "] ["'
        ' + System.getenv("HOME") + "]");'
    ),
    show_directory='System.out.println(Path.of("").toAbsolutePath());',
    run_echo='new ProcessBuilder("/bin/echo", "from a child").inheritIO().start().waitFor();',
    eat_memory="var kept = new ArrayList<byte[]>(); while (true) kept.add(new byte[4_000_000]);",
    read_stdin='System.out.println("[" + new String(System.in.readAllBytes()) + "]");',
)

CASES = {case.language.value: case for case in (BASH, JAVASCRIPT, TYPESCRIPT, R, JAVA)}
pytestmark = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


async def run(sandbox: Sandbox, case: Case, code: str, **request: Any) -> Outcome:
    """Run code in the language's default context, or in the context that is named."""
    if "context" not in request:
        request["language"] = case.language
    return await run_python(sandbox, code, **request)


async def start(sandbox: Sandbox, case: Case, code: str, **request: Any) -> Any:
    """Start code in the language's default context."""
    return await sandbox.execute(ExecutionRequest(code, language=case.language, **request))


async def follow(execution: Any) -> Outcome:
    """Give everything that an execution does until its end."""
    with anyio.fail_after(40):
        return Outcome(tuple([event async for event in execution.events()]))


async def works(sandbox: Sandbox, case: Case, *, keeps_state: bool) -> None:
    """Assert that the default context runs code, with its state or without."""
    outcome = await run(sandbox, case, case.show_state)
    assert ("kept 42" in outcome.stdout) is keeps_state
    assert (await run(sandbox, case, case.print_hello)).stdout == "hello\n"


async def test_output_and_end_are_told(sandbox: Sandbox, case: Case) -> None:
    outcome = await run(sandbox, case, case.print_hello)
    assert (outcome.stdout, outcome.stderr) == ("hello\n", "")
    assert outcome.finished.reason is FinishReason.OK
    assert [event.seq for event in outcome.events] == [*range(1, len(outcome.events) + 1)]


async def test_output_is_live(sandbox: Sandbox, case: Case) -> None:
    outcome = await run(sandbox, case, case.two_prints)
    one, two = [event for event in outcome.events if isinstance(event, OutputWritten)]
    assert (one.text, two.text) == ("one\n", "two\n")
    assert 0.25 < two.timestamp - one.timestamp < 5


async def test_stderr_is_apart(sandbox: Sandbox, case: Case) -> None:
    outcome = await run(sandbox, case, case.print_stderr)
    assert (outcome.stdout, outcome.stderr) == ("", "oops\n")


async def test_unicode_and_emoji_arrive_whole(sandbox: Sandbox, case: Case) -> None:
    assert (await run(sandbox, case, case.print_unicode)).stdout == "größer 😀\n"


async def test_state_is_kept_between_executions(sandbox: Sandbox, case: Case) -> None:
    await run(sandbox, case, case.set_state)
    assert (await run(sandbox, case, case.show_state)).stdout == "kept 42\n"


async def test_the_last_expression_is_the_result(sandbox: Sandbox, case: Case) -> None:
    if case.value is None:
        assert (await run(sandbox, case, case.print_hello)).results == []
        return
    code, text = case.value
    outcome = await run(sandbox, case, code)
    assert [(result.text, result.is_main) for result in outcome.results] == [(text, True)]


async def test_a_failure_is_data_and_changes_nothing(sandbox: Sandbox, case: Case) -> None:
    await run(sandbox, case, case.set_state)
    code, name = case.failing
    outcome = await run(sandbox, case, code)
    assert outcome.finished.reason is FinishReason.ERROR
    if name is None:
        assert (outcome.errors, outcome.finished.exit_code) == ([], 7)
    else:
        (raised,) = outcome.errors
        assert raised.error.name == name
        assert raised.error.value in raised.error.traceback
    await works(sandbox, case, keeps_state=True)


async def test_broken_syntax_is_data_and_changes_nothing(sandbox: Sandbox, case: Case) -> None:
    await run(sandbox, case, case.set_state)
    outcome = await run(sandbox, case, case.broken_syntax)
    assert outcome.finished.reason is FinishReason.ERROR
    text = outcome.stderr + "".join(f"{e.error.name} {e.error.value}" for e in outcome.errors)
    assert "syntax" in text.lower()
    await works(sandbox, case, keeps_state=True)


async def test_ten_megabytes_arrive_whole(sandbox: Sandbox, case: Case) -> None:
    outcome = await run(sandbox, case, case.ten_megabytes, timeout=40)
    assert outcome.finished.reason is FinishReason.OK
    assert len(outcome.stdout.rstrip("\n")) == 10_000_000
    assert set(outcome.stdout) <= {"x", "\n"}


@pytest.mark.parametrize("kind", ["endless", "waiting"])
async def test_an_interrupt_ends_the_code_and_keeps_the_state(
    sandbox: Sandbox, case: Case, kind: str
) -> None:
    await run(sandbox, case, case.set_state)
    execution = await start(sandbox, case, getattr(case, kind))
    await anyio.sleep(0.3)
    await execution.interrupt()
    outcome = await follow(execution)
    assert outcome.finished.reason is FinishReason.INTERRUPTED
    assert not outcome.finished.state_lost
    await works(sandbox, case, keeps_state=True)


async def test_an_interrupt_that_comes_at_once_is_not_lost(sandbox: Sandbox, case: Case) -> None:
    await run(sandbox, case, case.set_state)
    for _ in range(20):
        execution = await start(sandbox, case, case.endless)
        await execution.interrupt()
        outcome = await follow(execution)
        assert outcome.finished.reason is FinishReason.INTERRUPTED
        assert not outcome.finished.state_lost
    await works(sandbox, case, keeps_state=True)


async def test_an_interrupt_between_executions_does_nothing(sandbox: Sandbox, case: Case) -> None:
    await run(sandbox, case, case.set_state)
    context = await sandbox.default_context(case.language)
    assert not await context.interrupt()
    await works(sandbox, case, keeps_state=True)


async def test_a_time_limit_ends_the_code_and_keeps_the_state(sandbox: Sandbox, case: Case) -> None:
    await run(sandbox, case, case.set_state)
    outcome = await run(sandbox, case, case.endless, timeout=0.5)
    finished = outcome.finished
    assert (finished.reason, finished.limit) == (FinishReason.TIMEOUT, "timeout")
    assert finished.limit_value == 0.5
    assert not finished.state_lost
    await works(sandbox, case, keeps_state=True)


@pytest.mark.parametrize(("kind", "exit_code"), [("exit_with_3", 3), ("crash", None)])
async def test_the_end_of_the_interpreter_is_told_and_a_fresh_one_takes_over(
    sandbox: Sandbox, case: Case, kind: str, exit_code: int | None
) -> None:
    await run(sandbox, case, case.set_state)
    finished = (await run(sandbox, case, getattr(case, kind))).finished
    assert finished.reason is FinishReason.KERNEL_DIED
    signal = case.crash_signal if exit_code is None else None
    assert (finished.exit_code, finished.signal) == (exit_code, signal)
    assert finished.state_lost
    await works(sandbox, case, keeps_state=False)


@pytest.mark.timeout(120)
async def test_running_out_of_memory_is_told(engine: Engine, case: Case) -> None:
    sandbox = await engine.create(SandboxSpec(limits=Limits(memory=256 * MIB, disk=16 * MIB)))
    try:
        outcome = await run(sandbox, case, case.eat_memory, timeout=60)
        assert outcome.finished.reason is FinishReason.OOM
        assert outcome.finished.state_lost
        await works(sandbox, case, keeps_state=False)
    finally:
        await engine.kill(sandbox.id)


async def test_variables_of_an_execution_are_gone_afterwards(sandbox: Sandbox, case: Case) -> None:
    given = {"GIVEN": "x 'y' \"z\" $HOME", "HOME": "/tmp"}
    outcome = await run(sandbox, case, case.show_given, env=given)
    assert outcome.stdout == "[x 'y' \"z\" $HOME] [/tmp]\n"
    assert (await run(sandbox, case, case.show_given)).stdout == "[] [/home/user]\n"
    await run(sandbox, case, case.failing[0], env=given)
    assert (await run(sandbox, case, case.show_given)).stdout == "[] [/home/user]\n"


async def test_the_directory_of_an_execution_is_left_afterwards(
    sandbox: Sandbox, case: Case
) -> None:
    assert (await run(sandbox, case, case.show_directory, cwd="/tmp")).stdout == "/tmp\n"
    assert (await run(sandbox, case, case.show_directory)).stdout == "/home/user\n"
    outcome = await run(sandbox, case, case.show_directory, cwd="/missing")
    assert outcome.finished.reason is FinishReason.ERROR
    assert [raised.error.name for raised in outcome.errors] == ["FileNotFoundError"]
    assert "/missing" in outcome.errors[0].error.value
    assert (await run(sandbox, case, case.show_directory)).stdout == "/home/user\n"


async def test_a_context_has_its_own_variables_and_directory(sandbox: Sandbox, case: Case) -> None:
    spec = ContextSpec(case.language, cwd="/tmp", env={"GIVEN": "its own"})
    context = await sandbox.create_context(spec)
    assert (await run(sandbox, case, case.show_directory, context=context)).stdout == "/tmp\n"
    outcome = await run(sandbox, case, case.show_given, context=context)
    assert outcome.stdout == "[its own] [/home/user]\n"


async def test_contexts_are_apart_and_run_in_parallel(sandbox: Sandbox, case: Case) -> None:
    other = await sandbox.create_context(ContextSpec(case.language))
    await run(sandbox, case, case.set_state)
    waiting = await start(sandbox, case, case.waiting)
    outcome = await run(sandbox, case, case.show_state, context=other)
    assert "kept 42" not in outcome.stdout
    assert not waiting.is_finished
    await waiting.interrupt()
    await waiting.wait()


async def test_the_interpreter_of_a_new_context_starts_before_there_is_code(
    sandbox: Sandbox, case: Case
) -> None:
    look = (
        "import contextlib, glob, os\n"
        "for link in glob.glob('/proc/[0-9]*/exe'):\n"
        "    with contextlib.suppress(OSError):\n"
        "        print(os.path.basename(os.readlink(link)))"
    )
    programs = {"javascript": "node", "typescript": "node", "r": "R"}
    program = programs.get(case.language, case.language.value)
    await sandbox.create_context(ContextSpec(case.language))
    with anyio.fail_after(20):
        while program not in (await run_python(sandbox, look)).stdout.split():  # noqa: ASYNC110
            await anyio.sleep(0.01)


async def test_output_of_a_child_process_arrives(sandbox: Sandbox, case: Case) -> None:
    assert (await run(sandbox, case, case.run_echo)).stdout == "from a child\n"


async def test_standard_input_is_empty(sandbox: Sandbox, case: Case) -> None:
    assert (await run(sandbox, case, case.read_stdin)).stdout == "[]\n"


async def test_the_default_context_is_listed_from_the_start_and_begins_with_its_first_use(
    sandbox: Sandbox, case: Case
) -> None:
    before = sandbox.contexts
    (context,) = [each for each in before if each.language is case.language]
    assert context.state is ContextState.UNSTARTED
    await run(sandbox, case, case.print_hello)
    assert sandbox.contexts == before
    assert sandbox.context(context.id).state is ContextState.IDLE


async def test_an_execution_that_waits_is_not_hit_by_an_interrupt_of_another(
    sandbox: Sandbox, case: Case
) -> None:
    first = await start(sandbox, case, case.waiting)
    second = await start(sandbox, case, case.print_hello)
    await anyio.sleep(0.2)
    await first.interrupt()
    assert (await follow(first)).finished.reason is FinishReason.INTERRUPTED
    outcome = await follow(second)
    assert (outcome.stdout, outcome.finished.reason) == ("hello\n", FinishReason.OK)
