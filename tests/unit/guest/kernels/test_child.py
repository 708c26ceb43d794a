"""An interpreter as a child process: whatever it does, the driver learns of its end."""

import collections
import itertools
import os
import select
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from headrace_guest.kernels.child import Child
from headrace_guest.kernels.interpreter import Ends, Order
from headrace_guest.protocol import ProtocolError


class Shell:
    """An interpreter that is a line of sh; it finds its descriptors as C, O, P and A."""

    def __init__(self, line: str, *, program: bytes = b"", has_alarm: bool = False) -> None:
        self._line = line
        self.program = program
        self.has_alarm = has_alarm
        self.interrupts_after = 0.0
        self.interrupts_again: float | None = None

    def command(self, ends: Ends) -> list[str]:
        names = {"C": ends.channel, "O": ends.order, "P": ends.program, "A": ends.alarm}
        values = [f"{name}={fd}" for name, fd in names.items() if fd is not None]
        # Only bash takes descriptors of more than one digit.
        return ["/usr/bin/env", *values, "bash", "-c", self._line]

    def encode(self, order: Order) -> bytes:
        return order.code.encode()


@contextmanager
def child_of(interpreter: Shell) -> Iterator[Child]:
    child = Child(interpreter)
    try:
        yield child
    finally:
        with suppress(ProcessLookupError, ChildProcessError):
            signal.pidfd_send_signal(child.pidfd, signal.SIGKILL)
            os.waitpid(child.pid, 0)
        for fd in (child.channel, child.pidfd):
            os.close(fd)


def lines_of(child: Child, count: int) -> list[bytes]:
    lines: list[bytes] = []
    while len(lines) < count:
        assert select.select([child.channel], [], [], 20)[0]
        lines += child.read()
    return lines


def await_end(child: Child) -> None:
    assert select.select([child.pidfd], [], [], 20)[0]
    assert child.has_ended


def test_orders_are_read_from_the_file_each_time_anew() -> None:
    line = 'while read x <&$C; do echo "$x $(cat /dev/fd/$O)" >&$C; done'
    with child_of(Shell(line)) as child:
        for content in (b"first and longest", b"second", b"s"):
            child.hand_over(content)
            assert lines_of(child, 1) == [b"go " + content]


def test_a_program_and_an_alarm_are_there_if_they_are_wanted() -> None:
    line = 'read x <&$A; echo "$x $(cat /dev/fd/$P)" >&$C; sleep 60'
    with child_of(Shell(line, program=b"source", has_alarm=True)) as child:
        child.raise_alarm()
        assert lines_of(child, 1) == [b"stop 0 source"]
    with child_of(Shell('echo "${P-none} ${A-none}" >&$C; sleep 60')) as child:
        assert lines_of(child, 1) == [b"none none"]


def test_whoever_has_ended_may_still_be_told_something() -> None:
    with child_of(Shell("exit 5")) as child:
        await_end(child)
        child.hand_over(b"too late")
        child.tell(b"ack\n")
        assert list(child.read()) == []
        assert os.waitstatus_to_exitcode(child.reap()) == 5


def test_what_was_said_before_the_end_is_heard() -> None:
    with child_of(Shell("echo last >&$C; kill -KILL $$")) as child:
        await_end(child)
        assert list(child.read()) == [b"last"]
        assert os.waitstatus_to_exitcode(child.reap()) == -signal.SIGKILL


def test_whoever_reads_nothing_does_not_hold_the_driver_up() -> None:
    with child_of(Shell("sleep 60")) as child:
        line = b"x" * 1000
        with pytest.raises(ProtocolError, match="does not read"):
            collections.deque(map(child.tell, itertools.repeat(line, 1_000_000)))


def test_whoever_closes_the_channel_and_lives_on_is_found_out() -> None:
    with child_of(Shell("exec {C}>&-; exec sleep 60")) as child:
        assert select.select([child.channel], [], [], 20)[0]
        with pytest.raises(ProtocolError, match="closed its channel"):
            list(child.read())


@pytest.mark.parametrize("pid", [1, 2**22 + 1, 2**63 - 1])
def test_nobody_moves_into_a_stranger(pid: int) -> None:
    with child_of(Shell("sleep 60")) as child, pytest.raises(ProtocolError, match="moved to"):
        child.move(pid)
