"""Contents of files over plain HTTP: who may, in which forms they come and go, how it fails."""

import base64
import gzip
import hashlib
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.adapters.e2b.access import Purpose
from headrace.adapters.e2b.envd.downloads import ByteRange, parse_range
from headrace.adapters.e2b.envd.encodings import choose_encoding, takes_identity
from headrace.adapters.e2b.errors import RangeNotSatisfiableError
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.sandbox import Sandbox
from tests.support.e2b import TOKENS, E2bService, open_e2b
from tests.support.native import Client, FileAgent, Reply, eventually

RAW = "application/octet-stream"
FORM = "multipart/form-data; boundary=b"


@pytest.fixture
def client(service: E2bService, sandbox: Sandbox) -> Client:
    """A client that sends bytes."""
    return service.agent(sandbox, **{"content-type": RAW})


@pytest.fixture
def files(service: E2bService, sandbox: Sandbox) -> dict[str, bytes]:
    """The files of the sandbox."""
    return service.launcher.sandboxes[sandbox.id].agent.files


def part(content: bytes, filename: str | None = None, name: str = "file") -> bytes:
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


async def post(client: Client, query: str, body: Any, **headers: str) -> Reply:
    pieces = body if isinstance(body, list) else [body]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.request("POST", f"/files{query}", content=pieces, **named)


def message_of(reply: Reply) -> str:
    value = reply.json()
    assert value["code"] == reply.status
    assert set(value) == {"code", "message"}
    message: str = value["message"]
    return message


# --- downloads ------------------------------------------------------------------------------


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


# --- uploads --------------------------------------------------------------------------------


async def test_bytes_become_a_file(client: Client, files: dict[str, bytes]) -> None:
    reply = await post(client, "?path=d/a.bin", [b"one", b"", b"two"])

    assert reply.status == 200
    assert reply.json() == [{"path": "/home/user/d/a.bin", "name": "a.bin", "type": "file"}]
    assert files == {"/home/user/d/a.bin": b"onetwo"}


async def test_a_file_is_written_with_the_directories_above_and_for_its_user(
    service: E2bService, client: Client, sandbox: Sandbox
) -> None:
    await post(client, "?path=~/x/../a&username=root", b"")

    requests = service.launcher.sandboxes[sandbox.id].agent.requests
    written = next(each for each in requests if each.get("action") == "write")
    assert (written["path"], written["user"]) == ("/root/a", "root")
    assert (written["create_parents"], written["append"], written["mode"]) == (True, False, None)
    assert written["attributes"] == {"prefix": "user.e2b.", "values": {}}


async def test_bytes_that_were_packed_are_unpacked(client: Client, files: dict[str, bytes]) -> None:
    data = bytes(range(256)) * 1000
    twice = gzip.compress(data[:1000]) + gzip.compress(data[1000:])
    for index, body in enumerate(
        ([gzip.compress(data)], [twice], [twice[i : i + 7] for i in range(0, len(twice), 7)])
    ):
        reply = await post(client, f"?path={index}", body, content_encoding="gzip")
        assert reply.status == 200
        assert files[f"/home/user/{index}"] == data
    await post(client, "?path=empty", gzip.compress(b""), content_encoding="GZIP")
    assert files["/home/user/empty"] == b""


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not packed",
        gzip.compress(b"x" * 1000)[:-1],
        gzip.compress(b"x") + b"rubbish",
        zlib.compress(b"x"),
    ],
)
async def test_what_is_packed_badly_is_refused_and_nothing_written(
    client: Client, files: dict[str, bytes], body: bytes
) -> None:
    files["/home/user/a"] = b"before"

    reply = await post(client, "?path=a", body, content_encoding="gzip")

    assert reply.status == 400
    assert "gzip" in message_of(reply)
    assert files["/home/user/a"] == b"before"


async def test_files_of_a_form_are_written(client: Client, files: dict[str, bytes]) -> None:
    body = (
        part(b"1", "d/one") + part(b"-", name="other") + part(b"2\r\n", "/tmp/two") + b"--b--\r\n"
    )

    reply = await post(client, "", [body[:50], body[50:]], content_type=FORM)

    assert reply.json() == [
        {"path": "/home/user/d/one", "name": "one", "type": "file"},
        {"path": "/tmp/two", "name": "two", "type": "file"},
    ]
    assert files == {"/home/user/d/one": b"1", "/tmp/two": b"2\r\n"}


