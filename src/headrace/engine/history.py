"""What happened to a sandbox: made, paused, commands started and ended.

Only facts of ours are noted: no output, no code, no environment and no arguments.
"""

from collections import deque
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from headrace.model.life import HistoryEntry, Level

KEPT_ENTRIES = 256
_MAX_VALUE = 128
_NONE: Mapping[str, object] = {}


class History:
    """The last entries of one sandbox; ``now`` gives Unix seconds."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._entries: deque[HistoryEntry] = deque(maxlen=KEPT_ENTRIES)

    def note(
        self, message: str, fields: Mapping[str, object] = _NONE, level: Level = Level.INFO
    ) -> None:
        """Add an entry; the oldest goes when there are too many, and long values are cut."""
        texts = {name: str(value)[:_MAX_VALUE] for name, value in fields.items()}
        self._entries.append(HistoryEntry(self._now(), level, message, texts))

    def begin(self, fields: Mapping[str, object]) -> None:
        """Forget what was before somebody had the sandbox."""
        self._entries.clear()
        self.note("sandbox created", fields)

    def list(self) -> list[HistoryEntry]:
        """Give the entries, the oldest first."""
        return list(self._entries)


def name_program(argv: tuple[str, ...]) -> str:
    """Give what may be said of a command: the name of its program, no argument."""
    return PurePosixPath(argv[0]).name or argv[0]
