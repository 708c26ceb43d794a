"""Output arrives live, whole and in order, and costs the engine little memory."""

import gc
import hashlib
import time
from pathlib import Path

import anyio
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.events import (
    ExecutionFinished,
    FinishReason,
    OutputDropped,
    OutputWritten,
    Stream,
)
from headrace.model.specs import MIB, ExecutionRequest, Limits, SandboxSpec
from tests.support.running import run_python

GROWTH = 30 * MIB


def resident() -> int:
    """Give this process's resident bytes."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def digest(sandbox: Sandbox, code: str) -> tuple[int, str, ExecutionFinished]:
    """Run code and give size and hash of its standard output, read as it comes."""
    execution = await sandbox.execute(ExecutionRequest(code))
    size, seen = 0, hashlib.sha256()
    async for event in execution.events():
        if isinstance(event, OutputWritten):
            size += len(event.data)
            seen.update(event.data)
    return size, seen.hexdigest(), await execution.wait()


async def test_a_print_is_seen_while_the_code_still_runs(sandbox: Sandbox) -> None:
    code = "import time\nprint('first')\nprint('no newline', end='')\ntime.sleep(30)"
    execution = await sandbox.execute(ExecutionRequest(code))
    text = ""
    with anyio.fail_after(10):
        async for event in execution.events():
            text += event.text if isinstance(event, OutputWritten) else ""
            if text == "first\nno newline":
                break
    assert not execution.log.is_finished
    await execution.interrupt()
    assert (await execution.wait()).reason is FinishReason.INTERRUPTED


LARGE = {
    "100 MB in lines": (
        "line = 'x' * 99 + '\\n'\nimport sys\n"
        "for _ in range(1000):\n    sys.stdout.write(line * 1000)",
        (b"x" * 99 + b"\n") * 1_000_000,
    ),
    "one line of 50 MB": ("print('y' * 50_000_000)", b"y" * 50_000_000 + b"\n"),
    "a million short lines": (
        "for i in range(1_000_000):\n    print(i)",
        b"".join(b"%d\n" % i for i in range(1_000_000)),
    ),
    "binary without newline at the end": (
        "import os\nfor _ in range(40):\n"
        "    data = bytes(range(256)) * 4096\n"
        "    while data:\n        data = data[os.write(1, data):]",
        bytes(range(256)) * 4096 * 40,
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("name", LARGE)
async def test_large_output_is_complete_and_costs_little_memory(
    sandbox: Sandbox, name: str
) -> None:
    code, expected = LARGE[name]
    wanted = (len(expected), hashlib.sha256(expected).hexdigest())
    await run_python(sandbox, "1")
    before = resident()
    size, seen, finished = await digest(sandbox, code)
    grown = resident() - before
    assert (size, seen) == wanted
    assert finished.reason is FinishReason.OK
    assert grown < GROWTH


async def test_no_character_is_split(sandbox: Sandbox) -> None:
    code = (
        "import os, time\n"
        "raw = '😀é'.encode()\n"
        "for byte in range(len(raw)):\n"
        "    os.write(1, raw[byte:byte+1]); time.sleep(0.01)\n"
    )
    outcome = await run_python(sandbox, code)
    written = [event.data for event in outcome.events if isinstance(event, OutputWritten)]
    assert b"".join(written).decode() == "😀é"
    for data in written:
        data.decode()


async def test_an_unfinished_character_at_the_end_is_passed_on(sandbox: Sandbox) -> None:
    outcome = await run_python(sandbox, "import os; os.write(1, '😀'.encode()[:2]);")
    written = b"".join(e.data for e in outcome.events if isinstance(e, OutputWritten))
    assert written == "😀".encode()[:2]


async def test_carriage_returns_and_colours_pass_through(sandbox: Sandbox) -> None:
    outcome = await run_python(
        sandbox, "print('10%\\r20%\\r', end='')\nprint('\\x1b[31mred\\x1b[0m')"
    )
    assert outcome.stdout == "10%\r20%\r\x1b[31mred\x1b[0m\n"


async def test_output_of_children_threads_and_c_code_is_captured(sandbox: Sandbox) -> None:
    code = (
        "import subprocess, threading, os, ctypes\n"
        "subprocess.run('echo child; echo child error >&2', shell=True)\n"
        "t = threading.Thread(target=print, args=('thread',)); t.start(); t.join()\n"
        "os.write(1, b'raw\\n')\n"
        "ctypes.CDLL(None).puts(b'libc'); ctypes.CDLL(None).fflush(None)\n"
        "import sys; sys.stdout.buffer.write(b'buffer\\n');\n"
    )
    outcome = await run_python(sandbox, code)
    assert outcome.stdout == "child\nthread\nraw\nlibc\nbuffer\n"
    assert outcome.stderr == "child error\n"


async def test_a_log_can_be_read_again_by_many_at_any_position(sandbox: Sandbox) -> None:
    code = "import sys\nfor i in range(300):\n    print(i)\n    print(i, file=sys.stderr)"
    execution = await sandbox.execute(ExecutionRequest(code))
    live = [event async for event in execution.events()]
    again = [event async for event in execution.events()]
    assert again == live
    for after in (0, 1, 7, len(live) - 1, len(live)):
        rest = [event async for event in execution.events(after=after)]
        assert rest == live[after:]


async def test_a_log_outlives_its_sandbox(engine: Engine) -> None:
    sandbox = await engine.create(SandboxSpec())
    execution = await sandbox.execute(ExecutionRequest("print('kept')"))
    live = [event async for event in execution.events()]
    await engine.kill(sandbox.id)
    log = engine.find_log(execution.id)
    assert [event async for event in log.read()] == live


async def test_a_slow_reader_delays_nobody(sandbox: Sandbox) -> None:
    execution = await sandbox.execute(ExecutionRequest("for i in range(50_000): print(i)"))
    slow = execution.events()
    await anext(slow)
    with anyio.fail_after(30):
        await execution.wait()
    rest = [event async for event in slow]
    assert isinstance(rest[-1], ExecutionFinished)


@pytest.mark.parametrize("limit", [100_000])
async def test_output_stops_at_its_limit_with_a_marker(engine: Engine, limit: int) -> None:
    sandbox = await engine.create(SandboxSpec(limits=Limits(output=limit)))
    try:
        code = "import time\nwhile True: print('x' * 99)"
        outcome = await run_python(sandbox, code)
        finished = outcome.finished
        assert finished.reason is FinishReason.OUTPUT_LIMIT
        assert (finished.limit, finished.limit_value) == ("output", limit)
        kept = sum(len(e.data) for e in outcome.events if isinstance(e, OutputWritten))
        assert kept == limit
        dropped = [event for event in outcome.events if isinstance(event, OutputDropped)]
        assert dropped
        assert all(event.stream is Stream.STDOUT and event.dropped > 0 for event in dropped)
        assert (await run_python(sandbox, "1+1")).finished.reason is FinishReason.OK
    finally:
        await engine.kill(sandbox.id)


async def test_output_between_executions_goes_to_the_next_one(sandbox: Sandbox) -> None:
    code = "import threading\nt = threading.Timer(0.2, print, ('late',)); t.start()"
    await run_python(sandbox, code)
    await anyio.sleep(0.5)
    outcome = await run_python(sandbox, "print('next')")
    assert outcome.stdout == "late\nnext\n"


async def test_timestamps_are_the_hosts_and_never_go_back(sandbox: Sandbox) -> None:
    before = time.time()
    outcome = await run_python(
        sandbox, "import time; time.time = lambda: 5\nfor i in range(20): print(i)"
    )
    stamps = [event.timestamp for event in outcome.events]
    assert stamps == sorted(stamps)
    assert before - 1 < stamps[0] < stamps[-1] < time.time() + 1
