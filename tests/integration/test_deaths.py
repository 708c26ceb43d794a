"""Whatever code does to itself, the stream says truthfully how it ended, and life goes on."""

import os
import signal
from pathlib import Path

import anyio
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.events import ExecutionFinished, FinishReason, OutputWritten
from headrace.model.specs import MIB, ExecutionRequest, Limits, SandboxSpec
from tests.support.modes import Mode
from tests.support.running import Outcome, run_python

SEGFAULT = "import ctypes; ctypes.string_at(0)"
BOMB = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"


async def works_again(sandbox: Sandbox, *, state_lost: bool) -> None:
    """Assert that the default context runs code, with fresh state if it was lost."""
    outcome = await run_python(sandbox, "'before' in globals(), 1 + 1")
    assert outcome.results[0].text == f"({not state_lost}, 2)"


@pytest.mark.parametrize(
    ("code", "exit_code", "signal"),
    [
        ("import os; os._exit(3)", 3, None),
        (SEGFAULT, None, 11),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", None, 9),
        ("import os, signal; os.kill(os.getpid(), signal.SIGTERM)", None, 15),
        ("import os; os.abort()", None, 6),
    ],
)
async def test_a_kernel_that_dies_says_how(
    sandbox: Sandbox, code: str, exit_code: int | None, signal: int | None
) -> None:
    await run_python(sandbox, "before = 1")
    outcome = await run_python(sandbox, f"print('last words')\n{code}")
    assert outcome.stdout == "last words\n"
    finished = outcome.finished
    assert finished.reason is FinishReason.KERNEL_DIED
    assert (finished.exit_code, finished.signal) == (exit_code, signal)
    assert finished.state_lost
    await works_again(sandbox, state_lost=True)


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time; time.sleep(60)",
        "import subprocess; subprocess.run(['sleep', '60'])",
        "import asyncio; await asyncio.sleep(60)",
        "while True: print('x')",
    ],
)
async def test_a_time_limit_interrupts_and_keeps_the_state(sandbox: Sandbox, code: str) -> None:
    await run_python(sandbox, "before = 1")
    outcome = await run_python(sandbox, code, timeout=0.5)
    finished = outcome.finished
    assert finished.reason is FinishReason.TIMEOUT
    assert (finished.limit, finished.limit_value) == ("timeout", 0.5)
    assert not finished.state_lost
    await works_again(sandbox, state_lost=False)


async def test_code_that_ignores_the_interrupt_is_killed(sandbox: Sandbox) -> None:
    await run_python(sandbox, "before = 1")
    code = (
        "import signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "while True:\n    try:\n        while True: pass\n    except KeyboardInterrupt: pass"
    )
    finished = (await run_python(sandbox, code, timeout=0.3)).finished
    assert finished.reason is FinishReason.TIMEOUT
    assert finished.state_lost
    await works_again(sandbox, state_lost=True)


async def test_an_interrupt_ends_the_running_code_only(sandbox: Sandbox) -> None:
    await run_python(sandbox, "before = 1")
    execution = await sandbox.execute(ExecutionRequest("import time; time.sleep(60)"))
    async for _started in execution.events():
        break
    await execution.interrupt()
    finished = await execution.wait()
    assert finished.reason is FinishReason.INTERRUPTED
    await works_again(sandbox, state_lost=False)


async def test_an_interrupt_when_nothing_runs_harms_nothing(sandbox: Sandbox) -> None:
    await run_python(sandbox, "before = 1")
    for _ in range(20):
        execution = await sandbox.execute(ExecutionRequest("1"))
        finished = await execution.wait()
        await execution.interrupt()
        assert finished.reason is FinishReason.OK
    await works_again(sandbox, state_lost=False)


async def test_closed_descriptors_come_back(sandbox: Sandbox) -> None:
    await run_python(sandbox, "before = 1")
    for fd in (0, 1, 2, 3):
        outcome = await run_python(sandbox, f"import os\ntry: os.close({fd})\nexcept OSError: pass")
        assert outcome.finished.reason in (FinishReason.OK, FinishReason.ERROR)
        outcome = await run_python(
            sandbox, "import sys\nprint('out'); print('err', file=sys.stderr)"
        )
        assert (outcome.stdout, outcome.stderr) == ("out\n", "err\n")
    await works_again(sandbox, state_lost=False)


async def test_closing_everything_is_a_death_that_is_said(sandbox: Sandbox) -> None:
    outcome = await run_python(sandbox, "import os; os.closerange(0, 4096)")
    assert outcome.finished.reason is FinishReason.KERNEL_DIED
    await works_again(sandbox, state_lost=True)


async def test_a_thread_that_prints_for_ever_ends_with_its_cell_and_stops_nobody(
    sandbox: Sandbox,
) -> None:
    code = (
        "import threading\nbefore = 1\n"
        "def forever():\n    while True: print('x' * 100)\n"
        "threading.Thread(target=forever, daemon=True).start()"
    )
    with anyio.fail_after(20):
        outcome = await run_python(sandbox, code)
        assert outcome.finished.reason is FinishReason.OK
        await works_again(sandbox, state_lost=False)


