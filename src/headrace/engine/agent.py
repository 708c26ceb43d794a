"""Our end of a sandbox's agent: requests with descriptors, replies, exits of processes.

What comes from there is checked and bounded. An agent that breaks the protocol, or goes away,
ends its sandbox and nothing else.
"""

import errno
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import anyio
import anyio.lowlevel

from headrace.model.errors import (
    AgentProtocolError,
    AlreadyExistsError,
    ConflictError,
    DeadlineError,
    HeadraceError,
    InvalidRequestError,
    LaunchError,
    LimitExceededError,
    NotFoundError,
    PathNotFoundError,
    PermissionDeniedError,
    QuotaError,
    SandboxFailedError,
    UnavailableError,
    WrongStateError,
)
from headrace_guest.protocol import (
    MAX_AGENT_FRAME,
    AgentExit,
    AgentFailed,
    AgentMessage,
    AgentReady,
    AgentReply,
    FrameReader,
    ProtocolError,
    encode_frame,
    parse_agent_message,
)

MAX_OPEN_REQUESTS = 1024
CLOSED = "the agent closed its socket"
"""Why an agent is gone when nothing more is known of it."""

_CHUNK = 64 * 1024

_ERRORS: Mapping[str, type[HeadraceError]] = {
    "not_found": PathNotFoundError,
    "already_exists": AlreadyExistsError,
    "not_a_directory": InvalidRequestError,
    "is_a_directory": InvalidRequestError,
    "not_empty": ConflictError,
    "permission_denied": PermissionDeniedError,
    "no_space": QuotaError,
    "too_large": LimitExceededError,
    "not_supported": InvalidRequestError,
    "no_directory": InvalidRequestError,
    "invalid": InvalidRequestError,
    "failed": SandboxFailedError,
}

Replied = Callable[[AgentReply], None]
Exited = Callable[[AgentExit], None]


@dataclass(slots=True)
class AgentRequest:
    """A request on its way; give it back to `AgentConnection.reply_to`."""

    number: int
    operation: str
    on_reply: Replied | None = None
    replied: anyio.Event = field(default_factory=anyio.Event)
    reply: AgentReply | None = None


