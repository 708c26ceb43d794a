"""A complete answer, and how it is sent; also in place of a WebSocket that is refused."""

from dataclasses import dataclass
from typing import TypeAlias

from headrace.adapters.base import Receive, Scope, Send
from headrace.wire.ndjson import encode_json

HeaderList: TypeAlias = tuple[tuple[bytes, bytes], ...]

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"


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
        headers = list(self.headers)
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


def json_answer(value: object, status: int = 200, *headers: tuple[bytes, bytes]) -> Answer:
    """Give the answer that is a JSON value."""
    return Answer(status, encode_json(value), headers)
