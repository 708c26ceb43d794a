"""The application that most tests here talk to."""

from collections.abc import AsyncIterator

import pytest

from tests.support.native import Client, NativeService, open_native


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[NativeService]:
    """The native API on a fake launcher; one for the tests of a file, each in its own sandbox."""
    async with open_native(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def client(service: NativeService) -> Client:
    """A client with a key."""
    return service.client


@pytest.fixture
async def sandbox_id(client: Client) -> str:
    """A sandbox of that client."""
    return await client.create()
