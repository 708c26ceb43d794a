"""Servers that tests script, and sandboxes of theirs."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack

import pytest

from headrace import AsyncSandbox
from tests.integration.client.conftest import Service
from tests.support.face_async import sandbox_at
from tests.support.scripted import Script, ScriptedServer, scripted_server

Serve = Callable[[Script], ScriptedServer]
Connect = Callable[..., AsyncSandbox]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that does what a script says."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(scripted_server(script))


@pytest.fixture
async def connect() -> AsyncIterator[Connect]:
    """Give a sandbox of a server, without asking it; keywords are those of `Patience`."""
    opened: list[AsyncSandbox] = []

    def connect(server: ScriptedServer, **patience: float) -> AsyncSandbox:
        opened.append(sandbox_at(server.url, **patience))
        return opened[-1]

    yield connect
    for sandbox in opened:
        await sandbox.aclose()


@pytest.fixture
async def sandbox(service: Service) -> AsyncIterator[AsyncSandbox]:
    """A sandbox of a real service, killed after the test."""
    async with await AsyncSandbox.create(**service) as sandbox:
        yield sandbox
