"""E2B's dialect without a network: requests go straight into the ASGI application."""

import json
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.adapters.base import Send
from headrace.adapters.e2b.access import Purpose, Tokens
from headrace.adapters.e2b.app import AGENT_PORT, INTERPRETER_PORT, E2bApp
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.specs import SandboxSpec
from tests.support.fakes import FakeLauncher, open_fake_engine
from tests.support.native import KEYS, OURS, THEIRS, Client, FakeAccess, FileAgent

SECRET = bytes(range(32))
TOKENS = Tokens(SECRET)


def envelope(message: object) -> bytes:
    """Put a message into an envelope, as a client does."""
    data = json.dumps(message).encode()
    return struct.pack(">BI", 0, len(data)) + data


def open_envelopes(body: bytes) -> list[tuple[int, Any]]:
    """Give the flags and the message of each envelope of a body; it must be complete."""
    found = []
    while body:
        flags, length = struct.unpack_from(">BI", body)
        message = body[5 : 5 + length]
        assert len(message) == length, body
        found.append((flags, json.loads(message)))
        body = body[5 + length :]
    return found


@dataclass
class E2bService:
    """The application on a fake launcher."""

    app: E2bApp
    engine: Engine
    launcher: FakeLauncher
    to_ports: list[dict[str, Any]]

    @property
    def client(self) -> Client:
        """A client of the control plane with a key."""
        return Client(self.app, None, {"x-api-key": f"e2b_{OURS}"})

    @property
    def stranger(self) -> Client:
        """A client of the control plane with the key of another tenant."""
        return Client(self.app, None, {"x-api-key": f"e2b_{THEIRS}"})

    @property
    def nobody(self) -> Client:
        """A client without a key."""
        return Client(self.app, None)

    async def create(self, **fields: Any) -> Sandbox:
        """Make a sandbox of the first tenant."""
        return await self.engine.create(SandboxSpec(tenant=KEYS[OURS], **fields))

    def agent(self, sandbox: Sandbox, **headers: str) -> Client:
        """A client of a sandbox's agent, with its token and the type of unary calls."""
        lasting = {
            "e2b-sandbox-id": sandbox.id,
            "e2b-sandbox-port": str(AGENT_PORT),
            "x-access-token": TOKENS.make(Purpose.AGENT, sandbox.id),
            "content-type": "application/json",
        }
        return Client(self.app, None, {**lasting, **headers})

    def interpreter(self, sandbox: Sandbox, **headers: str) -> Client:
        """A client of a sandbox's code interpreter, with the tokens that the SDKs send."""
        lasting = {
            "e2b-sandbox-id": sandbox.id,
            "e2b-sandbox-port": str(INTERPRETER_PORT),
            "e2b-traffic-access-token": TOKENS.make(Purpose.TRAFFIC, sandbox.id),
            "content-type": "application/json",
        }
        return Client(self.app, None, {**lasting, **headers})


class E2bAccess(FakeAccess):
    """Knows the same keys, also behind ``e2b_``."""

    def authenticate(self, presented: str | None) -> Any:
        """Give the engine of the tenant that has this key."""
        return super().authenticate((presented or "").removeprefix("e2b_"))


@asynccontextmanager
async def open_e2b(
    directory: Path,
    *,
    launcher: FakeLauncher | None = None,
    settings: E2bSettings | None = None,
    **engine_settings: Any,
) -> AsyncIterator[E2bService]:
    """Open the application on an engine with a fake launcher."""
    to_ports: list[dict[str, Any]] = []

    async def ports(scope: Any, receive: Any, send: Send) -> None:
        del receive
        to_ports.append(dict(scope))
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"from a port"})

    launcher = launcher or FakeLauncher()
    launcher.make_agent = FileAgent
    engine_settings.setdefault("template_aliases", {"base": "code-interpreter"})
    async with open_fake_engine(directory, launcher, **engine_settings) as (engine, fake):
        app = E2bApp(E2bAccess(engine), engine, ports, SECRET, settings)
        yield E2bService(app, engine, fake, to_ports)
