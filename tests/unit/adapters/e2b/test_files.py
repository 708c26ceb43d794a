"""Who may read and write files over plain HTTP."""

import base64
import hashlib
import time
from urllib.parse import quote

import pytest

from headrace.adapters.e2b.access import Purpose
from headrace.engine.sandbox import Sandbox
from tests.support.e2b import TOKENS, E2bService
from tests.support.native import Client
from tests.support.transfers import RAW, message_of, post


@pytest.fixture
def client(service: E2bService, sandbox: Sandbox) -> Client:
    """A client that sends bytes."""
    return service.agent(sandbox, **{"content-type": RAW})


@pytest.fixture
def files(service: E2bService, sandbox: Sandbox) -> dict[str, bytes]:
    """The files of the sandbox."""
    found: dict[str, bytes] = service.launcher.sandboxes[sandbox.id].agent.files
    return found


def sign(sandbox: Sandbox, operation: str, expiration: int | None = None, user: str = "") -> str:
    parts = ["a", operation, user, TOKENS.make(Purpose.AGENT, sandbox.id)]
    parts += [] if expiration is None else [str(expiration)]
    digest = hashlib.sha256(":".join(parts).encode()).digest()
    signature = "v1_" + base64.b64encode(digest).decode().rstrip("=")
    query = f"?path=a&signature={quote(signature, safe='')}"
    query += "" if expiration is None else f"&signature_expiration={expiration}"
    return query + (f"&username={user}" if user else "")


def nobody(service: E2bService, sandbox: Sandbox, *, by_headers: bool) -> Client:
    lasting = {"content-type": RAW}
    if by_headers:
        lasting |= {"e2b-sandbox-id": sandbox.id, "e2b-sandbox-port": "49983"}
    return Client(service.app, None, lasting)


@pytest.mark.parametrize("by_headers", [True, False])
async def test_a_signature_is_as_good_as_a_token_for_what_was_signed(
    service: E2bService, sandbox: Sandbox, files: dict[str, bytes], by_headers: bool
) -> None:
    client = nobody(service, sandbox, by_headers=by_headers)
    soon = int(time.time()) + 60

    written = await post(client, sign(sandbox, "write", soon, "root"), b"x")
    files["/home/user/a"] = b"y"
    read = await client.get("/files" + sign(sandbox, "read"))
    crossed = await client.get("/files" + sign(sandbox, "write"))
    late = await client.get("/files" + sign(sandbox, "read", int(time.time()) - 2))

    assert written.json()[0]["path"] == "/root/a"
    assert (read.status, read.body) == (200, b"y")
    assert (crossed.status, message_of(crossed)) == (401, "invalid signature")
    assert late.status == 401
    assert late.json() == {"code": 401, "message": "signature is already expired"}


@pytest.mark.parametrize("token", [None, "", "wrong"])
async def test_without_a_token_or_signature_there_is_nothing(
    service: E2bService, sandbox: Sandbox, files: dict[str, bytes], token: str | None
) -> None:
    client = nobody(service, sandbox, by_headers=True)
    files["/home/user/a"] = b"secret"
    headers = {} if token is None else {"x-access-token": token}

    for reply in (
        await client.get("/files?path=a", **headers),
        await post(client, "?path=a", b"x", **headers),
        await client.post("/files/compose", {"source_paths": ["a"], "destination": "b"}, **headers),
    ):
        assert reply.status == 401
        message_of(reply)
    assert files == {"/home/user/a": b"secret"}


async def test_a_wrong_token_is_not_made_up_for_by_a_signature(
    service: E2bService, sandbox: Sandbox
) -> None:
    client = nobody(service, sandbox, by_headers=True)

    reply = await client.get("/files" + sign(sandbox, "read"), **{"x-access-token": "wrong"})

    assert reply.status == 401


async def test_a_user_that_there_is_not_answers_401(client: Client) -> None:
    reply = await client.get("/files?path=a&username=nobody")

    assert reply.status == 401
    assert "nobody" in message_of(reply)


async def test_another_method_answers_405(client: Client) -> None:
    for method in ("PUT", "DELETE", "PATCH"):
        reply = await client.request(method, "/files?path=a")
        assert (reply.status, reply.headers["allow"]) == (405, "GET, HEAD, POST")
    composing = await client.get("/files/compose")
    assert (composing.status, composing.headers["allow"]) == (405, "POST")
