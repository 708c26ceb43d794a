"""Signed URLs, which a browser opens without any header."""

from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import pytest
from browsing import fetch, send
from e2b_code_interpreter import AsyncSandbox
from face_async import pause


def changed(url: str, **parameters: str) -> str:
    """Give the URL with other values of parameters of its query."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **parameters}
    return urlunsplit(parts._replace(query=urlencode(query)))


# covers: Sandbox.download_url
@pytest.mark.parametrize("options", [{}, {"use_signature_expiration": 100}, {"user": "user"}])
async def test_a_signed_url_gives_the_file(sandbox: AsyncSandbox, options: dict[str, Any]) -> None:
    await sandbox.files.write("a b.txt", "content")

    url = sandbox.download_url("a b.txt", **options)
    answer = fetch(url)

    assert answer.status_code == 200
    assert answer.text == "content"


# covers: Sandbox.upload_url
@pytest.mark.parametrize("options", [{}, {"use_signature_expiration": 100}])
async def test_a_signed_url_takes_a_file(sandbox: AsyncSandbox, options: dict[str, Any]) -> None:
    url = sandbox.upload_url("in/taken.txt", **options)

    answer = send(url, files={"file": ("whatever.txt", b"sent")})

    assert answer.status_code == 200
    assert answer.json()[0]["path"] == "/home/user/in/taken.txt"
    assert await sandbox.files.read("in/taken.txt") == "sent"


async def test_a_signed_url_of_root_gives_what_is_roots(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("/root/secret", "of root", user="root")

    answer = fetch(sandbox.download_url("/root/secret", user="root"))

    assert answer.text == "of root"


async def test_an_expired_url_is_refused(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("f", "content")
    url = sandbox.download_url("f", use_signature_expiration=1)
    await pause(2.1)

    answer = fetch(url)

    assert answer.status_code == 401
    assert answer.json() == {"code": 401, "message": "signature is already expired"}


@pytest.mark.parametrize(
    "changes",
    [
        {"path": "other"},
        {"username": "root"},
        {"signature": "v1_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"},
        {"signature": ""},
        {"signature_expiration": "99999999999"},
    ],
)
async def test_a_url_that_was_changed_is_refused(
    sandbox: AsyncSandbox, changes: dict[str, str]
) -> None:
    await sandbox.files.write("f", "content")
    await sandbox.files.write("other", "content")
    url = sandbox.download_url("f", use_signature_expiration=100)

    answer = fetch(changed(url, **changes))

    assert answer.status_code in (401, 403, 404)
    assert "content" not in answer.text


async def test_a_url_for_reading_does_not_write(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("f", "content")

    answer = send(sandbox.download_url("f"), files={"file": ("f", b"changed")})

    assert answer.status_code in (401, 403, 404)
    assert await sandbox.files.read("f") == "content"


async def test_a_url_is_dead_with_its_sandbox() -> None:
    sandbox = await AsyncSandbox.create()
    await sandbox.files.write("f", "content")
    url = sandbox.download_url("f")
    await sandbox.kill()

    answer = fetch(url)

    assert answer.status_code in (401, 403, 404, 502)
    assert "content" not in answer.text


async def test_a_file_cannot_become_a_page_of_the_service(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("page.html", "<script>alert(1)</script>")

    answer = fetch(sandbox.download_url("page.html"))

    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in answer.headers["content-security-policy"]
