"""Terminals."""

import pytest
from e2b_code_interpreter import (
    AsyncSandbox,
    CommandExitException,
    NotFoundException,
    PtySize,
)
from face_async import connect_terminal, open_terminal


# covers: pty.create, pty.send_stdin
async def test_a_terminal_has_a_shell(sandbox: AsyncSandbox) -> None:
    terminal = await open_terminal(sandbox, envs={"WORD": "chosen"}, cwd="/tmp")

    await sandbox.pty.send_stdin(terminal.pid, 'echo "<$WORD $PWD $TERM $((6*7)) é>"\n'.encode())
    shown = await terminal.until("<chosen /tmp xterm-256color 42 é>".encode())
    await sandbox.pty.send_stdin(terminal.pid, b"exit\n")
    result = await terminal.end()

    assert b"<" in shown
    assert result.exit_code == 0


async def test_the_exit_code_of_the_shell_is_told(sandbox: AsyncSandbox) -> None:
    terminal = await open_terminal(sandbox)

    await sandbox.pty.send_stdin(terminal.pid, b"exit 5\n")
    with pytest.raises(CommandExitException) as caught:
        await terminal.end()

    assert caught.value.exit_code == 5


# covers: pty.resize
async def test_a_terminal_has_a_size_that_can_change(sandbox: AsyncSandbox) -> None:
    terminal = await open_terminal(sandbox, rows=30, cols=100)

    await sandbox.pty.send_stdin(terminal.pid, b'echo "<$(stty size)>"\n')
    await terminal.until(b"<30 100>")
    await sandbox.pty.resize(terminal.pid, PtySize(rows=50, cols=132))
    await sandbox.pty.send_stdin(terminal.pid, b'echo "<$(stty size)>"\n')
    await terminal.until(b"<50 132>")


# covers: pty.kill
async def test_a_terminal_can_be_killed(sandbox: AsyncSandbox) -> None:
    terminal = await open_terminal(sandbox)

    assert await sandbox.pty.kill(terminal.pid)
    with pytest.raises(CommandExitException):
        await terminal.end()
    assert not await sandbox.pty.kill(terminal.pid)


# covers: pty.connect
async def test_a_second_one_can_look_at_a_terminal(sandbox: AsyncSandbox) -> None:
    terminal = await open_terminal(sandbox)
    other = await connect_terminal(sandbox, terminal.pid)

    await sandbox.pty.send_stdin(terminal.pid, b'echo "<$((2*21))>"\n')

    await terminal.until(b"<42>")
    await other.until(b"<42>")
    assert other.pid == terminal.pid


async def test_control_c_interrupts_what_runs_in_the_terminal(sandbox: AsyncSandbox) -> None:
    terminal = await open_terminal(sandbox)

    await sandbox.pty.send_stdin(terminal.pid, b'echo "<$((1+1))>"; sleep 300\n')
    await terminal.until(b"<2>")
    await sandbox.pty.send_stdin(terminal.pid, b"\x03")
    await sandbox.pty.send_stdin(terminal.pid, b'echo "<$((2+2))>"\n')

    await terminal.until(b"<4>")


async def test_what_never_was_a_terminal_is_not_found(sandbox: AsyncSandbox) -> None:
    with pytest.raises(NotFoundException):
        await sandbox.pty.send_stdin(4_000_000, b"x")
    with pytest.raises(NotFoundException):
        await sandbox.pty.resize(4_000_000, PtySize(rows=1, cols=1))
    with pytest.raises(NotFoundException):
        await connect_terminal(sandbox, 4_000_000)
    assert not await sandbox.pty.kill(4_000_000)
