"""Files inside: streamed, complete or unchanged, with errors that name the path."""

import os
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.engine.files import Files, read_entry
from headrace.model.errors import (
    AgentProtocolError,
    DeadlineError,
    InvalidRequestError,
    LimitExceededError,
    PathNotFoundError,
    QuotaError,
    WrongStateError,
)
from headrace.model.files import DiskUsage, FileAttributes, FileInfo, FileType
from headrace.model.specs import SandboxSpec
from tests.support.fakes import FakeAgent, open_fake_engine
from tests.support.logs import count_descriptors, wait_until

ENTRY = {
    "path": "/a/b",
    "name": "b",
    "type": "symlink",
    "size": 3,
    "mode": 0o777,
    "owner": "user",
    "group": "root",
    "modified": 12.5,
    "target": "/c",
    "target_type": "file",
    "target_mode": 0o640,
    "attributes": {"a": "1"},
}


@dataclass
class World:
    """The files of a sandbox, and the agent that has them."""

    files: Files
    agent: FakeAgent


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        sandbox = await engine.create(SandboxSpec())
        await sandbox.await_ready()
        yield World(sandbox.files, launcher.sandboxes[sandbox.id].agent)


async def test_what_is_written_can_be_read(world: World) -> None:
    data = os.urandom(1_000_000)
    assert await world.files.write("big", data) == len(data)
    assert world.agent.files["/home/user/big"] == data
    assert await world.files.read_bytes("big", limit=len(data)) == data


async def test_a_range_is_read_and_the_whole_size_is_told(world: World) -> None:
    world.agent.files["/f"] = b"0123456789"
    async with world.files.read("/f", offset=2, length=3) as reader:
        assert reader.size == 10
        assert b"".join([chunk async for chunk in reader]) == b"234"


async def test_an_empty_file_has_no_pieces(world: World) -> None:
    world.agent.files["/f"] = b""
    async with world.files.read("/f") as reader:
        assert [chunk async for chunk in reader] == []


async def test_a_file_that_is_not_there_is_an_error_before_the_first_byte(world: World) -> None:
    with pytest.raises(PathNotFoundError, match="/nope"):
        async with world.files.read("/nope"):
            pytest.fail("it opened")


async def test_a_file_above_the_limit_is_refused(world: World) -> None:
    world.agent.files["/f"] = b"x" * 101
    with pytest.raises(LimitExceededError, match="101 bytes; at most 100"):
        await world.files.read_bytes("/f", limit=100)


async def test_a_reader_that_stops_early_stops_the_guest(world: World) -> None:
    before = count_descriptors()
    world.agent.files["/f"] = b"x" * 1_000_000
    async with world.files.read("/f") as reader:
        async for _ in reader:
            break
    await wait_until(lambda: count_descriptors() == before)
    assert any(request["op"] == "cancel" for request in world.agent.requests)


async def test_a_reader_must_be_opened(world: World) -> None:
    reader = world.files.read("/f")
    with pytest.raises(InvalidRequestError, match="async with"):
        _ = [chunk async for chunk in reader]


async def test_a_stream_is_written_piece_by_piece(world: World) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        for number in range(100):
            yield b"%d " % number

    await world.files.write("/f", pieces(), mode=0o600, create_parents=True, append=True)
    assert world.agent.files["/f"] == b"".join(b"%d " % number for number in range(100))
    request = world.agent.requests[-1]
    assert (request["mode"], request["create_parents"], request["append"]) == (0o600, True, True)


async def test_a_stream_that_fails_changes_nothing(world: World) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        raise OSError("the upload broke off")

    world.agent.files["/f"] = b"before"
    before = count_descriptors()
    with pytest.raises(OSError, match="the upload broke off"):
        await world.files.write("/f", pieces())
    assert world.agent.files["/f"] == b"before"
    assert count_descriptors() == before
    # The guest hears of it before the end of the pipe.
    assert [request["op"] for request in world.agent.requests] == ["file", "cancel"]


async def test_a_cancelled_writer_changes_nothing(world: World) -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"half"
        await anyio.sleep_forever()

    world.agent.files["/f"] = b"before"
    with anyio.move_on_after(0.02):
        await world.files.write("/f", pieces())
    assert world.agent.files["/f"] == b"before"


