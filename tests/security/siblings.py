"""The other side of every bomb: a sibling sandbox that must not notice anything."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from headrace.engine.sandbox import Sandbox
from tests.support.running import run_process, run_python


@asynccontextmanager
async def unharmed(sibling: Sandbox) -> AsyncIterator[None]:
    """Have the sibling run processes and code all the while, and once more afterwards."""
    await run_python(sibling, "kept = 'kept'")
    stopping = anyio.Event()

    async def work() -> None:
        is_last = False
        while not is_last:
            is_last = stopping.is_set()
            done = await run_process(sibling, "/bin/echo", "works")
            assert done.stdout == "works\n", done
            outcome = await run_python(sibling, "import os; print(kept, os.system('true'))")
            assert outcome.stdout == "kept 0\n", outcome
            await anyio.sleep(0.05)

    async with anyio.create_task_group() as group:
        group.start_soon(work)
        yield
        stopping.set()
