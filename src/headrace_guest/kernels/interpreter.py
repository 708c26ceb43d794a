"""What the driver asks of a language: how to start its interpreter and how to hand code over.

One class per language. Everything else is the same for all and is in `driver`: the event socket,
the order of output and events, interrupts, ends.

The interpreter's ends are two descriptors that it inherits:

- the *channel*, a stream socket. The driver writes the line ``go`` when there is something to run
  and ``ack`` when a result has arrived. The interpreter writes JSON objects, one per line; see
  `messages`.
- the *order file*, in memory. Before each ``go`` the driver puts in it what is to be run. The
  interpreter opens it anew by its name below /dev/fd, because the descriptor's offset is shared.

A third descriptor, the *program*, is there for a language that has one: a file in memory with
sources of ours, since the file system of a sandbox shows none of them. A fourth, the *alarm*, is a
socket on which the line ``stop N`` comes with each interrupt, for a thread of the interpreter that
looks after the others; N is the number of the order that is to end, from 1 on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Ends:
    """The descriptors that the interpreter inherits, by their numbers."""

    channel: int
    order: int
    program: int | None = None
    alarm: int | None = None


@dataclass(frozen=True)
class Order:
    """One piece of code, and the surroundings that hold for it only."""

    code: str
    env: Mapping[str, str]
    cwd: str | None


class Interpreter(Protocol):
    """A language; stateless, made once in the fork server and used by every kernel of it.

    ``program`` is what the descriptor of that name has to hold, nothing for none; ``has_alarm``
    says whether the interpreter is to have that one. Code is not interrupted before it has run for
    ``interrupts_after`` seconds, and each ``interrupts_again`` seconds anew if it goes on (never if
    that is None): for interpreters that lose a signal at times.
    """

    program: bytes
    has_alarm: bool
    interrupts_after: float
    interrupts_again: float | None

    def command(self, ends: Ends) -> list[str]:
        """Give the words that start the interpreter; called in the kernel, once per start.

        Environment and working directory are the context's already.
        """

    def encode(self, order: Order) -> bytes:
        """Give the content of the order file for an execution."""
