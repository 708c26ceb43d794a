"""One HTTP request through the proxy: bodies stream both ways at the pace of whoever is slower.

Three things happen at once. The client's body goes to the guest; the guest's answer goes to the
client; and somebody waits for the client to leave. The first end that matters ends the others.
"""

import math

import anyio
import h11

from headrace.adapters.base import Message, Receive, Scope, Send
from headrace.adapters.ports.connection import GuestConnection, connect
from headrace.adapters.ports.fields import Headers, find, lower, title, tokens
from headrace.adapters.ports.inward import (
    IsKey,
    check_size,
    framing,
    request_headers,
    request_target,
)
from headrace.adapters.ports.outward import response_headers
from headrace.adapters.ports.route import Route
from headrace.adapters.ports.settings import PortSettings
from headrace.model.errors import (
    DeadlineError,
    HeadraceError,
    InvalidRequestError,
    PortUnreachableError,
)


def make_request(
    scope: Scope, route: Route, is_key: IsKey, method: str, extra: Headers = ()
) -> h11.Request:
    """Give the request for the guest, with ``extra`` headers; raises what `inward` raises."""
    headers = request_headers(lower(scope["headers"]), route, client_of(scope), is_key)
    target = request_target(route, is_key)
    try:
        return h11.Request(method=method, target=target, headers=title([*headers, *extra]))
    except h11.LocalProtocolError as error:
        raise InvalidRequestError(f"the request cannot be passed on: {error}") from error


def client_of(scope: Scope) -> str | None:
    """Give the client's address, as far as the service trusts what it knows."""
    client = scope.get("client")
    return str(client[0]) if client and client[0] else None


class Exchange:
    """Passes one request on and its answer back; `run` does it, once."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        route: Route,
        is_key: IsKey,
        settings: PortSettings,
    ) -> None:
        headers = lower(scope["headers"])
        check_size(headers, settings)
        self._scope, self._receive, self._send = scope, receive, send
        self._route, self._settings = route, settings
        self._framing = framing(headers)
        self._expects = (
            self._framing is not None
            and scope.get("http_version", "1.1") != "1.0"
            and tokens(headers, b"expect") == {b"100-continue"}
        )
        self._request = self._make_request(is_key)
        self._go_on = anyio.Event()
        self._patience = anyio.CancelScope()
        self._failure: HeadraceError | None = None
        self._is_sending = False
        self.has_started = False

    def _make_request(self, is_key: IsKey) -> h11.Request:
        if self._scope["method"] == "CONNECT":
            raise InvalidRequestError("CONNECT is not possible here: this is no tunnel")
        extra = [(b"connection", b"close")]
        if self._framing is not None:
            extra.append(self._framing)
        if self._expects:
            extra.append((b"expect", b"100-continue"))
        return make_request(self._scope, self._route, is_key, self._scope["method"], extra)

    async def run(self) -> None:
        """Do it; returns early when the client leaves.

        Raises PortUnreachableError and DeadlineError for what the guest does wrong. After
        ``has_started`` the answer must then be left as it is, without an end.
        """
        async with connect(self._route, self._settings) as guest:
            self._wait_for_head()
            with self._patience:
                await guest.send(self._request)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._upload, guest, tasks.cancel_scope)
                    try:
                        await self._download(guest)
                    except HeadraceError as error:
                        self._failure = self._failure or error
                    except OSError:
                        pass  # what an ASGI server raises when the client has gone
                    tasks.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if self._patience.cancelled_caught:
            port = self._route.port
            raise DeadlineError(f"the server at port {port} did not go on in time", port=port)

    # --- from the client to the guest ---------------------------------------------------------

    async def _upload(self, guest: GuestConnection, scope: anyio.CancelScope) -> None:
        """Pass the body on, then wait until the client leaves, which ends everything."""
        if self._framing is None:
            await self._send_quietly(guest, h11.EndOfMessage())
        elif self._expects:
            with anyio.move_on_after(self._settings.continue_timeout):
                await self._go_on.wait()
        is_passing = self._framing is not None
        while True:
            if is_passing:
                self._patience.deadline = math.inf
            message = await self._receive()
            if message["type"] == "http.disconnect":
                break
            if is_passing:
                try:
                    is_passing = await self._pass(guest, message)
                except HeadraceError as error:
                    self._failure = error
                    break
        scope.cancel()

    async def _pass(self, guest: GuestConnection, message: Message) -> bool:
        """Pass a piece of the body on; tells whether there is more, and somebody who takes it."""
        body, is_last = message.get("body", b""), not message.get("more_body", False)
        self._is_sending = True
        self._patience.deadline = anyio.current_time() + self._settings.stall_timeout
        is_taken = not body or await self._send_quietly(guest, h11.Data(data=body))
        if is_taken and is_last:
            is_taken = await self._send_quietly(guest, h11.EndOfMessage())
        self._is_sending = False
        if is_last or not is_taken:
            self._wait_for_head()
        return is_taken and not is_last

    @staticmethod
    async def _send_quietly(guest: GuestConnection, event: h11.Data | h11.EndOfMessage) -> bool:
        """Send; a guest that does not want to read may still have answered."""
        try:
            await guest.send(event)
        except PortUnreachableError:
            return False
        return True

    def _wait_for_head(self) -> None:
        wait = math.inf if self.has_started else self._settings.head_timeout
        self._patience.deadline = anyio.current_time() + wait

    # --- from the guest to the client ---------------------------------------------------------

    async def _download(self, guest: GuestConnection) -> None:
        head = await guest.receive_head(self._go_on.set)
        headers = lower(head.headers)
        self.has_started = True
        if not self._is_sending:
            self._patience.deadline = math.inf
        await self._send(
            {
                "type": "http.response.start",
                "status": head.status_code,
                "headers": response_headers(headers, self._route, head.status_code),
            }
        )
        self._go_on.set()
        await self._send_body(guest, is_framed=_is_framed(headers))

    async def _send_body(self, guest: GuestConnection, *, is_framed: bool) -> None:
        event = await guest.receive()
        while isinstance(event, h11.Data):
            body, following = bytes(event.data), guest.poll()
            if isinstance(following, h11.EndOfMessage):
                await self._send_end(body, is_framed=is_framed)
                return
            await self._send_piece(body, more_body=True)
            event = await guest.receive() if following is None else following
        await self._send_end(b"", is_framed=is_framed)

    async def _send_end(self, body: bytes, *, is_framed: bool) -> None:
        """Complete the answer, unless it ended with its connection because the sandbox did."""
        if not is_framed and not self._route.sandbox.is_alive:
            raise PortUnreachableError("the sandbox ended", port=self._route.port)
        await self._send_piece(body, more_body=False)

    async def _send_piece(self, body: bytes, *, more_body: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more_body})


def _is_framed(headers: Headers) -> bool:
    return bool(find(headers, b"content-length") or find(headers, b"transfer-encoding"))
