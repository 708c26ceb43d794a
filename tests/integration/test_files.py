"""Files are read and written inside, by the sandbox's own user."""

from collections.abc import AsyncIterator

import anyio
import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import (
    AlreadyExistsError,
    HeadraceError,
    InvalidRequestError,
    NotFoundError,
    PermissionDeniedError,
)
from headrace.model.events import FileChange, FileChanged, WatchStarted
from headrace.model.files import FileAttributes, FileType
from headrace.model.specs import MIB
from tests.support.modes import Mode
from tests.support.running import run_process, run_python


async def test_what_is_written_is_read(sandbox: Sandbox) -> None:
    await sandbox.files.write("notes.txt", "häuser\n".encode())
    assert await sandbox.files.read_bytes("/home/user/notes.txt", limit=MIB) == "häuser\n".encode()
    outcome = await run_python(sandbox, "open('notes.txt').read()")
    assert outcome.results[0].text == "'häuser\\n'"


async def test_a_written_file_belongs_to_the_user(sandbox: Sandbox) -> None:
    await sandbox.files.write("mine", b"x")
    info = await sandbox.files.stat("mine")
    assert (info.owner, info.type, info.size) == ("user", FileType.FILE, 1)


async def test_privileged_work_needs_no_right_and_is_the_users(
    sandbox: Sandbox, mode: Mode
) -> None:
    await run_process(sandbox, "mkdir", "-m", "0", "closed")
    files = sandbox.files.privileged
    if mode is Mode.ROOTLESS:
        with pytest.raises(PermissionDeniedError):
            await files.write("/home/user/closed/f", b"x")
        return
    await files.write("/home/user/closed/f", b"x")
    await files.make_dir("/srv/a/b", parents=True)
    await files.move("/home/user/closed/f", "/root/deep/g", create_parents=True)
    for path in ("/srv/a", "/srv/a/b", "/root/deep", "/root/deep/g"):
        info = await files.stat(path)
        assert (info.owner, info.group) == ("user", "user"), path
    await files.set_mode("/etc/hostname", 0o600)
    assert [each.name for each in await files.list("/root/deep")] == ["g"]
    assert await files.remove("/root/deep", recursive=True)
    assert (await files.stat("/root")).owner == "root"
    await sandbox.files.write("/etc/other", b"root's", user="root")
    await files.write("/etc/other", b"the user's now")
    assert (await files.stat("/etc/other")).owner == "user"
    with pytest.raises(PermissionDeniedError):
        await sandbox.files.read_bytes("/etc/hostname", limit=MIB)


@pytest.mark.timeout(120)
async def test_a_large_file_is_streamed_both_ways(sandbox: Sandbox) -> None:
    block, count = bytes(range(256)) * 4096, 64

    async def produce() -> AsyncIterator[bytes]:
        for _ in range(count):
            yield block

    await sandbox.files.write("big", produce())
    assert (await sandbox.files.stat("big")).size == len(block) * count
    size = 0
    async with sandbox.files.read("big") as stream:
        async for chunk in stream:
            size += len(chunk)
    assert size == len(block) * count


async def test_a_range_is_read(sandbox: Sandbox) -> None:
    await sandbox.files.write("digits", b"0123456789")
    async with sandbox.files.read("digits", offset=3, length=4) as stream:
        assert b"".join([chunk async for chunk in stream]) == b"3456"


async def test_a_producer_that_fails_leaves_the_old_file(sandbox: Sandbox) -> None:
    await sandbox.files.write("kept", b"old")

    async def produce() -> AsyncIterator[bytes]:
        yield b"new"
        raise ValueError("the client went away")

    with pytest.raises(ValueError, match="went away"):
        await sandbox.files.write("kept", produce())
    assert await sandbox.files.read_bytes("kept", limit=MIB) == b"old"
    assert [
        info.name for info in await sandbox.files.list("/home/user") if "kept" in info.name
    ] == ["kept"]


async def test_directories_are_made_listed_moved_and_removed(sandbox: Sandbox) -> None:
    await sandbox.files.make_dir("a/b", parents=True)
    await sandbox.files.write("a/b/c.txt", b"x")
    listed = await sandbox.files.list("a", depth=2)
    assert [info.path for info in listed] == ["/home/user/a/b", "/home/user/a/b/c.txt"]
    await sandbox.files.move("a/b/c.txt", "a/d.txt")
    assert not await sandbox.files.exists("a/b/c.txt")
    assert await sandbox.files.exists("a/d.txt")
    await sandbox.files.remove("a", recursive=True)
    assert not await sandbox.files.exists("a")


