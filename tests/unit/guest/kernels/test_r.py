"""What R is told: its command and its order file."""

import pytest

from headrace_guest.kernels.interpreter import Ends, Order
from headrace_guest.kernels.r import R

ENDS = Ends(channel=7, order=8, program=9)


def test_the_loop_is_read_from_memory() -> None:
    interpreter = R("/usr/bin/R")
    command = interpreter.command(ENDS)
    assert command[0] == "/usr/bin/R"
    assert "/dev/fd/9" in command[command.index("-e") + 1]
    assert command[-4:] == ["--args", "7", "8", "9"]
    assert b"guard(function() suspendInterrupts(serve()))" in interpreter.program


@pytest.mark.parametrize("cwd", [None, "/work space"])
def test_an_order_is_fields_that_end_with_nul_and_the_code(cwd: str | None) -> None:
    order = Order("x <- 'ä'\n\0", {"A": "1=2", "B": "\udcff\n"}, cwd)
    expected = (cwd or "").encode() + b"\0002\0A=1=2\0B=\xff\n\0x <- '\xc3\xa4'\n\0"
    assert R("/usr/bin/R").encode(order) == expected


def test_code_that_is_no_text_is_replaced() -> None:
    assert R("/usr/bin/R").encode(Order("\ud800", {}, None)).endswith(b"\x00?")
