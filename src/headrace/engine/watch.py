"""Watching a directory inside a sandbox: the changes are the events of a log of their own."""

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from headrace.engine.agent import AgentConnection, read_field
from headrace.engine.event_log import EventLog
from headrace.engine.log_store import LogStore
from headrace.engine.transfers import Lines
from headrace.model.errors import (
    AgentProtocolError,
    DeadlineError,
    HeadraceError,
    OutputTooLargeError,
    QuotaError,
    WrongStateError,
)
from headrace.model.events import (
    ChangesDropped,
    FileChange,
    FileChanged,
    FinishReason,
    WatchEnded,
    WatchEvent,
    WatchStarted,
)
from headrace.model.ids import WatchId
from headrace.model.records import WATCH_CODEC

MAX_WATCHES = 32
_NO_OUTPUT = 0
_START_TIMEOUT = 30.0
_FOR_EVER = 10 * 365 * 24 * 3600.0


class Watch:
    """One watched directory. Readers follow `events`; `close` ends it."""

    def __init__(
        self, watch_id: WatchId, path: str, make_log: Callable[[], EventLog[WatchEvent]]
    ) -> None:
        self.id = watch_id
        self.path = path
        self._make_log = make_log
        self._log: EventLog[WatchEvent] | None = None
        self._scope = anyio.CancelScope()
        self._settled = anyio.Event()
        self._error: HeadraceError | None = None

    @property
    def log(self) -> EventLog[WatchEvent]:
        """The record of its events."""
        if self._log is None:
            raise WrongStateError(f"the watch {self.id} was not started", id=self.id)
        return self._log

    def events(self, after: int = 0) -> AsyncIterator[WatchEvent]:
        """Give every event behind number ``after``, as they come, until the terminal one."""
        return self.log.read(after)

    async def wait(self) -> WatchEnded:
        """Wait for the end and give it."""
        return cast("WatchEnded", await self.log.wait())

    async def close(self) -> None:
        """Watch no longer; safe to call twice."""
        self.abandon()
        await self.wait()

    def abandon(self) -> None:
        """Begin to end; nobody waits for it."""
        self._scope.cancel()

    async def await_started(self) -> None:
        """Wait until changes are reported; raises what the agent says if they cannot be."""
        await self._settled.wait()
        if self._error is not None and self._log is None:
            raise self._error

    async def run(self, lines: Lines) -> None:
        """Turn lines into events until there are no more, or `close` is called."""
        reason, detail = FinishReason.OK, None
        try:
            with self._scope:
                async with lines:
                    async for line in lines.follow(_FOR_EVER):
                        self._take(line)
                    detail = _describe_end(await lines.end())
        except OutputTooLargeError as error:
            reason, detail = FinishReason.OUTPUT_LIMIT, error.message
        except HeadraceError as error:
            reason, detail, self._error = FinishReason.ERROR, error.message, error
        self.finish(reason, detail)

    def finish(self, reason: FinishReason, detail: str | None) -> None:
        """Append the terminal event, unless it is there or nothing ever began."""
        if self._log is not None and not self._log.is_finished:
            self._log.finish(lambda seq, timestamp: WatchEnded(seq, timestamp, reason, detail))
        elif self._error is None:
            self._error = WrongStateError(f"the watch {self.id} did not begin: {detail}")
        self._settled.set()

    def _take(self, line: Mapping[str, Any]) -> None:
        if line.get("started") is True:
            self._begin()
        elif line.get("overflow") is True:
            detail = "more changes happened than could be queued"
            self.log.append(lambda seq, timestamp: ChangesDropped(seq, timestamp, detail))
        else:
            change, path = _read_change(line), read_field(line, "path", str)
            self.log.append(lambda seq, timestamp: FileChanged(seq, timestamp, change, path))

    def _begin(self) -> None:
        if self._log is not None:
            raise AgentProtocolError("a watch started twice")
        self._log = self._make_log()
        self._log.append(lambda seq, timestamp: WatchStarted(seq, timestamp, self.id, self.path))
        self._settled.set()


class Watches:
    """The watches of one sandbox that run."""

    def __init__(
        self,
        agent: AgentConnection,
        logs: LogStore,
        tasks: TaskGroup,
        make_id: Callable[[], WatchId],
    ) -> None:
        self._agent = agent
        self._logs = logs
        self._tasks = tasks
        self._make_id = make_id
        self._running: dict[WatchId, Watch] = {}

    async def start(self, path: str, fields: Mapping[str, object]) -> Watch:
        """Start a watch; raises what the agent says if it cannot be."""
        if len(self._running) >= MAX_WATCHES:
            raise QuotaError(f"{MAX_WATCHES} watches run in this sandbox already")
        watch_id = self._make_id()
        watch = Watch(watch_id, path, lambda: self._make_log(watch_id))
        self._running[watch_id] = watch
        self._tasks.start_soon(self._see_through, watch, Lines(self._agent, fields))
        try:
            with anyio.fail_after(_START_TIMEOUT):
                await watch.await_started()
        except TimeoutError as error:
            watch.abandon()
            raise DeadlineError(
                f"watching {path} did not begin within {_START_TIMEOUT:g} s", path=path
            ) from error
        except BaseException:
            watch.abandon()
            raise
        return watch

    def find(self, watch_id: str) -> Watch | None:
        """Give a watch that runs, or None."""
        return self._running.get(WatchId(watch_id))

    def end_all(self, detail: str) -> None:
        """End every watch as killed; their tasks must have ended."""
        for watch in self._running.values():
            watch.finish(FinishReason.KILLED, detail)
        self._running.clear()

    def _make_log(self, watch_id: WatchId) -> EventLog[WatchEvent]:
        return self._logs.create(watch_id, WATCH_CODEC, max_output=_NO_OUTPUT)

    async def _see_through(self, watch: Watch, lines: Lines) -> None:
        await watch.run(lines)
        self._running.pop(watch.id, None)


def _read_change(line: Mapping[str, Any]) -> FileChange:
    try:
        return FileChange(read_field(line, "change", str))
    except ValueError as error:
        raise AgentProtocolError(f"an unknown change was reported: {error}") from error


def _describe_end(reply: Mapping[str, Any]) -> str | None:
    return "the directory was removed" if reply.get("ended") == "removed" else None
