"""Reaching a port inside a sandbox."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import InvalidRequestError, LaunchError, NotFoundError
from headrace.model.specs import SandboxSpec
from tests.support.fakes import FakeLauncher, open_fake_engine
from tests.support.logs import count_descriptors


@pytest.fixture
async def opened(tmp_path: Path) -> AsyncIterator[tuple[Sandbox, FakeLauncher]]:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        sandbox = await engine.create(SandboxSpec())
        await sandbox.await_ready()
        yield sandbox, launcher


@pytest.mark.parametrize(
    ("host", "family"), [("127.0.0.1", socket.AF_INET), ("::1", socket.AF_INET6)]
)
async def test_bytes_go_both_ways(
    opened: tuple[Sandbox, FakeLauncher], host: str, family: socket.AddressFamily
) -> None:
    sandbox, _ = opened
    with socket.create_server((host, 0), family=family) as server:
        async with await sandbox.open_port(server.getsockname()[1], host) as stream:
            accepted, _address = server.accept()
            with accepted:
                await stream.send(b"to you")
                assert accepted.recv(100) == b"to you"
                accepted.send(b"to me")
                assert await stream.receive() == b"to me"


async def test_a_port_where_nobody_listens_is_not_found(
    opened: tuple[Sandbox, FakeLauncher],
) -> None:
    sandbox, _ = opened
    before = count_descriptors()
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(NotFoundError, match=f"127.0.0.1:{port}.*refused"):
        await sandbox.open_port(port)
    assert count_descriptors() == before


@pytest.mark.parametrize("port", [0, 65536, -1, True, "80", 80.0])
async def test_what_is_no_port_is_refused(opened: tuple[Sandbox, FakeLauncher], port: Any) -> None:
    sandbox, launcher = opened
    with pytest.raises(InvalidRequestError, match="1 to 65535"):
        await sandbox.open_port(port)
    assert "socket" not in launcher.verbs


@pytest.mark.parametrize("host", ["localhost", "", "10.0.0.1", "8.8.8.8", "::2"])
async def test_only_the_sandboxes_own_addresses_are_reached(
    opened: tuple[Sandbox, FakeLauncher], host: str
) -> None:
    sandbox, launcher = opened
    with pytest.raises(InvalidRequestError, match="host"):
        await sandbox.open_port(80, host)
    assert "socket" not in launcher.verbs


async def test_a_launcher_that_refuses_is_an_error(opened: tuple[Sandbox, FakeLauncher]) -> None:
    sandbox, launcher = opened
    launcher.refusals["socket"] = ("failed", "no descriptors left")
    with pytest.raises(LaunchError, match="no descriptors left"):
        await sandbox.open_port(80)
