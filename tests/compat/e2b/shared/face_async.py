"""What the async programs use where the two faces of the SDK are called in different ways."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from e2b_code_interpreter import AsyncSandbox, PtySize

PATIENCE = 20.0
"""Seconds for what should happen at once, on a machine that is busy."""


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The SDK is written for asyncio."""
    return "asyncio"


@pytest.fixture
async def sandbox() -> AsyncIterator[AsyncSandbox]:
    """A fresh sandbox, killed after the test."""
    sandbox = await AsyncSandbox.create()
    try:
        yield sandbox
    finally:
        await sandbox.kill()


@pytest.fixture
def stranger() -> dict[str, Any]:
    """The options of a client with the key of another tenant."""
    return {"api_key": os.environ["HEADRACE_TEST_OTHER_KEY"]}


async def pause(seconds: float) -> None:
    """Wait."""
    await asyncio.sleep(seconds)


async def all_of(*actions: Callable[[], Awaitable[Any]]) -> list[Any]:
    """Do all at the same time, and give the results in order."""
    return list(await asyncio.gather(*(action() for action in actions)))


class Started:
    """Something that goes on in the background."""

    def __init__(self, action: Callable[[], Awaitable[Any]]) -> None:
        self._task = asyncio.ensure_future(action())

    async def error(self) -> BaseException | None:
        """Wait for its end and give the exception, if there was one."""
        await asyncio.wait([self._task], timeout=PATIENCE)
        return self._task.exception()

    async def result(self) -> Any:
        """Wait for its end and give the result."""
        return await asyncio.wait_for(self._task, PATIENCE)


async def until(condition: Callable[[], Any]) -> None:
    """Wait until the condition holds."""
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - any condition, not only events
            await asyncio.sleep(0.02)


class Watching:
    """The events of a directory so far."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    async def until(self, condition: Callable[[list[Any]], Any]) -> list[Any]:
        """Wait until the events are as wanted, and give them."""
        try:
            await until(lambda: condition(self.events))
        except TimeoutError:
            pytest.fail(f"the events were only {self.events}")
        return self.events


@asynccontextmanager
async def watching(sandbox: AsyncSandbox, path: str, **options: Any) -> AsyncIterator[Watching]:
    """Watch a directory; the async face calls back."""
    watch = Watching()
    handle = await sandbox.files.watch_dir(path, on_event=watch.events.append, **options)
    try:
        yield watch
    finally:
        await handle.stop()


class Terminal:
    """A terminal, with all that it showed."""

    def __init__(self) -> None:
        self.shown = b""
        self.handle: Any = None

    def show(self, data: bytes) -> None:
        """Take what the terminal shows."""
        self.shown += data

    @property
    def pid(self) -> int:
        """The process id of its shell."""
        return self.handle.pid

    async def until(self, wanted: bytes) -> bytes:
        """Wait until it has shown this, and give all that it showed."""
        try:
            await until(lambda: wanted in self.shown)
        except TimeoutError:
            pytest.fail(f"the terminal showed only {self.shown!r}")
        return self.shown

    async def end(self) -> Any:
        """Wait for the end of its shell."""
        return await self.handle.wait()


async def open_terminal(
    sandbox: AsyncSandbox, rows: int = 24, cols: int = 80, **options: Any
) -> Terminal:
    """Open a terminal; the async face calls back."""
    terminal = Terminal()
    size = PtySize(rows=rows, cols=cols)
    terminal.handle = await sandbox.pty.create(size, on_data=terminal.show, **options)
    return terminal


async def connect_terminal(sandbox: AsyncSandbox, pid: int) -> Terminal:
    """Look at a terminal that is open."""
    terminal = Terminal()
    terminal.handle = await sandbox.pty.connect(pid, on_data=terminal.show)
    return terminal
