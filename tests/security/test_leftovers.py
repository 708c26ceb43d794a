"""Killing a sandbox leaves nothing behind, whatever went on in it."""

from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from headrace.engine.engine import Engine
from headrace.model.specs import (
    MIB,
    ContextSpec,
    ExecutionRequest,
    Language,
    Limits,
    ProcessRequest,
    PtySize,
    SandboxSpec,
)
from tests.support.leaks import assert_nothing_left, take_footprint, take_steady_footprint
from tests.support.running import open_engine, run_python

LIMITS = Limits(memory=256 * MIB, disk=32 * MIB, inodes=2000, processes=64)

STATES = {
    "forking without end": (
        "import os, time\n"
        "if os.fork() == 0:\n"
        "    while True:\n"
        "        try:\n"
        "            os.fork()\n"
        "        except OSError:\n"
        "            pass\n"
        "time.sleep(0.3)\n"
    ),
    "out of memory": "hog = []\nwhile True: hog.append(bytearray(b'x') * 2**23)",
    "disk full": (
        "f = open('/tmp/full', 'wb', buffering=0)\n"
        "try:\n"
        "    while True: f.write(bytes(2**20))\n"
        "except OSError: pass\n"
    ),
    "all stopped": (
        "import os, signal, subprocess\n"
        "for _ in range(10):\n"
        "    os.kill(subprocess.Popen(['setsid', 'sleep', '60']).pid, signal.SIGSTOP)\n"
    ),
    "descriptors held": (
        "import os, socket\n"
        "held = [os.open('/dev/null', 0) for _ in range(500)]\n"
        "pair = socket.socketpair(); socket.send_fds(pair[0], [b'x'], held[:200])\n"
    ),
    "shared memory held": (
        "import ctypes\n"
        "from multiprocessing import shared_memory\n"
        "held = shared_memory.SharedMemory(create=True, size=2**20)\n"
        "number = ctypes.CDLL(None).shmget(7, 2**20, 0o1666)\n"
    ),
    "the kernel dead": "import os; os._exit(3)",
}


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An engine without a pool, so that nothing comes and goes by itself."""
    async with open_engine(tmp_path_factory.mktemp("leftovers"), pool_size=0) as engine:
        # The first sandbox makes what all later ones share.
        await engine.kill((await engine.create(SandboxSpec())).id)
        yield engine


def directories_of(engine: Engine) -> tuple[Path, Path]:
    """Give the directories in which an engine keeps things."""
    return engine.config.state_dir, engine.config.runtime_dir


@pytest.mark.parametrize("state", STATES, ids=str)
async def test_a_killed_sandbox_leaves_nothing(engine: Engine, state: str) -> None:
    """Threat: processes, mounts, groups or descriptors add up until the host has none left."""
    places = directories_of(engine)
    before = await take_steady_footprint(*places)
    sandbox = await engine.create(SandboxSpec(limits=LIMITS))
    await run_python(sandbox, STATES[state])
    during = take_footprint(*places)
    assert during.processes - before.processes
    with anyio.fail_after(20):
        await engine.kill(sandbox.id)
    await assert_nothing_left(before, during, *places)


BUSY = {
    Language.BASH: "setsid sleep 600 & sleep 600 & set -e; while :; do false | cat || :; done",
    Language.JAVASCRIPT: (
        "require('child_process').spawn('sleep', ['600'], {detached: true});"
        "await new Promise(done => setTimeout(done, 100)); while (true) {}"
    ),
    Language.TYPESCRIPT: "const n: number = 1; await new Promise(() => {})",
}


@pytest.mark.parametrize("language", BUSY)
async def test_a_busy_interpreter_leaves_nothing_when_its_sandbox_is_killed(
    engine: Engine, language: Language
) -> None:
    """Threat: an interpreter, or what it started, lives on when its driver is gone."""
    places = directories_of(engine)
    before = await take_steady_footprint(*places)
    sandbox = await engine.create(SandboxSpec(limits=LIMITS))
    await run_python(sandbox, "", language=language)
    await sandbox.execute(ExecutionRequest(BUSY[language], language=language))
    await anyio.sleep(0.5)
    during = take_footprint(*places)
    assert len(during.processes - before.processes) >= 3
    with anyio.fail_after(20):
        await engine.kill(sandbox.id)
    await assert_nothing_left(before, during, *places)


async def test_a_sandbox_killed_in_full_use_leaves_nothing(engine: Engine) -> None:
    """Threat: what is open at the moment of the end stays open on our side."""
    places = directories_of(engine)
    before = await take_steady_footprint(*places)
    sandbox = await engine.create(SandboxSpec(limits=LIMITS))
    context = await sandbox.create_context(ContextSpec())
    request = ExecutionRequest("while True: print('x' * 100)", context_id=context.id)
    await sandbox.execute(request)
    await sandbox.start_process(ProcessRequest(("cat",), has_stdin=True))
    await sandbox.start_process(ProcessRequest(("/bin/sh",), pty=PtySize()))
    await sandbox.files.watch("/home/user")
    await run_python(sandbox, "import socket; s = socket.create_server(('127.0.0.1', 8000))")
    port = await sandbox.open_port(8000)
    during = take_footprint(*places)
    with anyio.fail_after(20):
        await engine.kill(sandbox.id)
    await port.aclose()
    await assert_nothing_left(before, during, *places)
