"""One WebSocket through the proxy: our client's messages to the guest's server, and back.

The handshake is plain HTTP and a refusal an ordinary answer, so h11 reads it; from then on the
websockets library's protocol object checks frames, joins fragments and answers pings.
"""

import base64
import hashlib
import math
import secrets
from contextlib import suppress
from http import HTTPStatus

import anyio
import h11
from websockets.exceptions import ProtocolError
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, Side, State

from headrace.adapters.base import Message, Receive, Scope, Send
from headrace.adapters.ports.connection import GuestConnection, Head, connect
from headrace.adapters.ports.exchange import make_request
from headrace.adapters.ports.fields import Headers, find, lower, tokens
from headrace.adapters.ports.inward import IsKey, check_size, holds_key
from headrace.adapters.ports.outward import response_headers
from headrace.adapters.ports.route import Route
from headrace.adapters.ports.settings import PortSettings
from headrace.model.errors import DeadlineError, PortUnreachableError

NORMAL, NO_STATUS, ABNORMAL, NOT_TEXT, TOO_BIG, BAD_GATEWAY = 1000, 1005, 1006, 1007, 1009, 1014
_PIECE = 64 * 1024
_SWITCHING, _BAD_GATEWAY = 101, 502
_STATUSES = frozenset(HTTPStatus)  # ASGI servers refuse others here
_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_MAX_REFUSAL = 64 * 1024
_HANDSHAKE = frozenset(
    {
        b"sec-websocket-accept",
        b"sec-websocket-extensions",
        b"sec-websocket-key",
        b"sec-websocket-protocol",
        b"sec-websocket-version",
    }
)


