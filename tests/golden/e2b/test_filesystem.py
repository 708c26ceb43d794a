"""What the filesystem service and the transfer of files send, byte for byte."""

import base64
from pathlib import Path
from typing import Any

import pytest

from headrace.adapters.e2b.codec.filesystem import (
    WatchedEvent,
    describe_entry,
    encode_keepalive,
    encode_watch,
)
from headrace.model.events import (
    FileChange,
    FileChanged,
    FinishReason,
    WatchEnded,
    WatchStarted,
)
from headrace.model.files import FileInfo, FileType
from headrace.model.ids import WatchId
from headrace.wire.connect import encode_end
from headrace.wire.ndjson import encode_line
from tests.support.e2b import E2bService, open_e2b
from tests.support.golden import check_golden, show_envelopes
from tests.support.native import Client, Reply

HERE = Path(__file__).parent
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="d/1.txt"\r\n\r\none\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="2.txt"\r\n\r\n\r\n--b--\r\n'
)


def entry(path: str, kind: FileType = FileType.FILE, **fields: Any) -> FileInfo:
    given: dict[str, Any] = {
        "path": path,
        "name": path.rpartition("/")[2],
        "type": kind,
        "size": 12,
        "mode": 0o644,
        "owner": "user",
        "group": "user",
        "modified": 1_700_000_000.5,
    }
    return FileInfo(**given | fields)


ENTRIES = [
    entry("/home/user/a.txt"),
    entry("/home/user/empty", size=0, mode=0),
    entry("/home/user/large", size=2**53 + 1, mode=0o4755),
    entry("/home/user/d", FileType.DIRECTORY, mode=0o1777, size=4096),
    entry("/home/user/noted", attributes={"author": "me"}),
    entry("/home/user/grüße", owner="1234", group="root"),
    entry(
        "/home/user/link",
        FileType.SYMLINK,
        mode=0o777,
        target="/etc",
        target_type=FileType.DIRECTORY,
        target_mode=0o755,
    ),
    entry("/home/user/broken", FileType.SYMLINK, mode=0o777),
    entry("/home/user/fifo", FileType.OTHER),
]


def test_entries_are_recorded() -> None:
    lines = b"".join(encode_line(describe_entry(each)) for each in ENTRIES)

    check_golden(HERE / "filesystem_entries.txt", lines.decode())


def test_a_watch_is_recorded() -> None:
    changes = [
        FileChanged(number, 1.0, change, f"sub/{change}")
        for number, change in enumerate(FileChange, 2)
    ]
    batch: list[WatchedEvent] = [
        (WatchStarted(1, 1.0, WatchId("w"), "/home/user"), None),
        *((change, None) for change in changes),
        (FileChanged(7, 1.0, FileChange.CREATED, "a.txt"), ENTRIES[0]),
    ]
    ended: list[WatchedEvent] = [(WatchEnded(8, 2.0, FinishReason.OK), None)]
    body = encode_watch(batch) + encode_keepalive() + encode_watch(ended) + encode_end()

    check_golden(HERE / "filesystem_watch.txt", show_envelopes(body))


def show(reply: Reply) -> str:
    """Give an answer for people; bytes that are not text in base64."""
    head = "".join(f"{name}: {reply.headers[name]}\n" for name in sorted(reply.headers))
    try:
        body = reply.body.decode()
    except UnicodeDecodeError:
        body = base64.b64encode(reply.body).decode()
    return f"{reply.status}\n{head}\n{body}\n---\n"


async def exchange(client: Client) -> list[Reply]:
    """Send what the SDKs send, and what goes wrong."""
    raw = {"content-type": "application/octet-stream"}
    form = {"content-type": "multipart/form-data; boundary=b"}
    post = client.request
    return [
        await post("POST", "/files", content=FORM, **form),
        await post("POST", "/files?path=x", content=b"0123456789", **raw, **{"x-metadata-a": "1"}),
        await client.get("/files?path=x"),
        await client.get("/files?path=2.txt"),
        await client.get("/files?path=x", range="bytes=2-4"),
        await client.get("/files?path=x", range="bytes=10-"),
        await client.get("/files?path=x", accept_encoding="identity;q=0"),
        await client.get("/files?path=none"),
        await client.get("/files?path=x&username=nobody"),
        await client.get("/files?path=x", **{"x-access-token": "wrong"}),
        await post("POST", "/files", content=b"x", **raw),
        await post("POST", "/files?path=x", content=FORM[:60], **form),
        await post("POST", "/files?path=/full/x", content=b"x", **raw),
        await post("PUT", "/files?path=x", content=b"x", **raw),
        await client.post("/files/compose", {"source_paths": ["x"], "destination": "y"}),
        await client.get("/envs"),
    ]


@pytest.fixture
async def service(tmp_path: Path) -> Any:
    """The dialect on a fake launcher."""
    async with open_e2b(tmp_path) as service:
        yield service


async def test_transfers_are_recorded(service: E2bService) -> None:
    sandbox = await service.create(env={"A": "1"})
    client = service.agent(sandbox)
    client.lasting = {name: each for name, each in client.lasting.items() if name != "content-type"}

    replies = await exchange(client)

    check_golden(HERE / "filesystem_transfers.txt", "".join(show(each) for each in replies))