async def test_the_path_of_the_query_goes_before_the_filename(
    client: Client, files: dict[str, bytes]
) -> None:
    for filename in ("other", None):
        body = part(b"1", filename) + b"--b--\r\n"
        assert (await post(client, "?path=a", body, content_type=FORM)).status == 200
    assert files == {"/home/user/a": b"1"}


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", part(b"1") + b"--b--\r\n"),
        ("", part(b"1", "") + b"--b--\r\n"),
        ("", part(b"1", name="other") + b"--b--\r\n"),
        ("", b"--b--\r\n"),
        ("", part(b"1", "~other/x") + b"--b--\r\n"),
        ("?path=a", part(b"1", "x")),
        ("?path=a", part(b"1", "x") + b"--b\r\n"),
        ("?path=a", part(b"1", "x") + b"--b\r\nnot a header\r\n\r\n--b--\r\n"),
        ("?path=a", part(b"1", "x") + b"--b\r\n" + b"A" * 100_000),
        ("?path=a", b"--c\r\n\r\n\r\n--c--"),
        ("?path=a", b""),
    ],
)
async def test_a_form_that_is_none_is_refused_and_nothing_written(
    client: Client, files: dict[str, bytes], query: str, body: bytes
) -> None:
    files["/home/user/a"] = b"before"

    reply = await post(client, query, body, content_type=FORM)

    assert reply.status == 400
    message_of(reply)
    assert files == {"/home/user/a": b"before"}


async def test_two_files_for_one_path_are_refused(client: Client) -> None:
    body = part(b"1", "a") + part(b"2", "./a") + b"--b--\r\n"

    reply = await post(client, "", body, content_type=FORM)

    assert reply.status == 400
    assert "two files" in message_of(reply)


@pytest.mark.parametrize(
    ("query", "headers"),
    [
        ("", {"content_type": RAW}),
        ("?path=a", {"content_type": "text/plain"}),
        ("?path=a", {"content_type": ""}),
        ("?path=a", {"content_type": "multipart/form-data"}),
        ("?path=a", {"content_type": "multipart/form-data; boundary=" + "b" * 300}),
        ("?path=a", {"content_type": RAW, "content_encoding": "br"}),
        ("?path=a%00", {"content_type": RAW}),
        ("?path=~other", {"content_type": RAW}),
        ("?path=" + "a" * 5000, {"content_type": RAW}),
        ("?path=%FF", {"content_type": RAW}),
    ],
)
async def test_what_cannot_be_written_answers_400(
    client: Client, files: dict[str, bytes], query: str, headers: Mapping[str, str]
) -> None:
    reply = await post(client, query, b"x", **headers)

    assert reply.status == 400
    message_of(reply)
    assert files == {}


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(body=st.binary(max_size=400), kind=st.sampled_from([RAW, FORM]), packed=st.booleans())
async def test_garbage_never_breaks_anything(
    client: Client, files: dict[str, bytes], body: bytes, kind: str, packed: bool
) -> None:
    files.clear()
    encoding = {"content_encoding": "gzip"} if packed else {}

    reply = await post(client, "?path=a", [body[:100], body[100:]], content_type=kind, **encoding)

    assert reply.status in (200, 400)
    if reply.status == 400:
        assert files == {}
    elif kind == RAW and not packed:
        assert files == {"/home/user/a": body}


async def test_an_upload_that_breaks_off_changes_nothing(
    client: Client, files: dict[str, bytes]
) -> None:
    files["/home/user/a"] = b"before"
    bodies = {RAW: [b"half", b"rest"], FORM: [part(b"half", "x"), b"--b--\r\n"]}
    for kind, body in bodies.items():
        async with anyio.create_task_group() as tasks:
            conversation = client.begin(
                tasks, "POST", "/files?path=a", content=body, **{"content-type": kind}
            )
            conversation.withheld = 1
            await anyio.wait_all_tasks_blocked()
            conversation.disconnect()
        assert conversation.status == 0
        assert files == {"/home/user/a": b"before"}


