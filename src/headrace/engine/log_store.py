"""All logs of a node: where they live, how long they are kept, what of them is in memory."""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import anyio
import anyio.to_thread

from headrace.engine.event_index import EventIndex
from headrace.engine.event_log import EventLog
from headrace.engine.journal import Disk
from headrace.engine.log_files import LOG_ID, Bounds, LogDirectories, LogFiles
from headrace.model.errors import AlreadyExistsError, UnavailableError
from headrace.model.records import EventCodec
from headrace.model.specs import MIB

E = TypeVar("E")
T = TypeVar("T")

_WORKERS = 4
_CLOSING = 5.0


@dataclass(frozen=True)
class Retention:
    """How long finished logs are kept: seconds after their end, their bytes and their number.

    ``runtime_bytes`` bounds what all logs together keep in the runtime directory; the oldest
    finished ones move to the state directory first. ``tail_bytes`` bounds the events of finished
    logs that stay in memory.
    """

    seconds: float = 3600.0
    bytes: int = 4096 * MIB
    logs: int = 10_000
    runtime_bytes: int = 256 * MIB
    tail_bytes: int = 8 * MIB
    tails: int = 64


class LogStore:
    """All logs of a node, by their ids, and the two directories that they live in.

    The directories belong to one store at a time; what an earlier one left behind is deleted
    when the store opens. ``state`` may be slow, ``runtime`` should be in memory. ``on_finish`` is
    called with each log that has got its terminal event.
    """

    def __init__(
        self,
        runtime: Path,
        state: Path,
        *,
        spill_at: int = Bounds.spill_at,
        clock: Callable[[], float] = time.time,
        retention: Retention | None = None,
        bounds: Bounds | None = None,
        disk: Disk | None = None,
    ) -> None:
        self.on_finish: Callable[[EventLog[Any]], None] | None = None
        self._directories = LogDirectories(runtime, state)
        self._clock = clock
        self._retention = retention or Retention()
        self._bounds = replace(bounds or Bounds(), spill_at=spill_at)
        self._disk = disk or Disk()
        self._pool: ThreadPoolExecutor | None = None
        self._logs: dict[str, EventLog[Any]] = {}
        self._live: dict[str, EventLog[Any]] = {}
        self._finished: dict[str, EventLog[Any]] = {}
        self._finished_bytes = 0
        self._in_memory: deque[EventLog[Any]] = deque()
        self._in_runtime: deque[EventLog[Any]] = deque()

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self._directories.open)
        self._pool = ThreadPoolExecutor(_WORKERS, thread_name_prefix="headrace-log")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Delete all logs and let go of the directories; safe to call twice."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        logs = list(self._logs.values())
        for index in (self._logs, self._live, self._finished):
            index.clear()
        with anyio.move_on_after(_CLOSING, shield=True):
            await _delete(logs)
        pool.shutdown(wait=False)
        self._directories.close()

    def create(self, log_id: str, codec: EventCodec[E], *, max_output: int) -> EventLog[E]:
        """Begin a log that keeps at most ``max_output`` bytes of output.

        Raises AlreadyExistsError if there is one of that id.
        """
        if self._pool is None:
            raise UnavailableError("the log store is closed")
        if not LOG_ID.fullmatch(log_id):
            raise ValueError(f"not an id of ours: {log_id!r}")
        if log_id in self._logs:
            raise AlreadyExistsError(f"there is a log of {log_id} already", id=log_id)
        records = max(max_output, self._bounds.records)
        bounds = replace(self._bounds, output=max_output, records=records)
        runtime, state = self._directories.runtime / log_id, self._directories.state / log_id
        files = LogFiles(runtime, state, bounds, self._disk, self._run)
        log = EventLog(
            files, EventIndex(log_id, codec, files, bounds, self._run), bounds, self._clock
        )
        log.on_finish = self._note_finished
        self._logs[log_id] = self._live[log_id] = log
        return log

    def find(self, log_id: str) -> EventLog[Any] | None:
        """Give the log of that id; None if there never was one or its retention is over."""
        return self._logs.get(log_id)

    async def expire(self, now: float) -> None:
        """Delete the finished logs whose retention is over at ``now``; call this now and then."""
        self._relieve_runtime()
        await _delete(self._take_expired(now))

    def _take_expired(self, now: float) -> list[EventLog[Any]]:
        keep = self._retention
        expired = []
        # In the order of their ends, as a dictionary keeps the order of insertion.
        for log in list(self._finished.values()):
            is_old = log.finished_at is not None and log.finished_at + keep.seconds <= now
            is_over = self._finished_bytes > keep.bytes or len(self._finished) > keep.logs
            if not is_old and not is_over:
                break
            self._finished_bytes -= log.files.size
            del self._finished[log.log_id], self._logs[log.log_id]
            for queue in (self._in_memory, self._in_runtime):
                if queue and queue[0] is log:
                    queue.popleft()
            expired.append(log)
        return expired

    def _relieve_runtime(self) -> None:
        held = sum(log.files.held for log in (*self._live.values(), *self._in_runtime))
        while self._in_runtime and held > self._retention.runtime_bytes:
            oldest = self._in_runtime.popleft()
            held -= oldest.files.held
            oldest.files.move_all()

    def _note_finished(self, log: EventLog[Any]) -> None:
        if self.on_finish is not None:
            self.on_finish(log)
        del self._live[log.log_id]
        self._finished[log.log_id] = log
        self._finished_bytes += log.files.size
        self._in_runtime.append(log)
        self._in_memory.append(log)
        total = sum(log.index.tail_bytes for log in self._in_memory)
        while total > self._retention.tail_bytes or len(self._in_memory) > self._retention.tails:
            oldest = self._in_memory.popleft()
            total -= oldest.index.tail_bytes
            oldest.index.forget_tail()

    def _run(self, function: Callable[[], T]) -> "asyncio.Future[T]":
        if self._pool is None:
            raise UnavailableError("the log store is closed")
        return asyncio.get_running_loop().run_in_executor(self._pool, function)


async def _delete(logs: list[EventLog[Any]]) -> None:
    for log in logs:
        log.abandon()
    for log in logs:
        await log.files.settle()
        await anyio.to_thread.run_sync(log.files.delete)
