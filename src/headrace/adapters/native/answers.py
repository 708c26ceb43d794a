"""A complete answer, and how it is sent; also in place of a WebSocket that is refused."""

from dataclasses import dataclass
from typing import TypeAlias

from headrace.adapters.base import Receive, Scope, Send

HeaderList: TypeAlias = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
NO_STORE: HeaderList = ((b"cache-control", b"no-store"),)


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, body and headers. It is an ASGI application that always answers this."""

    status: int
    body: bytes = b""
    headers: HeaderList = ()
    content_type: bytes = JSON

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        if scope["type"] == "websocket":
            await self._refuse(scope, receive, send)
        else:
            await self.send(send)

    async def send(self, send: Send, kind: str = "http.response") -> None:
        """Send it as messages of that kind."""
        headers = [*self.headers, *NO_STORE]
        if self.body:
            headers.append((b"content-type", self.content_type))
        if self.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(self.body)))
        await send({"type": f"{kind}.start", "status": self.status, "headers": headers})
        await send({"type": f"{kind}.body", "body": self.body})

    async def _refuse(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        if "websocket.http.response" in (scope.get("extensions") or {}):
            await self.send(send, "websocket.http.response")
        else:
            await send({"type": "websocket.close", "code": 1008})