class Upgrade:
    """Passes one WebSocket through; `run` does it, once, when `websocket.connect` was read."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        route: Route,
        is_key: IsKey,
        settings: PortSettings,
    ) -> None:
        check_size(scope["headers"], settings)
        self._scope, self._receive, self._send = scope, receive, send
        self._route, self._settings = route, settings
        self._key = base64.b64encode(secrets.token_bytes(16))
        names = [name.encode("latin-1") for name in scope.get("subprotocols", [])]
        self._subprotocols = [name for name in names if not holds_key(name, is_key)]
        self._request = self._make_request(is_key)
        self._protocol = Protocol(Side.CLIENT, state=State.OPEN, max_size=settings.max_message)
        self._message = bytearray()
        self._is_text = self._is_garbled = self._has_left = False
        self._sending = anyio.Lock()
        self.has_started = False

    def _make_request(self, is_key: IsKey) -> h11.Request:
        extra = [
            (b"connection", b"Upgrade"),
            (b"upgrade", b"websocket"),
            (b"sec-websocket-version", b"13"),
            (b"sec-websocket-key", self._key),
        ]
        if self._subprotocols:
            extra.append((b"sec-websocket-protocol", b", ".join(self._subprotocols)))
        kept = [(key, value) for key, value in self._scope["headers"] if key not in _HANDSHAKE]
        scope = {**self._scope, "headers": kept}
        return make_request(scope, self._route, is_key, "GET", extra)

    async def run(self) -> None:
        """Do it; returns when both sides are closed.

        Raises PortUnreachableError and DeadlineError before ``has_started``; whatever happens
        later is told to the client by a close code.
        """
        async with connect(self._route, self._settings) as guest:
            head = await self._shake_hands(guest)
            if head.status_code == _SWITCHING:
                await self._accept(head)
                await self._relay(guest)
            else:
                await self._refuse(guest, head)

    # --- the handshake ------------------------------------------------------------------------

    async def _shake_hands(self, guest: GuestConnection) -> Head:
        port, timeout = self._route.port, self._settings.head_timeout
        try:
            with anyio.fail_after(timeout):
                await guest.send(self._request)
                await guest.send(h11.EndOfMessage())
                return await guest.receive_head(lambda: None)
        except TimeoutError as error:
            raise DeadlineError(
                f"the server at port {port} did not answer within {timeout:g} s", port=port
            ) from error

    async def _accept(self, head: Head) -> None:
        headers = lower(head.headers)
        chosen = find(headers, b"sec-websocket-protocol")
        if (
            find(headers, b"sec-websocket-accept") != [_proof(self._key)]
            or tokens(headers, b"upgrade") != {b"websocket"}
            or find(headers, b"sec-websocket-extensions")
            or len(chosen) > 1
            or not self._subprotocols_hold(chosen)
        ):
            port = self._route.port
            raise PortUnreachableError(
                f"the server at port {port} answered the WebSocket handshake wrongly", port=port
            )
        self.has_started = True
        await self._send(
            {
                "type": "websocket.accept",
                "subprotocol": chosen[0].decode("latin-1") if chosen else None,
                "headers": self._extra_headers(headers),
            }
        )

    def _subprotocols_hold(self, chosen: list[bytes]) -> bool:
        return all(name in self._subprotocols for name in chosen)

    def _extra_headers(self, headers: Headers) -> Headers:
        passed = response_headers(headers, self._route, _SWITCHING)
        return [
            (name, value)
            for name, value in passed
            if name not in _HANDSHAKE and name != b"content-length"
        ]

    async def _refuse(self, guest: GuestConnection, head: Head) -> None:
        """Give the client the guest's own answer, where the ASGI server can do that."""
        self.has_started = True
        if "websocket.http.response" not in self._scope.get("extensions", {}):
            await self._send({"type": "websocket.close", "code": NORMAL})
            return
        headers = response_headers(lower(head.headers), self._route, head.status_code)
        body = await self._read_refusal(guest)
        headers = [(name, value) for name, value in headers if name != b"content-length"]
        headers.append((b"content-length", b"%d" % len(body)))
        await self._send(
            {
                "type": "websocket.http.response.start",
                "status": head.status_code if head.status_code in _STATUSES else _BAD_GATEWAY,
                "headers": headers,
            }
        )
        await self._send({"type": "websocket.http.response.body", "body": body})

    async def _read_refusal(self, guest: GuestConnection) -> bytes:
        """Give the body of a refusal, or nothing if it is too long, too slow or broken off."""
        body = bytearray()
        with anyio.move_on_after(self._settings.close_timeout):
            try:
                while isinstance(event := await guest.receive(), h11.Data):
                    body += event.data
                    if len(body) > _MAX_REFUSAL:
                        return b""
            except PortUnreachableError:
                return b""
            return bytes(body)
        return b""

    # --- messages -----------------------------------------------------------------------------

    async def _relay(self, guest: GuestConnection) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._pass_inward, guest, tasks.cancel_scope)
            with suppress(OSError):  # what an ASGI server raises when the client has gone
                await self._pass_outward(guest)
            tasks.cancel_scope.cancel()

    async def _pass_inward(self, guest: GuestConnection, scope: anyio.CancelScope) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                break
            self._write(message)
            with anyio.move_on_after(self._settings.stall_timeout) as patience:
                await self._flush(guest)
            if patience.cancelled_caught:
                await self._close_client(BAD_GATEWAY, "the server in the sandbox does not read")
                scope.cancel()
                return
        await self._say_goodbye(guest, message)
        scope.cancel()

    def _write(self, message: Message) -> None:
        if self._protocol.state is not State.OPEN:
            return
        if (text := message.get("text")) is not None:
            self._protocol.send_text(text.encode())
        else:
            self._protocol.send_binary(message["bytes"])

    async def _say_goodbye(self, guest: GuestConnection, message: Message) -> None:
        """Tell the guest how the client closed, and give it a moment to answer."""
        code, reason = message.get("code", NO_STATUS), message.get("reason") or ""
        if code == ABNORMAL or self._protocol.state is not State.OPEN:
            return
        try:
            self._protocol.send_close(*(() if code == NO_STATUS else (code, reason)))
        except ProtocolError:
            return
        with anyio.move_on_after(self._settings.close_timeout):
            await self._flush(guest)
            await anyio.sleep(math.inf)  # until the other direction has read the answer

    async def _pass_outward(self, guest: GuestConnection) -> None:
        """Pass messages on until the guest closes, which is then told to the client."""
        self._protocol.receive_data(guest.surplus)
        while True:
            for event in self._protocol.events_received():
                if isinstance(event, Frame) and not self._is_garbled:
                    await self._deliver(event)
            if self._protocol.close_rcvd or self._protocol.parser_exc or self._is_garbled:
                break
            await self._flush(guest)
            data = await _receive(guest)
            if not data:
                break
            self._protocol.receive_data(data)
        with anyio.move_on_after(self._settings.close_timeout):
            await self._flush(guest)
        await self._close_client(*self._find_end())

    async def _deliver(self, frame: Frame) -> None:
        if frame.opcode not in (Opcode.TEXT, Opcode.BINARY, Opcode.CONT):
            return
        if frame.opcode is not Opcode.CONT:
            self._is_text = frame.opcode is Opcode.TEXT
        self._message += frame.data
        if not frame.fin:
            return
        data, self._message = bytes(self._message), bytearray()
        if not self._is_text:
            await self._send({"type": "websocket.send", "bytes": data})
            return
        try:
            text = data.decode()
        except UnicodeDecodeError:
            self._is_garbled = True
            self._protocol.fail(NOT_TEXT, "not UTF-8")
            return
        await self._send({"type": "websocket.send", "text": text})

    def _find_end(self) -> tuple[int, str]:
        received, sent = self._protocol.close_rcvd, self._protocol.close_sent
        if received is not None:
            return (NORMAL if received.code == NO_STATUS else received.code), received.reason
        if sent is not None and sent.code == TOO_BIG:
            return TOO_BIG, f"a message has more than {self._settings.max_message} bytes"
        return BAD_GATEWAY, "the server in the sandbox broke off"

    async def _close_client(self, code: int, reason: str) -> None:
        if not self._has_left:
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _flush(self, guest: GuestConnection) -> None:
        """Send what the protocol has to say; both directions do."""
        async with self._sending:
            for data in self._protocol.data_to_send():
                if data:
                    try:
                        await guest.stream.send(data)
                    except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                        return  # the other direction finds the end


async def _receive(guest: GuestConnection) -> bytes:
    try:
        return await guest.stream.receive(_PIECE)
    except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError):
        return b""


def _proof(key: bytes) -> bytes:
    # SHA-1 is what the protocol asks for; nothing depends on its strength.
    return base64.b64encode(hashlib.sha1(key + _MAGIC, usedforsecurity=False).digest())
