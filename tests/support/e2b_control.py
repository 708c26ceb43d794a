"""Short ways to use E2B's control plane in tests, and what to expect of its answers."""

import time
from typing import Any

import pytest

from headrace.engine.sandbox import Sandbox
from tests.support.e2b import E2bService
from tests.support.native import Client, Reply

V2 = "/v2/sandboxes"


async def create(client: Client, path: str = V2, **fields: Any) -> Any:
    """Make a sandbox over the API and give the answer."""
    reply = await client.post(path, {"templateID": "base", **fields})
    assert reply.status == 201, reply
    return reply.json()


async def make(service: E2bService, **fields: Any) -> Sandbox:
    """Make a sandbox over the API and give it."""
    return service.engine.find((await create(service.client, **fields))["sandboxID"])


async def detail_of(service: E2bService, sandbox: Sandbox) -> Any:
    """Give what its owner is told of a sandbox."""
    reply = await service.client.get(f"/sandboxes/{sandbox.id}")
    assert reply.status == 200, reply
    return reply.json()


def assert_lives_for(sandbox: Sandbox, seconds: float) -> None:
    """Check how many seconds a sandbox has left, more or less."""
    assert sandbox.deadline - time.time() == pytest.approx(seconds, abs=5)


def assert_refused(reply: Reply, status: int, text: str) -> None:
    """Check that this is an error of the control plane, with these words."""
    assert reply.status == status, reply
    body = reply.json()
    assert {*body} == {"code", "message"}
    assert body["code"] == status
    assert text in body["message"]
