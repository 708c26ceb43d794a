"""TLS: the certificate of a service is checked, and what is trusted works like anything else."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import AsyncSandbox, ConnectionFailedError
from tests.support.scripted import (
    KEY,
    SANDBOX_ID,
    Asked,
    Reply,
    ScriptedServer,
    sandbox_record,
    scripted_server,
)

CERTIFICATE = Path(__file__).parents[3] / "support" / "localhost.pem"
"""For localhost only, signed by itself, with its key; known to everybody."""


def script(asked: Asked, reply: Reply) -> None:
    reply.json(sandbox_record())


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    """Serve over TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE)
    with scripted_server(script, tls=context) as server:
        server.url = server.url.replace("127.0.0.1", "localhost")
        yield server


async def test_a_service_that_is_trusted_is_used(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    async with await AsyncSandbox.connect(SANDBOX_ID, url=server.url, api_key=KEY) as sandbox:
        for _ in range(3):
            assert (await sandbox.info()).id == SANDBOX_ID

    assert server.connections == 1
    assert server.count_open(0) == 0


async def test_a_service_that_is_not_trusted_never_sees_the_key(server: ScriptedServer) -> None:
    with pytest.raises(ConnectionFailedError, match=r"CERTIFICATE_VERIFY_FAILED"):
        await AsyncSandbox.connect(SANDBOX_ID, url=server.url, api_key=KEY, request_timeout=5)

    assert server.asked == []


async def test_a_service_with_another_name_is_not_trusted(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(CERTIFICATE))
    url = server.url.replace("localhost", "127.0.0.1")

    with pytest.raises(ConnectionFailedError, match="IP address mismatch"):
        await AsyncSandbox.connect(SANDBOX_ID, url=url, api_key=KEY, request_timeout=5)


async def test_a_service_without_tls_is_no_service_with_it() -> None:
    with scripted_server(script) as plain:
        url = plain.url.replace("http:", "https:")
        with pytest.raises(ConnectionFailedError, match="no connection to https"):
            await AsyncSandbox.connect(SANDBOX_ID, url=url, api_key=KEY, request_timeout=5)