async def test_no_space_answers_507(client: Client) -> None:
    for kind, body in ((RAW, b"x"), (FORM, part(b"x", "y") + b"--b--\r\n")):
        reply = await post(client, "?path=/full/a", body, content_type=kind)
        assert reply.status == 507
        assert "no space" in message_of(reply)


async def test_a_bound_on_uploads_counts_what_was_unpacked(tmp_path: Path) -> None:
    async with open_e2b(tmp_path, settings=E2bSettings(max_upload=1000)) as service:
        sandbox = await service.create()
        client = service.agent(sandbox, **{"content-type": RAW})
        files = service.launcher.sandboxes[sandbox.id].agent.files
        for body, encoding in ((b"x" * 1001, "identity"), (gzip.compress(bytes(10**6)), "gzip")):
            reply = await post(client, "?path=a", body, content_encoding=encoding)
            assert reply.status == 413
        assert (await post(client, "?path=a", b"x" * 1000)).status == 200
        assert files == {"/home/user/a": b"x" * 1000}


async def test_metadata_go_with_a_file(
    service: E2bService, client: Client, sandbox: Sandbox
) -> None:
    headers = {"x-metadata-author": "me ~", "x-metadata-b": "", "x-metadata-": "nameless"}

    reply = await post(client, "?path=a", b"1", **headers)

    assert reply.json()[0]["metadata"] == {"author": "me ~", "b": ""}
    requests = service.launcher.sandboxes[sandbox.id].agent.requests
    written = next(each for each in requests if each.get("action") == "write")
    assert written["attributes"]["values"] == {"author": "me ~", "b": ""}


@pytest.mark.parametrize(
    "headers",
    [
        {"x-metadata-a": "ü"},
        {"x-metadata-a": "a\tb"},
        {"x-metadata-" + "k" * 247: "v"},
        {"x-metadata-a": "v" * 4096},
        {f"x-metadata-{n}": "v" * 99 for n in range(41)},
    ],
)
async def test_metadata_that_no_file_can_keep_are_refused(
    client: Client, files: dict[str, bytes], headers: Mapping[str, str]
) -> None:
    reply = await post(client, "?path=a", b"1", **headers)

    assert reply.status == 400
    assert "metadata" in message_of(reply)
    assert files == {}


async def test_the_largest_metadata_are_kept(client: Client) -> None:
    headers = {"x-metadata-" + "k" * 246: "v" * (4096 - 246)}

    assert (await post(client, "?path=a", b"1", **headers)).status == 200


# --- who may --------------------------------------------------------------------------------


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


# --- composing ------------------------------------------------------------------------------


async def test_parts_become_one_file_and_go(client: Client, files: dict[str, bytes]) -> None:
    files |= {"/home/user/1": b"one", "/tmp/2": b"two"}
    body = {"source_paths": ["1", "/tmp/2", "1"], "destination": "all", "username": None}

    reply = await client.post("/files/compose", body)

    assert reply.json() == {"path": "/home/user/all", "name": "all", "type": "file"}
    assert files == {"/home/user/all": b"onetwoone"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"source_paths": ["1", "none"], "destination": "all"}, 404),
        ({"source_paths": ["1", "x.d"], "destination": "all"}, 400),
        ({"source_paths": ["1"], "destination": "./1"}, 400),
        ({"source_paths": [], "destination": "all"}, 400),
        ({"source_paths": "1", "destination": "all"}, 400),
        ({"source_paths": ["1"], "destination": ""}, 400),
        ({"source_paths": ["1"], "destination": "/full/x"}, 507),
        ({"source_paths": ["1"], "destination": "all", "username": "nobody"}, 401),
        ({"source_paths": ["1"] * 10_001, "destination": "all"}, 400),
        ({}, 400),
        ([], 400),
    ],
)
async def test_what_cannot_become_one_file_is_left_as_it_is(
    client: Client, files: dict[str, bytes], body: Any, status: int
) -> None:
    before = {"/home/user/1": b"one", "/home/user/x.d": b""}
    files |= before

    reply = await client.post("/files/compose", body)

    assert reply.status == status
    message_of(reply)
    assert files == before
