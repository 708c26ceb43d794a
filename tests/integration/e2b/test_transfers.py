"""Contents of files over E2B's plain HTTP: the real service, and real files in a real sandbox."""

import base64
import gzip
import hashlib
import json
import secrets
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.specs import MIB, Limits, SandboxSpec
from tests.support.e2b_http import PATIENCE, ask_token, call, open_client, sh
from tests.support.modes import Mode
from tests.support.serving import InProcessServer, open_server

LARGE = 200 * MIB
FEW = 64 * MIB
"""What the service may need on top, whatever the size of a file."""


@pytest.fixture
async def server(engine: Engine, tmp_path: Path) -> AsyncIterator[InProcessServer]:
    """The service around the engine of the session."""
    async with open_server(tmp_path, engine=engine) as server:
        yield server


@pytest.fixture
async def client(server: InProcessServer, sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the sandbox's agent."""
    async with open_client(server, sandbox) as client:
        yield client


async def test_contents_go_in_and_come_out_in_every_form(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    data = bytes(range(256)) * 2000
    raw = {"content-type": "application/octet-stream"}
    forms: dict[str, Any] = {
        "plain": await client.post("/files?path=plain", content=data, headers=raw),
        "packed": await client.post(
            "/files?path=packed",
            content=gzip.compress(data),
            headers=raw | {"content-encoding": "gzip"},
        ),
        "form": await client.post("/files?path=form", files={"file": ("ignored", data)}),
        "a/b/form": await client.post("/files", files=[("file", ("a/b/form", data))]),
    }
    for name, reply in forms.items():
        assert reply.json() == [
            {"path": f"/home/user/{name}", "name": name.rpartition("/")[2], "type": "file"}
        ]
        whole = await client.get(f"/files?path={name}")
        assert (whole.content, whole.headers["content-length"]) == (data, str(len(data)))
        packed = await client.get(f"/files?path={name}", headers={"accept-encoding": "gzip"})
        assert packed.headers["content-encoding"] == "gzip"
        assert packed.content == data
        part = await client.get(f"/files?path={name}", headers={"range": "bytes=100-299"})
        assert (part.status_code, part.content) == (206, data[100:300])


async def test_no_right_is_in_the_way_where_there_is_a_root(
    client: httpx.AsyncClient, sandbox: Sandbox, mode: Mode
) -> None:
    await sh(
        sandbox,
        "echo old > f; chmod 400 f; mkdir locked; chmod 500 locked; touch secret; chmod 0 secret",
    )
    raw = {"content-type": "application/octet-stream"}
    status = 200 if mode is Mode.ROOT else 403
    assert (await client.get("/files?path=secret")).status_code == status
    others = ("/root/x", "/app/deep/x", "/etc/hostname") if mode is Mode.ROOT else ()
    for path in ("f", "locked/x", *others):
        reply = await client.post(f"/files?path={path}", content=b"new", headers=raw)
        assert reply.status_code == status, path
        if mode is Mode.ROOT:
            assert (await client.get(f"/files?path={path}")).content == b"new"
            entry = (await call(client, "Stat", path=path))["entry"]
            assert (entry["owner"], entry["group"]) == ("user", "user")


async def test_what_cannot_be_read_or_written_is_refused(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await sh(sandbox, "mkdir d; echo old > f; mkfifo fifo")
    raw = {"content-type": "application/octet-stream"}
    reads = {"d": 400, "fifo": 400, "none": 404, "f/below": 400, "a" * 300: 400}
    writes = {"d": 400, "fifo": 400, "f/below": 400, "a" * 300: 400}
    for path, status in reads.items():
        assert (await client.get(f"/files?path={path}")).status_code == status, path
    for path, status in writes.items():
        reply = await client.post(f"/files?path={path}", content=b"new", headers=raw)
        assert (reply.status_code, reply.json()["code"]) == (status, status), path
    broken = await client.post(
        "/files?path=g",
        content=gzip.compress(b"x")[:-1],
        headers=raw | {"content-encoding": "gzip"},
    )
    cut = await client.post(
        "/files?path=g",
        content=b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nhalf',
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert (broken.status_code, cut.status_code) == (400, 400)
    names = {each["name"] for each in (await call(client, "ListDir", path=""))["entries"]}
    assert {name for name in names if not name.startswith(".b") and name != ".profile"} == {
        "d",
        "f",
        "fifo",
    }


async def test_metadata_are_kept_with_a_file_until_they_are_replaced(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    raw = {"content-type": "application/octet-stream"}

    written = await client.post(
        "/files?path=f",
        content=b"1",
        headers=raw | {"X-Metadata-Author": "me", "x-metadata-b": "2"},
    )

    assert written.json()[0]["metadata"] == {"author": "me", "b": "2"}
    entry = (await call(client, "Stat", path="f"))["entry"]
    assert entry["metadata"] == {"author": "me", "b": "2"}
    moved = await call(client, "Move", source="f", destination="g")
    assert moved["entry"]["metadata"] == {"author": "me", "b": "2"}
    await client.post("/files?path=g", content=b"1", headers=raw | {"x-metadata-c": "3"})
    (listed,) = [
        each for each in (await call(client, "ListDir", path=""))["entries"] if each["name"] == "g"
    ]
    assert listed["metadata"] == {"c": "3"}


async def test_files_of_the_kernel_and_empty_ones_are_read(client: httpx.AsyncClient) -> None:
    raw = {"content-type": "application/octet-stream"}
    await client.post("/files?path=empty", content=b"", headers=raw)
    for encoding in ("gzip", "identity"):
        empty = await client.get("/files?path=empty", headers={"accept-encoding": encoding})
        assert (empty.status_code, empty.headers["content-length"]) == (200, "0")
        made_up = await client.get(
            "/files?path=/proc/self/status", headers={"accept-encoding": encoding}
        )
        assert made_up.text.startswith("Name:")


async def test_a_sandbox_that_is_full_answers_507_and_keeps_what_it_had(
    server: InProcessServer, engine: Engine
) -> None:
    sandbox = await engine.create(SandboxSpec(limits=Limits(disk=8 * MIB)))
    raw = {"content-type": "application/octet-stream"}
    try:
        async with open_client(server, sandbox) as client:
            await client.post("/files?path=f", content=b"before", headers=raw)
            bomb = gzip.compress(bytes(64 * MIB), 9)
            for content, more in ((bytes(16 * MIB), {}), (bomb, {"content-encoding": "gzip"})):
                reply = await client.post("/files?path=f", content=content, headers=raw | more)
                assert (reply.status_code, reply.json()["code"]) == (507, 507)
            assert (await client.get("/files?path=f")).content == b"before"
    finally:
        await sandbox.kill()


async def test_parts_become_one_file(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    await sh(sandbox, "printf one > 1; printf two > 2; ln -s 2 3; mkdir d; printf old > all")

    refused = [
        await client.post("/files/compose", json={"source_paths": sources, "destination": "all"})
        for sources in (["1", "none"], ["1", "d"], ["all"], [])
    ]
    made = await client.post(
        "/files/compose", json={"source_paths": ["1", "3", "1"], "destination": "x/all"}
    )

    assert [reply.status_code for reply in refused] == [404, 400, 400, 400]
    assert made.json() == {"path": "/home/user/x/all", "name": "all", "type": "file"}
    assert (await client.get("/files?path=x/all")).content == b"onetwoone"
    assert (await client.get("/files?path=all")).content == b"old"
    assert (await client.get("/files?path=1")).status_code == 404


async def test_a_signed_url_needs_no_header(server: InProcessServer, sandbox: Sandbox) -> None:
    token = await ask_token(server, sandbox)

    def sign(path: str, operation: str, expiration: int | None = None) -> str:
        parts = [path, operation, "", token]
        parts += [] if expiration is None else [str(expiration)]
        digest = hashlib.sha256(":".join(parts).encode()).digest()
        signature = "v1_" + base64.b64encode(digest).decode().rstrip("=")
        more = "" if expiration is None else f"&signature_expiration={expiration}"
        return f"/files?path={quote(path)}&signature={quote(signature, safe='')}{more}"

    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as nobody:
        upload = sign("a/b c.txt", "write", int(time.time()) + 60)
        assert (await nobody.post(upload, files={"file": b"signed"})).status_code == 200
        assert (await nobody.get(sign("a/b c.txt", "read"))).content == b"signed"
        late = await nobody.get(sign("a/b c.txt", "read", int(time.time()) - 5))
        assert (late.status_code, late.json()) == (
            401,
            {"code": 401, "message": "signature is already expired"},
        )


async def test_a_large_file_costs_no_memory(server: InProcessServer, engine: Engine) -> None:
    sandbox = await engine.create(SandboxSpec(limits=Limits(disk=2 * LARGE)))
    block = secrets.token_bytes(MIB)
    peak = before = resident()

    def blocks(head: bytes = b"", tail: bytes = b"") -> Iterator[bytes]:
        yield head
        for _ in range(LARGE // MIB):
            yield block
        yield tail

    async def send(content: Iterator[bytes]) -> AsyncIterator[bytes]:
        nonlocal peak
        for piece in content:
            peak = max(peak, resident())
            yield piece

    try:
        async with open_client(server, sandbox) as client:
            head = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
            uploads: dict[str, Any] = {
                "application/octet-stream": blocks(),
                "multipart/form-data; boundary=b": blocks(head, b"\r\n--b--\r\n"),
            }
            for kind, content in uploads.items():
                reply = await client.post(
                    "/files?path=f", content=send(content), headers={"content-type": kind}
                )
                assert reply.status_code == 200, reply.text
            for encoding in ("identity", "gzip"):
                size, checksum = 0, 0
                async with client.stream(
                    "GET", "/files?path=f", headers={"accept-encoding": encoding}
                ) as response:
                    async for piece in response.aiter_bytes():
                        size, checksum = size + len(piece), zlib.crc32(piece, checksum)
                        peak = max(peak, resident())
                assert (size, checksum) == (LARGE, crc_of(block, LARGE // MIB))
            await client.post("/files/compose", json={"source_paths": ["f"], "destination": "g"})
            peak = max(peak, resident())
    finally:
        await sandbox.kill()

    assert peak - before < FEW


def crc_of(block: bytes, times: int) -> int:
    checksum = 0
    for _ in range(times):
        checksum = zlib.crc32(block, checksum)
    return checksum


def resident() -> int:
    """Give the memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


async def test_what_a_sandbox_uses_and_its_environment_are_told(
    server: InProcessServer, engine: Engine
) -> None:
    sandbox = await engine.create(SandboxSpec(env={"A": "1"}))
    try:
        async with open_client(server, sandbox) as client:
            raw = {"content-type": "application/octet-stream"}
            await client.post("/files?path=f", content=bytes(MIB), headers=raw)
            metrics = (await client.get("/metrics")).json()
            assert metrics["mem_total"] == 1024 * MIB
            assert MIB <= metrics["disk_used"] < metrics["disk_total"]
            assert (await client.get("/envs")).json() == {"A": "1"}
            for path in ("/init", "/freeze"):
                assert (await client.post(path, json={})).status_code == 404
    finally:
        await sandbox.kill()


async def test_a_sandbox_that_is_killed_breaks_transfers_off(
    server: InProcessServer, engine: Engine
) -> None:
    sandbox = await engine.create(SandboxSpec())
    async with open_client(server, sandbox) as client:
        raw = {"content-type": "application/octet-stream"}
        await client.post("/files?path=f", content=bytes(64 * MIB), headers=raw)
        async with client.stream("GET", "/files?path=f") as response:
            await sandbox.kill()
            with pytest.raises(httpx.RemoteProtocolError):
                await response.aread()
        gone = await client.get("/files?path=f")
        assert (gone.status_code, json.loads(gone.content)["code"]) == (502, 502)
