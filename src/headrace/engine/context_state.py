"""The states of a context, and how it goes from one to the other.

    unstarted ──execute, restart, start──▶ starting        unstarted ──take_over──▶ idle
        ▲──────────────────────give_kernel──────────────────────────────────────────┘

    starting ──ready──▶ idle ──execute──▶ busy ──done──▶ idle
       │                 │                 │ └─stop─▶ interrupting ──done──▶ idle
       │                 │                 │                │
       │                 └─────restart─────┴─ kernel lost, ─┴──▶ restarting ──ready──▶ idle
       │                                      restart                │
       └──failed──▶ dead ◀──failed─────────────────────────────────┘
                     ▲ │
     idle, kernel lost┘ └──execute, restart──▶ restarting

An unstarted context has no kernel and has lost none: default contexts begin so. An idle one whose
kernel has not run anything can give it to another context, and is then unstarted again.
"""

from collections.abc import Mapping
from enum import StrEnum


class ContextState(StrEnum):
    """What a context is doing, see the diagram above."""

    UNSTARTED = "unstarted"
    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    INTERRUPTING = "interrupting"
    RESTARTING = "restarting"
    DEAD = "dead"


MOVES: Mapping[ContextState, frozenset[ContextState]] = {
    ContextState.UNSTARTED: frozenset({ContextState.STARTING, ContextState.IDLE}),
    ContextState.STARTING: frozenset({ContextState.IDLE, ContextState.DEAD}),
    ContextState.IDLE: frozenset(
        {
            ContextState.BUSY,
            ContextState.RESTARTING,
            ContextState.DEAD,
            ContextState.UNSTARTED,
        }
    ),
    ContextState.BUSY: frozenset(
        {
            ContextState.IDLE,
            ContextState.INTERRUPTING,
            ContextState.RESTARTING,
            ContextState.DEAD,
        }
    ),
    ContextState.INTERRUPTING: frozenset(
        {ContextState.IDLE, ContextState.RESTARTING, ContextState.DEAD}
    ),
    ContextState.RESTARTING: frozenset({ContextState.IDLE, ContextState.DEAD}),
    ContextState.DEAD: frozenset({ContextState.RESTARTING}),
}
"""The diagram above as a table."""
PAUSABLE = frozenset(
    {ContextState.UNSTARTED, ContextState.IDLE, ContextState.BUSY, ContextState.DEAD}
)
"""Those in which no kernel is being started or stopped."""
