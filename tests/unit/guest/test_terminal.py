"""Commands with a terminal: size, relay in both directions, and what is flushed at the end."""

import fcntl
import os
import select
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_guest import terminal
from tests.support.agent_host import DEADLINE, AgentHost, read_all, wait_until


class Terminal:
    """A command with a terminal and our ends of its two pipes."""

    def __init__(self, host: AgentHost, script: str, cols: int = 80, rows: int = 24) -> None:
        theirs_in, self.input = os.pipe()
        self.output, theirs_out = os.pipe()
        self._host = host
        fields: dict[str, Any] = {"env": {}, "cwd": "/", "user": "user"}
        fields["argv"] = ["sh", "-c", script]
        fields["pty"] = {"cols": cols, "rows": rows}
        answer = host.call("spawn", [theirs_in, theirs_out], **fields)
        assert answer.error is None, answer.detail
        self.pid = answer.value["pid"]
        self.seen = b""

    def read_until(self, text: bytes) -> None:
        while text not in self.seen:
            assert select.select([self.output], [], [], DEADLINE)[0], self.seen
            piece = os.read(self.output, 65536)
            assert piece, self.seen
            self.seen += piece

    def finish(self) -> bytes:
        """Give all output once the process ended by itself."""
        rest = read_all(self.output)
        assert self._host.exit_of(self.pid).exit_code == 0
        os.close(self.input)
        return self.seen + rest

    def kill(self) -> None:
        self._host.call("signal", pid=self.pid, signal=signal.SIGKILL)
        assert self._host.exit_of(self.pid).signal == signal.SIGKILL
        os.close(self.input)
        os.close(self.output)


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with AgentHost() as opened:
        yield opened


def test_the_command_has_a_controlling_terminal_of_the_size_asked_for(host: AgentHost) -> None:
    script = "test -t 0 && test -t 1 && test -t 2 && stty size </dev/tty && echo $TERM"
    assert Terminal(host, script, cols=132, rows=43).finish() == b"43 132\r\nxterm\r\n"


def test_the_terminal_belongs_to_the_commands_user(host: AgentHost) -> None:
    script = 'test "$(stat -c %u $(tty))" = "$(id -u)" && echo mine'
    assert Terminal(host, script).finish() == b"mine\r\n"


def test_what_is_typed_arrives_and_is_echoed(host: AgentHost) -> None:
    opened = Terminal(host, "read line; echo got $line")
    os.write(opened.input, b"hello\n")
    assert opened.finish() == b"hello\r\ngot hello\r\n"


def test_control_c_interrupts(host: AgentHost) -> None:
    opened = Terminal(
        host, "trap 'echo stopped; exit 0' INT; echo ready; while :; do sleep 0.01; done"
    )
    opened.read_until(b"ready")
    os.write(opened.input, b"\x03")
    assert opened.finish().endswith(b"stopped\r\n")


def test_a_resize_is_seen_and_signalled(host: AgentHost) -> None:
    script = "trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 0.01; done"
    opened = Terminal(host, script)
    opened.read_until(b"ready")
    assert host.call("resize", pid=opened.pid, cols=100, rows=50).error is None
    assert opened.finish().endswith(b"50 100\r\n")


def test_all_output_is_passed_on_before_the_end_is_told(host: AgentHost) -> None:
    for _ in range(20):
        opened = Terminal(host, "seq 1 2000")
        lines = opened.finish().split()
        assert lines == [str(n).encode() for n in range(1, 2001)]


def test_more_output_than_all_buffers_hold_arrives_complete(host: AgentHost) -> None:
    opened = Terminal(host, "stty -onlcr; head -c 3000000 /dev/zero | tr '\\0' x; echo end")
    assert opened.finish() == b"x" * 3_000_000 + b"end\n"


def test_more_input_than_all_buffers_hold_waits_for_the_command(host: AgentHost) -> None:
    opened = Terminal(host, "stty raw -echo; echo ready; head -c 300000 | cksum")
    opened.read_until(b"ready")
    os.set_blocking(opened.input, False)
    data = os.urandom(300_000)
    left = memoryview(data)
    while left:
        assert select.select([], [opened.input], [], DEADLINE)[1]
        left = left[os.write(opened.input, left) :]
    assert f" {len(data)}".encode() in opened.finish()


def test_the_end_of_the_input_pipe_means_nothing(host: AgentHost) -> None:
    opened = Terminal(host, "trap 'echo hung up' HUP; echo ready; read x; echo read; cat")
    opened.read_until(b"ready")
    os.close(opened.input)
    opened.input = os.open("/dev/null", os.O_RDONLY)
    host.call("resize", pid=opened.pid, cols=1, rows=1)
    assert select.select([opened.output], [], [], 0.05)[0] == []
    opened.kill()


def test_a_reader_that_went_away_does_not_stop_the_command(host: AgentHost) -> None:
    opened = Terminal(host, "echo ready; seq 1 100000; exit 0")
    opened.read_until(b"ready")
    os.close(opened.output)
    assert host.exit_of(opened.pid).exit_code == 0
    os.close(opened.input)


def test_a_reader_that_reads_nothing_stops_the_command_not_the_agent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(terminal, "_FLUSH_SECONDS", 0.1)
    with AgentHost() as host:
        opened = Terminal(host, "echo ready; exec cat /dev/zero")
        wait_until_stuck(opened.output)
        assert host.call_file("stat", path="/").error is None
        before = time.monotonic()
        opened.kill()
        assert 0.1 <= time.monotonic() - before < DEADLINE


def test_a_slow_reader_gets_the_rest_after_the_process_ended(host: AgentHost) -> None:
    opened = Terminal(host, "stty -onlcr; head -c 90000 /dev/zero | tr '\\0' x; echo end")
    wait_until(lambda: opened.pid not in host.children())
    assert opened.finish() == b"x" * 90_000 + b"end\n"


def test_a_command_that_closes_its_terminal_for_a_while_keeps_it(host: AgentHost) -> None:
    script = "exec <&- >&- 2>&-; sleep 0.05; echo back >/dev/tty"
    assert Terminal(host, script).finish() == b"back\r\n"


def test_a_background_process_that_keeps_the_terminal_delays_nothing(host: AgentHost) -> None:
    opened = Terminal(host, "trap '' HUP; sleep 60 & echo done")
    assert opened.finish() == b"done\r\n"


def test_two_terminals_do_not_mix(host: AgentHost) -> None:
    first = Terminal(host, "read x; echo one $x")
    second = Terminal(host, "read x; echo two $x")
    os.write(second.input, b"b\n")
    os.write(first.input, b"a\n")
    assert first.finish() == b"a\r\none a\r\n"
    assert second.finish() == b"b\r\ntwo b\r\n"


def test_a_terminal_leaves_no_descriptor_behind(host: AgentHost) -> None:
    Terminal(host, "echo warm").finish()
    before = len(list(Path(f"/proc/{host.pid}/fd").iterdir()))
    for _ in range(5):
        Terminal(host, "echo again").finish()
    assert len(list(Path(f"/proc/{host.pid}/fd").iterdir())) == before


def wait_until_stuck(fd: int) -> None:
    """Wait until the pipe holds something and gets no more for a while."""
    seen: list[int] = []

    def is_stuck() -> bool:
        seen.append(_waiting(fd))
        return len(seen) > 20 and seen[-1] > 0 and len(set(seen[-20:])) == 1

    wait_until(is_stuck)


def _waiting(fd: int) -> int:
    (size,) = struct.unpack("i", fcntl.ioctl(fd, termios.FIONREAD, bytes(4)))
    return int(size)