class AgentConnection:
    """One agent's socket. `run` reads it; ``on_end`` is called once, when that is over."""

    def __init__(
        self, sock: socket.socket, *, timeout: float, on_end: Callable[[str], None]
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._timeout = timeout
        self._on_end = on_end
        self._requests: dict[int, AgentRequest] = {}
        self._exits: dict[int, Exited] = {}
        self._last_number = 0
        self._sending = anyio.Lock()
        self._started = anyio.Event()
        self._failure: str | None = None
        self._is_ready = False
        self._ended: str | None = None

    # --- life ---------------------------------------------------------------------------------

    async def await_ready(self, timeout: float) -> None:  # noqa: ASYNC109 - a setting
        """Wait until the sandbox stands; raises LaunchError with the guest's own words."""
        with anyio.move_on_after(timeout):
            await self._started.wait()
            if self._is_ready:
                return
            raise LaunchError(f"the sandbox could not be built: {self._failure}")
        raise LaunchError(f"the sandbox did not stand within {timeout:g} s")

    async def run(self) -> None:
        """Read what the agent sends until it goes away or breaks the protocol."""
        frames = FrameReader(MAX_AGENT_FRAME)
        try:
            while data := await self._receive():
                for body in frames.feed(data):
                    self._take(parse_agent_message(body))
                # An agent that never stops talking must not keep the loop for itself.
                await anyio.lowlevel.checkpoint()
            self.end(CLOSED)
        except (ProtocolError, AgentProtocolError) as error:
            self.end(f"the agent broke the protocol: {error}")

    def end(self, detail: str) -> None:
        """Give up: open requests fail, later ones are refused; safe to call twice."""
        if self._ended is not None:
            return
        self._ended = detail
        self._failure = self._failure or detail
        self._started.set()
        requests, self._requests = self._requests, {}
        for request in requests.values():
            request.replied.set()
        self._on_end(detail)

    def close(self) -> None:
        """Close the socket; `run` must have ended. Safe to call twice."""
        self.end("the sandbox was closed")
        self._sock.close()

    # --- requests -----------------------------------------------------------------------------

    async def ask(
        self, operation: str, fields: Mapping[str, object], fds: Sequence[int] = ()
    ) -> Mapping[str, Any]:
        """Send a request and give its answer within the agent's deadline."""
        return await self.reply_to(await self.begin(operation, fields, fds))

    async def begin(
        self,
        operation: str,
        fields: Mapping[str, object],
        fds: Sequence[int] = (),
        *,
        on_reply: Replied | None = None,
    ) -> AgentRequest:
        """Send a request. ``on_reply`` is called from the reader, before anything else is read.

        The caller still owns ``fds`` and closes them.
        """
        if len(self._requests) >= MAX_OPEN_REQUESTS:
            raise UnavailableError(f"{MAX_OPEN_REQUESTS} requests are open in this sandbox already")
        self._check()
        self._last_number += 1
        request = AgentRequest(self._last_number, operation, on_reply)
        message = {
            "type": "request",
            "request": request.number,
            "op": operation,
            "fds": len(fds),
            **fields,
        }
        frame = encode_frame(message)
        self._requests[request.number] = request
        await self._send(frame, fds)
        return request

    async def reply_to(
        self,
        request: AgentRequest,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - the agent's own unless told
        not_found: type[NotFoundError] = PathNotFoundError,
    ) -> Mapping[str, Any]:
        """Wait for an answer; raises the error that the agent's code stands for."""
        limit = self._timeout if timeout is None else timeout
        with anyio.move_on_after(limit):
            await request.replied.wait()
        reply = request.reply
        if reply is None:
            self._check()
            raise DeadlineError(f"no answer to {request.operation} within {limit:g} s")
        if reply.error is not None:
            kind = not_found if reply.error == "not_found" else _ERRORS[reply.error]
            raise kind(reply.detail, reason=reply.error)
        return reply.value

    async def cancel(self, request: AgentRequest) -> None:
        """Break a running file operation or watch off; nothing happens if it has ended."""
        if request.reply is None and self._ended is None:
            await self.ask("cancel", {"target": request.number})

    def await_exit(self, pid: int, exited: Exited) -> None:
        """Call ``exited`` when that process ends; to be called from ``on_reply`` of its spawn."""
        self._exits[pid] = exited

    def _check(self) -> None:
        if self._ended is not None:
            raise WrongStateError(f"the sandbox has ended: {self._ended}")

    async def _send(self, frame: bytes, fds: Sequence[int]) -> None:
        """Send a whole frame; half of one would be the end of the connection."""
        async with self._sending:
            with anyio.move_on_after(self._timeout, shield=True):
                await self._send_all(frame, fds)
                return
            self.end(f"the agent took no requests for {self._timeout:g} s")
        self._check()

    async def _send_all(self, frame: bytes, fds: Sequence[int]) -> None:
        rest = memoryview(frame)
        to_send = list(fds)
        while rest:
            try:
                count = socket.send_fds(self._sock, [rest[:_CHUNK]], to_send)
            except BlockingIOError:
                await anyio.wait_writable(self._sock)
            except OSError as error:
                if error.errno == errno.ETOOMANYREFS and len(rest) == len(frame):
                    # unix(7): too many descriptors of this user are on their way.
                    raise QuotaError(f"the agent cannot be asked: {error.strerror}") from error
                self.end(CLOSED)
                raise WrongStateError(f"the sandbox has ended: {self._ended}") from error
            else:
                rest = rest[count:]
                to_send = []

    # --- reading ------------------------------------------------------------------------------

    async def _receive(self) -> bytes:
        while True:
            try:
                return self._sock.recv(_CHUNK)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
            except ConnectionResetError:
                return b""

    def _take(self, message: AgentMessage) -> None:
        match message:
            case AgentReady():
                if self._started.is_set():
                    raise ProtocolError("ready came twice")
                self._is_ready = True
                self._started.set()
            case AgentFailed(detail):
                self._failure = detail
                self.end(f"the sandbox could not be built: {detail}")
            case AgentReply():
                self._take_reply(message)
            case AgentExit():
                exited = self._exits.pop(message.pid, None)
                if exited is None:
                    raise ProtocolError(f"process {message.pid} ended, which was never started")
                exited(message)

    def _take_reply(self, reply: AgentReply) -> None:
        request = self._requests.pop(reply.request, None)
        if request is None:
            raise ProtocolError(f"a reply to the request {reply.request}, which is not open")
        request.reply = reply
        if request.on_reply is not None:
            request.on_reply(reply)
        request.replied.set()


def read_field(value: Mapping[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401 - checked
    """Give a field of an agent's answer; raises AgentProtocolError if it is not of that type."""
    field_value = value.get(key)
    if type(field_value) is not kind:
        raise AgentProtocolError(
            f"the agent's answer has no {kind.__name__} {key}, got {type(field_value).__name__}"
        )
    return field_value
