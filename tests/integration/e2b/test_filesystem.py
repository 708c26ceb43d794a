"""Files and directories over E2B's RPC: the real service over HTTP, and a real sandbox."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.engine.watch import MAX_WATCHES
from tests.support.e2b import envelope, open_envelopes
from tests.support.e2b_http import PATIENCE, call, fail, open_client, sh
from tests.support.modes import Mode
from tests.support.serving import InProcessServer, open_server


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
    client: httpx.AsyncClient, sandbox: Sandbox, mode: Mode
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
    await sh(sandbox, "mkdir closed; chmod 0 closed")
    if mode is Mode.ROOTLESS:
        assert await fail(client, "ListDir", path="closed") == (403, "permission_denied")
    else:
        assert await paths("closed") == []


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


async def test_an_upload_looks_like_those_of_the_vendor_to_who_watches(
    client: httpx.AsyncClient,
) -> None:
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
        ("f", "CHMOD"),
        ("f", "WRITE"),
        ("mid", "CREATE"),
        ("mid", "CHMOD"),
        ("mid", "WRITE"),
        ("f", "WRITE"),
        ("last", "CREATE"),
        ("last", "CHMOD"),
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
