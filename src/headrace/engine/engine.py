"""The engine: the front door to all sandboxes of this node."""

import logging
import resource
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
from anyio.abc import TaskGroup

from headrace.engine.config import EngineConfig, IsolationReport
from headrace.engine.event_log import EventLog
from headrace.engine.expiry import Clock, Reaper, SystemClock
from headrace.engine.launcher import Launcher, LauncherLink, LauncherProcess
from headrace.engine.log_store import LogStore, Retention
from headrace.engine.meter import Meter, NoMeter
from headrace.engine.pool import Pool
from headrace.engine.sandbox import Sandbox, SandboxServices, Timings
from headrace.engine.store import RecentSandboxes, SandboxRecord, Store
from headrace.engine.templates import Templates
from headrace.engine.usage import UsageRecorder
from headrace.model import ids
from headrace.model.errors import (
    ExecutionNotFoundError,
    HeadraceError,
    QuotaError,
    SandboxNotFoundError,
    UnavailableError,
)
from headrace.model.ids import SandboxId
from headrace.model.specs import DEFAULT_TEMPLATE, SandboxSpec

_TURN_TIMEOUT = 120.0
_CLOSE_TIMEOUT = 45.0

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Collaborators:
    """What an engine is given from outside: its time, its memory of sandboxes, its figures."""

    clock: Clock = field(default_factory=SystemClock)
    store: Store = field(default_factory=RecentSandboxes)
    meter: Meter = field(default_factory=NoMeter)


