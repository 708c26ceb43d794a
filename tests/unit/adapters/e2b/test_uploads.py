"""Contents of files on their way into a sandbox: bytes, forms, several files that become one."""

import gzip
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.sandbox import Sandbox
from tests.support.e2b import E2bService, open_e2b
from tests.support.native import Client
from tests.support.transfers import FORM, RAW, message_of, part, post


@pytest.fixture
def client(service: E2bService, sandbox: Sandbox) -> Client:
    """A client that sends bytes."""
    return service.agent(sandbox, **{"content-type": RAW})


@pytest.fixture
def files(service: E2bService, sandbox: Sandbox) -> dict[str, bytes]:
    """The files of the sandbox."""
    found: dict[str, bytes] = service.launcher.sandboxes[sandbox.id].agent.files
    return found


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