@pytest.mark.parametrize("path", ["missing", "/no/such/file"])
async def test_a_missing_file_is_named(sandbox: Sandbox, path: str) -> None:
    with pytest.raises(NotFoundError, match=path):
        await sandbox.files.read_bytes(path, limit=MIB)


@pytest.mark.parametrize("path", ["../../etc/passwd", "a\0b", "", "x" * 5000])
async def test_a_path_that_cannot_be_is_refused(sandbox: Sandbox, path: str) -> None:
    with pytest.raises(InvalidRequestError, match="path"):
        await sandbox.files.read_bytes(path, limit=MIB)


async def test_a_fifo_or_device_is_no_file(sandbox: Sandbox) -> None:
    await run_process(sandbox, "mkfifo", "/tmp/fifo")
    for path in ("/tmp/fifo", "/dev/zero"):
        with pytest.raises(HeadraceError, match=path), anyio.fail_after(10):
            await sandbox.files.read_bytes(path, limit=MIB)


async def test_what_the_user_may_not_read_is_refused(sandbox: Sandbox) -> None:
    with pytest.raises(HeadraceError):
        await sandbox.files.write("/usr/bin/python3", b"x", user="user")


@pytest.mark.parametrize("directory", ["/home/user", "/tmp", "/workspace", "/dev/shm"])
async def test_attributes_stay_with_a_file_wherever_users_write(
    sandbox: Sandbox, directory: str
) -> None:
    path = f"{directory}/noted"
    for values in ({"a": "1", "b": "2"}, {"b": "häuser"}):
        await sandbox.files.write(path, b"x", attributes=FileAttributes("user.v.", values))
    await sandbox.files.write(path, b"y")
    assert (await sandbox.files.stat(path)).attributes is None
    found = await sandbox.files.stat(path, attributes_prefix="user.v.")
    assert found.attributes == {"b": "häuser"}
    (listed,) = [
        entry
        for entry in await sandbox.files.list(directory, attributes_prefix="user.v.")
        if entry.name == "noted"
    ]
    assert listed.attributes == {"b": "häuser"}
    seen = await run_python(sandbox, f"import os; (os.listxattr({path!r}), open({path!r}).read())")
    assert seen.results[0].text == "(['user.v.b'], 'y')"


async def test_attributes_go_along_when_a_file_is_moved(sandbox: Sandbox) -> None:
    await sandbox.files.write("/tmp/from", b"x")
    await sandbox.files.set_attributes("/tmp/from", FileAttributes("user.v.", {"a": "1"}))
    await sandbox.files.move("/tmp/from", "a/b", create_parents=True)
    assert (await sandbox.files.stat("a/b", attributes_prefix="user.v.")).attributes == {"a": "1"}
    assert (await sandbox.files.stat("a")).owner == "user"


async def test_what_cannot_have_attributes_is_named(sandbox: Sandbox) -> None:
    pid = (await run_python(sandbox, "import os; os.getpid()")).results[0].text
    path = f"/proc/{pid}/comm"
    with pytest.raises(InvalidRequestError, match=path) as caught:
        await sandbox.files.set_attributes(path, FileAttributes("user.v.", {"a": ""}))
    assert caught.value.details["reason"] == "not_supported"


async def test_a_link_says_what_its_target_is(sandbox: Sandbox) -> None:
    await sandbox.files.make_dir("there", mode=0o750)
    await sandbox.files.write("there/f", b"x")
    await run_process(sandbox, "ln", "-s", "there", "/home/user/link")
    info = await sandbox.files.stat("link")
    assert (info.type, info.mode) == (FileType.SYMLINK, 0o777)
    assert (info.target, info.target_type, info.target_mode) == (
        "/home/user/there",
        FileType.DIRECTORY,
        0o750,
    )
    assert [entry.path for entry in await sandbox.files.list("link")] == ["/home/user/link/f"]


