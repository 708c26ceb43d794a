"""A bash context keeps what a shell keeps, and survives what would end a shell."""

from typing import Any

import anyio
import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from headrace.model.specs import ExecutionRequest, Language
from tests.support.running import Outcome, run_python


async def run(sandbox: Sandbox, code: str, **request: Any) -> Outcome:
    """Run code in the default bash context."""
    return await run_python(sandbox, code, language=Language.BASH, **request)


async def shown(sandbox: Sandbox, code: str) -> str:
    """Give what code prints."""
    return (await run(sandbox, code)).stdout


async def test_a_shells_state_is_kept(sandbox: Sandbox) -> None:
    await run(
        sandbox,
        "cd /tmp; x='a b'; declare -a list=(1 2); export Y=exported; alias greet='echo hi'\n"
        'f() { echo "f $1"; }; shopt -s extglob; set -o pipefail',
    )
    code = 'pwd; echo "$x" "${list[1]}"; greet; f 1; sh -c \'echo $Y\'; set -o | grep pipefail'
    assert (await shown(sandbox, code)).split("\n")[:6] == [
        *("/tmp", "a b 2", "hi", "f 1", "exported"),
        "pipefail       \ton",
    ]


@pytest.mark.parametrize(
    ("code", "reason", "exit_code"),
    [
        ("true", FinishReason.OK, 0),
        ("false", FinishReason.ERROR, 1),
        ("sh -c 'exit 42'", FinishReason.ERROR, 42),
        ("true | false | true", FinishReason.OK, 0),
        ("set -o pipefail; true | false | true", FinishReason.ERROR, 1),
        ("missing-command", FinishReason.ERROR, 127),
        ("sh -c 'kill -9 $$'", FinishReason.ERROR, 137),
        ("for i in 1 2; do break; done; break; false", FinishReason.OK, 0),
        ("return 3", FinishReason.ERROR, 2),
        ("", FinishReason.OK, 0),
        ("# nothing", FinishReason.OK, 0),
    ],
)
async def test_an_exit_status_is_data(
    sandbox: Sandbox, code: str, reason: FinishReason, exit_code: int
) -> None:
    outcome = await run(sandbox, code)
    assert (outcome.finished.reason, outcome.finished.exit_code) == (reason, exit_code)
    assert (outcome.errors, outcome.finished.state_lost) == ([], False)


async def test_the_former_status_is_there(sandbox: Sandbox) -> None:
    await run(sandbox, "(exit 5)")
    assert await shown(sandbox, "echo $?") == "5\n"
    assert await shown(sandbox, "set -e; echo $?") == "0\n"
    await run(sandbox, "(exit 6)")
    assert await shown(sandbox, "echo $?") == "6\n"


ENDS = {
    "set -e": "set -e; x=kept; false; x=lost",
    "set -e in a function": "set -e; x=kept; f2() { local x=inner; false; }; f2; x=lost",
    "set -u": "set -u; x=kept; echo $missing; x=lost",
    "a required parameter": "x=kept; : ${missing:?needed}; x=lost",
    "a failing exec": "x=kept; exec missing-command; x=lost",
    "posix mode": "set -o posix; x=kept; eval 'if'; x=lost",
    "division by zero": "x=kept; echo $((1 / 0)); x=lost",
    "pipefail": "set -euo pipefail; x=kept; false | true; x=lost",
}


@pytest.mark.parametrize("kind", ENDS)
async def test_what_would_end_a_shell_ends_the_execution_only(sandbox: Sandbox, kind: str) -> None:
    await run(sandbox, "f() { echo function; }; cd /tmp; trap 'echo trapped' USR1")
    for _ in range(3):  # each time in the shell that took over
        outcome = await run(sandbox, f"set +eu\n{ENDS[kind]}")
        assert outcome.finished.reason is FinishReason.ERROR
        assert not outcome.finished.state_lost
    await run(sandbox, "set +eu; set +o posix +o pipefail")
    code = "echo $x; pwd; echo error >&2; kill -USR1 $BASHPID"
    outcome = await run(sandbox, code)
    assert (outcome.stdout, outcome.stderr) == ("kept\n/tmp\ntrapped\n", "error\n")


@pytest.mark.parametrize("code", ['echo "abc', "if true; then", "f() {", "case x in", "$(", "done"])
async def test_broken_code_hides_nothing_of_what_follows(sandbox: Sandbox, code: str) -> None:
    outcome = await run(sandbox, code)
    assert outcome.finished.reason is FinishReason.ERROR
    assert "bash: " in outcome.stderr
    assert await shown(sandbox, "echo alive") == "alive\n"


