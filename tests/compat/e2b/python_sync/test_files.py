# Made from the async face by scripts/generate-sync; change that one.
"""Files and directories."""

import io
from datetime import UTC, datetime, timedelta

import pytest
from e2b_code_interpreter import (
    AuthenticationException,
    FileNotFoundException,
    FileType,
    InvalidArgumentException,
    NotEnoughSpaceException,
    Sandbox,
    SandboxException,
)

AWKWARD = "a b/ü'\"$(x)&?#%41+;.txt"
"""A name that needs quoting everywhere."""


# covers: files.write, files.read
def test_a_file_is_read_as_it_was_written(sandbox: Sandbox) -> None:
    info = sandbox.files.write("notes/first.txt", "grüße\nline two\n")

    assert info.path == "/home/user/notes/first.txt"
    assert info.name == "first.txt"
    assert info.type is FileType.FILE
    assert sandbox.files.read("notes/first.txt") == "grüße\nline two\n"
    assert sandbox.files.read("~/notes/first.txt") == "grüße\nline two\n"
    owner = sandbox.commands.run("stat -c '%U %G' notes notes/first.txt")
    assert owner.stdout == "user user\nuser user\n"


# covers: files.read
def test_a_file_is_read_in_every_format(sandbox: Sandbox) -> None:
    content = bytes(range(256)) * 1000
    sandbox.files.write("data.bin", content)

    whole = sandbox.files.read("data.bin", format="bytes")
    chunks = list(sandbox.files.read("data.bin", format="stream"))

    assert bytes(whole) == content
    assert b"".join(chunks) == content


# covers: files.write
@pytest.mark.parametrize("options", [{}, {"gzip": True}, {"use_octet_stream": True}])
def test_a_large_file_goes_both_ways(sandbox: Sandbox, options: dict[str, bool]) -> None:
    content = b"".join(b"%d," % i for i in range(1_000_000))

    sandbox.files.write("large", content, **options)
    compressed = sandbox.files.read("large", format="bytes", gzip=True)
    size = sandbox.commands.run("stat -c %s large")

    assert bytes(compressed) == content
    assert int(size.stdout) == len(content)


# covers: files.write
def test_a_stream_is_uploaded(sandbox: Sandbox) -> None:
    sandbox.files.write("from-file", io.BytesIO(b"0123456789" * 10_000))
    sandbox.files.write("from-text", io.StringIO("text"))

    assert sandbox.files.read("from-file") == "0123456789" * 10_000
    assert sandbox.files.read("from-text") == "text"


# covers: files.write
def test_a_file_is_overwritten(sandbox: Sandbox) -> None:
    sandbox.files.write("f", "a long first content")
    sandbox.files.write("f", "short")

    assert sandbox.files.read("f") == "short"


# covers: files.read
def test_an_empty_file_is_empty(sandbox: Sandbox) -> None:
    sandbox.files.write("empty", "")

    assert sandbox.files.read("empty") == ""
    assert sandbox.files.read("empty", format="bytes") == b""


