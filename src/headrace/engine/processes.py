"""Commands, background processes and terminals: what runs in a sandbox outside any kernel."""

import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import anyio
from anyio.abc import TaskGroup

from headrace.engine.agent import AgentConnection, read_field
from headrace.engine.event_log import EventLog
from headrace.engine.execution import Stop, timed_out
from headrace.engine.expiry import TimeLimit
from headrace.engine.history import History, name_program
from headrace.engine.log_store import LogStore
from headrace.engine.output import OutputPump
from headrace.engine.pipes import PipeWriter, Sink, drain, open_pipe
from headrace.model.errors import (
    DeadlineError,
    HeadraceError,
    InvalidRequestError,
    ProcessNotFoundError,
    QuotaError,
    WrongStateError,
)
from headrace.model.events import (
    FinishReason,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
    Stream,
)
from headrace.model.ids import ProcessId
from headrace.model.life import Level
from headrace.model.records import PROCESS_CODEC
from headrace.model.specs import MIB, Limits, ProcessRequest, PtySize, check_whole
from headrace_guest.protocol import AgentExit, AgentReply

MAX_STDIN = 4 * MIB
KEPT_PROCESSES = 64
KEPT_ARGV = 1 * MIB
KEPT_ENV = 16 * 1024
"""How many characters of a process's own variables are remembered while it runs; of more, none."""
_STDIN_TIMEOUT = 60.0
_KILL_WAIT = 5.0
_LAST_SIGNAL = 64
_END_OF_TRANSMISSION = b"\x04"
_MAX_SINKS = 64
_NO_CWD = "no_directory"


def conclude_exit(
    ended: AgentExit | None, stop: Stop | None, sent: int | None, *, was_oom: bool
) -> tuple[FinishReason, str | None]:
    """Decide why a process ended, and what is to be said of it.

    ``ended`` is None if its exit was not seen, ``stop`` what we told it, ``sent`` the last signal
    that a caller sent and ``was_oom`` whether the sandbox ran out of memory meanwhile.
    """
    if stop is not None:
        return stop.reason, stop.detail
    if ended is None:
        return FinishReason.KILLED, "its exit was not seen"
    if ended.signal is None:
        return (FinishReason.ERROR if ended.exit_code else FinishReason.OK), None
    if was_oom:
        return FinishReason.OOM, "the sandbox ran out of memory"
    if ended.signal == sent:
        is_interrupt = sent == signal.SIGINT
        return (FinishReason.INTERRUPTED if is_interrupt else FinishReason.KILLED), None
    return FinishReason.ERROR, None