async def test_an_unfinished_here_document_ends_with_the_code(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "cat <<END\ninside")
    assert outcome.stdout == "inside\n"
    assert "wanted `END'" in outcome.stderr
    assert await shown(sandbox, "echo alive") == "alive\n"


async def test_lines_of_the_code_are_counted_from_one(sandbox: Sandbox) -> None:
    assert "line 3: missing:" in (await run(sandbox, "\n\nmissing")).stderr
    await run(sandbox, "set -e; false")
    assert "line 2: missing:" in (await run(sandbox, "set +e\nmissing")).stderr


@pytest.mark.parametrize(
    ("code", "exit_code"), [("exit 3", 3), ("f() { exit 4; }; f", 4), ("(exit 5); exit", 5)]
)
async def test_exit_ends_the_shell(sandbox: Sandbox, code: str, exit_code: int) -> None:
    await run(sandbox, "set -e; false")  # also in a shell that took over
    outcome = await run(sandbox, f"set +e; trap 'echo bye $?' EXIT; {code}")
    assert outcome.finished.reason is FinishReason.KERNEL_DIED
    assert (outcome.finished.exit_code, outcome.finished.state_lost) == (exit_code, True)
    assert outcome.stdout == f"bye {exit_code}\n"


async def test_exec_replaces_the_shell(sandbox: Sandbox) -> None:
    outcome = await run(sandbox, "exec echo replaced")
    assert outcome.stdout == "replaced\n"
    finished = outcome.finished
    assert (finished.reason, finished.exit_code) == (FinishReason.KERNEL_DIED, 0)


async def test_subshells_may_exit_and_trap(sandbox: Sandbox) -> None:
    code = "(trap 'echo sub' EXIT; exit 2); echo $?; x=$(exit 3); echo $?; (set -e; false; echo no)"
    assert await shown(sandbox, code) == "sub\n2\n3\n"


INTERRUPTED = {
    "a command": "sleep 60",
    "a pipeline": "sleep 60 | cat",
    "a loop": "while :; do :; done",
    "a condition": "while sleep 60; do :; done",
    "a function": "f() { local x=inner; sleep 60; }; f",
    "a subshell": "(sleep 60); sleep 60",
    "a builtin": "sleep 60 & wait",
    "a redirection": "{ sleep 60; } > /tmp/file 2>&1",
}


@pytest.mark.parametrize("kind", INTERRUPTED)
async def test_an_interrupt_ends_what_runs_in_the_foreground(sandbox: Sandbox, kind: str) -> None:
    await run(sandbox, "x=kept; sleep 100 & background=$!")
    for _ in range(2):
        request = ExecutionRequest(INTERRUPTED[kind], language=Language.BASH)
        with anyio.fail_after(20):
            execution = await sandbox.execute(request)
            await anyio.sleep(0.2)
            await execution.interrupt()
            outcome = Outcome(tuple([event async for event in execution.events()]))
        assert outcome.finished.reason is FinishReason.INTERRUPTED
        assert (outcome.finished.state_lost, outcome.stderr) == (False, "")
    outcome = await run(sandbox, "echo $x; kill -0 $background && echo lives; echo error >&2")
    assert (outcome.stdout, outcome.stderr) == ("kept\nlives\n", "error\n")


async def test_an_interrupt_may_be_trapped(sandbox: Sandbox) -> None:
    request = ExecutionRequest(
        "trap 'echo mine' INT; sleep 60; echo went on; trap - INT", language=Language.BASH
    )
    execution = await sandbox.execute(request)
    await anyio.sleep(0.3)
    await execution.interrupt()
    with anyio.fail_after(20):
        outcome = Outcome(tuple([event async for event in execution.events()]))
    assert (outcome.stdout, outcome.finished.reason) == ("mine\nwent on\n", FinishReason.OK)


async def test_tracing_shows_the_users_commands_only(sandbox: Sandbox) -> None:
    await run(sandbox, "set -x")
    assert (await run(sandbox, "echo traced")).stderr.strip("+") == " echo traced\n"
    await run(sandbox, "set +x")
    assert (await run(sandbox, "echo quiet")).stderr == ""


async def test_traps_for_every_command_see_little_of_ours(sandbox: Sandbox) -> None:
    await run(sandbox, "trap 'echo \"D $BASH_COMMAND\"' DEBUG; trap 'echo E' ERR")
    for code in ("true", "false", "true"):
        lines = (await run(sandbox, code)).stdout.splitlines()
        assert f"D {code}" in lines
        assert [line for line in lines if "__headrace" in line and " eval " not in line] == []
        assert ("E" in lines) is (code == "false")
    await run(sandbox, "trap - DEBUG; trap - ERR")
    outcome = await run(sandbox, "false; echo quiet")
    assert (outcome.stdout, outcome.stderr) == ("quiet\n", "")
