"""Cancelling the async face at any moment leaves no connection, no task, no broken state."""

import asyncio
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from headrace import AsyncSandbox
from tests.integration.client.conftest import Service
from tests.support.face_async import sandbox_at
from tests.support.scripted import (
    EXECUTION_ID,
    Asked,
    Reply,
    encode_lines,
    event_records,
    position,
    sandbox_record,
    scripted_server,
)

Work = Callable[[AsyncSandbox], Awaitable[object]]

WORK: dict[str, Work] = {
    "info": lambda sandbox: sandbox.info(),
    "run_code": lambda sandbox: sandbox.run_code("code"),
    "write": lambda sandbox: sandbox.files.write("f", iter([b"x" * 1000] * 50)),
}


def slow(asked: Asked, reply: Reply) -> None:
    """Answer everything, piece by piece and with pauses."""
    if "/events" not in asked.target and "/executions" not in asked.target:
        fields = sandbox_record(size=1)
        reply.json(fields)
        return
    reply.head(
        content_type="application/x-ndjson",
        transfer_encoding="chunked",
        headrace_execution_id=EXECUTION_ID,
    )
    for line in encode_lines(event_records(20), position(asked)).splitlines(keepends=True):
        reply.chunk(line)
    reply.chunk(b"")


async def cancel_after(turns: int, scope: anyio.CancelScope) -> None:
    """Cancel after so many turns of the event loop."""
    for _ in range(turns):
        await anyio.lowlevel.checkpoint()
    scope.cancel()


@pytest.mark.parametrize("name", sorted(WORK))
async def test_a_cancellation_at_any_moment_leaves_nothing(name: str) -> None:
    cancelled = 0
    tasks = len(asyncio.all_tasks())
    with scripted_server(slow) as server:
        sandbox = sandbox_at(server.url)
        for turns in range(150):
            with anyio.CancelScope() as scope:
                async with anyio.create_task_group() as others:
                    others.start_soon(cancel_after, turns, scope)
                    await WORK[name](sandbox)
                    others.cancel_scope.cancel()
            cancelled += scope.cancel_called
        await WORK[name](sandbox)
        await sandbox.aclose()

        assert server.count_open(0) == 0
    assert cancelled > 0
    assert len(asyncio.all_tasks()) == tasks


async def test_a_stream_that_was_cancelled_while_it_waited_can_go_on() -> None:
    def script(asked: Asked, reply: Reply) -> None:
        reply.head(
            content_type="application/x-ndjson",
            transfer_encoding="chunked",
            headrace_execution_id=EXECUTION_ID,
        )
        lines = encode_lines(event_records(3)).splitlines(keepends=True)
        reply.chunk(lines[0] + lines[1][:9])
        server.released.wait(10)
        reply.chunk(lines[1][9:] + b"".join(lines[2:]))
        reply.chunk(b"")

    with scripted_server(script) as server:
        async with sandbox_at(server.url) as sandbox, sandbox.run_code_stream("x") as stream:
            first = await stream.next()
            with anyio.move_on_after(0.05) as scope:
                await stream.next()
            server.released.set()
            rest = [event.seq async for event in stream]

    assert first is not None
    assert scope.cancelled_caught
    assert rest == [2, 3, 4, 5]
    assert len(server.asked) == 1


async def test_a_block_that_is_cancelled_still_kills_its_sandbox(service: Service) -> None:
    found = ""
    with anyio.move_on_after(5.0) as scope:
        async with await AsyncSandbox.create(metadata={"job": "cancelled"}, **service) as sandbox:
            found = sandbox.id
            scope.cancel()
            await sandbox.run_code("while True: pass")

    listing = AsyncSandbox.list(metadata={"job": "cancelled"}, **service)
    assert found
    assert [info.id async for info in listing] == []


async def test_code_goes_on_when_its_caller_is_cancelled(service: Service) -> None:
    async with await AsyncSandbox.create(**service) as sandbox:
        with anyio.move_on_after(0.3):
            await sandbox.run_code("import time; time.sleep(0.6); print('done')")
        (running,) = await sandbox.executions()

        assert (await sandbox.execution(running.id).wait()).stdout == "done\n"