class Process:
    """One process. Its stdin, its events and its end; made by `Processes.start`."""

    def __init__(
        self, process_id: ProcessId, request: ProcessRequest, agent: AgentConnection
    ) -> None:
        self.id = process_id
        self.request = request
        self.pid = 0
        self._agent = agent
        self._log: EventLog[ProcessEvent] | None = None
        self._limits = Limits()
        self._started_at = 0.0
        self._ended: AgentExit | None = None
        self._stop: Stop | None = None
        self._sent: int | None = None
        self._halted = anyio.Event()
        self._exited = anyio.Event()
        self._limit = TimeLimit(request.timeout)
        self._stdin: PipeWriter | None = None
        self._guest_ends: list[int] = []
        self._unread: list[tuple[int, Stream]] = []
        self._pumps: list[tuple[int, OutputPump]] = []

    # --- for callers --------------------------------------------------------------------------

    @property
    def log(self) -> EventLog[ProcessEvent]:
        """The record of its events."""
        if self._log is None:
            raise WrongStateError(f"the process {self.id} was not started", id=self.id)
        return self._log

    @property
    def is_running(self) -> bool:
        """Say whether the terminal event is still to come."""
        return self._log is not None and not self._log.is_finished

    def events(self, after: int = 0) -> AsyncIterator[ProcessEvent]:
        """Give every event behind number ``after``, as they come, until the terminal one."""
        return self.log.read(after)

    async def wait(self) -> ProcessExited:
        """Wait for the end and give it."""
        return cast("ProcessExited", await self.log.wait())

    async def write_stdin(self, data: bytes) -> None:
        """Write to the standard input or the terminal; waits while the process does not read.

        Raises WrongStateError if there is no open input, DeadlineError if the process has taken
        nothing for a minute; ``written`` in its details says how much it took.
        """
        if len(data) > MAX_STDIN:
            raise InvalidRequestError(f"at most {MAX_STDIN} bytes at once, got {len(data)}")
        if self._stdin is None:
            raise WrongStateError(f"the process {self.id} has no open input", id=self.id)
        await self._stdin.write(data, timeout=_STDIN_TIMEOUT)

    async def close_stdin(self) -> None:
        """End the standard input; a terminal gets an end-of-transmission character."""
        if self.request.pty is not None:
            await self.write_stdin(_END_OF_TRANSMISSION)
        else:
            self._close_input()

    async def signal(self, number: int) -> None:
        """Send a signal to the process group; raises ProcessNotFoundError after its end."""
        check_whole("signal", number, 1, _LAST_SIGNAL)
        if not self.is_running or self._ended is not None:
            raise ProcessNotFoundError(f"the process {self.id} has ended", id=self.id)
        self._sent = number
        await self._send_signal(number)

    async def resize(self, size: PtySize) -> None:
        """Give the terminal another size; raises WrongStateError if there is no terminal."""
        if self.request.pty is None:
            raise WrongStateError(f"the process {self.id} has no terminal", id=self.id)
        request = await self._agent.begin(
            "resize", {"pid": self.pid, "cols": size.cols, "rows": size.rows}
        )
        await self._agent.reply_to(request, not_found=ProcessNotFoundError)

    async def _send_signal(self, number: int) -> None:
        fields = {"pid": self.pid, "signal": int(number), "group": True}
        request = await self._agent.begin("signal", fields)
        await self._agent.reply_to(request, not_found=ProcessNotFoundError)

    # --- for the sandbox ----------------------------------------------------------------------

    def open_channels(self) -> list[int]:
        """Open the pipes; gives the guest's ends, to be closed by `close_guest_ends` when sent."""
        read_end, write_end = open_pipe()
        self._guest_ends.append(read_end)
        self._stdin = PipeWriter(write_end)
        if not (self.request.has_stdin or self.request.pty is not None):
            self._close_input()
        is_terminal = self.request.pty is not None
        for stream in (Stream.PTY,) if is_terminal else (Stream.STDOUT, Stream.STDERR):
            read_end, write_end = open_pipe()
            self._guest_ends.append(write_end)
            self._unread.append((read_end, stream))
        return self._guest_ends

    def close_guest_ends(self) -> None:
        """Let go of the guest's ends; safe to call twice."""
        while self._guest_ends:
            os.close(self._guest_ends.pop())

    def begin(self, pid: int, log: EventLog[ProcessEvent], limits: Limits) -> None:
        """Note that the process runs; called in the agent's reader, before it reads on."""
        self.pid = pid
        if sum(len(name) + len(value) for name, value in self.request.env.items()) > KEPT_ENV:
            # It was sent; so much of it is not worth its memory.
            self.request = replace(self.request, env={})
        self._log = log
        self._limits = limits
        log.on_limit = self._hit_output_limit
        event = log.append(lambda seq, timestamp: ProcessStarted(seq, timestamp, self.id, self.pid))
        self._started_at = event.timestamp
        # Not before there is a log for it: what a busy engine learns of a process that has begun is
        # often its output first, and that is to wait in the pipe.
        while self._unread:
            fd, stream = self._unread.pop(0)
            pump = OutputPump(fd, stream)
            pump.attach(log)
            self._pumps.append((fd, pump))
        self._agent.await_exit(pid, self._note_exit)

    async def run(self, was_oom: Callable[[], Awaitable[bool]]) -> None:
        """See it through to its end; its output is complete before the terminal event."""
        await self._limit.watch(self._halted)
        if not self._halted.is_set():
            self._stop = timed_out(self.request.timeout)
        if not self._exited.is_set():
            await self._kill()
        await drain(self._pumps, self.log)
        is_kill = self._ended is not None and self._ended.signal == signal.SIGKILL
        is_ours = self._stop is not None or self._sent == signal.SIGKILL
        self._finish(was_oom=is_kill and not is_ours and await was_oom())

    def pause(self) -> None:
        """Stop the clock of its time limit."""
        self._limit.pause()

    def resume(self) -> None:
        """Let the clock of its time limit go on."""
        self._limit.resume()

    async def aclose(self, detail: str) -> None:
        """End its log as killed if it is open, and close everything; safe to call twice."""
        if self.is_running:
            if self._ended is None:
                self._stop = Stop(FinishReason.KILLED, detail)
            await drain(self._pumps, self.log)
            self._finish(was_oom=False)
        await self.close_channels()

    def keep_pipes(self) -> list[int]:
        """Give duplicates of the output pipes, which others may still write to."""
        return [os.dup(fd) for fd, pump in self._pumps if not pump.is_eof]

    async def close_channels(self) -> None:
        """Close our ends and the guest's; safe to call twice."""
        self._close_input()
        self.close_guest_ends()
        while self._unread:
            os.close(self._unread.pop()[0])
        while self._pumps:
            _fd, pump = self._pumps.pop()
            await pump.aclose()

    async def _kill(self) -> None:
        with anyio.move_on_after(_KILL_WAIT):
            try:
                await self._send_signal(signal.SIGKILL)
                await self._exited.wait()
            except HeadraceError:
                # It has just ended, or its sandbox has; both are told from elsewhere.
                await self._exited.wait()

    def _finish(self, *, was_oom: bool) -> None:
        if not self.is_running:
            return
        ended, stop = self._ended, self._stop
        reason, detail = conclude_exit(ended, stop, self._sent, was_oom=was_oom)
        is_oom = reason is FinishReason.OOM
        for _fd, pump in self._pumps:
            pump.detach()
        self.log.on_limit = None
        self.log.finish(
            lambda seq, timestamp: ProcessExited(
                seq,
                timestamp,
                reason,
                duration=max(0.0, timestamp - self._started_at),
                exit_code=ended.exit_code if ended else None,
                signal=ended.signal if ended else None,
                limit="memory" if is_oom else stop.limit if stop else None,
                limit_value=self._limits.memory if is_oom else stop.limit_value if stop else None,
                detail=detail,
            )
        )

    def _hit_output_limit(self) -> None:
        if self._stop is None:
            limit = self._limits.output
            self._stop = Stop(FinishReason.OUTPUT_LIMIT, limit="output", limit_value=limit)
            self._halted.set()

    def _note_exit(self, ended: AgentExit) -> None:
        self._ended = ended
        self._exited.set()
        self._halted.set()

    def _close_input(self) -> None:
        stdin, self._stdin = self._stdin, None
        if stdin is not None:
            stdin.close()


