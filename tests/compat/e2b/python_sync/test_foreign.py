# Made from the async face by scripts/generate-sync; change that one.
"""Keys that are wrong, and sandboxes of another tenant."""

import os
from typing import Any

import pytest
from browsing import fetch, send
from e2b_code_interpreter import (
    AuthenticationException,
    Sandbox,
    SandboxNotFoundException,
    SandboxQuery,
)

URL = os.environ["E2B_API_URL"]


def test_a_wrong_key_is_refused() -> None:
    with pytest.raises(AuthenticationException):
        Sandbox.create(api_key="e2b_" + "0" * 40)
    with pytest.raises(AuthenticationException):
        Sandbox.list(api_key="e2b_" + "0" * 40).next_items()


def test_a_sandbox_does_not_exist_for_another_tenant(
    sandbox: Sandbox, stranger: dict[str, Any]
) -> None:
    identity = sandbox.sandbox_id

    with pytest.raises(SandboxNotFoundException):
        Sandbox.connect(identity, **stranger)
    with pytest.raises(SandboxNotFoundException):
        Sandbox.get_info(identity, **stranger)
    with pytest.raises(SandboxNotFoundException):
        Sandbox.set_timeout(identity, 1, **stranger)
    with pytest.raises(SandboxNotFoundException):
        Sandbox.pause(identity, **stranger)
    assert not Sandbox.kill(identity, **stranger)
    page = Sandbox.list(query=SandboxQuery(), **stranger).next_items()
    assert identity not in [info.sandbox_id for info in page]
    assert sandbox.is_running()


def test_an_idempotency_key_is_no_way_to_the_sandbox_of_another_tenant(
    stranger: dict[str, Any],
) -> None:
    mine = Sandbox.create(idempotency_key="shared-between-tenants")
    try:
        theirs = Sandbox.create(idempotency_key="shared-between-tenants", **stranger)
        theirs.kill()
    finally:
        mine.kill()

    assert theirs.sandbox_id != mine.sandbox_id


@pytest.mark.parametrize("token", [None, "", "wrong"])
def test_the_id_of_a_sandbox_is_not_enough(sandbox: Sandbox, token: str | None) -> None:
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


def test_the_token_of_another_sandbox_is_not_enough(sandbox: Sandbox) -> None:
    other = Sandbox.create()
    try:
        token = other.connection_config.sandbox_headers["X-Access-Token"]
        headers = {
            "E2b-Sandbox-Id": sandbox.sandbox_id,
            "E2b-Sandbox-Port": "49983",
            "X-Access-Token": token,
        }
        answer = send(f"{URL}/process.Process/List", json={}, headers=headers)
    finally:
        other.kill()

    assert answer.status_code in (401, 403)
