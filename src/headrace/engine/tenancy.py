"""The engine as one tenant sees it: what belongs to somebody else does not exist."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from headrace.engine.engine import Engine
from headrace.engine.event_log import EventLog
from headrace.engine.sandbox import Sandbox
from headrace.engine.store import SandboxRecord
from headrace.engine.templates import Templates
from headrace.model.errors import ExecutionNotFoundError, SandboxNotFoundError
from headrace.model.ids import sandbox_of
from headrace.model.life import Usage
from headrace.model.specs import Limits, SandboxSpec


class TenantEngine:
    """All that an adapter has of the engine; made per request from the key that was presented.

    The sandboxes, and everything in them, of other tenants answer like those that never were.
    """

    def __init__(self, engine: Engine, tenant: str) -> None:
        self.tenant = tenant
        self._engine = engine

    @property
    def default_limits(self) -> Limits:
        """The limits of a sandbox that asks for none."""
        return self._engine.config.default_limits

    @property
    def max_limits(self) -> Limits:
        """The most that a sandbox may ask for."""
        return self._engine.config.max_limits

    @property
    def templates(self) -> Templates:
        """What sandboxes can be made of; the same for all tenants."""
        return self._engine.templates

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Give this tenant a new sandbox; raises like `Engine.create`."""
        return await self._engine.create(replace(spec, tenant=self.tenant))

    def find(self, sandbox_id: str) -> Sandbox:
        """Give a sandbox; raises SandboxNotFoundError, which says how it ended."""
        record = self.record(sandbox_id)
        if record is None:
            raise SandboxNotFoundError(f"there is no sandbox {sandbox_id!r}", sandbox=sandbox_id)
        return self._engine.find(record.sandbox_id)

    def record(self, sandbox_id: str) -> SandboxRecord | None:
        """Give what is remembered of a sandbox, also of one that is gone."""
        record = self._engine.record(sandbox_id)
        return record if record is not None and record.tenant == self.tenant else None

    def list(self) -> list[Sandbox]:
        """Give all that live, the oldest first."""
        return [each for each in self._engine.list() if each.spec.tenant == self.tenant]

    async def kill(self, sandbox_id: str) -> None:
        """End a sandbox; returns when nothing of it is left."""
        await self.find(sandbox_id).kill()

    async def usage(self, sandbox: Sandbox) -> Sequence[Usage]:
        """Give what a sandbox used over time, the oldest first; see `UsageRecorder.samples`."""
        return await self._engine.usage.samples(sandbox)

    def find_owner(self, thing_id: str) -> Sandbox:
        """Give the living sandbox that an execution, a context, a process or a watch belongs to.

        Raises SandboxNotFoundError.
        """
        return self.find(sandbox_of(thing_id) or thing_id)

    def find_log(self, log_id: str) -> EventLog[Any]:
        """Give the log of an execution, a process or a watch, also of a sandbox that is gone.

        Raises ExecutionNotFoundError if there never was one or its retention is over.
        """
        owner = sandbox_of(log_id)
        if owner is None or self.record(owner) is None:
            raise ExecutionNotFoundError(f"there is no log of {log_id!r}", id=log_id)
        return self._engine.find_log(log_id)
