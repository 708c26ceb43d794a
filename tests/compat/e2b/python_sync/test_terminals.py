# Made from the async face by scripts/generate-sync; change that one.
"""Terminals."""

import pytest
from e2b_code_interpreter import (
    CommandExitException,
    NotFoundException,
    PtySize,
    Sandbox,
)
from face_sync import connect_terminal, open_terminal


# covers: pty.create, pty.send_stdin
def test_a_terminal_has_a_shell(sandbox: Sandbox) -> None:
    terminal = open_terminal(sandbox, envs={"WORD": "chosen"}, cwd="/tmp")

    sandbox.pty.send_stdin(terminal.pid, 'echo "<$WORD $PWD $TERM $((6*7)) é>"\n'.encode())
    shown = terminal.until("<chosen /tmp xterm-256color 42 é>".encode())
    sandbox.pty.send_stdin(terminal.pid, b"exit\n")
    result = terminal.end()

    assert b"<" in shown
    assert result.exit_code == 0


def test_the_exit_code_of_the_shell_is_told(sandbox: Sandbox) -> None:
    terminal = open_terminal(sandbox)

    sandbox.pty.send_stdin(terminal.pid, b"exit 5\n")
    with pytest.raises(CommandExitException) as caught:
        terminal.end()

    assert caught.value.exit_code == 5


# covers: pty.resize
def test_a_terminal_has_a_size_that_can_change(sandbox: Sandbox) -> None:
    terminal = open_terminal(sandbox, rows=30, cols=100)

    sandbox.pty.send_stdin(terminal.pid, b'echo "<$(stty size)>"\n')
    terminal.until(b"<30 100>")
    sandbox.pty.resize(terminal.pid, PtySize(rows=50, cols=132))
    sandbox.pty.send_stdin(terminal.pid, b'echo "<$(stty size)>"\n')
    terminal.until(b"<50 132>")


# covers: pty.kill
def test_a_terminal_can_be_killed(sandbox: Sandbox) -> None:
    terminal = open_terminal(sandbox)

    assert sandbox.pty.kill(terminal.pid)
    with pytest.raises(CommandExitException):
        terminal.end()
    assert not sandbox.pty.kill(terminal.pid)


# covers: pty.connect
def test_a_second_one_can_look_at_a_terminal(sandbox: Sandbox) -> None:
    terminal = open_terminal(sandbox)
    other = connect_terminal(sandbox, terminal.pid)

    sandbox.pty.send_stdin(terminal.pid, b'echo "<$((2*21))>"\n')

    terminal.until(b"<42>")
    other.until(b"<42>")
    assert other.pid == terminal.pid


def test_control_c_interrupts_what_runs_in_the_terminal(sandbox: Sandbox) -> None:
    terminal = open_terminal(sandbox)

    sandbox.pty.send_stdin(terminal.pid, b'echo "<$((1+1))>"; sleep 300\n')
    terminal.until(b"<2>")
    sandbox.pty.send_stdin(terminal.pid, b"\x03")
    sandbox.pty.send_stdin(terminal.pid, b'echo "<$((2+2))>"\n')

    terminal.until(b"<4>")


def test_what_never_was_a_terminal_is_not_found(sandbox: Sandbox) -> None:
    with pytest.raises(NotFoundException):
        sandbox.pty.send_stdin(4_000_000, b"x")
    with pytest.raises(NotFoundException):
        sandbox.pty.resize(4_000_000, PtySize(rows=1, cols=1))
    with pytest.raises(NotFoundException):
        connect_terminal(sandbox, 4_000_000)
    assert not sandbox.pty.kill(4_000_000)
