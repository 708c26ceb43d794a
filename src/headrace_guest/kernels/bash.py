"""Bash contexts: one shell, whose loop in ``bash_loop.sh`` evaluates one order after the other."""

import shlex
from pathlib import Path

from headrace_guest.kernels.interpreter import Ends, Order

_LOOP = Path(__file__).with_name("bash_loop.sh")
_START = 'builtin eval "$1"; set --; builtin eval "$__headrace_loop"'


class Bash:
    """How bash is started and what it reads; see ``bash_loop.sh`` for the other end."""

    program = b""
    has_alarm = False
    interrupts_after = 0.0
    interrupts_again: float | None = None

    def __init__(self, program: str) -> None:
        self._program = program
        self._setup = _LOOP.read_text(encoding="utf-8")

    def command(self, ends: Ends) -> list[str]:
        """Give the words that start the shell."""
        words = [self._program, "--norc", "--noprofile", "-c", _START, "bash", self._setup]
        return [*words, str(ends.channel), str(ends.order)]

    def encode(self, order: Order) -> bytes:
        """Write assignments that the loop sources.

        The code is one word in quotes, so that nothing in it can end early what surrounds it.
        """
        pairs = [shlex.quote(f"{name}={value}") for name, value in order.env.items()]
        text = (
            f"__headrace_code={shlex.quote(order.code)}\n"
            f"__headrace_cwd={shlex.quote(order.cwd or '')}\n"
            f"__headrace_env=({' '.join(pairs)})\n"
        )
        return text.encode("utf-8", "surrogateescape")
