"""R contexts: one R process, whose loop in ``r_loop.R`` evaluates one order after the other."""

from pathlib import Path

from headrace_guest.kernels.fields import encode_fields
from headrace_guest.kernels.interpreter import Ends, Order

_LOOP = Path(__file__).with_name("r_loop.R")
_START = 'eval(parse("/dev/fd/{program}",keep.source=FALSE),new.env(parent=baseenv()))'
_OPTIONS = ("--no-echo", "--no-restore", "--no-save")


class R:
    """How R is started and what it reads; see ``r_loop.R`` for the other end."""

    has_alarm = False
    interrupts_after = 0.0
    interrupts_again: float | None = None

    def __init__(self, program: str) -> None:
        self._program = program
        self.program = _LOOP.read_bytes()

    def command(self, ends: Ends) -> list[str]:
        """Give the words that start R; what follows ``--args`` is for the loop."""
        start = _START.format(program=ends.program)
        numbers = [str(ends.channel), str(ends.order), str(ends.program)]
        return [self._program, *_OPTIONS, "-e", start, "--args", *numbers]

    def encode(self, order: Order) -> bytes:
        """Write the order as fields."""
        return encode_fields(order)
