# Made from the async face by scripts/generate-sync; change that one.
"""Terminals in a sandbox."""

from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Self

from headrace.client._shared import answers, process_calls
from headrace.client._shared.process_calls import Command
from headrace.client._shared.values import ProcessInfo
from headrace.client._sync.commands import CommandHandle
from headrace.client._sync.connection import Connection
from headrace.client._transport_sync import shielded
from headrace.model.events import OutputWritten, ProcessExited
from headrace.model.ids import SandboxId
from headrace.model.specs import PtySize

_SHELL = ("/bin/bash", "-i")
_KILLING = 10.0


class PtyHandle:
    """A program with a terminal; leaving the ``with`` block kills it.

    with sandbox.pty.create(PtySize(120, 40)) as terminal:
        terminal.write("ls\\nexit\\n")
        for data in terminal:
            sys.stdout.buffer.write(data)
    """

    def __init__(self, connection: Connection, info: ProcessInfo) -> None:
        self._process = CommandHandle(connection, info)
        self._connection = connection
        self._exited: ProcessExited | None = None
        self.id = info.id
        self.pid = info.pid

    @property
    def exited(self) -> ProcessExited | None:
        """How the program ended, once its output was read to the end."""
        return self._exited

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._exited is None:
            with shielded(_KILLING):
                self.kill()

    def __iter__(self) -> Iterator[bytes]:
        """Give what the terminal shows, from the start to the end of the program."""
        with self._process.events() as events:
            while (event := events.next()) is not None:
                if isinstance(event, OutputWritten):
                    yield event.data
                elif isinstance(event, ProcessExited):
                    self._exited = event

    def write(self, data: bytes | str) -> None:
        """Type something."""
        self._process.write_stdin(data)

    def resize(self, size: PtySize) -> None:
        """Give the terminal another size."""
        self._connection.fetch(process_calls.resize(self.id, size))

    def signal(self, signal: int | str) -> None:
        """Send a signal to the program."""
        self._process.signal(signal)

    def kill(self) -> bool:
        """Send SIGKILL; false if the program had ended already."""
        return self._process.kill()


class Pty:
    """Terminals in a sandbox."""

    def __init__(self, connection: Connection, sandbox_id: SandboxId) -> None:
        self._connection = connection
        self._sandbox_id = sandbox_id

    def create(
        self,
        size: PtySize | None = None,
        *,
        command: str | Sequence[str] = _SHELL,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
    ) -> PtyHandle:
        """Start a program, a shell unless another is named, with a terminal of 80 x 24 or ``size``.

        Without ``timeout`` (seconds) it may run as long as the sandbox.
        """
        wanted = Command(command, env, cwd, user, timeout, pty=size or PtySize())
        request = process_calls.start_process(self._sandbox_id, wanted, background=True)
        info = self._connection.call(request, answers.process)
        return PtyHandle(self._connection, info)

    def connect(self, process_id: str) -> PtyHandle:
        """Find a terminal again."""
        info = self._connection.call(process_calls.get_process(process_id), answers.process)
        return PtyHandle(self._connection, info)
