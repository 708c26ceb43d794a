"""Clients of real sandboxes over E2B's protocol, and short ways to use their files."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

from headrace.engine.sandbox import Sandbox
from tests.support.running import run_process
from tests.support.serving import InProcessServer

PATIENCE = 60.0


async def ask_token(server: InProcessServer, sandbox: Sandbox) -> str:
    """Have the control plane tell the token of a sandbox."""
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as owner:
        reply = await owner.post(
            f"/v2/sandboxes/{sandbox.id}/connect", json={}, headers={"x-api-key": server.key}
        )
    token: str = reply.json()["envdAccessToken"]
    return token


@asynccontextmanager
async def open_client(
    server: InProcessServer, sandbox: Sandbox, **headers: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of a sandbox's agent."""
    lasting = {
        "e2b-sandbox-id": sandbox.id,
        "e2b-sandbox-port": "49983",
        "x-access-token": await ask_token(server, sandbox),
        "accept-encoding": "identity",
    }
    async with httpx.AsyncClient(
        base_url=server.url, headers=lasting | headers, timeout=PATIENCE
    ) as client:
        yield client


async def call(client: httpx.AsyncClient, method: str, **message: Any) -> Any:
    """Call a method of the filesystem and give what it answers."""
    reply = await client.post(f"/filesystem.Filesystem/{method}", json=message)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def fail(client: httpx.AsyncClient, method: str, **message: Any) -> tuple[int, str]:
    """Call a method that fails; gives the status and the code."""
    reply = await client.post(f"/filesystem.Filesystem/{method}", json=message)
    return reply.status_code, reply.json()["code"]


async def sh(sandbox: Sandbox, script: str) -> None:
    """Run a script that must not fail, as the user."""
    outcome = await run_process(sandbox, "bash", "-c", script)
    assert outcome.exited.exit_code == 0, outcome
