"""Contents of files on their way to a client: whole, packed, in part."""

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.adapters.e2b.envd.downloads import ByteRange, parse_range
from headrace.adapters.e2b.envd.encodings import choose_encoding, takes_identity
from headrace.adapters.e2b.errors import RangeNotSatisfiableError
from headrace.engine.sandbox import Sandbox
from tests.support.e2b import E2bService, open_e2b
from tests.support.native import Client, FileAgent, eventually
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


async def test_a_file_is_read(client: Client, files: dict[str, bytes]) -> None:
    files["/home/user/a.html"] = b"<script>"

    reply = await client.get("/files?path=a.html")

    assert (reply.status, reply.body) == (200, b"<script>")
    assert reply.headers == {
        "content-length": "8",
        "content-type": "application/octet-stream",
        "content-security-policy": "sandbox allow-scripts",
        "x-content-type-options": "nosniff",
        "content-disposition": "attachment; filename=\"a.html\"; filename*=UTF-8''a.html",
        "cache-control": "no-store",
        "accept-ranges": "bytes",
        "vary": "accept-encoding",
    }


@pytest.mark.parametrize("name", ["a%0D%0AX-Evil:%201", "%F0%9F%98%80", "%22;x=%22"])
async def test_any_name_is_harmless_in_the_headers(
    client: Client, files: dict[str, bytes], name: str
) -> None:
    await post(client, f"?path=/tmp/{name}", b"x")

    value = (await client.get(f"/files?path=/tmp/{name}")).headers["content-disposition"]

    assert value.isascii()
    assert value.isprintable()
    assert value.count('"') == 2


@pytest.mark.parametrize("size", [1, 100_000])
async def test_a_file_is_packed_for_who_accepts_that(
    client: Client, files: dict[str, bytes], size: int
) -> None:
    files["/home/user/a"] = b"y" * size

    reply = await client.get("/files?path=a", accept_encoding="gzip, deflate")

    assert reply.headers["content-encoding"] == "gzip"
    assert "content-length" not in reply.headers
    assert gzip.decompress(reply.body) == b"y" * size
    assert reply.is_complete


@pytest.mark.parametrize("accepted", ["gzip", "identity", ""])
async def test_an_empty_file_says_that_it_is(
    client: Client, files: dict[str, bytes], accepted: str
) -> None:
    files["/home/user/a"] = b""

    reply = await client.get("/files?path=a", accept_encoding=accepted)

    assert (reply.status, reply.body, reply.headers["content-length"]) == (200, b"", "0")
    assert "content-encoding" not in reply.headers


@pytest.mark.parametrize(
    ("accepted", "chosen"),
    [
        (None, "identity"),
        ("", "identity"),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("x-gzip", "gzip"),
        ("gzip, deflate, br", "gzip"),
        ("br, deflate", "identity"),
        ("identity", "identity"),
        ("gzip;q=0", "identity"),
        ("gzip;q=0.5, identity", "identity"),
        ("gzip; q=0.5 , identity;q=0.4", "gzip"),
        ("*", "identity"),
        ("*;q=0", None),
        ("identity;q=0", None),
        ("identity;q=0, *", "gzip"),
        ("identity;q=0, gzip;q=0, *", None),
        ("gzip, *;q=0", "gzip"),
        ("br, identity;q=0.0", None),
        ("gzip;q=rubbish", "gzip"),
        (",,;;q=,", "identity"),
    ],
)
def test_the_encoding_is_what_the_client_likes_best(
    accepted: str | None, chosen: str | None
) -> None:
    assert choose_encoding(accepted) == chosen


@given(st.text(max_size=200))
def test_any_header_means_some_encoding_or_none(accepted: str) -> None:
    assert choose_encoding(accepted) in ("gzip", "identity", None)
    assert takes_identity(accepted) in (True, False)


async def test_who_accepts_nothing_that_there_is_gets_406(
    client: Client, files: dict[str, bytes]
) -> None:
    files["/home/user/a"] = b"x"

    reply = await client.get("/files?path=a", accept_encoding="identity;q=0")

    assert reply.status == 406
    assert "gzip" in message_of(reply)
    assert reply.headers["vary"] == "accept-encoding"


