"""A paused sandbox stands still, keeps everything and goes on where it was."""

import contextlib
import secrets
from pathlib import Path

import anyio
import pytest

from headrace.engine.processes import Process
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import WrongStateError
from headrace.model.events import FinishReason, OutputWritten
from headrace.model.specs import MIB, ExecutionRequest, ProcessRequest, PtySize
from tests.support.logs import wait_until
from tests.support.running import PATIENCE, run_process, run_python

COUNTER = "n=0; while :; do echo $n; n=$((n+1)); sleep 0.02; done"


async def start(sandbox: Sandbox, *argv: str, pty: PtySize | None = None) -> Process:
    return await sandbox.start_process(ProcessRequest(argv, timeout=60, pty=pty))


async def read_until(process: Process, count: int) -> bytes:
    """Give what a process has written once it is that many bytes."""
    output = b""
    with anyio.fail_after(PATIENCE):
        async for event in process.events():
            if isinstance(event, OutputWritten):
                output += event.data
                if len(output) >= count:
                    break
    return output


async def test_a_counter_stands_still_and_goes_on_without_a_gap(sandbox: Sandbox) -> None:
    process = await start(sandbox, "bash", "-c", COUNTER)
    for _ in range(3):
        await read_until(process, process.log.last_seq * 2 + 20)
        await sandbox.pause()
        await anyio.sleep(0.05)  # what was in the pipe is read
        before = process.log.last_seq
        await anyio.sleep(0.4)
        assert process.log.last_seq == before
        await sandbox.resume()
    output = await read_until(process, 400)
    numbers = [int(line) for line in output.split(b"\n")[:-1]]
    assert numbers == list(range(len(numbers)))


async def test_a_kernel_that_sleeps_and_its_memory_are_kept(sandbox: Sandbox) -> None:
    await run_python(sandbox, "kept = {'a': bytes(1000)}; open('file', 'w').write('x')")
    execution = await sandbox.execute(
        ExecutionRequest("import time; time.sleep(0.5); print(len(kept['a']))", timeout=PATIENCE)
    )
    await anyio.sleep(0.1)
    await sandbox.pause()
    with pytest.raises(WrongStateError, match="paused"):
        await sandbox.files.stat("file")
    await anyio.sleep(0.6)
    assert not execution.log.is_finished
    await sandbox.resume()
    with anyio.fail_after(PATIENCE):
        events = [event async for event in execution.events()]
    assert [event.text for event in events if isinstance(event, OutputWritten)] == ["1000\n"]
    assert await sandbox.files.read_bytes("file", limit=MIB) == b"x"


def processes_with(token: str) -> list[Path]:
    """List the processes of the host whose command line has the token."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and token.encode() in (entry / "cmdline").read_bytes():
                found.append(entry)
    return found


def cpu_ticks(token: str) -> int:
    """Give the CPU time of those processes."""
    stats = [(entry / "stat").read_text() for entry in processes_with(token)]
    fields = [text.rpartition(")")[2].split() for text in stats]
    return sum(int(each[11]) + int(each[12]) for each in fields)


async def test_a_paused_sandbox_uses_no_cpu(sandbox: Sandbox) -> None:
    token = secrets.token_hex(8)
    program = (
        "import threading\n"
        "def work():\n    while True: pass\n"
        "for _ in range(3): threading.Thread(target=work).start()"
    )
    await start(sandbox, "python", "-c", program, token)
    await wait_until(lambda: cpu_ticks(token) > 0)
    await sandbox.pause()
    before = cpu_ticks(token)
    await anyio.sleep(1)
    assert cpu_ticks(token) - before <= 1
    await sandbox.resume()
    await wait_until(lambda: cpu_ticks(token) > before + 1)


async def test_what_starts_processes_without_end_stands_still(sandbox: Sandbox) -> None:
    script = "while :; do (echo x) & (sleep 0.001; echo y) & wait; done"
    process = await start(sandbox, "bash", "-c", script)
    await read_until(process, 100)
    await sandbox.pause()
    await anyio.sleep(0.1)
    before = process.log.last_seq
    await anyio.sleep(0.3)
    assert process.log.last_seq == before
    await sandbox.resume()
    await read_until(process, before * 4)


async def test_a_process_that_somebody_stopped_stays_stopped(sandbox: Sandbox) -> None:
    script = "sleep 100 & kill -STOP $!; echo $!; exec sleep 100"
    process = await start(sandbox, "bash", "-c", script)
    pid = (await read_until(process, 2)).decode().strip()
    await sandbox.pause()
    await sandbox.resume()
    shown = await run_process(sandbox, "ps", "-o", "stat=", "-p", f"{pid},{process.pid}")
    assert [line[0] for line in shown.stdout.split()] == ["S", "T"]


async def test_a_shell_with_a_terminal_does_not_see_its_job_stop(sandbox: Sandbox) -> None:
    process = await start(sandbox, "bash", "--norc", pty=PtySize())
    await process.write_stdin(b"sleep 1; echo do''ne; exit 5\n")
    await read_until(process, 20)
    for _ in range(5):
        await sandbox.pause()
        await sandbox.resume()
    with anyio.fail_after(PATIENCE):
        output = [e.data async for e in process.events() if isinstance(e, OutputWritten)]
    assert b"done" in b"".join(output)
    assert b"Stopped" not in b"".join(output)
    assert (await process.wait()).exit_code == 5


async def test_a_paused_sandbox_can_be_killed(sandbox: Sandbox) -> None:
    token = secrets.token_hex(8)
    process = await start(sandbox, "bash", "-c", "sleep 1000", token)
    await sandbox.pause()
    with anyio.fail_after(5):
        await sandbox.kill()
    assert (await process.wait()).reason is FinishReason.KILLED
    assert processes_with(token) == []
