# Made from the async face by scripts/generate-sync; change that one.
"""Servers that tests script, and sandboxes of theirs."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from headrace import Sandbox
from tests.integration.client.conftest import Service
from tests.support.face_sync import sandbox_at
from tests.support.scripted import Script, ScriptedServer, scripted_server

Serve = Callable[[Script], ScriptedServer]
Connect = Callable[..., Sandbox]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that does what a script says."""
    with ExitStack() as stack:
        yield lambda script: stack.enter_context(scripted_server(script))


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Give a sandbox of a server, without asking it; keywords are those of `Patience`."""
    opened: list[Sandbox] = []

    def connect(server: ScriptedServer, **patience: float) -> Sandbox:
        opened.append(sandbox_at(server.url, **patience))
        return opened[-1]

    yield connect
    for sandbox in opened:
        sandbox.close()


@pytest.fixture
def sandbox(service: Service) -> Iterator[Sandbox]:
    """A sandbox of a real service, killed after the test."""
    with Sandbox.create(**service) as sandbox:
        yield sandbox
