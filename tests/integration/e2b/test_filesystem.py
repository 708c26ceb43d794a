"""Files over E2B's protocol: the real service over HTTP, with real files in a real sandbox."""

import base64
import gzip
import hashlib
import json
import secrets
import time
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.engine.watch import MAX_WATCHES
from headrace.model.specs import MIB, Limits, SandboxSpec
from tests.support.e2b import envelope, open_envelopes
from tests.support.modes import Mode
from tests.support.running import run_process
from tests.support.serving import InProcessServer, open_server

PATIENCE = 60.0
LARGE = 200 * MIB
FEW = 64 * MIB
"""What the service may need on top, whatever the size of a file."""


@pytest.fixture
async def server(engine: Engine, tmp_path: Path) -> AsyncIterator[InProcessServer]:
    """The service around the engine of the session."""
    async with open_server(tmp_path, engine=engine) as server:
        yield server


async def ask_token(server: InProcessServer, sandbox: Sandbox) -> str:
    """Have the control plane tell the token of a sandbox."""
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as owner:
        reply = await owner.post(
            f"/v2/sandboxes/{sandbox.id}/connect", json={}, headers={"x-api-key": server.key}
        )
    token: str = reply.json()["envdAccessToken"]
    return token


@asynccontextmanager
async def open_client(
    server: InProcessServer, sandbox: Sandbox, **headers: str
) -> AsyncIterator[httpx.AsyncClient]:
    """Open a client of a sandbox's agent."""
    lasting = {
        "e2b-sandbox-id": sandbox.id,
        "e2b-sandbox-port": "49983",
        "x-access-token": await ask_token(server, sandbox),
        "accept-encoding": "identity",
    }
    async with httpx.AsyncClient(
        base_url=server.url, headers=lasting | headers, timeout=PATIENCE
    ) as client:
        yield client


@pytest.fixture
async def client(server: InProcessServer, sandbox: Sandbox) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the sandbox's agent."""
    async with open_client(server, sandbox) as client:
        yield client


async def call(client: httpx.AsyncClient, method: str, **message: Any) -> Any:
    reply = await client.post(f"/filesystem.Filesystem/{method}", json=message)
    assert reply.status_code == 200, reply.text
    return reply.json()


async def fail(client: httpx.AsyncClient, method: str, **message: Any) -> tuple[int, str]:
    reply = await client.post(f"/filesystem.Filesystem/{method}", json=message)
    return reply.status_code, reply.json()["code"]


async def sh(sandbox: Sandbox, script: str) -> None:
    outcome = await run_process(sandbox, "bash", "-c", script)
    assert outcome.exited.exit_code == 0, outcome


# --- entries --------------------------------------------------------------------------------


