"""JavaScript and TypeScript contexts: node, with a loop of ours that runs one order after another.

The interpreter gets our sources, and those of others that they use, as one file in memory: a JSON
line with the length of each part, then the parts.
"""

import json
from collections.abc import Mapping
from pathlib import Path

from headrace_guest.kernels.interpreter import Ends, Order

_HERE = Path(__file__).parent
_PARTS = {
    "loop": "node_loop.js",
    "rewrite": "node_rewrite.js",
    "values": "node_values.js",
    "acorn": "vendor/acorn.js",
}
_TYPESCRIPT = {"amaro": "vendor/amaro.js"}
_BOOT = "node_boot.js"


class Node:
    """How node is started and what it reads; see ``node_loop.js`` for the other end."""

    has_alarm = True
    # Node loses a signal that comes just when a call ends which the signal could have ended. Most
    # code is past its first call by then, and what is not is told again.
    interrupts_after = 0.02
    interrupts_again: float | None = 0.1

    def __init__(self, program: str, *, is_typescript: bool) -> None:
        self._program = program
        self._is_typescript = is_typescript
        self._boot = (_HERE / _BOOT).read_text(encoding="utf-8")
        self.program = _join(_PARTS | (_TYPESCRIPT if is_typescript else {}))

    def command(self, ends: Ends) -> list[str]:
        """Give the words that start node."""
        numbers = map(str, (ends.channel, ends.order, ends.program, ends.alarm))
        # An interrupt may end what node runs inside one of its own callbacks.
        return [self._program, "--no-force-async-hooks-checks", "-e", self._boot, *numbers]

    def encode(self, order: Order) -> bytes:
        """Write the order as JSON; what is no text becomes U+FFFD."""
        message = {
            "code": order.code,
            "env": dict(order.env),
            "cwd": order.cwd,
            "typescript": self._is_typescript,
        }
        return json.dumps(message).encode("ascii")


def _join(files: Mapping[str, str]) -> bytes:
    parts = {name: (_HERE / file).read_bytes() for name, file in files.items()}
    head = json.dumps({name: len(part) for name, part in parts.items()})
    return b"".join([head.encode("ascii"), b"\n", *parts.values()])
