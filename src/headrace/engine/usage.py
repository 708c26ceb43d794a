"""What running sandboxes use over time: one task measures them all in turn.

A measurement costs the launcher about a millisecond, so with many sandboxes the turns get longer.
To count files costs the sandbox several, so that is done less often. The pool and what is paused
are left alone.
"""

import logging
from array import array
from collections.abc import Callable, Iterable

import anyio
from anyio.abc import TaskGroup

from headrace.engine.expiry import Clock
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import HeadraceError
from headrace.model.ids import SandboxId
from headrace.model.life import Usage

INTERVAL = 5.0
"""Seconds between two measurements of a sandbox, if there are not very many of them."""

DISK_INTERVAL = 30.0
"""Seconds for which the files of a sandbox need not be counted anew, unless somebody asks."""

DISK_TIMEOUT = 2.0
"""Seconds that a sandbox has to count its files."""

KEPT_SAMPLES = 720
# Half of the interval: turns are not exact, and two are not worth having together.
_RECENT = INTERVAL / 2
_SHORTEST_PAUSE = 0.05
_COLUMNS = 5

_logger = logging.getLogger(__name__)


class _Samples:
    """The last measurements of one sandbox, as plain numbers: there may be many sandboxes."""

    def __init__(self) -> None:
        self.lock = anyio.Lock()
        self.measured_at = float("-inf")
        self.cpu_seconds: float | None = None
        self.disk = 0
        self.counted_at = float("-inf")
        self._numbers = array("d")

    def add(self, usage: Usage) -> None:
        values = (usage.timestamp, usage.cpus, usage.memory, usage.cache, usage.disk)
        self._numbers.extend(values)
        if len(self._numbers) > KEPT_SAMPLES * _COLUMNS:
            del self._numbers[:_COLUMNS]

    def list(self) -> list[Usage]:
        numbers = self._numbers
        return [
            Usage(
                numbers[at],
                numbers[at + 1],
                int(numbers[at + 2]),
                int(numbers[at + 3]),
                int(numbers[at + 4]),
            )
            for at in range(0, len(numbers), _COLUMNS)
        ]


class UsageRecorder:
    """Measures the sandboxes that ``sandboxes`` gives, and keeps the last hour of each."""

    def __init__(self, clock: Clock, sandboxes: Callable[[], Iterable[Sandbox]]) -> None:
        self._clock = clock
        self._sandboxes = sandboxes
        self._samples: dict[SandboxId, _Samples] = {}

    async def run(self) -> None:
        """Measure in turn until cancelled."""
        async with anyio.create_task_group() as tasks:
            while True:
                running = [each for each in self._sandboxes() if _is_running(each)]
                pause = max(INTERVAL / max(len(running), 1), _SHORTEST_PAUSE)
                for sandbox in running:
                    await self._clock.sleep(pause)
                    self._begin(tasks, sandbox)
                if not running:
                    await self._clock.sleep(pause)

    async def samples(self, sandbox: Sandbox) -> list[Usage]:
        """Give what was measured, the oldest first; measures now if there is nothing recent.

        There is nothing of a sandbox that was paused all the time, or that cannot be measured.
        """
        await self._measure_if_due(sandbox, _RECENT)
        found = self._samples.get(sandbox.id)
        return [] if found is None else found.list()

    def forget(self, sandbox: Sandbox) -> None:
        """Drop what was measured of a sandbox that has ended."""
        self._samples.pop(sandbox.id, None)

    def _begin(self, tasks: TaskGroup, sandbox: Sandbox) -> None:
        # In a task of its own: a sandbox that does not answer must not hold the others up.
        found = self._samples.get(sandbox.id)
        if found is None or not found.lock.locked():
            tasks.start_soon(self._measure_if_due, sandbox, DISK_INTERVAL)

    async def _measure_if_due(self, sandbox: Sandbox, disk_interval: float) -> None:
        if not _is_running(sandbox):
            return
        samples = self._samples.setdefault(sandbox.id, _Samples())
        async with samples.lock:
            now = self._clock.monotonic()
            is_old = now - samples.counted_at >= disk_interval
            if not is_old and now - samples.measured_at < _RECENT:
                return
            try:
                await self._measure(sandbox, samples, counts_files=is_old)
            except HeadraceError as error:
                _logger.debug("sandbox %s not measured: %s", sandbox.id, error.message)
        if not sandbox.is_alive:
            self.forget(sandbox)

    async def _measure(self, sandbox: Sandbox, samples: _Samples, *, counts_files: bool) -> None:
        stats = await sandbox.stats()
        now = self._clock.monotonic()
        cpus = 0.0
        if stats.cpu_seconds is not None and samples.cpu_seconds is not None:
            used = stats.cpu_seconds - samples.cpu_seconds
            cpus = max(used, 0.0) / max(now - samples.measured_at, 0.001)
        samples.measured_at, samples.cpu_seconds = now, stats.cpu_seconds
        if counts_files:
            samples.counted_at = now
            samples.disk = await _measure_disk(sandbox, samples.disk)
        # The cgroup counts files, too: they are in memory.
        memory, disk = stats.memory or 0, samples.disk
        cache = min(disk, memory) if sandbox.report.memory == "cgroup" else 0
        samples.add(Usage(self._clock.now(), cpus, memory - cache, cache, disk))


async def _measure_disk(sandbox: Sandbox, before: int) -> int:
    """Give the bytes that files take: inside somebody counts them, who is not to be trusted."""
    used = before
    with anyio.move_on_after(DISK_TIMEOUT):
        try:
            used = (await sandbox.files.disk_usage()).used
        except HeadraceError:
            # There is no process left in there to count them, or it was paused meanwhile.
            return before
    return min(max(used, 0), sandbox.spec.limits.disk)


def _is_running(sandbox: Sandbox) -> bool:
    return sandbox.state is SandboxState.RUNNING
