"""Code that speaks to its driver in the interpreter's name harms nobody but itself.

Threat: code of another language shares a process with our loop and has the private channel to the
driver; it says there whatever it likes, ends either of them, or floods the other.
"""

from typing import Any

import anyio
import pytest

from headrace.engine.context import Context
from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from headrace.model.specs import ContextSpec, Language
from tests.support.running import Outcome, run_process, run_python

SAY = "say() { printf '%s\\n' \"$1\" >&$__headrace_channel; }\n"


@pytest.fixture
async def neighbour(sandbox: Sandbox) -> Context:
    """Another context of the sandbox, with state."""
    context = await sandbox.create_context(ContextSpec(Language.BASH))
    await run_python(sandbox, "x=kept", context=context)
    return context


async def attack(sandbox: Sandbox, code: str, **request: Any) -> Outcome:
    """Run hostile code in the default bash context."""
    with anyio.fail_after(40):
        return await run_python(sandbox, SAY + code, language=Language.BASH, **request)


async def all_is_well(sandbox: Sandbox, neighbour: Context) -> None:
    """Assert that the neighbour has its state and that the attacker's context works again."""
    assert (await run_python(sandbox, "echo $x", context=neighbour)).stdout == "kept\n"
    outcome = await run_python(sandbox, "echo works", language=Language.BASH)
    if outcome.finished.reason is FinishReason.KERNEL_DIED:
        outcome = await run_python(sandbox, "echo works", language=Language.BASH)
    assert outcome.stdout.endswith("works\n")  # perhaps after late output of the attack


LIES = {
    "not JSON": "say garbage",
    "no object": "say '[1]'",
    "an unknown type": """say '{"type":"ready"}'""",
    "a frame of the host's": """say '{"type":"configure","env":{},"cwd":"/"}'""",
    "an unknown status": """say '{"type":"done","status":"root","exit_code":0}'""",
    "a negative exit code": """say '{"type":"done","status":"ok","exit_code":-1}'""",
    "a huge exit code": """say '{"type":"done","status":"ok","exit_code":1e400}'""",
    "a bundle that is none": """say '{"type":"result","bundle":[]}'""",
    "an error without a name": """say '{"type":"error","value":"","traceback":""}'""",
    "deep JSON": """say "$(printf '[%.0s' {1..100000})" """,
    "a move to PID 1": """say '{"type":"moved","pid":1}'""",
    "a move to the driver": """say '{"type":"moved","pid":'$PPID'}'""",
    "a move to nobody": """say '{"type":"moved","pid":4000000}'""",
    "a move beyond all numbers": """say '{"type":"moved","pid":99999999999999999999}'""",
    "a line without end": "head -c 40000000 /dev/zero | tr '\\0' x >&$__headrace_channel",
}


@pytest.mark.security
@pytest.mark.parametrize("kind", LIES)
async def test_a_lie_on_the_channel_ends_its_own_kernel_only(
    sandbox: Sandbox, neighbour: Context, kind: str
) -> None:
    outcome = await attack(sandbox, f"{LIES[kind]}; sleep 60", timeout=30)
    finished = outcome.finished
    assert (finished.reason, finished.exit_code) == (FinishReason.KERNEL_DIED, 70)
    assert "headrace: the interpreter was ended: " in outcome.stderr
    await all_is_well(sandbox, neighbour)


@pytest.mark.security
async def test_a_move_to_a_neighbours_shell_ends_the_liar_only(
    sandbox: Sandbox, neighbour: Context
) -> None:
    pid = (await run_python(sandbox, "echo $BASHPID", context=neighbour)).stdout.strip()
    outcome = await attack(sandbox, f"""say '{{"type":"moved","pid":{pid}}}'; sleep 60""")
    assert outcome.finished.reason is FinishReason.KERNEL_DIED
    await all_is_well(sandbox, neighbour)


@pytest.mark.security
async def test_a_forged_end_is_only_an_early_end(sandbox: Sandbox, neighbour: Context) -> None:
    forged = """{"type":"done","status":"ok","exit_code":0}"""
    outcome = await attack(sandbox, f"say '{forged}'; say '{forged}'; echo late")
    assert outcome.finished.reason is FinishReason.OK
    await all_is_well(sandbox, neighbour)


@pytest.mark.security
async def test_a_flood_of_messages_ends_with_its_time_limit(
    sandbox: Sandbox, neighbour: Context
) -> None:
    code = """while :; do say '{"type":"result","bundle":{"text/plain":"x"}}'; done"""
    outcome = await attack(sandbox, code, timeout=1)
    assert outcome.finished.reason in (FinishReason.TIMEOUT, FinishReason.KERNEL_DIED)
    await all_is_well(sandbox, neighbour)


@pytest.mark.security
async def test_a_result_that_fits_no_frame_is_left_out_and_named(
    sandbox: Sandbox, neighbour: Context
) -> None:
    code = (
        "big=$(head -c 9000000 /dev/zero | tr '\\0' x)\n"
        """say '{"type":"result","bundle":{"text/plain":"t","text/html":"'$big'"}}'"""
    )
    outcome = await attack(sandbox, code)
    (result,) = outcome.results
    assert dict(result.bundle) == {"text/plain": "t"}
    assert set(result.omitted) == {"text/html"}
    await all_is_well(sandbox, neighbour)