async def test_what_is_in_a_directorys_place_can_be_told_apart(sandbox: Sandbox) -> None:
    await sandbox.files.make_dir("there")
    await sandbox.files.write("file", b"x")
    with pytest.raises(AlreadyExistsError):
        await sandbox.files.make_dir("there", parents=True)
    with pytest.raises(InvalidRequestError) as caught:
        await sandbox.files.make_dir("file", parents=True)
    assert caught.value.details["reason"] == "not_a_directory"


async def test_the_disk_is_measured(sandbox: Sandbox) -> None:
    before = await sandbox.files.disk_usage()
    limits = sandbox.spec.limits
    assert (before.total, before.inodes) == (limits.disk, limits.inodes)
    await sandbox.files.write("big", b"x" * 4 * MIB)
    after = await sandbox.files.disk_usage()
    assert after.used - before.used >= 4 * MIB
    assert before.inodes_free > after.inodes_free


@pytest.mark.timeout(120)
async def test_files_in_directories_made_at_once_are_all_reported(sandbox: Sandbox) -> None:
    await sandbox.files.make_dir("w")
    watch = await sandbox.files.watch("w", recursive=True)
    rounds = 60
    script = (
        f"for i in $(seq {rounds}); do mkdir -p w/$i/b/c; echo x > w/$i/b/c/f; done; touch w/end"
    )
    await run_process(sandbox, "bash", "-c", script)
    created: list[str] = []
    with anyio.fail_after(60):
        async for event in watch.events():
            if isinstance(event, FileChanged) and event.change is FileChange.CREATED:
                created.append(event.path)
                if event.path == "end":
                    break
    await watch.close()
    wanted = [f"{i}{below}" for i in range(1, rounds + 1) for below in ("", "/b", "/b/c", "/b/c/f")]
    assert sorted(created) == sorted([*wanted, "end"])


async def test_each_kind_of_change_is_told(sandbox: Sandbox) -> None:
    await sandbox.files.make_dir("w")
    watch = await sandbox.files.watch("w")
    script = "cd w; : > a; echo x >> a; chmod 600 a; mv a b; rm b; touch end"
    await run_process(sandbox, "bash", "-c", script)
    seen: list[tuple[FileChange, str]] = []
    with anyio.fail_after(30):
        async for event in watch.events():
            if isinstance(event, FileChanged):
                seen.append((event.change, event.path))
                if event.path == "end":
                    break
    await watch.close()
    assert seen == [
        (FileChange.CREATED, "a"),
        (FileChange.WRITTEN, "a"),
        (FileChange.CHMOD, "a"),
        (FileChange.RENAMED, "a"),
        (FileChange.CREATED, "b"),
        (FileChange.REMOVED, "b"),
        (FileChange.CREATED, "end"),
    ]


async def test_changes_are_watched_also_in_new_directories(sandbox: Sandbox) -> None:
    await sandbox.files.make_dir("w")
    watch = await sandbox.files.watch("w", recursive=True)
    seen: list[tuple[FileChange, str]] = []
    with anyio.fail_after(15):
        async for event in watch.events():
            if isinstance(event, WatchStarted):
                await run_python(
                    sandbox, "import os\nos.mkdir('w/new')\nopen('w/new/f', 'w').write('x');"
                )
            if isinstance(event, FileChanged):
                seen.append((event.change, event.path))
                if (FileChange.WRITTEN, "new/f") in seen or (FileChange.CREATED, "new/f") in seen:
                    break
    assert (FileChange.CREATED, "new") in seen
    await watch.close()


async def test_a_port_inside_can_be_reached(sandbox: Sandbox) -> None:
    code = (
        "import socket, threading\n"
        "s = socket.create_server(('127.0.0.1', 8080))\n"
        "def serve():\n"
        "    while True:\n"
        "        c, _ = s.accept(); c.sendall(c.recv(100).upper()); c.close()\n"
        "threading.Thread(target=serve, daemon=True).start()"
    )
    await run_python(sandbox, code)
    async with await sandbox.open_port(8080) as stream:
        await stream.send(b"hello")
        with anyio.fail_after(10):
            assert await stream.receive() == b"HELLO"


async def test_a_closed_port_is_named(sandbox: Sandbox) -> None:
    with pytest.raises(HeadraceError, match="8081"):
        await sandbox.open_port(8081)
