"""The dialect on a real socket, and clients of the interpreters of sandboxes."""

from collections.abc import AsyncIterator

import pytest

from headrace.engine.engine import Engine
from tests.support.interpreting import Interpreter, open_interpreter, serve_e2b


@pytest.fixture(scope="module")
async def url(engine: Engine) -> AsyncIterator[str]:
    """The dialect around the engine of the session."""
    async with serve_e2b(engine, keepalive=0.5) as url:
        yield url


@pytest.fixture(scope="module")
async def shared(engine: Engine, url: str) -> AsyncIterator[Interpreter]:
    """One sandbox for all tests that do not mind what others have left behind."""
    async with open_interpreter(engine, url, env={"OURS": "of the sandbox"}) as interpreter:
        yield interpreter


@pytest.fixture
async def fresh(engine: Engine, url: str) -> AsyncIterator[Interpreter]:
    """A sandbox of its own."""
    async with open_interpreter(engine, url) as interpreter:
        yield interpreter
