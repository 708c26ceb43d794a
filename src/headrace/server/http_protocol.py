"""HTTP/1.1 on httptools, with the bounds that uvicorn leaves out of it.

The parser keeps what a client has sent of a header until the header is complete, however long
that gets and however long it takes. Here both have a bound.
"""

import asyncio
from typing import Any

import orjson
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

MAX_FIELDS = 256
_REASONS = {400: "Bad Request", 431: "Request Header Fields Too Large", 503: "Service Unavailable"}


class _TooLargeError(Exception):
    """Stops the parser."""


class BoundedHttpProtocol(HttpToolsProtocol):
    """One connection."""

    max_header = 64 * 1024
    header_timeout = 30.0
    max_connections = 4096

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._header_size = 0
        self._header_fields = 0
        self._stuck = 0
        self._has_progress = False
        self._refusal: tuple[int, str, str] | None = None
        self._patience: asyncio.TimerHandle | None = None

    # --- connection ---------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a request; refuse one connection too many."""
        super().connection_made(transport)
        self._await_header()
        if len(self.connections) > self.max_connections:
            self._refusal = (503, "unavailable", "there are too many connections; try again")
            self.send_400_response("")

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the timer."""
        self._cancel_patience()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self) -> None:
        """Hand the connection over; it has timers of its own."""
        self._cancel_patience()
        super().handle_websocket_upgrade()

    def _await_header(self) -> None:
        if self._patience is None:
            self._patience = self.loop.call_later(self.header_timeout, self._lose_patience)

    def _cancel_patience(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def _lose_patience(self) -> None:
        self._patience = None
        if not self.transport.is_closing():
            self.transport.close()

    # --- parsing ------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Parse; refuse what goes on and on without getting anywhere."""
        self._has_progress = False
        super().data_received(data)
        self._stuck = 0 if self._has_progress else self._stuck + len(data)
        if self._stuck > self.max_header and not self.transport.is_closing():
            self._refuse_size()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Begin to count."""
        super().on_message_begin()
        self._header_size = self._header_fields = 0
        self._has_progress = True
        self._await_header()

    def on_url(self, url: bytes) -> None:
        """Count what is there of the URL."""
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Count a field, in the header or behind the body."""
        super().on_header(name, value)
        self._header_fields += 1
        self._count(len(name) + len(value))

    def on_headers_complete(self) -> None:
        """Start with the request."""
        self._has_progress = True
        self._cancel_patience()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Pass a piece of the body on."""
        self._has_progress = True
        super().on_body(body)

    def _count(self, size: int) -> None:
        self._has_progress = True
        self._header_size += size
        if self._header_size > self.max_header or self._header_fields > MAX_FIELDS:
            self._refuse_size()
            raise _TooLargeError

    def _refuse_size(self) -> None:
        limit = f"{self.max_header} bytes or {MAX_FIELDS} fields"
        self._refusal = (431, "limit_exceeded", f"URL and header have more than {limit}")

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be answered by the application, and hang up."""
        status, code, message = self._refusal or (
            400,
            "invalid_request",
            "this is not HTTP/1.1 as we understand it",
        )
        error = {"code": code, "message": message, "details": {}, "request_id": ""}
        body = orjson.dumps({"error": error})
        head = (
            f"HTTP/1.1 {status} {_REASONS[status]}\r\ncontent-type: application/json\r\n"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
        self.transport.close()