@pytest.mark.timeout(120)
async def test_out_of_memory_is_told_from_other_kills(engine: Engine, mode: Mode) -> None:
    sandbox = await engine.create(SandboxSpec(limits=Limits(memory=256 * MIB, disk=16 * MIB)))
    try:
        code = "keep = []\nwhile True: keep.append(bytearray(b'x') * 4_000_000)"
        outcome = await run_python(sandbox, code, timeout=60)
        assert outcome.finished.reason is FinishReason.OOM
        assert outcome.finished.state_lost
        await works_again(sandbox, state_lost=True)
    finally:
        await engine.kill(sandbox.id)


async def test_a_fork_bomb_stays_in_its_sandbox(engine: Engine, sandbox: Sandbox) -> None:
    bombed = await engine.create(SandboxSpec())
    try:
        execution = await bombed.execute(ExecutionRequest(BOMB))
        await anyio.sleep(0.5)
        outcome = await run_python(
            sandbox, "import subprocess; subprocess.run(['true']).returncode"
        )
        assert outcome.results[0].text == "0"
        with anyio.fail_after(20):
            await engine.kill(bombed.id)
            assert (await execution.wait()).reason is FinishReason.KILLED
    finally:
        await bombed.kill()


async def test_a_full_disk_is_an_error_of_the_code(engine: Engine) -> None:
    sandbox = await engine.create(SandboxSpec(limits=Limits(disk=8 * MIB)))
    try:
        code = "with open('big', 'wb') as f:\n    while True: f.write(bytes(1_000_000))"
        outcome = await run_python(sandbox, code)
        assert outcome.errors[0].error.name == "OSError"
        assert "No space left" in outcome.errors[0].error.value
        assert (await run_python(sandbox, "1+1")).finished.reason is FinishReason.OK
    finally:
        await engine.kill(sandbox.id)


async def test_killing_a_sandbox_ends_its_executions(engine: Engine) -> None:
    sandbox = await engine.create(SandboxSpec())
    running = await sandbox.execute(ExecutionRequest("import time; print('up'); time.sleep(60)"))
    queued = await sandbox.execute(ExecutionRequest("1"))
    async for event in running.events():
        if event.seq > 1:
            break
    await engine.kill(sandbox.id)
    for execution in (running, queued):
        finished = await execution.wait()
        assert finished.reason is FinishReason.KILLED
        events = [event async for event in execution.events()]
        assert sum(isinstance(event, ExecutionFinished) for event in events) == 1


async def test_other_sandboxes_notice_nothing_of_a_death(engine: Engine, sandbox: Sandbox) -> None:
    dying = await engine.create(SandboxSpec())
    execution = await sandbox.execute(
        ExecutionRequest("import time\nfor i in range(20):\n    print(i); time.sleep(0.05)")
    )
    outcome: Outcome = await run_python(dying, SEGFAULT)
    assert outcome.finished.reason is FinishReason.KERNEL_DIED
    await engine.kill(dying.id)
    assert (await execution.wait()).reason is FinishReason.OK


def pids_in(namespace: str) -> dict[int, int]:
    """Give the processes of a pid namespace: their pids inside, and here."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if str((path / "ns/pid").readlink()) != namespace:
                continue
            status = (path / "status").read_text()
        except OSError:
            continue
        (numbers,) = [line for line in status.splitlines() if line.startswith("NSpid:")]
        found[int(numbers.split()[-1])] = int(path.name)
    return found


NAMESPACE = "import os\nprint(os.readlink('/proc/self/ns/pid'), os.getpid(), flush=True)\n"


@pytest.mark.parametrize("victim", ["PID 1", "kernel"])
async def test_what_is_killed_from_outside_is_said_to_be_and_others_live(
    engine: Engine, sandbox: Sandbox, victim: str
) -> None:
    doomed = await engine.create(SandboxSpec())
    execution = await doomed.execute(ExecutionRequest(NAMESPACE + "import time; time.sleep(60)"))
    text = ""
    with anyio.fail_after(20):
        async for event in execution.events():
            text += event.text if isinstance(event, OutputWritten) else ""
            if text.endswith("\n"):
                break
    namespace, kernel = text.split()
    pids = pids_in(namespace)
    os.kill(pids[1 if victim == "PID 1" else int(kernel)], signal.SIGKILL)
    with anyio.fail_after(20):
        finished = await execution.wait()
    assert finished.state_lost
    if victim == "PID 1":
        assert finished.reason is FinishReason.KILLED
        assert finished.detail
        assert not doomed.is_alive
    else:
        assert (finished.reason, finished.signal) == (FinishReason.KERNEL_DIED, 9)
        assert (await run_python(doomed, "1+1")).finished.reason is FinishReason.OK
    await doomed.kill()
    assert pids_in(namespace) == {}
    assert (await run_python(sandbox, "1+1")).finished.reason is FinishReason.OK
