"""Requests to a service byte by byte, so that a test can cut them anywhere."""

import json
from collections.abc import AsyncGenerator

import anyio
import anyio.abc

from tests.support.serving import InProcessServer

PATIENCE = 30.0


class Connection:
    """One connection to the service, byte by byte, so that it can be cut anywhere."""

    def __init__(self, stream: anyio.abc.ByteStream) -> None:
        self._stream = stream
        self._rest = b""
        self.headers: dict[str, str] = {}

    async def ask(
        self,
        server: InProcessServer,
        method: str,
        path: str,
        body: object = None,
        *,
        content: bytes = b"",
        **headers: str,
    ) -> int:
        """Send a request and read the head of its answer; gives the status."""
        data = content if body is None else json.dumps(body).encode()
        given = {
            "host": "localhost",
            "authorization": f"Bearer {server.key}",
            "content-length": str(len(data)),
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in given.items())
        await self._stream.send(f"{method} {path} HTTP/1.1\r\n{lines}\r\n".encode() + data)
        head = (await self._take_until(b"\r\n\r\n")).decode().split("\r\n")
        self.headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
        return int(head[0].split()[1])

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Give the pieces of the body as they come, to its end."""
        if "content-length" in self.headers:
            wanted = int(self.headers["content-length"])
            yield await self._take(wanted)
            return
        while size := int(await self._take_until(b"\r\n"), 16):
            yield await self._take(size)
            await self._take(2)

    async def some(self, maximum: int) -> bytes:
        """Give some raw bytes; b"" at the end."""
        if self._rest:
            data, self._rest = self._rest[:maximum], self._rest[maximum:]
            return data
        try:
            return await self._stream.receive(maximum)
        except anyio.EndOfStream:
            return b""

    async def body(self) -> bytes:
        """Give the whole body."""
        return b"".join([chunk async for chunk in self.chunks()])

    async def _take(self, size: int) -> bytes:
        while len(self._rest) < size:
            self._rest += await self._stream.receive(256 * 1024)
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    async def _take_until(self, mark: bytes) -> bytes:
        while mark not in self._rest:
            self._rest += await self._stream.receive(256 * 1024)
        data, _, self._rest = self._rest.partition(mark)
        return data


async def connect(server: InProcessServer) -> anyio.abc.ByteStream:
    """Open a connection to the service."""
    return await anyio.connect_tcp("127.0.0.1", server.port)


async def ask(
    server: InProcessServer,
    method: str,
    path: str,
    body: object = None,
    *,
    content: bytes = b"",
    **headers: str,
) -> tuple[int, bytes]:
    """Send one request; gives status and body."""
    with anyio.fail_after(PATIENCE):
        async with await connect(server) as stream:
            connection = Connection(stream)
            status = await connection.ask(server, method, path, body, content=content, **headers)
            return status, b"" if status == 204 else await connection.body()
