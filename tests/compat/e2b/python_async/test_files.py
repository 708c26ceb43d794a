"""Files and directories."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from e2b_code_interpreter import (
    AsyncSandbox,
    AuthenticationException,
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
    NotEnoughSpaceException,
    SandboxException,
)

AWKWARD = "a b/ü'\"$(x)&?#%41+;.txt"
"""A name that needs quoting everywhere."""


# covers: files.write, files.read
async def test_a_file_is_read_as_it_was_written(sandbox: AsyncSandbox) -> None:
    info = await sandbox.files.write("notes/first.txt", "grüße\nline two\n")

    assert info.path == "/home/user/notes/first.txt"
    assert info.name == "first.txt"
    assert info.type is FileType.FILE
    assert await sandbox.files.read("notes/first.txt") == "grüße\nline two\n"
    assert await sandbox.files.read("~/notes/first.txt") == "grüße\nline two\n"
    owner = await sandbox.commands.run("stat -c '%U %G' notes notes/first.txt")
    assert owner.stdout == "user user\nuser user\n"


# covers: files.read
async def test_a_file_is_read_in_every_format(sandbox: AsyncSandbox) -> None:
    content = bytes(range(256)) * 1000
    await sandbox.files.write("data.bin", content)

    whole = await sandbox.files.read("data.bin", format="bytes")
    chunks = [chunk async for chunk in await sandbox.files.read("data.bin", format="stream")]

    assert bytes(whole) == content
    assert b"".join(chunks) == content


# covers: files.write
@pytest.mark.parametrize("options", [{}, {"gzip": True}, {"use_octet_stream": True}])
async def test_a_large_file_goes_both_ways(sandbox: AsyncSandbox, options: dict[str, bool]) -> None:
    content = b"".join(b"%d," % i for i in range(1_000_000))

    await sandbox.files.write("large", content, **options)
    compressed = await sandbox.files.read("large", format="bytes", gzip=True)
    size = await sandbox.commands.run("stat -c %s large")

    assert bytes(compressed) == content
    assert int(size.stdout) == len(content)


# covers: files.write
async def test_a_stream_is_uploaded(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("from-file", io.BytesIO(b"0123456789" * 10_000))
    await sandbox.files.write("from-text", io.StringIO("text"))

    assert await sandbox.files.read("from-file") == "0123456789" * 10_000
    assert await sandbox.files.read("from-text") == "text"


# covers: files.write
async def test_a_file_is_overwritten(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("f", "a long first content")
    await sandbox.files.write("f", "short")

    assert await sandbox.files.read("f") == "short"


# covers: files.read
async def test_an_empty_file_is_empty(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("empty", "")

    assert await sandbox.files.read("empty") == ""
    assert await sandbox.files.read("empty", format="bytes") == b""


# covers: files.write_files
async def test_several_files_are_written_at_once(sandbox: AsyncSandbox) -> None:
    infos = await sandbox.files.write_files(
        [
            {"path": "many/one.txt", "data": "1"},
            {"path": "many/deeper/two.bin", "data": b"\x00\xff"},
            {"path": "many/a b/ü'$(x)&?#+;.txt", "data": "3"},
        ]
    )

    assert [info.path for info in infos] == [
        "/home/user/many/one.txt",
        "/home/user/many/deeper/two.bin",
        "/home/user/many/a b/ü'$(x)&?#+;.txt",
    ]
    assert await sandbox.files.read("many/one.txt") == "1"
    assert await sandbox.files.read("many/deeper/two.bin", format="bytes") == b"\x00\xff"
    assert await sandbox.files.read("many/a b/ü'$(x)&?#+;.txt") == "3"
    assert await sandbox.files.write_files([]) == []


# covers: files.write_files
async def test_several_streams_are_written_at_once(sandbox: AsyncSandbox) -> None:
    infos = await sandbox.files.write_files(
        [{"path": "s/one", "data": io.BytesIO(b"1")}, {"path": "s/two", "data": "2"}]
    )

    assert [info.name for info in infos] == ["one", "two"]
    assert await sandbox.files.read("s/one") == "1"
    assert await sandbox.files.read("s/two") == "2"


async def test_an_awkward_name_is_just_a_name(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write(AWKWARD, "content")

    assert await sandbox.files.read(AWKWARD) == "content"
    assert await sandbox.files.exists(AWKWARD)
    entries = await sandbox.files.list("a b")
    assert [entry.path for entry in entries] == [f"/home/user/{AWKWARD}"]


# covers: files.write, files.get_info
async def test_a_file_has_metadata(sandbox: AsyncSandbox) -> None:
    written = await sandbox.files.write("f", "x", metadata={"Author": "me", "kind": "note"})
    info = await sandbox.files.get_info("f")
    (entry,) = [one for one in await sandbox.files.list(".") if one.name == "f"]

    assert written.metadata == info.metadata == entry.metadata == {"author": "me", "kind": "note"}
    await sandbox.files.write("f", "y")
    replaced = await sandbox.files.get_info("f")
    assert not replaced.metadata


# covers: files.get_info
async def test_a_file_is_described(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("f.txt", "12345")
    await sandbox.commands.run("chmod 640 f.txt && ln -s f.txt link && mkdir d")

    info = await sandbox.files.get_info("f.txt")
    link = await sandbox.files.get_info("link")
    directory = await sandbox.files.get_info("d")

    assert info.name == "f.txt"
    assert info.path == "/home/user/f.txt"
    assert info.type is FileType.FILE
    assert info.size == 5
    assert info.mode == 0o640
    assert info.permissions == "-rw-r-----"
    assert (info.owner, info.group) == ("user", "user")
    assert abs(info.modified_time.astimezone(UTC) - datetime.now(UTC)) < timedelta(minutes=1)
    assert info.symlink_target is None
    assert link.type is FileType.SYMLINK
    assert link.symlink_target == "/home/user/f.txt"
    assert directory.type is FileType.DIR


# covers: files.exists
async def test_it_is_told_what_exists(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("d/f", "")

    assert await sandbox.files.exists("d/f")
    assert await sandbox.files.exists("d")
    assert not await sandbox.files.exists("d/other")


# covers: files.list
async def test_a_directory_is_listed_to_a_depth(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("tree/a", "")
    await sandbox.files.write("tree/b/c", "")
    await sandbox.files.write("tree/b/d/e", "")

    flat = await sandbox.files.list("tree")
    deeper = await sandbox.files.list("tree", depth=2)
    deepest = await sandbox.files.list("/home/user/tree", depth=10)

    root = "/home/user/tree"
    assert sorted(entry.path for entry in flat) == [f"{root}/a", f"{root}/b"]
    assert sorted(entry.path for entry in deeper) == [
        f"{root}/a",
        f"{root}/b",
        f"{root}/b/c",
        f"{root}/b/d",
    ]
    assert len(deepest) == 5
    assert {entry.name: entry.type for entry in flat} == {"a": FileType.FILE, "b": FileType.DIR}


async def test_a_list_of_what_is_no_directory_is_refused(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("f", "")

    with pytest.raises(InvalidArgumentException):
        await sandbox.files.list("f")
    with pytest.raises(FileNotFoundException):
        await sandbox.files.list("missing")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.list(".", depth=0)


# covers: files.make_dir
async def test_directories_are_made_with_their_parents(sandbox: AsyncSandbox) -> None:
    assert await sandbox.files.make_dir("x/y/z")
    assert not await sandbox.files.make_dir("x/y/z")

    info = await sandbox.files.get_info("x/y")
    assert info.type is FileType.DIR
    assert info.owner == "user"
    await sandbox.files.write("f", "")
    with pytest.raises(InvalidArgumentException):
        await sandbox.files.make_dir("f")


# covers: files.rename
async def test_a_file_is_renamed(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("old", "content")

    info = await sandbox.files.rename("old", "new/place")

    assert info.path == "/home/user/new/place"
    assert not await sandbox.files.exists("old")
    assert await sandbox.files.read("new/place") == "content"
    with pytest.raises(FileNotFoundException):
        await sandbox.files.rename("old", "other")


# covers: files.remove
async def test_files_and_directories_are_removed(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("d/e/f", "")

    await sandbox.files.remove("d/e/f")
    assert not await sandbox.files.exists("d/e/f")
    await sandbox.files.remove("d")
    assert not await sandbox.files.exists("d")
    await sandbox.files.remove("never-was")


async def test_a_missing_file_is_told(sandbox: AsyncSandbox) -> None:
    with pytest.raises(FileNotFoundException):
        await sandbox.files.read("missing")
    with pytest.raises(FileNotFoundException):
        await sandbox.files.read("missing", format="stream")
    with pytest.raises(FileNotFoundException):
        await sandbox.files.get_info("missing")


async def test_a_directory_is_no_file(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("d")

    with pytest.raises(InvalidArgumentException):
        await sandbox.files.read("d")
    with pytest.raises(SandboxException):
        await sandbox.files.write("d", "x")


async def test_an_unknown_user_has_no_files(sandbox: AsyncSandbox) -> None:
    with pytest.raises(AuthenticationException):
        await sandbox.files.read("f", user="nobody-of-that-name")
    with pytest.raises(AuthenticationException):
        await sandbox.files.list("/", user="nobody-of-that-name")


async def test_files_are_written_everywhere_and_belong_to_the_user(
    sandbox: AsyncSandbox,
) -> None:
    await sandbox.files.write("/root/secret", "of root", user="root")
    info = await sandbox.files.get_info("/root/secret", user="root")
    assert info.owner == "root"
    assert await sandbox.files.read("secret", user="root") == "of root"

    assert await sandbox.files.read("/root/secret") == "of root"
    await sandbox.files.write("/app/deep/f", "mine")
    await sandbox.files.write("/root/secret", "mine now")
    await sandbox.commands.run("echo more >> /app/deep/f")

    for path, text in (("/app/deep/f", "minemore\n"), ("/root/secret", "mine now")):
        assert await sandbox.files.read(path) == text
        assert (await sandbox.files.get_info(path)).owner == "user"


async def test_a_full_disk_is_told(sandbox: AsyncSandbox) -> None:
    await sandbox.commands.run("head -c 100G /dev/zero > filler 2>/dev/null || true", timeout=0)

    with pytest.raises(NotEnoughSpaceException):
        await sandbox.files.write("f", bytes(5_000_000))

    assert await sandbox.is_running()
    await sandbox.commands.run("rm filler")
    await sandbox.files.write("small", "fits again")
