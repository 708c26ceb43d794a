"""Ends that come at bad moments: one sandbox's must not be another's."""

import contextlib
from collections.abc import AsyncIterator

import anyio
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import HeadraceError
from headrace.model.specs import ContextSpec, ExecutionRequest, ProcessRequest, SandboxSpec
from tests.security.siblings import unharmed
from tests.support.running import open_engine, run_python


@pytest.fixture(scope="module")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Engine]:
    """An engine of their own: where these tests fail, the launcher has ended."""
    async with open_engine(tmp_path_factory.mktemp("races")) as engine:
        yield engine


async def _ignore_refusals(sandbox: Sandbox) -> None:
    with contextlib.suppress(HeadraceError):
        await sandbox.create_context(ContextSpec())


@pytest.mark.parametrize("delay", [0.0, 0.001, 0.003, 0.006, 0.01])
async def test_killing_a_sandbox_while_its_kernels_start_harms_nobody(
    engine: Engine, other: Sandbox, delay: float
) -> None:
    """Threat: a process that is gone before it was entered takes the launcher along."""
    async with unharmed(other):
        for _ in range(6):
            sandbox = await engine.create(SandboxSpec())
            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(_ignore_refusals, sandbox)
                await anyio.sleep(delay)
                await engine.kill(sandbox.id)


async def test_kernels_that_die_at_once_harm_nobody(sandbox: Sandbox, other: Sandbox) -> None:
    """Threat (42): a kernel that kills each of its successors as it comes up."""
    hunter = (
        "import os, signal\n"
        "own = os.getpid()\n"
        "while not os.path.exists('/tmp/stop'):\n"
        "    for name in os.listdir('/proc'):\n"
        "        if name.isdigit() and int(name) not in (1, own):\n"
        "            try:\n"
        "                os.kill(int(name), signal.SIGKILL)\n"
        "            except OSError:\n"
        "                pass\n"
    )
    context = await sandbox.create_context(ContextSpec())
    await sandbox.execute(ExecutionRequest(hunter, context_id=context.id, timeout=20))
    async with unharmed(other):
        for _ in range(5):
            with contextlib.suppress(HeadraceError), anyio.move_on_after(3):
                await run_python(sandbox, "print(1)")
            with contextlib.suppress(HeadraceError), anyio.move_on_after(3):
                await sandbox.start_process(ProcessRequest(("sleep", "1")))
    await sandbox.kill()


async def test_a_sandbox_that_stops_its_processes_can_be_killed(
    engine: Engine, other: Sandbox
) -> None:
    """Threat: stopped processes do not react to anything but SIGKILL."""
    sandbox = await engine.create(SandboxSpec())
    code = (
        "import os, signal, subprocess\n"
        "for _ in range(10):\n"
        "    os.kill(subprocess.Popen(['sleep', '60']).pid, signal.SIGSTOP)\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
    )
    execution = await sandbox.execute(ExecutionRequest(code))
    async with unharmed(other):
        await anyio.sleep(0.5)
        with anyio.fail_after(10):
            await engine.kill(sandbox.id)
    assert (await execution.wait()).reason.value == "killed"