async def test_a_guest_that_gives_up_says_why(world: World) -> None:
    with pytest.raises(QuotaError, match="no space left"):
        await world.files.write("/full/f", b"x" * 1_000_000)


async def test_a_guest_that_takes_nothing_is_given_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.files.STALL", 0.02)
    monkeypatch.setattr("headrace.engine.transfers._CLEANUP", 0.02)
    world.agent.ignored.add("file")
    with pytest.raises((DeadlineError, LimitExceededError)):
        await world.files.write("/f", b"x" * 10)


async def test_a_directory_is_listed(world: World) -> None:
    world.agent.files = {"/a": b"1", "/b": b"22"}
    entries = await world.files.list("/", depth=2)
    assert [(entry.path, entry.size) for entry in entries] == [("/a", 1), ("/b", 2)]
    assert world.agent.requests[-1]["depth"] == 2


async def test_a_listing_is_bounded(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.engine.files.MAX_ENTRIES", 10)
    world.agent.files = {f"/f{number}": b"" for number in range(20)}
    with pytest.raises(LimitExceededError, match="more than 10 entries"):
        await world.files.list("/")


async def test_things_are_looked_at_and_removed(world: World) -> None:
    world.agent.files["/home/user/f"] = b"123"
    assert (await world.files.stat("f")).size == 3
    assert await world.files.exists("f")
    assert await world.files.remove("f")
    assert not await world.files.remove("f", missing_ok=True)
    assert not await world.files.exists("f")


async def test_every_operation_sends_what_the_agent_wants(world: World) -> None:
    async def answer(request: dict[str, Any]) -> None:
        await world.agent.reply(request, created=True, entry=ENTRY)

    for action in ("make_dir", "move", "set_mode"):
        setattr(world.agent, "_" + action, answer)
    assert await world.files.make_dir("d", parents=True, mode=0o700, user="root")
    await world.files.move("a", "/b", create_parents=True)
    await world.files.set_mode("a", 0o640)
    sent = [
        {key: value for key, value in request.items() if key not in ("type", "request", "op")}
        for request in world.agent.requests
    ]
    assert sent == [
        {
            "fds": 0,
            "path": "/home/user/d",
            "user": "root",
            "action": "make_dir",
            "parents": True,
            "exist_ok": False,
            "mode": 0o700,
        },
        {
            "fds": 0,
            "action": "move",
            "source": "/home/user/a",
            "destination": "/b",
            "create_parents": True,
            "user": "user",
        },
        {
            "fds": 0,
            "path": "/home/user/a",
            "user": "user",
            "action": "set_mode",
            "mode": 0o640,
        },
    ]


async def test_attributes_are_sent_and_told(world: World) -> None:
    attributes = FileAttributes("user.vendor.", {"a": "1"})
    sent = {"prefix": "user.vendor.", "values": {"a": "1"}}
    await world.files.write("/f", b"x", attributes=attributes)
    assert world.agent.requests[-1]["attributes"] == sent
    assert (await world.files.set_attributes("/f", attributes)).attributes == {"a": "1"}
    assert world.agent.requests[-1]["attributes"] == sent
    await world.files.stat("/f", attributes_prefix="user.vendor.")
    await world.files.list("/", attributes_prefix="user.vendor.")
    prefixes = [request["attributes_prefix"] for request in world.agent.requests[-2:]]
    assert prefixes == ["user.vendor."] * 2


async def test_without_attributes_nothing_is_said_of_them(world: World) -> None:
    await world.files.write("/f", b"x")
    assert world.agent.requests[-1]["attributes"] is None
    await world.files.stat("/f")
    assert world.agent.requests[-1]["attributes_prefix"] is None


async def test_a_prefix_that_is_none_is_refused_before_anything_is_asked(world: World) -> None:
    for refused in (
        world.files.stat("/f", attributes_prefix="trusted.a."),
        world.files.list("/", attributes_prefix="user."),
    ):
        with pytest.raises(InvalidRequestError, match=r"user\.NAME\."):
            await refused
    assert world.agent.requests == []


async def test_a_lack_of_attributes_can_be_told_apart(world: World) -> None:
    async def refuse(request: dict[str, Any]) -> None:
        await world.agent.refuse(request, "not_supported", "/f: cannot hold attributes")

    world.agent._set_attributes = refuse  # type: ignore[assignment, method-assign]
    with pytest.raises(InvalidRequestError, match="/f") as caught:
        await world.files.set_attributes("/f", FileAttributes("user.v.", {}))
    assert caught.value.details["reason"] == "not_supported"


async def test_the_disk_is_measured(world: World) -> None:
    usage = await world.files.disk_usage()
    assert usage == DiskUsage(total=100, free=40, inodes=10, inodes_free=7)


@pytest.mark.parametrize("path", ["", "a\0b", "../../etc/passwd", "x" * 5000, 7])
async def test_what_is_no_path_is_refused_before_anything_is_asked(world: World, path: Any) -> None:
    for refused in (
        world.files.stat(path),
        world.files.write(path, b""),
        world.files.list(path),
        world.files.make_dir(path),
        world.files.move(path, "/b"),
        world.files.move("/b", path),
        world.files.remove(path),
        world.files.watch(path),
        world.files.set_mode(path, 0o644),
        world.files.read_bytes(path, limit=1),
    ):
        with pytest.raises(InvalidRequestError):
            await refused
    assert world.agent.requests == []


async def test_bad_arguments_are_refused_and_named(world: World) -> None:
    with pytest.raises(InvalidRequestError, match="mode must be a whole number from 0 to 4095"):
        await world.files.set_mode("/f", 0o10000)
    with pytest.raises(InvalidRequestError, match="unknown user 'nobody'"):
        await world.files.stat("/f", user="nobody")
    with pytest.raises(InvalidRequestError, match="depth"):
        await world.files.list("/", depth=0)
    with pytest.raises(InvalidRequestError, match="offset"):
        world.files.read("/f", offset=-1)
    with pytest.raises(InvalidRequestError, match="length"):
        world.files.read("/f", length=-1)
    assert world.agent.requests == []


def test_an_entry_is_read() -> None:
    assert read_entry(ENTRY) == FileInfo(
        "/a/b",
        "b",
        FileType.SYMLINK,
        3,
        0o777,
        "user",
        "root",
        12.5,
        "/c",
        FileType.FILE,
        0o640,
        {"a": "1"},
    )
    older = {key: value for key, value in ENTRY.items() if key != "attributes"}
    assert read_entry(older).attributes is None


@pytest.mark.parametrize(
    "change",
    [
        {"type": "dragon"},
        {"size": "3"},
        {"mode": None},
        {"modified": "soon"},
        {"modified": []},
        {"target": 4},
        {"target_type": "dragon"},
        {"path": None},
        {"target_mode": "rw"},
        {"attributes": []},
        {"attributes": {"a": 1}},
        {"attributes": {"a": "x" * 4096}},
    ],
)
def test_an_entry_that_is_none_is_the_agents_fault(change: dict[str, object]) -> None:
    with pytest.raises(AgentProtocolError):
        read_entry({**ENTRY, **change})


@pytest.mark.parametrize("line", [b"nope\n", b"[]\n", b"x" * 100_000, b'{"path":1}\n'])
async def test_lines_that_are_none_are_refused(world: World, line: bytes) -> None:
    async def garbage(_request: object, fd: int) -> None:
        os.write(fd, line[:65536])
        os.close(fd)
        await anyio.sleep_forever()

    world.agent._list = garbage  # type: ignore[assignment, method-assign]
    if len(line) > 65536:
        line = line[:65536]
    with pytest.raises((AgentProtocolError, DeadlineError)):
        with anyio.fail_after(5):
            await world.files.list("/")


async def test_an_answer_that_does_not_match_what_came_is_refused(world: World) -> None:
    async def short(request: dict[str, Any], fd: int) -> None:
        os.write(fd, b"abc")
        os.close(fd)
        await world.agent.reply(request, size=3, sent=4)

    world.agent._read = short  # type: ignore[assignment, method-assign]
    with pytest.raises(AgentProtocolError, match="4 bytes were sent, 3 arrived"):
        await world.files.read_bytes("/f", limit=10)


async def test_the_end_of_the_sandbox_ends_a_transfer(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        sandbox = await engine.create(SandboxSpec())
        agent = launcher.sandboxes[sandbox.id].agent
        agent.files["/f"] = b"x" * 1_000_000

        async def read() -> None:
            async with sandbox.files.read("/f") as reader:
                async for _ in reader:
                    await sandbox.kill()

        with pytest.raises(WrongStateError, match="the sandbox was killed"):
            await read()
