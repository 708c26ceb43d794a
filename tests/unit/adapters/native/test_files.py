"""Files over the API: contents stream, and what a guest made stays bytes."""

from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.adapters.native.app import NativeSettings
from headrace.adapters.native.errors import RangeNotSatisfiableError
from headrace.adapters.native.files import parse_range
from tests.support.fakes import Channel
from tests.support.native import Client, FileAgent, NativeService, eventually, open_native


def files(sandbox_id: str) -> str:
    return f"/v1/sandboxes/{sandbox_id}/files"


def content(sandbox_id: str, path: str = "a.txt") -> str:
    return f"{files(sandbox_id)}/content?path={path}"


def agent_of(service: NativeService, sandbox_id: str) -> Any:
    return service.launcher.sandboxes[sandbox_id].agent


async def test_a_file_is_written_and_read(service: NativeService, sandbox_id: str) -> None:
    client = service.client
    data = bytes(range(256)) * 1000

    written = await client.request(
        "PUT", f"{content(sandbox_id)}&mode=600", content=[data[:100], data[100:], b""]
    )

    assert written.json() == {"path": "/home/user/a.txt", "size": len(data)}
    request = next(
        each for each in agent_of(service, sandbox_id).requests if each.get("action") == "write"
    )
    assert (request["mode"], request["create_parents"], request["append"], request["user"]) == (
        0o600,
        True,
        False,
        "user",
    )
    read = await client.get(content(sandbox_id))
    assert (read.status, read.body) == (200, data)
    assert read.headers["content-length"] == str(len(data))


async def test_what_a_guest_made_is_nothing_but_bytes(client: Client, sandbox_id: str) -> None:
    await client.request("PUT", content(sandbox_id, "x.html"), content=b"<script>")

    headers = (await client.get(content(sandbox_id, "x.html"))).headers

    assert headers["content-type"] == "application/octet-stream"
    assert headers["content-security-policy"] == "sandbox allow-scripts"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["content-disposition"] == (
        "attachment; filename=\"x.html\"; filename*=UTF-8''x.html"
    )


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/tmp/gr%C3%BC%C3%9Fe%20%22x%22.txt", "gr__e _x_.txt"),
        ("/tmp/a%0D%0AX-Evil:%201", "a__X-Evil_ 1"),
        ("/tmp/" + "a" * 255, "a" * 200),
        ("/tmp/%F0%9F%98%80", "_"),
    ],
)
async def test_any_name_is_safe_in_the_header(
    client: Client, sandbox_id: str, path: str, named: str
) -> None:
    await client.request("PUT", content(sandbox_id, path), content=b"")

    value = (await client.get(content(sandbox_id, path))).headers["content-disposition"]

    assert value.startswith(f"attachment; filename=\"{named}\"; filename*=UTF-8''")
    assert value.isascii()
    assert value.isprintable()


@pytest.mark.parametrize(
    ("header", "part", "told"),
    [
        ("bytes=0-0", b"0", "bytes 0-0/10"),
        ("bytes=2-4", b"234", "bytes 2-4/10"),
        ("bytes=7-", b"789", "bytes 7-9/10"),
        ("bytes=7-99", b"789", "bytes 7-9/10"),
        ("bytes=-3", b"789", "bytes 7-9/10"),
        ("bytes=-99", b"0123456789", "bytes 0-9/10"),
        (" Bytes = 2 - 4 ", b"234", "bytes 2-4/10"),
    ],
)
async def test_a_range_is_a_part(
    client: Client, sandbox_id: str, header: str, part: bytes, told: str
) -> None:
    await client.request("PUT", content(sandbox_id), content=b"0123456789")

    reply = await client.get(content(sandbox_id), range=header)

    assert (reply.status, reply.body) == (206, part)
    assert reply.headers["content-range"] == told
    assert reply.headers["content-length"] == str(len(part))
    assert reply.headers["content-security-policy"] == "sandbox allow-scripts"


