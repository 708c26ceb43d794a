"""What tests of the async face need besides it; `face_sync` has the same for the other one."""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from headrace.client._async.connection import AsyncConnection
from headrace.client._async.sandbox import AsyncSandbox
from headrace.client._shared import answers
from headrace.client._shared.endpoint import parse
from headrace.client._shared.fields import Fields
from headrace.client._shared.patience import Patience
from tests.support.scripted import KEY, sandbox_record

T = TypeVar("T")


async def pause(seconds: float) -> None:
    """Wait."""
    await anyio.sleep(seconds)


async def together(*functions: Callable[[], Awaitable[T]]) -> list[T]:
    """Call all at the same time and give what they give, in order."""
    found: dict[int, T] = {}

    async def run(index: int, function: Callable[[], Awaitable[T]]) -> None:
        found[index] = await function()

    async with anyio.create_task_group() as tasks:
        for index, function in enumerate(functions):
            tasks.start_soon(run, index, function)
    return [found[index] for index in range(len(functions))]


def sandbox_at(url: str, **patience: float) -> AsyncSandbox:
    """Give a sandbox of a scripted server without asking for it."""
    quick = {"request": 5.0, "silence": 2.0, "reconnect": 5.0, "first_delay": 0.01}
    connection = AsyncConnection(parse(url, KEY), Patience(**{**quick, **patience}))  # type: ignore[arg-type]  # floats only
    info = answers.sandbox(Fields("a sandbox", sandbox_record()))
    return AsyncSandbox(connection, info, is_owner=False)
