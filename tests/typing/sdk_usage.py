"""The SDK as users write it, for mypy alone: nothing here is ever called."""

from collections.abc import Iterator
from pathlib import Path
from typing import assert_never, assert_type

from headrace import (
    AsyncCommandHandle,
    AsyncSandbox,
    CodeError,
    CodeRaised,
    CommandHandle,
    CommandResult,
    Context,
    Execution,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionHandle,
    ExecutionStarted,
    FileInfo,
    FinishReason,
    HeadraceError,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ProcessEvent,
    ResultDisplayed,
    Sandbox,
    SandboxInfo,
    StreamBrokenError,
    WatchEvent,
)


def use_sync() -> None:
    """Use the sync face."""
    with Sandbox.create(timeout=5, env={"A": "b"}) as sandbox:
        assert_type(sandbox, Sandbox)
        outcome = sandbox.run_code("1", on_stdout=lambda event: event.text.strip())
        assert_type(outcome, Execution)
        assert_type(outcome.reason, FinishReason)
        assert_type(outcome.error, CodeError | None)
        for event in sandbox.run_code_stream("1"):
            assert_type(event, ExecutionEvent)
        assert_type(sandbox.start_code("1"), ExecutionHandle)
        assert_type(sandbox.commands.run("ls"), CommandResult)
        assert_type(sandbox.commands.run(["ls"], background=True), CommandHandle)
        for change in sandbox.commands.run("ls", background=True):
            assert_type(change, ProcessEvent)
        assert_type(sandbox.contexts.list(), tuple[Context, ...])
        assert_type(sandbox.files.list(), tuple[FileInfo, ...])
        assert_type(sandbox.files.write("a", Path("a"), progress=lambda done, total: None), int)
        with sandbox.files.watch("/") as watch:
            assert_type(iter(watch), Iterator[WatchEvent])
        with sandbox.pty.create() as terminal:
            assert_type(b"".join(terminal), bytes)
    for info in Sandbox.list():
        assert_type(info, SandboxInfo)


async def use_async() -> None:
    """Use the async face."""

    async def answer(event: InputRequested) -> str | None:
        return event.prompt

    async def hear(event: OutputWritten) -> None:
        event.data.strip()

    async with await AsyncSandbox.create() as sandbox:
        assert_type(sandbox, AsyncSandbox)
        outcome = await sandbox.run_code("1", on_stdout=hear, on_input=answer)
        assert_type(outcome, Execution)
        async for event in sandbox.run_code_stream("1"):
            assert_type(event, ExecutionEvent)
        assert_type(await sandbox.commands.run("ls", background=True), AsyncCommandHandle)
        assert_type(await sandbox.files.read("a"), bytes)
    async for info in AsyncSandbox.list():
        assert_type(info, SandboxInfo)


def show(event: ExecutionEvent) -> str:
    """Handle every event there is."""
    match event:
        case ExecutionStarted():
            return event.execution_id
        case OutputWritten() | ResultDisplayed(result=_):
            return "output"
        case OutputDropped() | CodeRaised() | InputRequested():
            return "other"
        case ExecutionFinished():
            return event.reason
        case _:
            assert_never(event)


def fail() -> None:
    """Handle errors."""
    try:
        Sandbox.connect("a")
    except StreamBrokenError as error:
        assert_type(error.code, str)
    except HeadraceError as error:
        assert_type(error.message, str)
