"""JavaScript and TypeScript contexts: node, with a loop of ours that runs one order after another.

The interpreter gets our sources, and those of others that they use, as one file in memory: a JSON
line with the length of each part, then the parts.
"""

import json
import select
import time
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from headrace_guest.kernels.child import Child
from headrace_guest.kernels.interpreter import Ends, Order
from headrace_guest.kernels.messages import read_message
from headrace_guest.protocol import ProtocolError

_HERE = Path(__file__).parent
_PARTS = {
    "loop": "node_loop.js",
    "rewrite": "node_rewrite.js",
    "values": "node_values.js",
    "acorn": "vendor/acorn.js",
}
_TYPESCRIPT = {"amaro": "vendor/amaro.js"}
_BOOT = "node_boot.js"
_TYPICAL = "const answer = [1, { name: 'text' }];\nanswer"
_COMPILE_SECONDS = 30.0


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
        files = _PARTS | (_TYPESCRIPT if is_typescript else {})
        self.program = _join({name: (_HERE / file).read_bytes() for name, file in files.items()})

    def compile_ahead(self) -> list[str]:
        """Have node run typical code once, and keep what it compiled for those that come later.

        Gives the names of what it had to compile. Raises OSError, ProtocolError or TimeoutError if
        node does not do that; the program is then as before, and all that is lost is time at each
        start.
        """
        message = self._message(Order(_TYPICAL, {}, None)) | {"keeps_compiled": True}
        with closing(Child(self)) as child:
            child.hand_over(json.dumps(message).encode("ascii"))
            _see_through(child)
            compiled = _split(child.read_order())
        self.program = _join(_split(self.program) | compiled)
        return list(compiled)

    def command(self, ends: Ends) -> list[str]:
        """Give the words that start node."""
        numbers = map(str, (ends.channel, ends.order, ends.program, ends.alarm))
        # An interrupt may end what node runs inside one of its own callbacks.
        return [self._program, "--no-force-async-hooks-checks", "-e", self._boot, *numbers]

    def encode(self, order: Order) -> bytes:
        """Write the order as JSON; what is no text becomes U+FFFD."""
        return json.dumps(self._message(order)).encode("ascii")

    def _message(self, order: Order) -> dict[str, Any]:
        return {
            "code": order.code,
            "env": dict(order.env),
            "cwd": order.cwd,
            "typescript": self._is_typescript,
        }


def _join(parts: Mapping[str, bytes]) -> bytes:
    head = json.dumps({name: len(part) for name, part in parts.items()})
    return b"".join([head.encode("ascii"), b"\n", *parts.values()])


def _split(joined: bytes) -> dict[str, bytes]:
    head, _end, rest = joined.partition(b"\n")
    parts = {}
    for name, length in json.loads(head).items():
        parts[name], rest = rest[:length], rest[length:]
    return parts


def _see_through(child: Child) -> None:
    """Wait until the code has ended well."""
    deadline = time.monotonic() + _COMPILE_SECONDS
    while not child.has_ended:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError(f"node did not run {_TYPICAL!r} within {_COMPILE_SECONDS:g} s")
        select.select([child.channel], [], [], left)
        for message in map(read_message, child.read()):
            if message["type"] == "result":
                child.tell(b"ack\n")
            elif message["type"] == "done" and message["status"] == "ok":
                return
            elif message["type"] != "begun":
                raise ProtocolError(f"node failed to run {_TYPICAL!r}: {message}")
    raise ProtocolError(f"node ended and did not run {_TYPICAL!r}")