class Processes:
    """All processes of one sandbox: those that run, and the last ones that ended."""

    def __init__(
        self,
        agent: AgentConnection,
        logs: LogStore,
        tasks: TaskGroup,
        was_oom: Callable[[], Awaitable[bool]],
        history: History | None = None,
    ) -> None:
        self._agent = agent
        self._history = history
        self._logs = logs
        self._tasks = tasks
        self._was_oom = was_oom
        self._starting: set[Process] = set()
        self._running: dict[int, Process] = {}
        self._ended: deque[Process] = deque()
        self._sinks: deque[Sink] = deque()

    def list(self) -> list[Process]:
        """Give those that run, in the order of their start."""
        return list(self._running.values())

    def find(self, key: int | str) -> Process:
        """Give a process by its pid or id, else the newest with this tag.

        Those that run come first, then those that have ended lately.
        """
        known = [*reversed(self._running.values()), *reversed(self._ended)]
        found = next((each for each in known if key in (each.id, each.pid)), None)
        if found is None:
            found = next((each for each in known if key == each.request.tag), None)
        if found is None:
            raise ProcessNotFoundError(f"there is no process {key!r} in this sandbox", process=key)
        return found

    async def start(
        self, process_id: ProcessId, request: ProcessRequest, env: Mapping[str, str], limits: Limits
    ) -> Process:
        """Start a command; raises what the agent says if it cannot be run.

        A working directory that is not there is an InvalidRequestError with ``no_directory`` as
        ``reason`` and the directory as ``path`` in its details.
        """
        if len(self._running) + len(self._starting) >= limits.processes:
            raise QuotaError(f"{limits.processes} processes run in this sandbox already")
        process = Process(process_id, request, self._agent)
        self._starting.add(process)
        pty = request.pty
        fields = {
            "argv": list(request.argv),
            "env": dict(env),
            "cwd": request.cwd,
            "user": request.user,
            "pty": {"cols": pty.cols, "rows": pty.rows} if pty else None,
        }

        def replied(reply: AgentReply) -> None:
            self._begin(process, reply, limits)

        # Whoever started it may go away meanwhile: the process is listed, and runs on.
        with anyio.CancelScope(shield=True):
            try:
                guest_ends = process.open_channels()
                sent = await self._agent.begin("spawn", fields, guest_ends, on_reply=replied)
                process.close_guest_ends()
                await self._agent.reply_to(sent)
            except (HeadraceError, OSError) as error:
                # After a deadline it may still start; then it is listed.
                if not isinstance(error, DeadlineError):
                    self._starting.discard(process)
                    await process.close_channels()
                if isinstance(error, HeadraceError) and error.details.get("reason") == _NO_CWD:
                    error.details = {**error.details, "path": request.cwd}
                raise
        return process

    def pause(self) -> None:
        """Stop the clocks of all time limits."""
        for process in self._running.values():
            process.pause()

    def resume(self) -> None:
        """Let the clocks go on."""
        for process in self._running.values():
            process.resume()

    async def aclose(self, detail: str) -> None:
        """End every log as killed and close everything; safe to call twice."""
        async with anyio.create_task_group() as tasks:
            for process in [*self._starting, *self._running.values()]:
                tasks.start_soon(process.aclose, detail)
        self._starting.clear()
        self._running.clear()
        while self._sinks:
            self._sinks.pop().close()

    def _begin(self, process: Process, reply: AgentReply, limits: Limits) -> None:
        if reply.error is not None:
            return
        self._starting.discard(process)
        pid: int = read_field(reply.value, "pid", int)
        log: EventLog[Any] = self._logs.create(process.id, PROCESS_CODEC, max_output=limits.output)
        process.begin(pid, log, limits)
        self._running[pid] = process
        if self._history is not None:
            program, user = name_program(process.request.argv), process.request.user
            fields = {"pid": pid, "program": program, "user": user}
            self._history.note("process started", fields)
        self._tasks.start_soon(self._see_through, process)

    def _keep(self, process: Process) -> None:
        """Remember one that has ended, within bounds."""
        process.request = replace(process.request, env={})
        self._ended.append(process)
        sizes = [sum(map(len, each.request.argv)) for each in self._ended]
        while len(self._ended) > KEPT_PROCESSES or sum(sizes) > KEPT_ARGV:
            self._ended.popleft()
            del sizes[0]

    async def _see_through(self, process: Process) -> None:
        await process.run(self._was_oom)
        self._running.pop(process.pid, None)
        self._note_end(process)
        self._keep(process)
        self._sinks.extend(Sink(fd) for fd in process.keep_pipes())
        while self._sinks and (len(self._sinks) > _MAX_SINKS or self._sinks[0].is_closed):
            self._sinks.popleft().close()
        await process.close_channels()

    def _note_end(self, process: Process) -> None:
        end = cast("ProcessExited | None", process.log.terminal)
        if self._history is None or end is None:
            return
        fields: dict[str, object] = {"pid": process.pid, "reason": end.reason}
        if end.exit_code is not None:
            fields["exit_code"] = end.exit_code
        level = Level.WARN if end.reason is FinishReason.OOM else Level.INFO
        self._history.note("process ended", fields, level)