@pytest.mark.parametrize("header", ["bytes=10-", "bytes=99-100", "bytes=-0"])
async def test_a_range_behind_the_end_answers_416(
    client: Client, sandbox_id: str, header: str
) -> None:
    await client.request("PUT", content(sandbox_id), content=b"0123456789")

    reply = await client.get(content(sandbox_id), range=header)

    assert (reply.status, reply.code) == (416, "range_not_satisfiable")
    assert reply.headers["content-range"] == "bytes */10"


@pytest.mark.parametrize("header", ["bytes=", "bytes=5-2", "lines=1-2", "bytes=0-1,3-4", "x" * 99])
async def test_a_range_that_cannot_be_read_is_ignored(
    client: Client, sandbox_id: str, header: str
) -> None:
    await client.request("PUT", content(sandbox_id), content=b"0123456789")

    reply = await client.get(content(sandbox_id), range=header)

    assert (reply.status, reply.body) == (200, b"0123456789")


def test_a_range_of_an_empty_file_cannot_be() -> None:
    wanted = parse_range("bytes=0-")
    assert wanted is not None
    with pytest.raises(RangeNotSatisfiableError):
        wanted.place(0)


async def test_a_head_has_the_size_without_the_bytes(client: Client, sandbox_id: str) -> None:
    await client.request("PUT", content(sandbox_id), content=b"0123456789")

    head = await client.request("HEAD", content(sandbox_id))

    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", "10")


async def test_an_upload_that_breaks_off_changes_nothing(
    service: NativeService, sandbox_id: str
) -> None:
    client = service.client
    await client.request("PUT", content(sandbox_id), content=b"before")
    async with anyio.create_task_group() as tasks:
        upload = client.begin(tasks, "PUT", content(sandbox_id), content=[b"half", b"rest"])
        upload.withheld = 1
        await eventually(lambda: len(agent_of(service, sandbox_id).requests) == 2)
        await client.get(f"{files(sandbox_id)}?path=/")
        upload.disconnect()

    assert upload.status == 0
    assert (await client.get(content(sandbox_id))).body == b"before"


@pytest.mark.parametrize(
    ("pieces", "headers"),
    [([b"x" * 300, b"x" * 300, b""], {}), ([b"x"], {"content_length": "501"})],
)
async def test_an_upload_above_the_bound_changes_nothing(
    tmp_path: Path, pieces: list[bytes], headers: dict[str, str]
) -> None:
    settings = NativeSettings(max_upload=500)
    async with open_native(tmp_path, settings=settings) as service:
        client = service.client
        sandbox_id = await client.create()

        reply = await client.request("PUT", content(sandbox_id), content=pieces, **headers)

        assert (reply.status, reply.code) == (413, "limit_exceeded")
        assert (await client.get(content(sandbox_id))).status == 404


async def test_a_full_disk_answers_429(client: Client, sandbox_id: str) -> None:
    reply = await client.request("PUT", content(sandbox_id, "/full/x"), content=b"x")

    assert (reply.status, reply.code) == (429, "quota")


@pytest.mark.parametrize(
    ("method", "rest", "status", "code"),
    [
        ("GET", "/content?path=missing", 404, "path_not_found"),
        ("GET", "/info?path=missing", 404, "path_not_found"),
        ("GET", "/content", 400, "invalid_request"),
        ("GET", "/content?path=..%2Fx", 400, "invalid_request"),
        ("GET", "/content?path=a%00b", 400, "invalid_request"),
        ("GET", "/content?path=" + "a" * 5000, 400, "invalid_request"),
        ("GET", "/content?path=a&user=nobody", 400, "invalid_request"),
        ("PUT", "/content?path=a&mode=999", 400, "invalid_request"),
        ("PUT", "/content?path=a&mode=77777", 400, "invalid_request"),
        ("PUT", "/content?path=a&append=perhaps", 400, "invalid_request"),
        ("GET", "?path=/&depth=0", 400, "invalid_request"),
        ("DELETE", "", 400, "invalid_request"),
    ],
)
async def test_what_is_no_file_is_refused(
    client: Client, sandbox_id: str, method: str, rest: str, status: int, code: str
) -> None:
    reply = await client.request(method, files(sandbox_id) + rest)

    assert (reply.status, reply.code) == (status, code)