@pytest.mark.parametrize(
    ("header", "body", "told"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
    ],
)
async def test_a_range_is_a_part_and_never_packed(
    client: Client, files: dict[str, bytes], header: str, body: bytes, told: str
) -> None:
    files["/home/user/a"] = b"0123456789"

    reply = await client.get("/files?path=a", range=header, accept_encoding="gzip")

    assert (reply.status, reply.body, reply.headers["content-range"]) == (206, body, told)
    assert reply.headers["content-length"] == str(len(body))
    assert "content-encoding" not in reply.headers


async def test_a_range_behind_the_end_answers_416(client: Client, files: dict[str, bytes]) -> None:
    files["/home/user/a"] = b"0123456789"

    reply = await client.get("/files?path=a", range="bytes=10-")

    assert reply.status == 416
    assert reply.headers["content-range"] == "bytes */10"
    message_of(reply)


@pytest.mark.parametrize(
    "headers",
    [
        {"range": "bytes=5-2"},
        {"range": "bytes=0-1,3-4"},
        {"range": "lines=1-2"},
        {"range": "bytes=0-1", "if_range": '"a"'},
        {"range": "bytes=0-1", "accept_encoding": "gzip, identity;q=0"},
    ],
)
async def test_a_range_that_cannot_be_is_ignored(
    client: Client, files: dict[str, bytes], headers: Mapping[str, str]
) -> None:
    files["/home/user/a"] = b"0123456789"

    reply = await client.get("/files?path=a", **headers)

    assert reply.status == 200
    packed = reply.headers.get("content-encoding") == "gzip"
    assert (gzip.decompress(reply.body) if packed else reply.body) == b"0123456789"


@given(st.text(alphabet="bytes=-, 0123456789", max_size=40), st.integers(0, 2**63))
def test_any_range_is_inside_the_file_or_refused(header: str, size: int) -> None:
    wanted = parse_range(header)
    if wanted is None:
        return
    try:
        offset, length = wanted.place(size)
    except RangeNotSatisfiableError:
        return
    assert 0 <= offset < offset + length <= size


def test_a_range_of_an_empty_file_cannot_be() -> None:
    with pytest.raises(RangeNotSatisfiableError):
        ByteRange(0, None).place(0)


@pytest.mark.parametrize(("accepted", "length"), [("identity", "4"), ("gzip", None)])
async def test_a_head_has_the_headers_only(
    client: Client, files: dict[str, bytes], accepted: str, length: str | None
) -> None:
    files["/home/user/a"] = b"0123"

    head = await client.request("HEAD", "/files?path=a", accept_encoding=accepted)

    assert (head.status, head.body, head.headers.get("content-length")) == (200, b"", length)


async def test_a_file_that_is_not_there_answers_404(client: Client) -> None:
    reply = await client.get("/files?path=none")

    assert reply.status == 404
    assert "/home/user/none" in message_of(reply)


async def test_a_download_ends_with_its_client(
    service: E2bService, client: Client, sandbox: Sandbox, files: dict[str, bytes]
) -> None:
    files["/home/user/a"] = bytes(4_000_000)
    async with anyio.create_task_group() as tasks:
        conversation = client.begin(tasks, "GET", "/files?path=a")
        conversation.stop_reading()
        await eventually(lambda: conversation.waits_for_reader > 0)
        conversation.disconnect()
    assert not conversation.is_complete


class ChangingAgent(FileAgent):
    """Its files become others as soon as somebody knows their size."""

    becomes = b""

    async def _read(self, request: Mapping[str, Any], fd: int) -> None:
        await super()._read(request, fd)
        if request["length"] == 0:
            self.files[request["path"]] = self.becomes


@pytest.mark.parametrize(
    ("becomes", "body", "is_complete"), [(b"0123456789", b"0123", True), (b"01", b"01", False)]
)
async def test_a_file_that_changes_meanwhile_is_never_taken_for_whole(
    tmp_path: Path, becomes: bytes, body: bytes, is_complete: bool
) -> None:
    async with open_e2b(tmp_path) as service:
        service.launcher.make_agent = ChangingAgent
        sandbox = await service.create()
        agent = service.launcher.sandboxes[sandbox.id].agent
        assert isinstance(agent, ChangingAgent)
        agent.files["/home/user/a"] = b"four"
        agent.becomes = becomes

        reply = await service.agent(sandbox).get("/files?path=a")

        assert (reply.body, reply.headers["content-length"]) == (body, "4")
        assert reply.is_complete is is_complete
