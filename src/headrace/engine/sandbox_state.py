"""The states of a sandbox, and how it goes from one to the other.

creating ──built──▶ running ──pause──▶ paused ──resume──▶ running
    │                  │                  │
    └──────failed──────┴──kill, deadline, ┴──▶ killing ──▶ killed
                          agent or launcher gone
"""

from collections.abc import Mapping
from enum import StrEnum


class SandboxState(StrEnum):
    """Where a sandbox is in its life."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    KILLING = "killing"
    KILLED = "killed"


MOVES: Mapping[SandboxState, frozenset[SandboxState]] = {
    SandboxState.CREATING: frozenset({SandboxState.RUNNING, SandboxState.KILLING}),
    SandboxState.RUNNING: frozenset({SandboxState.PAUSED, SandboxState.KILLING}),
    SandboxState.PAUSED: frozenset({SandboxState.RUNNING, SandboxState.KILLING}),
    SandboxState.KILLING: frozenset({SandboxState.KILLED}),
    SandboxState.KILLED: frozenset(),
}
"""The diagram above as a table."""
