"""Terminals in a sandbox."""

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from headrace.client._async.commands import AsyncCommandHandle
from headrace.client._async.connection import AsyncConnection
from headrace.client._shared import answers, process_calls
from headrace.client._shared.process_calls import Command
from headrace.client._shared.values import ProcessInfo
from headrace.client._transport_async import shielded
from headrace.model.events import OutputWritten, ProcessExited
from headrace.model.ids import SandboxId
from headrace.model.specs import PtySize

_SHELL = ("/bin/bash", "-i")
_KILLING = 10.0


class AsyncPtyHandle:
    """A program with a terminal; leaving the ``with`` block kills it.

    async with await sandbox.pty.create(PtySize(120, 40)) as terminal:
        await terminal.write("ls\\nexit\\n")
        async for data in terminal:
            sys.stdout.buffer.write(data)
    """

    def __init__(self, connection: AsyncConnection, info: ProcessInfo) -> None:
        self._process = AsyncCommandHandle(connection, info)
        self._connection = connection
        self._exited: ProcessExited | None = None
        self.id = info.id
        self.pid = info.pid

    @property
    def exited(self) -> ProcessExited | None:
        """How the program ended, once its output was read to the end."""
        return self._exited

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._exited is None:
            with shielded(_KILLING):
                await self.kill()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Give what the terminal shows, from the start to the end of the program."""
        async with self._process.events() as events:
            while (event := await events.next()) is not None:
                if isinstance(event, OutputWritten):
                    yield event.data
                elif isinstance(event, ProcessExited):
                    self._exited = event

    async def write(self, data: bytes | str) -> None:
        """Type something."""
        await self._process.write_stdin(data)

    async def resize(self, size: PtySize) -> None:
        """Give the terminal another size."""
        await self._connection.fetch(process_calls.resize(self.id, size))

    async def signal(self, signal: int | str) -> None:
        """Send a signal to the program."""
        await self._process.signal(signal)

    async def kill(self) -> bool:
        """Send SIGKILL; false if the program had ended already."""
        return await self._process.kill()


class AsyncPty:
    """Terminals in a sandbox."""

    def __init__(self, connection: AsyncConnection, sandbox_id: SandboxId) -> None:
        self._connection = connection
        self._sandbox_id = sandbox_id

    async def create(
        self,
        size: PtySize | None = None,
        *,
        command: str | Sequence[str] = _SHELL,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the limit of the program
    ) -> AsyncPtyHandle:
        """Start a program, a shell unless another is named, with a terminal of 80 x 24 or ``size``.

        Without ``timeout`` (seconds) it may run as long as the sandbox.
        """
        wanted = Command(command, env, cwd, user, timeout, pty=size or PtySize())
        request = process_calls.start_process(self._sandbox_id, wanted, background=True)
        info = await self._connection.call(request, answers.process)
        return AsyncPtyHandle(self._connection, info)

    async def connect(self, process_id: str) -> AsyncPtyHandle:
        """Find a terminal again."""
        info = await self._connection.call(process_calls.get_process(process_id), answers.process)
        return AsyncPtyHandle(self._connection, info)
