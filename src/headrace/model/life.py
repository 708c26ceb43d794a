"""What is observed of a sandbox's life: what it used, and what happened to it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


@dataclass(frozen=True, slots=True)
class Usage:
    """What a sandbox used at one time.

    ``timestamp`` is Unix seconds, ``cpus`` the cores that were busy since the measurement before.
    ``memory`` is what processes use, in bytes, without ``cache``, the files that are kept in it;
    ``disk`` is what files take.
    """

    timestamp: float
    cpus: float
    memory: int
    cache: int
    disk: int


class Level(StrEnum):
    """How much an entry of a history matters."""

    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One thing that happened to a sandbox, at ``timestamp`` in Unix seconds."""

    timestamp: float
    level: Level
    message: str
    fields: Mapping[str, str] = field(default_factory=dict)