ENDS = {
    "the driver killed": "sleep 4321 & kill -KILL $PPID; sleep 60",
    "the channel closed": "exec {__headrace_channel}>&-; sleep 4321",
    "the shell killed": "sleep 4321 & kill -KILL $BASHPID; sleep 60",
    "the loop's functions gone": "sleep 4321 & unset -f __headrace_leave; exit 1",
}


@pytest.mark.security
@pytest.mark.parametrize("kind", ENDS)
async def test_nothing_of_a_kernels_group_outlives_it(
    sandbox: Sandbox, neighbour: Context, kind: str
) -> None:
    outcome = await attack(sandbox, ENDS[kind], timeout=20)
    assert outcome.finished.reason is FinishReason.KERNEL_DIED
    look = "for i in {1..100}; do pgrep -f 'sleep 432[1]' || exit 0; sleep 0.1; done; exit 1"
    assert (await run_process(sandbox, "bash", "-c", look)).exited.exit_code == 0
    await all_is_well(sandbox, neighbour)


@pytest.mark.security
async def test_a_shell_that_can_never_say_that_it_is_done_ends_with_its_time_limit(
    sandbox: Sandbox, neighbour: Context
) -> None:
    outcome = await attack(sandbox, "readonly __headrace_state; false", timeout=1)
    assert outcome.finished.reason is FinishReason.TIMEOUT
    await all_is_well(sandbox, neighbour)


@pytest.mark.security
async def test_a_stopped_driver_is_killed_after_the_time_limit(
    sandbox: Sandbox, neighbour: Context
) -> None:
    outcome = await attack(sandbox, "kill -STOP $PPID; sleep 60", timeout=0.5)
    assert outcome.finished.reason is FinishReason.TIMEOUT
    assert outcome.finished.state_lost
    await all_is_well(sandbox, neighbour)


NODE_GARBAGE = (
    "for (let fd = 3; fd < 400; fd++)"
    " try { require('fs').writeSync(fd, 'garbage\\n') } catch {}\n"
    "await new Promise(() => {})"
)
GARBAGE = {
    Language.BASH: 'for fd in /proc/$BASHPID/fd/*; do echo garbage >&"${fd##*/}"; done; sleep 60',
    Language.JAVASCRIPT: NODE_GARBAGE,
    Language.TYPESCRIPT: NODE_GARBAGE,
    Language.R: (
        "for (fd in 3:400) try(write.socket(structure(list(socket = fd), class = 'socket'),"
        " 'garbage\\n'), silent = TRUE)\nSys.sleep(60)"
    ),
    Language.JAVA: (
        'var field = FileDescriptor.class.getDeclaredField("fd"); field.setAccessible(true);\n'
        "for (int n = 3; n < 400; n++) { var fd = new FileDescriptor(); field.setInt(fd, n);"
        ' try { new FileOutputStream(fd).write("garbage\\n".getBytes()); }'
        " catch (IOException e) {} }\nThread.sleep(60_000);"
    ),
}


@pytest.mark.security
@pytest.mark.parametrize("language", GARBAGE)
async def test_garbage_on_every_descriptor_ends_its_own_kernel_only(
    sandbox: Sandbox, neighbour: Context, language: Language
) -> None:
    with anyio.fail_after(40):
        outcome = await run_python(sandbox, GARBAGE[language], language=language, timeout=20)
    assert outcome.finished.reason is FinishReason.KERNEL_DIED
    await all_is_well(sandbox, neighbour)
    assert (await run_python(sandbox, "1", language=language)).finished.reason is not None


@pytest.mark.security
@pytest.mark.parametrize("language", [Language.BASH, Language.JAVASCRIPT])
async def test_a_driver_shows_nothing_of_the_fork_server(
    sandbox: Sandbox, language: Language
) -> None:
    """Threat: the interpreter inherits a descriptor or a variable that leads out."""
    if language is Language.BASH:
        code = "ls -l /proc/$BASHPID/fd /proc/$PPID/fd; tr '\\0' '\\n' < /proc/$PPID/environ; env"
    else:
        code = (
            "const {execSync} = require('child_process');"
            "console.log(String(execSync(`ls -l /proc/${process.pid}/fd /proc/${process.ppid}/fd;"
            " env; tr '\\\\0' '\\\\n' < /proc/${process.ppid}/environ`)))"
        )
    text = (await run_python(sandbox, code, language=language)).stdout
    links = [line.rsplit(" -> ", 1)[1] for line in text.splitlines() if " -> " in line]
    assert len(links) > 10
    known = ("/dev/null", "pipe:", "socket:", "/memfd:", "anon_inode:", "/proc/", "/dev/urandom")
    assert [link for link in links if not link.startswith(known)] == []
    assert "SECRET" not in text.upper().replace("SECRETS", "")