async def test_a_file_is_told_of_in_full(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    await sh(
        sandbox, "printf hello > f.txt; chmod 640 f.txt; touch -d '2026-01-02T03:04:05Z' f.txt"
    )

    answer = await call(client, "Stat", path="f.txt")

    assert answer == {
        "entry": {
            "name": "f.txt",
            "type": "FILE_TYPE_FILE",
            "path": "/home/user/f.txt",
            "size": "5",
            "mode": 0o640,
            "permissions": "-rw-r-----",
            "owner": "user",
            "group": "user",
            "modifiedTime": "2026-01-02T03:04:05Z",
        }
    }


async def test_a_link_is_told_of_as_what_it_leads_to(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await sh(sandbox, "printf 12345 > f; chmod 600 f; mkdir d; ln -s f one; ln -s one two")
    await sh(sandbox, "ln -s d to_d; ln -s nowhere broken; ln -s loop loop")
    entries = {}
    for name in ("two", "to_d", "broken", "loop"):
        entries[name] = (await call(client, "Stat", path=name))["entry"]

    two = entries["two"]
    assert (two["type"], two["mode"], two["isSymlink"]) == ("FILE_TYPE_FILE", 0o600, True)
    assert (two["symlinkTarget"], two["size"]) == ("/home/user/f", "3")
    assert (two["permissions"], two["path"]) == ("Lrwxrwxrwx", "/home/user/two")
    assert entries["to_d"]["type"] == "FILE_TYPE_DIRECTORY"
    for name in ("broken", "loop"):
        assert entries[name]["isSymlink"] is True
        assert "type" not in entries[name]


async def test_a_directory_is_listed_without_itself_to_a_depth(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await sh(sandbox, "mkdir -p top/a/b/c; touch top/f top/a/g top/a/b/h; ln -s top link")

    async def paths(path: str, **more: int) -> list[str]:
        entries = (await call(client, "ListDir", path=path, **more))["entries"]
        return [entry["path"].removeprefix("/home/user/") for entry in entries]

    assert await paths("top") == await paths("top", depth=0) == ["top/a", "top/f"]
    assert await paths("~/top", depth=2) == ["top/a", "top/a/b", "top/a/g", "top/f"]
    assert len(await paths("/home/user/top/", depth=99)) == 6
    assert await paths("top/a/../a", depth=1) == ["top/a/b", "top/a/g"]
    assert await paths("link") == ["link/a", "link/f"]
    assert await paths("top/a/b/c") == []
    assert await fail(client, "ListDir", path="top/f") == (400, "invalid_argument")
    assert await fail(client, "ListDir", path="none") == (404, "not_found")
    assert await fail(client, "ListDir", path="/root") == (403, "permission_denied")


async def test_directories_are_made_with_those_above(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await sh(sandbox, "touch file; ln -s file link")

    made = await call(client, "MakeDir", path="a/b/c")

    assert made["entry"]["path"] == "/home/user/a/b/c"
    assert made["entry"]["type"] == "FILE_TYPE_DIRECTORY"
    assert made["entry"]["permissions"] == "drwxr-xr-x"
    assert await fail(client, "MakeDir", path="a/b") == (409, "already_exists")
    for path in ("file", "link", "file/below"):
        assert await fail(client, "MakeDir", path=path) == (400, "invalid_argument")


async def test_things_are_moved_and_removed(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    await sh(sandbox, "echo one > f; mkdir -p d/e; touch d/e/x; echo old > taken")

    moved = await call(client, "Move", source="f", destination="new/place/g")
    replaced = await call(client, "Move", source="new/place/g", destination="taken")

    assert moved["entry"]["path"] == "/home/user/new/place/g"
    assert replaced["entry"]["size"] == "4"
    assert await fail(client, "Move", source="f", destination="x") == (404, "not_found")
    assert await fail(client, "Move", source="d", destination="d/e/y") == (400, "invalid_argument")
    assert await call(client, "Remove", path="d") == {}
    assert await call(client, "Remove", path="d") == {}
    assert await fail(client, "Stat", path="d") == (404, "not_found")
    assert await fail(client, "Remove", path="") == (400, "invalid_argument")
    assert await fail(client, "Remove", path="/") == (400, "invalid_argument")


async def test_who_asks_decides_whose_home_and_rights_count(
    server: InProcessServer, sandbox: Sandbox, mode: Mode
) -> None:
    basic = "Basic " + base64.b64encode(b"root:").decode()
    async with open_client(server, sandbox, authorization=basic) as root:
        if mode is Mode.ROOTLESS:
            status, _ = await fail(root, "MakeDir", path="mine")
            assert status in (400, 403)
            return
        made = await call(root, "MakeDir", path="mine")
        assert (made["entry"]["path"], made["entry"]["owner"]) == ("/root/mine", "root")
        written = await root.post(
            "/files?path=f&username=root",
            content=b"x",
            headers={"content-type": "application/octet-stream"},
        )
        assert written.json()[0]["path"] == "/root/f"


# --- watching -------------------------------------------------------------------------------


class Stream:
    """The events of a WatchDir as they come."""

    def __init__(self, response: httpx.Response) -> None:
        self._chunks = response.aiter_raw()
        self._rest = b""
        self.messages: list[Any] = []

    async def until(self, *names: str) -> list[tuple[str, str]]:
        """Read on until changes of all these names came; gives names and types."""
        with anyio.fail_after(PATIENCE):
            while not set(names) <= {name for name, _ in self.changes()}:
                await self.more()
        return self.changes()

    async def end(self) -> Any:
        """Read to the end and give what the last envelope has."""
        with anyio.fail_after(PATIENCE):
            while not self.messages or self.messages[-1][0] != 2:
                await self.more()
        return self.messages[-1][1]

    def changes(self) -> list[tuple[str, str]]:
        found = [message["filesystem"] for _, message in self.messages if "filesystem" in message]
        return [(each["name"], each["type"].removeprefix("EVENT_TYPE_")) for each in found]

    async def more(self) -> None:
        """Read the next piece."""
        self._rest += await anext(self._chunks)
        while len(self._rest) >= 5:
            size = 5 + int.from_bytes(self._rest[1:5], "big")
            if len(self._rest) < size:
                return
            self.messages += open_envelopes(self._rest[:size])
            self._rest = self._rest[size:]


def watching(client: httpx.AsyncClient, **message: Any) -> Any:
    return client.stream(
        "POST",
        "/filesystem.Filesystem/WatchDir",
        content=envelope(message),
        headers={"content-type": "application/connect+json"},
    )


async def test_changes_stream_as_they_happen(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    await sh(sandbox, "mkdir w")
    async with watching(client, path="w", recursive=True, includeEntry=True) as response:
        stream = Stream(response)
        with anyio.fail_after(PATIENCE):
            while not stream.messages:
                await stream.more()
        assert stream.messages == [(0, {"start": {}})]

        await sh(sandbox, "printf abc > w/f")
        await stream.until("f")
        await sh(sandbox, "mv w/f w/g; mkdir w/sub")
        changes = await stream.until("g", "sub")
        assert changes.index(("f", "RENAME")) < changes.index(("g", "CREATE"))
        await sh(sandbox, "touch w/sub/deep; rm w/g")
        await stream.until("sub/deep")
        while ("g", "REMOVE") not in stream.changes():
            await stream.more()
        entries = {
            message["filesystem"]["name"]: message["filesystem"]["entry"]
            for _, message in stream.messages
            if "entry" in message.get("filesystem", {})
        }
        assert entries["g"]["size"] == "3"
        assert entries["sub/deep"]["path"] == "/home/user/w/sub/deep"
        await sh(sandbox, "rm -r w")
        assert await stream.end() == {}


async def test_an_upload_looks_like_any_write_to_who_watches(client: httpx.AsyncClient) -> None:
    await call(client, "MakeDir", path="w")
    raw = {"content-type": "application/octet-stream"}
    async with watching(client, path="w") as response:
        stream = Stream(response)
        await stream.more()
        for name in ("f", "mid", "f", "last"):
            await client.post(f"/files?path=w/{name}", content=b"x", headers=raw)
        while ("last", "WRITE") not in stream.changes():
            await stream.more()

    assert stream.changes() == [
        ("f", "CREATE"),
        ("f", "WRITE"),
        ("mid", "CREATE"),
        ("mid", "WRITE"),
        ("f", "WRITE"),
        ("last", "CREATE"),
        ("last", "WRITE"),
    ]


async def test_a_watch_ends_with_its_client(client: httpx.AsyncClient, sandbox: Sandbox) -> None:
    await sh(sandbox, "mkdir w")
    started = 0
    with anyio.fail_after(PATIENCE):
        # Were they to go on, there would soon be too many; their end needs a moment.
        while started < 2 * MAX_WATCHES:
            async with watching(client, path="w") as response:
                stream = Stream(response)
                await stream.more()
                flags, message = stream.messages[0]
                assert flags == 0 or message["error"]["code"] == "resource_exhausted"
                started += message == {"start": {}}


async def test_what_cannot_be_watched_is_said_in_the_last_envelope(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await sh(sandbox, "touch f")
    for path, code in (("none", "not_found"), ("f", "invalid_argument")):
        async with watching(client, path=path) as response:
            assert response.status_code == 200
            assert (await Stream(response).end())["error"]["code"] == code


async def test_changes_are_asked_for_and_told_once(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await sh(sandbox, "mkdir w")
    made = await call(client, "CreateWatcher", path="w", includeEntry=True)
    watcher = made["watcherId"]
    await sh(sandbox, "echo a > w/one; chmod 700 w/one")

    seen: list[Any] = []
    with anyio.fail_after(PATIENCE):
        while not any(each["type"] == "EVENT_TYPE_CHMOD" for each in seen):
            seen += (await call(client, "GetWatcherEvents", watcherId=watcher))["events"]

    assert [each["name"] for each in seen] == ["one"] * len(seen)
    assert sum(each["type"] == "EVENT_TYPE_CREATE" for each in seen) == 1
    assert seen[-1]["entry"]["mode"] == 0o700
    assert await call(client, "GetWatcherEvents", watcherId=watcher) == {"events": []}
    assert await call(client, "RemoveWatcher", watcherId=watcher) == {}
    for method in ("GetWatcherEvents", "RemoveWatcher"):
        assert await fail(client, method, watcherId=watcher) == (404, "not_found")
    assert sandbox.watches.find(watcher) is None


# --- contents -------------------------------------------------------------------------------


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


async def test_what_cannot_be_read_or_written_is_refused(
    client: httpx.AsyncClient, sandbox: Sandbox
) -> None:
    await sh(
        sandbox, "mkdir d; echo old > f; mkfifo fifo; chmod 400 f; mkdir locked; chmod 500 locked"
    )
    raw = {"content-type": "application/octet-stream"}
    reads = {"d": 400, "fifo": 400, "none": 404, "f/below": 400, "/etc/shadow": 403, "a" * 300: 400}
    writes = {"d": 400, "fifo": 400, "f/below": 400, "f": 403, "locked/x": 403, "a" * 300: 400}
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
        "locked",
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
