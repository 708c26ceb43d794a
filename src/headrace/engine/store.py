"""The Store protocol: what the engine needs to remember of sandboxes, also after their end."""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Protocol

from headrace.model.ids import SandboxId
from headrace.model.specs import DEFAULT_TENANT


@dataclass(frozen=True, slots=True)
class SandboxRecord:
    """One sandbox's life. Times are Unix seconds; ``ended_at`` is None while it runs."""

    sandbox_id: SandboxId
    template: str
    metadata: Mapping[str, str]
    created_at: float
    tenant: str = DEFAULT_TENANT
    ended_at: float | None = None
    end_detail: str | None = None


class Store(Protocol):
    """Keeps records; the calls must be quick, a slow store writes behind."""

    def save(self, record: SandboxRecord) -> None:
        """Keep this record in place of the former one of the same sandbox."""

    def find(self, sandbox_id: SandboxId) -> SandboxRecord | None:
        """Give the newest record of a sandbox, or None."""


class RecentSandboxes:
    """A store in memory that remembers the last ``maximum`` sandboxes; of the dead no metadata."""

    def __init__(self, maximum: int = 10_000) -> None:
        self._maximum = maximum
        self._records: OrderedDict[SandboxId, SandboxRecord] = OrderedDict()

    def save(self, record: SandboxRecord) -> None:
        """Keep this record; the oldest one goes when there are too many."""
        kept = record if record.ended_at is None else replace(record, metadata={})
        self._records[record.sandbox_id] = kept
        self._records.move_to_end(record.sandbox_id)
        if len(self._records) > self._maximum:
            self._records.popitem(last=False)

    def find(self, sandbox_id: SandboxId) -> SandboxRecord | None:
        """Give the newest record of a sandbox, or None."""
        return self._records.get(sandbox_id)
