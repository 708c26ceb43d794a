"""Keys that are wrong, and sandboxes of another tenant."""

import os
from typing import Any

import pytest
from browsing import fetch, send
from e2b_code_interpreter import (
    AsyncSandbox,
    AuthenticationException,
    SandboxNotFoundException,
    SandboxQuery,
)

URL = os.environ["E2B_API_URL"]


async def test_a_wrong_key_is_refused() -> None:
    with pytest.raises(AuthenticationException):
        await AsyncSandbox.create(api_key="e2b_" + "0" * 40)
    with pytest.raises(AuthenticationException):
        await AsyncSandbox.list(api_key="e2b_" + "0" * 40).next_items()


async def test_a_sandbox_does_not_exist_for_another_tenant(
    sandbox: AsyncSandbox, stranger: dict[str, Any]
) -> None:
    identity = sandbox.sandbox_id

    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.connect(identity, **stranger)
    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.get_info(identity, **stranger)
    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.set_timeout(identity, 1, **stranger)
    with pytest.raises(SandboxNotFoundException):
        await AsyncSandbox.pause(identity, **stranger)
    assert not await AsyncSandbox.kill(identity, **stranger)
    page = await AsyncSandbox.list(query=SandboxQuery(), **stranger).next_items()
    assert identity not in [info.sandbox_id for info in page]
    assert await sandbox.is_running()


async def test_an_idempotency_key_is_no_way_to_the_sandbox_of_another_tenant(
    stranger: dict[str, Any],
) -> None:
    mine = await AsyncSandbox.create(idempotency_key="shared-between-tenants")
    try:
        theirs = await AsyncSandbox.create(idempotency_key="shared-between-tenants", **stranger)
        await theirs.kill()
    finally:
        await mine.kill()

    assert theirs.sandbox_id != mine.sandbox_id


@pytest.mark.parametrize("token", [None, "", "wrong"])
async def test_the_id_of_a_sandbox_is_not_enough(sandbox: AsyncSandbox, token: str | None) -> None:
    headers = {"E2b-Sandbox-Id": sandbox.sandbox_id, "E2b-Sandbox-Port": "49983"}
    if token is not None:
        headers["X-Access-Token"] = token
    code = {**headers, "E2b-Sandbox-Port": "49999"}

    answers = [
        send(f"{URL}/process.Process/List", json={}, headers=headers),
        send(f"{URL}/filesystem.Filesystem/ListDir", json={"path": "/"}, headers=headers),
        fetch(f"{URL}/files", params={"path": "/etc/passwd"}, headers=headers),
        send(f"{URL}/execute", json={"code": "1"}, headers=code),
    ]

    assert {answer.status_code for answer in answers} <= {401, 403}
    assert all("root:" not in answer.text for answer in answers)


async def test_the_token_of_another_sandbox_is_not_enough(sandbox: AsyncSandbox) -> None:
    other = await AsyncSandbox.create()
    try:
        token = other.connection_config.sandbox_headers["X-Access-Token"]
        headers = {
            "E2b-Sandbox-Id": sandbox.sandbox_id,
            "E2b-Sandbox-Port": "49983",
            "X-Access-Token": token,
        }
        answer = send(f"{URL}/process.Process/List", json={}, headers=headers)
    finally:
        await other.kill()

    assert answer.status_code in (401, 403)