class Engine:
    """All sandboxes of this node. Open it with `Engine.open`, which also closes it."""

    def __init__(
        self,
        config: EngineConfig,
        launcher: Launcher,
        report: IsolationReport,
        logs: LogStore,
        tasks: TaskGroup,
        outside: Collaborators,
    ) -> None:
        self.config = config
        self.report = report
        self.node = config.node or ids.make_node(secrets.token_bytes(ids.NODE_LENGTH))
        self._logs = logs
        self._tasks = tasks
        self._clock = outside.clock
        self._store = outside.store
        self._meter = outside.meter
        self.templates = Templates(config.template_aliases)
        self.usage = UsageRecorder(outside.clock, self.list)
        self._services = SandboxServices(
            config, launcher, logs, report, self._clock, self._forget, self._note_deadline
        )
        self._all: dict[SandboxId, Sandbox] = {}
        self._taken: dict[SandboxId, Sandbox] = {}
        self._creating = anyio.Semaphore(config.max_creating)
        self._pool = Pool(
            config.pool_size,
            DEFAULT_TEMPLATE,
            config.default_limits,
            self._make_ready,
            self._has_room,
        )
        self._reaper: Reaper[Sandbox] = Reaper(self._clock, self._expire, self._housekeep)
        self._is_closing = False

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: EngineConfig,
        *,
        link: LauncherLink | None = None,
        outside: Collaborators | None = None,
    ) -> AsyncIterator["Engine"]:
        """Start a launcher and everything else; at the end nothing of it is left.

        Raises LaunchError if the launcher does not come up, IsolationError if it enforces less
        than ``config.require`` asks.
        """
        outside = outside or Collaborators()
        _raise_open_files()
        launcher = Launcher(link or LauncherProcess.start(config), timeout=config.verb_timeout)
        failure: Exception | None = None
        try:
            if config.on_launched is not None:
                config.on_launched()
            report = await launcher.await_report(config.launcher_start_timeout)
            report.check(config.require)
            retention = Retention(seconds=config.log_retention, bytes=config.log_bytes)
            async with (
                LogStore(
                    config.log_runtime_dir,
                    config.log_state_dir,
                    clock=outside.clock.now,
                    retention=retention,
                ) as logs,
                anyio.create_task_group() as tasks,
            ):
                engine = cls(config, launcher, report, logs, tasks, outside)
                logs.on_finish = engine._measure
                engine._begin()
                reading = anyio.CancelScope(shield=True)
                tasks.start_soon(_read, launcher, reading)
                try:
                    yield engine
                except Exception as error:  # noqa: BLE001 - raised below, not in a group of one
                    failure = error
                finally:
                    await engine._close()
                    reading.cancel()
                    tasks.cancel_scope.cancel()
        finally:
            with anyio.CancelScope(shield=True):
                await launcher.aclose()
        if failure is not None:
            raise failure

    # --- sandboxes ----------------------------------------------------------------------------

    async def create(self, spec: SandboxSpec) -> Sandbox:
        """Give a new sandbox.

        Raises TemplateNotFoundError, QuotaError if there are too many, LaunchError if it cannot
        be built, UnavailableError if the engine is closing or overloaded.
        """
        started = self._clock.monotonic()
        try:
            sandbox = await self._find_or_make(spec)
        except HeadraceError as error:
            self._meter.refused(error.code)
            raise
        self._taken[sandbox.id] = sandbox
        sandbox.adopt(spec)
        self._remember(sandbox)
        timings = sandbox.timings
        timings.total = self._clock.monotonic() - started
        self._meter.sandbox_created(timings.total, from_pool=timings.from_pool)
        return sandbox

    async def _find_or_make(self, spec: SandboxSpec) -> Sandbox:
        template = self.templates.find(spec.template)
        spec.limits.check_within(self.config.max_limits)
        self._check_open()
        self._check_share(spec.tenant)
        sandbox = self._pool.take(template.name, spec.limits)
        if sandbox is not None:
            sandbox.timings = Timings(from_pool=True)
            return sandbox
        await self._make_room()
        return await self._make(spec)

    def find(self, sandbox_id: str) -> Sandbox:
        """Give the sandbox of that id; raises SandboxNotFoundError, which says how it ended."""
        sandbox = self._taken.get(SandboxId(sandbox_id))
        if sandbox is not None:
            return sandbox
        record = self._store.find(SandboxId(sandbox_id))
        why = f": {record.end_detail}" if record is not None and record.end_detail else ""
        raise SandboxNotFoundError(f"there is no sandbox {sandbox_id!r}{why}", sandbox=sandbox_id)

    def list(self) -> list[Sandbox]:
        """Give all sandboxes that were created and live, the oldest first."""
        return list(self._taken.values())

    async def kill(self, sandbox_id: str) -> None:
        """End a sandbox; returns when nothing of it is left."""
        await self.find(sandbox_id).kill()

    def record(self, sandbox_id: str) -> SandboxRecord | None:
        """Give what is remembered of a sandbox, also of one that is gone."""
        return self._store.find(SandboxId(sandbox_id))

    @property
    def is_lost(self) -> bool:
        """Say whether the launcher has ended: no sandbox lives, and none can be made any more."""
        return self._services.launcher.is_gone

    def count_ready(self) -> int:
        """Give the number of sandboxes that wait in the pool."""
        return len(self._pool)

    def find_log(self, log_id: str) -> EventLog[Any]:
        """Give the log of an execution, a process or a watch, also of a sandbox that is gone.

        Raises ExecutionNotFoundError if there never was one or its retention is over.
        """
        log = self._logs.find(log_id)
        if log is None:
            raise ExecutionNotFoundError(f"there is no log of {log_id!r}", id=log_id)
        return log

    # --- making -------------------------------------------------------------------------------

    async def _make(self, spec: SandboxSpec) -> Sandbox:
        raw = secrets.token_bytes(ids.SANDBOX_LENGTH)
        sandbox = Sandbox(ids.make_sandbox_id(self.node, raw), spec, self._services)
        self._all[sandbox.id] = sandbox
        asked = self._clock.monotonic()
        try:
            try:
                with anyio.fail_after(_TURN_TIMEOUT):
                    await self._creating.acquire()
            except TimeoutError as error:
                raise UnavailableError(
                    f"too many sandboxes are being made; waited for {_TURN_TIMEOUT:g} s"
                ) from error
            try:
                self._check_open()
                sandbox.timings.queue = self._clock.monotonic() - asked
                await self._tasks.start(sandbox.run)
            finally:
                self._creating.release()
        except BaseException:
            self._all.pop(sandbox.id, None)
            raise
        return sandbox

    async def _make_ready(self) -> Sandbox:
        sandbox = await self._make(SandboxSpec(limits=self.config.default_limits))
        try:
            await sandbox.await_ready()
            sandbox.warm_up()
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sandbox.kill("it did not become ready for the pool")
            raise
        return sandbox

    def _has_room(self) -> bool:
        return len(self._all) < self.config.max_sandboxes and not self._is_closing

    async def _make_room(self) -> None:
        """Let a ready sandbox that nobody took go, if there are too many; or refuse."""
        if self._has_room():
            return
        spare = self._pool.give_up()
        if spare is None:
            raise QuotaError(f"there are {self.config.max_sandboxes} sandboxes, the most allowed")
        await spare.kill("its place was needed")

    def _check_share(self, tenant: str) -> None:
        most = self.config.max_tenant_sandboxes
        if most is None:
            return
        if sum(sandbox.spec.tenant == tenant for sandbox in self._taken.values()) >= most:
            raise QuotaError(f"one tenant may have {most} sandboxes", maximum=most)

    def _check_open(self) -> None:
        if self._is_closing:
            raise UnavailableError("the engine is closing")

    # --- ends ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        self._tasks.start_soon(self._reaper.run)
        self._tasks.start_soon(self.usage.run)
        if self.config.pool_size:
            self._tasks.start_soon(self._pool.run)

    async def _close(self) -> None:
        await self.drain("the engine was closed")

    async def drain(self, detail: str) -> None:
        """Make no more sandboxes and end all that are, at once and within a bound.

        Every stream gets its terminal event, with ``detail``; logs can still be read.
        """
        self._is_closing = True
        with anyio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            async with anyio.create_task_group() as tasks:
                for sandbox in list(self._all.values()):
                    tasks.start_soon(self._kill_quietly, sandbox, detail)

    async def _kill_quietly(self, sandbox: Sandbox, detail: str) -> None:
        try:
            await sandbox.kill(detail)
        except HeadraceError as error:
            _logger.warning("sandbox not ended: %s", error.message)

    def _forget(self, sandbox: Sandbox) -> None:
        self._all.pop(sandbox.id, None)
        self._reaper.forget(sandbox)
        if self._taken.pop(sandbox.id, None) is not None:
            self._remember(sandbox)
            self._meter.sandbox_ended()
        self.usage.forget(sandbox)
        self._pool.discard(sandbox)
        self._pool.refill()

    def _remember(self, sandbox: Sandbox) -> None:
        record = SandboxRecord(
            sandbox.id,
            sandbox.spec.template,
            sandbox.spec.metadata,
            sandbox.created_at,
            tenant=sandbox.spec.tenant,
            ended_at=None if sandbox.is_alive else self._clock.now(),
            end_detail=sandbox.end_detail,
        )
        self._store.save(record)

    def _measure(self, log: EventLog[Any]) -> None:
        end: Any = log.terminal
        duration = getattr(end, "duration", 0.0)
        self._meter.log_finished(log.codec.name, end.reason, duration, log.output_bytes)

    def _note_deadline(self, sandbox: Sandbox) -> None:
        if sandbox.id in self._taken:
            self._reaper.watch(sandbox)

    def _expire(self, sandbox: Sandbox) -> None:
        self._tasks.start_soon(self._expire_quietly, sandbox)

    async def _expire_quietly(self, sandbox: Sandbox) -> None:
        try:
            await sandbox.expire()
        except HeadraceError as error:
            _logger.warning("sandbox not ended: %s", error.message)

    async def _housekeep(self) -> None:
        try:
            await self._logs.expire(self._clock.now())
        except OSError:
            _logger.exception("old logs could not be deleted")


async def _read(launcher: Launcher, scope: anyio.CancelScope) -> None:
    """Hear the launcher until ``scope`` is cancelled: also while everything else is cleaned up."""
    with scope:
        await launcher.run()


def _raise_open_files() -> None:
    """Let this process open as many files as it may.

    Each sandbox takes several descriptors here, and descriptors that guests of the same user
    have on their way to each other count against this limit, too (unix(7)).
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
