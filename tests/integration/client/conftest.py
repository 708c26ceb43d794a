"""A real service for the tests of both faces of the SDK, in a process of its own."""

from collections.abc import Iterator
from typing import TypedDict

import pytest

from headrace.client._embedded import PrivateServer


class Service(TypedDict):
    """Where a service is, as the arguments that `Sandbox.create` takes."""

    url: str
    api_key: str


@pytest.fixture(scope="session")
def service() -> Iterator[Service]:
    """Start one for all tests."""
    server = PrivateServer()
    endpoint = server.ensure_started()
    try:
        yield {"url": str(endpoint), "api_key": endpoint.key}
    finally:
        server.stop()