# covers: files.write_files
def test_several_files_are_written_at_once(sandbox: Sandbox) -> None:
    infos = sandbox.files.write_files(
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
    assert sandbox.files.read("many/one.txt") == "1"
    assert sandbox.files.read("many/deeper/two.bin", format="bytes") == b"\x00\xff"
    assert sandbox.files.read("many/a b/ü'$(x)&?#+;.txt") == "3"
    assert sandbox.files.write_files([]) == []


# covers: files.write_files
def test_several_streams_are_written_at_once(sandbox: Sandbox) -> None:
    infos = sandbox.files.write_files(
        [{"path": "s/one", "data": io.BytesIO(b"1")}, {"path": "s/two", "data": "2"}]
    )

    assert [info.name for info in infos] == ["one", "two"]
    assert sandbox.files.read("s/one") == "1"
    assert sandbox.files.read("s/two") == "2"


def test_an_awkward_name_is_just_a_name(sandbox: Sandbox) -> None:
    sandbox.files.write(AWKWARD, "content")

    assert sandbox.files.read(AWKWARD) == "content"
    assert sandbox.files.exists(AWKWARD)
    entries = sandbox.files.list("a b")
    assert [entry.path for entry in entries] == [f"/home/user/{AWKWARD}"]


# covers: files.write, files.get_info
def test_a_file_has_metadata(sandbox: Sandbox) -> None:
    written = sandbox.files.write("f", "x", metadata={"Author": "me", "kind": "note"})
    info = sandbox.files.get_info("f")
    (entry,) = [one for one in sandbox.files.list(".") if one.name == "f"]

    assert written.metadata == info.metadata == entry.metadata == {"author": "me", "kind": "note"}
    sandbox.files.write("f", "y")
    replaced = sandbox.files.get_info("f")
    assert not replaced.metadata


# covers: files.get_info
def test_a_file_is_described(sandbox: Sandbox) -> None:
    sandbox.files.write("f.txt", "12345")
    sandbox.commands.run("chmod 640 f.txt && ln -s f.txt link && mkdir d")

    info = sandbox.files.get_info("f.txt")
    link = sandbox.files.get_info("link")
    directory = sandbox.files.get_info("d")

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
def test_it_is_told_what_exists(sandbox: Sandbox) -> None:
    sandbox.files.write("d/f", "")

    assert sandbox.files.exists("d/f")
    assert sandbox.files.exists("d")
    assert not sandbox.files.exists("d/other")


# covers: files.list
def test_a_directory_is_listed_to_a_depth(sandbox: Sandbox) -> None:
    sandbox.files.write("tree/a", "")
    sandbox.files.write("tree/b/c", "")
    sandbox.files.write("tree/b/d/e", "")

    flat = sandbox.files.list("tree")
    deeper = sandbox.files.list("tree", depth=2)
    deepest = sandbox.files.list("/home/user/tree", depth=10)

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


def test_a_list_of_what_is_no_directory_is_refused(sandbox: Sandbox) -> None:
    sandbox.files.write("f", "")

    with pytest.raises(InvalidArgumentException):
        sandbox.files.list("f")
    with pytest.raises(FileNotFoundException):
        sandbox.files.list("missing")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.list(".", depth=0)


# covers: files.make_dir
def test_directories_are_made_with_their_parents(sandbox: Sandbox) -> None:
    assert sandbox.files.make_dir("x/y/z")
    assert not sandbox.files.make_dir("x/y/z")

    info = sandbox.files.get_info("x/y")
    assert info.type is FileType.DIR
    assert info.owner == "user"
    sandbox.files.write("f", "")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.make_dir("f")


# covers: files.rename
def test_a_file_is_renamed(sandbox: Sandbox) -> None:
    sandbox.files.write("old", "content")

    info = sandbox.files.rename("old", "new/place")

    assert info.path == "/home/user/new/place"
    assert not sandbox.files.exists("old")
    assert sandbox.files.read("new/place") == "content"
    with pytest.raises(FileNotFoundException):
        sandbox.files.rename("old", "other")


# covers: files.remove
def test_files_and_directories_are_removed(sandbox: Sandbox) -> None:
    sandbox.files.write("d/e/f", "")

    sandbox.files.remove("d/e/f")
    assert not sandbox.files.exists("d/e/f")
    sandbox.files.remove("d")
    assert not sandbox.files.exists("d")
    sandbox.files.remove("never-was")


def test_a_missing_file_is_told(sandbox: Sandbox) -> None:
    with pytest.raises(FileNotFoundException):
        sandbox.files.read("missing")
    with pytest.raises(FileNotFoundException):
        sandbox.files.read("missing", format="stream")
    with pytest.raises(FileNotFoundException):
        sandbox.files.get_info("missing")


def test_a_directory_is_no_file(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d")

    with pytest.raises(InvalidArgumentException):
        sandbox.files.read("d")
    with pytest.raises(SandboxException):
        sandbox.files.write("d", "x")


def test_an_unknown_user_has_no_files(sandbox: Sandbox) -> None:
    with pytest.raises(AuthenticationException):
        sandbox.files.read("f", user="nobody-of-that-name")
    with pytest.raises(AuthenticationException):
        sandbox.files.list("/", user="nobody-of-that-name")


def test_files_are_written_everywhere_and_belong_to_the_user(
    sandbox: Sandbox,
) -> None:
    sandbox.files.write("/root/secret", "of root", user="root")
    info = sandbox.files.get_info("/root/secret", user="root")
    assert info.owner == "root"
    assert sandbox.files.read("secret", user="root") == "of root"

    assert sandbox.files.read("/root/secret") == "of root"
    sandbox.files.write("/app/deep/f", "mine")
    sandbox.files.write("/root/secret", "mine now")
    sandbox.commands.run("echo more >> /app/deep/f")

    for path, text in (("/app/deep/f", "minemore\n"), ("/root/secret", "mine now")):
        assert sandbox.files.read(path) == text
        assert (sandbox.files.get_info(path)).owner == "user"


def test_a_full_disk_is_told(sandbox: Sandbox) -> None:
    sandbox.commands.run("head -c 100G /dev/zero > filler 2>/dev/null || true", timeout=0)

    with pytest.raises(NotEnoughSpaceException):
        sandbox.files.write("f", bytes(5_000_000))

    assert sandbox.is_running()
    sandbox.commands.run("rm filler")
    sandbox.files.write("small", "fits again")
