"""Fixtures of the attack tests: a place where hostile code runs, and a probe at that place."""

from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.specs import SandboxSpec
from tests.security.probes import Place, Probe, probe_in


@pytest.fixture(params=list(Place), ids=str)
def place(request: pytest.FixtureRequest) -> Place:
    """Each place in turn."""
    chosen: Place = request.param
    return chosen


@pytest.fixture
def probe(sandbox: Sandbox, place: Place) -> Probe:
    """A probe at each place in turn."""

    async def run(function: Callable[..., Any], *arguments: Any) -> Any:
        return await probe_in(sandbox, place, function, *arguments)

    return run


@pytest.fixture
def kernel_probe(sandbox: Sandbox) -> Probe:
    """A probe in the default Python kernel only."""

    async def run(function: Callable[..., Any], *arguments: Any) -> Any:
        return await probe_in(sandbox, Place.KERNEL, function, *arguments)

    return run


@pytest.fixture
async def other(engine: Engine) -> AsyncIterator[Sandbox]:
    """A second sandbox: the sibling that must not notice anything."""
    sandbox = await engine.create(SandboxSpec())
    try:
        yield sandbox
    finally:
        await engine.kill(sandbox.id)
