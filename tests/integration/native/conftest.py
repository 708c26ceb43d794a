"""The service around the engine of the session, and a sandbox in it."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from headrace.engine.engine import Engine
from tests.support.requests import ask
from tests.support.serving import InProcessServer, open_server


@pytest.fixture
async def server(engine: Engine, tmp_path: Path) -> AsyncIterator[InProcessServer]:
    """The service around the engine of the session."""
    async with open_server(tmp_path, engine=engine) as server:
        yield server


@pytest.fixture
async def sandbox_id(server: InProcessServer) -> AsyncIterator[str]:
    """A sandbox, killed after the test."""
    _, body = await ask(server, "POST", "/v1/sandboxes", {})
    sandbox_id: str = json.loads(body)["id"]
    try:
        yield sandbox_id
    finally:
        await ask(server, "DELETE", f"/v1/sandboxes/{sandbox_id}")
