"""The WebSocket of a sandbox: any number of executions and processes over one connection.

A log is read only as fast as the socket takes its events: one message at a time is on its way,
and a follower takes its next batch when it is its turn to send.
"""

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any, assert_never

import anyio
from anyio.abc import TaskGroup

from headrace.adapters.base import Receive, Scope, Send, request_id
from headrace.adapters.native import failures, sandboxes
from headrace.adapters.native.codec import Record, describe
from headrace.adapters.native.errors import describe_error, unknown_failure
from headrace.adapters.native.exchange import Exchange, NativeSettings
from headrace.adapters.native.messages import (
    CloseStdinMessage,
    ExecuteMessage,
    FollowMessage,
    InputMessage,
    InterruptMessage,
    KillMessage,
    Message,
    ResizeMessage,
    SignalMessage,
    StartProcessMessage,
    StdinMessage,
    check_message,
    request_of,
)
from headrace.adapters.native.processes import signal_number
from headrace.adapters.native.routing import Reply, Route
from headrace.adapters.native.streams import check_position
from headrace.engine.event_log import EventLog
from headrace.engine.sandbox import Sandbox
from headrace.engine.tenancy import TenantEngine
from headrace.model.errors import (
    ExecutionNotFoundError,
    HeadraceError,
    InvalidRequestError,
    QuotaError,
)
from headrace.model.ids import sandbox_of
from headrace.wire.ndjson import encode_json

PROTOCOL = "headrace"
KEY_PROTOCOL = "headrace.key."
MAX_FOLLOWED = 64
MAX_PENDING = 16

_TOO_LARGE = 1009


