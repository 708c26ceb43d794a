"""The port of a sandbox's agent: who may do what there."""

import pytest

from headrace.adapters.e2b.access import Purpose
from headrace.adapters.e2b.envd.service import METHODS
from headrace.engine.sandbox import Sandbox
from tests.support.e2b import TOKENS, E2bService

START = "/process.Process/Start"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_health_needs_no_token(service: E2bService, sandbox: Sandbox, method: str) -> None:
    client = service.agent(sandbox, **{"x-access-token": ""})

    reply = await client.request(method, "/health")

    assert (reply.status, reply.body) == (204, b"")


async def test_the_health_of_a_sandbox_that_is_gone_is_a_502(
    service: E2bService, sandbox: Sandbox
) -> None:
    client = service.agent(sandbox)
    await sandbox.kill()

    for reply in (await client.get("/health"), await client.post(START, {})):
        assert reply.status == 502
        assert reply.json() == {
            "sandboxId": sandbox.id,
            "message": "The sandbox was not found",
            "code": 502,
        }


@pytest.mark.parametrize("path", [*METHODS, "/metrics", "/envs", "/nothing"])
async def test_everything_else_needs_the_token_of_the_agent(
    service: E2bService, sandbox: Sandbox, path: str
) -> None:
    another = await service.create()
    tokens = [
        "",
        "wrong",
        TOKENS.make(Purpose.TRAFFIC, sandbox.id),
        TOKENS.make(Purpose.AGENT, another.id),
    ]
    for token in tokens:
        client = service.agent(sandbox, **{"x-access-token": token})
        reply = await client.post(path, {})
        assert (reply.status, reply.json()["code"]) == (401, 401)
        assert "access token" in reply.json()["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/process.Process/Nothing"),
        ("POST", "/process.Process/start"),
        ("POST", "/process.Process/Start/"),
        ("POST", "/"),
        ("POST", "/init"),
        ("POST", "/health"),
        ("POST", "/metrics"),
    ],
)
async def test_what_is_not_there_is_a_404(
    service: E2bService, sandbox: Sandbox, method: str, path: str
) -> None:
    reply = await service.agent(sandbox).request(method, path, {})

    assert (reply.status, reply.json()["code"]) == (404, 404)


def test_the_whole_process_service_is_there() -> None:
    names = {path.rpartition("/")[2] for path in METHODS if path.startswith("/process.Process/")}

    assert names == {
        "Start",
        "Connect",
        "List",
        "SendInput",
        "StreamInput",
        "CloseStdin",
        "SendSignal",
        "Update",
    }
