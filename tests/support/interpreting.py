"""Clients of the interpreter of E2B's dialect over HTTP, and what they check of every answer."""

import base64
import json
import struct
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from headrace.adapters.base import Receive, Scope, Send, set_request
from headrace.adapters.e2b.access import Purpose
from headrace.adapters.e2b.app import INTERPRETER_PORT, E2bApp
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.specs import SandboxSpec
from headrace.server.listeners import Door, Listener, bind_tcp
from headrace.server.settings import Settings
from tests.support.e2b import SECRET, TOKENS, E2bAccess

PATIENCE = 60.0
END = {"type": "end_of_execution"}
HOSTILE = "a \"b' $(id) `id` \\ {x}\n%s é"
"""A value that means something to every language into which it might be pasted."""


@dataclass
class Interpreter:
    """A client of one sandbox's interpreter, as the SDKs are."""

    http: httpx.AsyncClient
    sandbox: Sandbox

    async def run(self, code: str, **fields: object) -> list[Any]:
        """Run code to its end and give the lines, checked as the SDKs need them."""
        return [event async for event in self.follow(code, **fields)]

    async def follow(self, code: str, **fields: object) -> AsyncIterator[Any]:
        """Run code and give the lines as they come."""
        given = {"code": code, "context_id": None, "language": None, "env_vars": None, **fields}
        async with self.http.stream("POST", "/execute", json=given) as answer:
            if answer.status_code != 200:
                raise AssertionError(f"{answer.status_code} {await answer.aread()!r}")
            async for line in answer.aiter_lines():
                assert line.isascii()
                yield json.loads(line)

    async def outcome(self, code: str, **fields: object) -> "Outcome":
        """Run code to its end and sort what came."""
        return Outcome(await self.run(code, **fields))

    async def main(self, code: str, **fields: object) -> str | None:
        """Run code that ends well and give the text of its value."""
        outcome = await self.outcome(code, **fields)
        assert outcome.error is None, outcome.lines
        texts = [result["text"] for result in outcome.results if result["is_main_result"]]
        return texts[0] if texts else None


class Outcome:
    """The lines of one execution, sorted; they must be complete and in order."""

    def __init__(self, lines: list[Any]) -> None:
        self.lines = [line for line in lines if line["type"] != "keepalive"]
        assert self.lines[0]["type"] == "number_of_executions", lines
        assert self.lines[-1] == END, lines
        self.stdout = "".join(line["text"] for line in self._of("stdout"))
        self.stderr = "".join(line["text"] for line in self._of("stderr"))
        self.results = self._of("result")
        errors = self._of("error")
        assert len(errors) <= 1, errors
        self.error = errors[0] if errors else None

    def _of(self, kind: str) -> list[Any]:
        return [line for line in self.lines if line["type"] == kind]


@asynccontextmanager
async def serve_e2b(engine: Engine, **settings: Any) -> AsyncIterator[str]:
    """Serve the dialect on a real socket, around an open engine; gives the URL."""

    async def no_ports(_scope: Scope, _receive: Receive, _send: Send) -> None:
        raise AssertionError("nothing here is for a port of a user's server")

    app = E2bApp(E2bAccess(engine), engine, no_ports, SECRET, E2bSettings(**settings))

    async def front(scope: Scope, receive: Receive, send: Send) -> None:
        set_request(scope, "request-1", "http://localhost")
        await app(scope, receive, send)

    door = Door(bind_tcp("127.0.0.1", 0))
    listener = Listener(door, front, Settings().server)
    port = door.sock.getsockname()[1]
    await listener.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        listener.stop_accepting()
        await listener.abort()


@asynccontextmanager
async def open_interpreter(engine: Engine, url: str, **fields: Any) -> AsyncIterator[Interpreter]:
    """Make a sandbox and a client of its interpreter."""
    sandbox = await engine.create(SandboxSpec(**fields))
    headers = {
        "e2b-sandbox-id": sandbox.id,
        "e2b-sandbox-port": str(INTERPRETER_PORT),
        "x-access-token": TOKENS.make(Purpose.AGENT, sandbox.id),
    }
    try:
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE) as http:
            yield Interpreter(http, sandbox)
    finally:
        await sandbox.kill()


def size_of_png(data: str) -> tuple[int, int]:
    """Give width and height of a PNG; its first chunk must be whole."""
    raw = base64.b64decode(data, validate=True)
    assert raw.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR")
    width, height, check = struct.unpack_from(">II5xI", raw, 16)
    assert zlib.crc32(raw[12:29]) == check
    return width, height
