"""``headrace shell``: a terminal in a sandbox of a running service."""

import contextlib
import os
import signal
import sys
import termios
import tty
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import click

from headrace.cli import exit_status
from headrace.cli.failure import ungrouped
from headrace.cli.remote import Where, service_options, where
from headrace.cli.terminal import ReaderGoneError, open_outputs
from headrace.client._async.pty import AsyncPtyHandle
from headrace.client._async.sandbox import AsyncSandbox
from headrace.model.errors import InvalidRequestError, NotFoundError
from headrace.model.specs import PtySize

_PIECE = 16 * 1024


@click.command("shell", short_help="Open a terminal in a sandbox of a running service.")
@click.argument("sandbox_id", required=False, metavar="[ID]")
@click.option("--user", type=click.Choice(["user", "root"]), default="user", help="As whom.")
@click.option("--cwd", metavar="PATH", help="Where to begin.")
@service_options
def command(
    *, sandbox_id: str | None, user: str, cwd: str | None, url: str | None, api_key: str | None
) -> int:
    """Open a terminal in a sandbox; without ID in a new one, which ends with the terminal.

    The exit status is that of the shell.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise InvalidRequestError("shell needs a terminal; for programs there is 'headrace run'")
    return anyio.run(_run, sandbox_id, user, cwd, where(url, api_key))


async def _run(sandbox_id: str | None, user: str, cwd: str | None, service: Where) -> int:
    try:
        async with _find(sandbox_id, service) as sandbox:
            env = {"TERM": os.environ.get("TERM", "dumb")}
            handle = await sandbox.pty.create(_size(), env=env, user=user, cwd=cwd)
            async with handle as terminal:
                with _raw_mode(), ungrouped(ReaderGoneError):
                    await _connect(terminal)
                ended = terminal.exited
    except ReaderGoneError:
        return exit_status.READER_GONE
    if ended is None:
        return exit_status.FAILED
    if ended.signal is not None:
        return 128 + ended.signal
    return exit_status.KILLED if ended.exit_code is None else ended.exit_code


@asynccontextmanager
async def _find(sandbox_id: str | None, service: Where) -> AsyncIterator[AsyncSandbox]:
    if sandbox_id is None:
        found = await AsyncSandbox.create(**service)
    else:
        found = await AsyncSandbox.connect(sandbox_id, **service)
    async with found as sandbox:
        yield sandbox


async def _connect(terminal: AsyncPtyHandle) -> None:
    """Pass on what is typed, what is shown, and the size, until the shell ends."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_type, terminal)
        tasks.start_soon(_follow_size, terminal)
        stdout, _ = open_outputs()
        async for data in terminal:
            await stdout.write(data)
        tasks.cancel_scope.cancel()


async def _type(terminal: AsyncPtyHandle) -> None:
    while True:
        await anyio.wait_readable(0)
        data = os.read(0, _PIECE)
        # The shell may have ended a moment ago; its output says so.
        with contextlib.suppress(NotFoundError):
            await terminal.write(data)
        if not data:
            return


async def _follow_size(terminal: AsyncPtyHandle) -> None:
    with anyio.open_signal_receiver(signal.SIGWINCH) as signals:
        async for _ in signals:
            with contextlib.suppress(NotFoundError):
                await terminal.resize(_size())


def _size() -> PtySize:
    """Give the size of our terminal; one that does not know its own says 0."""
    cols, rows = os.get_terminal_size(0)
    return PtySize(cols, rows) if cols and rows else PtySize()


@contextlib.contextmanager
def _raw_mode() -> Iterator[None]:
    """Pass every key on, Ctrl-C, too."""
    before = termios.tcgetattr(0)
    tty.setraw(0)
    try:
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)