async def test_entries_are_listed_and_shown(client: Client, sandbox_id: str) -> None:
    await client.request("PUT", content(sandbox_id), content=b"hello")

    (entry,) = (await client.get(f"{files(sandbox_id)}?path=/")).json()["entries"]

    assert entry == {
        "path": "/home/user/a.txt",
        "name": "a.txt",
        "type": "file",
        "size": 5,
        "mode": 0o644,
        "owner": "user",
        "group": "user",
        "modified": 1_700_000_000.0,
        "target": None,
        "target_type": None,
    }
    assert (await client.get(f"{files(sandbox_id)}/info?path=a.txt")).json() == entry


async def test_a_file_is_moved_chmodded_and_removed(
    service: NativeService, sandbox_id: str
) -> None:
    client, base = service.client, files(sandbox_id)
    await client.request("PUT", content(sandbox_id), content=b"hello")

    moved = await client.post(f"{base}/move", {"source": "a.txt", "destination": "b.txt"})
    mode = await client.request("PATCH", base, {"path": "b.txt", "mode": 0o755})
    removed = await client.request("DELETE", f"{base}?path=b.txt")
    again = await client.request("DELETE", f"{base}?path=b.txt&missing_ok=true")

    assert moved.json()["path"] == "/home/user/b.txt"
    assert (mode.status, agent_of(service, sandbox_id).modes) == (204, {"/home/user/b.txt": 0o755})
    assert removed.json() == {"removed": True}
    assert again.json() == {"removed": False}
    assert agent_of(service, sandbox_id).requests[-1]["missing_ok"] is True


async def test_a_directory_is_made(service: NativeService, sandbox_id: str) -> None:
    client, base = service.client, f"{files(sandbox_id)}/directories"

    first = await client.post(base, {"path": "d/e"})
    second = await client.post(base, {"path": "d/e", "exist_ok": False, "mode": 0o700})

    assert first.json() == {"created": True}
    assert (second.status, second.code) == (409, "already_exists")
    request = agent_of(service, sandbox_id).requests[-1]
    assert (request["parents"], request["exist_ok"], request["mode"]) == (True, False, 0o700)


class GrowingAgent(FileAgent):
    """Says that files have four bytes when asked, and sends more, or less, later."""

    sent = b"0123456789"

    async def _read(self, request: Any, fd: int) -> None:
        self.files[request["path"]] = b"0123" if request["length"] == 0 else self.sent
        await super()._read(request, fd)


class ShrinkingAgent(GrowingAgent):
    """Sends less than it said."""

    sent = b"01"


class KernelFileAgent(GrowingAgent):
    """Has files like those in /proc, which say that they are empty."""

    async def _read(self, request: Any, fd: int) -> None:
        self.files[request["path"]] = b"" if request["length"] == 0 else self.sent
        await FileAgent._read(self, request, fd)


@pytest.mark.parametrize(
    ("make_agent", "length", "body", "is_complete"),
    [
        (GrowingAgent, "4", b"0123", True),
        (ShrinkingAgent, "4", b"01", False),
        (KernelFileAgent, None, b"0123456789", True),
    ],
)
async def test_a_file_that_changes_meanwhile_is_never_more_than_was_promised(
    tmp_path: Path, make_agent: Any, length: str | None, body: bytes, is_complete: bool
) -> None:
    async with open_native(tmp_path) as service:

        def make(channel: Channel) -> FileAgent:
            agent: FileAgent = make_agent(channel)
            return agent

        service.launcher.make_agent = make
        sandbox_id = await service.client.create()

        reply = await service.client.get(content(sandbox_id))

    assert reply.headers.get("content-length") == length
    assert (reply.body, reply.is_complete) == (body, is_complete)


async def test_a_client_that_leaves_ends_the_reading(
    service: NativeService, sandbox_id: str
) -> None:
    client = service.client
    await client.request("PUT", content(sandbox_id), content=b"x" * 10_000_000)
    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            reader = client.begin(tasks, "GET", content(sandbox_id))
            await reader.wait_for(b"x")
            reader.stop_reading()
            reader.disconnect()

    assert len(reader.body) < 10_000_000
