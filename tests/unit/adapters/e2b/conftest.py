"""The application that most tests here talk to."""

from collections.abc import AsyncIterator

import pytest

from headrace.engine.sandbox import Sandbox
from tests.support.e2b import E2bService, open_e2b


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[E2bService]:
    """The dialect on a fake launcher; one for the tests of a file, each in its own sandbox."""
    async with open_e2b(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
async def sandbox(service: E2bService) -> Sandbox:
    """A sandbox of the first tenant."""
    return await service.create()