class Session:
    """One connection, from its acceptance to its end."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        tenant: TenantEngine,
        sandbox: Sandbox,
        settings: NativeSettings,
    ) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._tenant = tenant
        self._sandbox = sandbox
        self._settings = settings
        self._sending = anyio.Lock()
        self._pending = anyio.Semaphore(MAX_PENDING)
        self._followed = 0
        self._to_stop: dict[str, Callable[[], Awaitable[None]]] = {}
        self._stdin: dict[str, anyio.Lock] = {}

    async def run(self) -> None:
        """Serve the client until it goes away; then let go of everything."""
        await self._receive()
        chosen = PROTOCOL if PROTOCOL in self._scope.get("subprotocols", ()) else None
        await self._send({"type": "websocket.accept", "subprotocol": chosen})
        try:
            async with anyio.create_task_group() as tasks:
                await self._serve(tasks)
                tasks.cancel_scope.cancel()
        finally:
            for stop in self._to_stop.values():
                await stop()

    async def _serve(self, tasks: TaskGroup) -> None:
        while (event := await self._receive())["type"] == "websocket.receive":
            data = event.get("text") or event.get("bytes") or b""
            if len(data) > self._settings.max_body:
                async with self._sending:
                    await self._send({"type": "websocket.close", "code": _TOO_LARGE})
                    tasks.cancel_scope.cancel()
                return
            try:
                message = check_message(data)
            except HeadraceError as error:
                await self._refuse(request_of(data), error)
            else:
                await self._pending.acquire()
                tasks.start_soon(self._do, tasks, message)

    async def _do(self, tasks: TaskGroup, message: Message) -> None:
        """Do one thing; things that wait do not hold up the others."""
        try:
            await self._carry_out(tasks, message)
        except HeadraceError as error:
            await self._refuse(message.request, error)
        except Exception as error:  # noqa: BLE001 - logged, and told without its details
            await self._refuse(message.request, unknown_failure(error, self._scope))
        finally:
            self._pending.release()

    async def _carry_out(self, tasks: TaskGroup, message: Message) -> None:
        match message:
            case ExecuteMessage():
                await self._execute(tasks, message)
            case StartProcessMessage():
                await self._start_process(tasks, message)
            case FollowMessage():
                log = self._find_log(message.id)
                await self._follow(tasks, log, message.request, message.after)
            case InterruptMessage():
                if not self._find_log(message.id).is_finished:
                    await self._sandbox.execution(message.id).interrupt()
            case InputMessage():
                await self._sandbox.execution(message.id).send_input(message.text)
            case StdinMessage() | CloseStdinMessage():
                await self._feed(message)
            case _:
                await self._control(message)

    async def _control(self, message: SignalMessage | KillMessage | ResizeMessage) -> None:
        process = self._sandbox.process(message.id)
        match message:
            case SignalMessage():
                await process.signal(signal_number(message.signal))
            case KillMessage():
                await process.signal(signal.SIGKILL)
            case ResizeMessage():
                await process.resize(message.to_size())
            case _:
                assert_never(message)

    async def _execute(self, tasks: TaskGroup, message: ExecuteMessage) -> None:
        self._check_room()
        execution = await self._sandbox.execute(message.to_request())
        if message.on_disconnect == "interrupt":
            self._to_stop[execution.id] = execution.interrupt
        await self._accept(tasks, execution.log, message)

    async def _start_process(self, tasks: TaskGroup, message: StartProcessMessage) -> None:
        self._check_room()
        process = await self._sandbox.start_process(message.to_request())

        async def kill() -> None:
            if process.is_running:
                await process.signal(signal.SIGKILL)

        if message.on_disconnect == "kill":
            self._to_stop[process.id] = kill
        await self._accept(tasks, process.log, message)

    async def _accept(
        self, tasks: TaskGroup, log: EventLog[Any], message: ExecuteMessage | StartProcessMessage
    ) -> None:
        await self._tell({"type": "accepted", "log": log.log_id, "request": message.request})
        if not message.background:
            await self._follow(tasks, log, message.request, 0)

    async def _feed(self, message: StdinMessage | CloseStdinMessage) -> None:
        """Write to a process, one message after the other in the order of their arrival."""
        process = self._sandbox.process(message.id)
        lock = self._stdin.setdefault(message.id, anyio.Lock())
        async with lock:
            if isinstance(message, StdinMessage):
                await process.write_stdin(message.to_bytes())
            else:
                await process.close_stdin()
        if not lock.locked():
            self._stdin.pop(message.id, None)

    # --- following ----------------------------------------------------------------------------

    def _check_room(self) -> None:
        if self._followed >= MAX_FOLLOWED:
            raise QuotaError(f"{MAX_FOLLOWED} logs are followed over this connection already")

    def _find_log(self, log_id: str) -> EventLog[Any]:
        if sandbox_of(log_id) != self._sandbox.id:
            raise ExecutionNotFoundError(
                f"there is no log of {log_id!r} in this sandbox", id=log_id
            )
        return self._tenant.find_log(log_id)

    async def _follow(
        self, tasks: TaskGroup, log: EventLog[Any], request: str | None, after: int
    ) -> None:
        self._check_room()
        check_position(log, after)
        self._followed += 1
        tasks.start_soon(self._pass_on, log, request, after)

    async def _pass_on(self, log: EventLog[Any], request: str | None, after: int) -> None:
        """Send the events of a log, to its end."""
        name = {"log": log.log_id, "request": request}
        try:
            await self._send_events(log, name, after)
        except HeadraceError as error:
            record = describe_error(error, request_id(self._scope))
            await self._tell({"type": "failed", "error": record, **name})
        finally:
            self._followed -= 1
            if log.is_finished:
                self._to_stop.pop(log.log_id, None)

    async def _send_events(self, log: EventLog[Any], name: Record, after: int) -> None:
        reader = log.read(after)
        while True:
            # What comes while everybody waits is little; a backlog is read when it is its turn.
            batch = await reader.batch() if reader.position >= log.last_seq else []
            async with self._sending:
                for event in batch or await reader.batch():
                    await self._send_record({**describe(event), **name})
            if log.is_finished and reader.position >= log.last_seq:
                return

    async def _tell(self, record: Record) -> None:
        async with self._sending:
            await self._send_record(record)

    async def _send_record(self, record: Record) -> None:
        # A client that is gone is told by the server to the reader, which then ends everything.
        with suppress(OSError):
            await self._send({"type": "websocket.send", "text": encode_json(record).decode()})

    async def _refuse(self, request: str | None, error: HeadraceError) -> None:
        record = describe_error(error, request_id(self._scope))
        await self._tell({"type": "request_failed", "request": request, "error": record})


async def refuse_plain(exchange: Exchange) -> None:
    """Answer a request for the WebSocket that is none."""
    sandboxes.find(exchange)
    raise InvalidRequestError("this is a WebSocket: the request must be upgraded")


ROUTES = (
    Route(
        "GET",
        "/v1/sandboxes/{sandbox_id}/stream",
        "openStream",
        "Open the WebSocket of a sandbox",
        refuse_plain,
        {101: Reply("The connection is a WebSocket now.")},
        failures=failures.IN_SANDBOX,
    ),
)
