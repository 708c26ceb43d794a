"""Moving and removing: whole trees, links that are not followed, other file systems."""

import errno
import os
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_guest import trees
from headrace_guest.spawn import OperationError
from tests.support.agent_host import AgentHost, become_nobody, public_directory, wait_until


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with AgentHost() as opened:
        yield opened


@pytest.fixture
def across(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that every rename but the last one of a copy crosses file systems."""
    real = os.rename

    def rename(source: bytes, destination: bytes) -> None:
        if b"/.headrace-" not in source:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        real(source, destination)

    monkeypatch.setattr(os, "rename", rename)


def remove(path: Path | str, **options: bool) -> dict[str, Any]:
    defaults = {"recursive": False, "missing_ok": False}
    return trees.remove(os.fsencode(path), **{**defaults, **options})


def move(source: Path | str, destination: Path | str, **options: bool) -> dict[str, Any]:
    options = {"create_parents": False, **options}
    return trees.move(os.fsencode(source), os.fsencode(destination), **options)


def refused_remove(path: Path | str, **options: bool) -> OperationError:
    with pytest.raises(OperationError) as caught:
        remove(path, **options)
    return caught.value


def refused_move(source: Path | str, destination: Path | str, **options: bool) -> OperationError:
    with pytest.raises(OperationError) as caught:
        move(source, destination, **options)
    return caught.value


def names(path: Path) -> list[str]:
    return sorted(str(found.relative_to(path)) for found in path.rglob("*"))


# --- removing -------------------------------------------------------------------------------


def test_files_links_fifos_and_empty_directories_are_removed(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "directory").mkdir()
    (tmp_path / "link").symlink_to("directory")
    os.mkfifo(tmp_path / "fifo")
    for name in ("link", "file", "directory", "fifo"):
        assert remove(tmp_path / name) == {"removed": True}
    assert names(tmp_path) == []


def test_a_directory_with_something_in_it_is_removed_only_recursively(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/file").touch()
    error = refused_remove(tmp_path / "a")
    assert (error.code, error.detail) == ("not_empty", f"{tmp_path}/a: Directory not empty")
    assert remove(tmp_path / "a", recursive=True) == {"removed": True}
    assert names(tmp_path) == []


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "kept/inner").mkdir(parents=True)
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/link").symlink_to(tmp_path / "kept")
    (tmp_path / "link").symlink_to("kept")
    remove(tmp_path / "tree", recursive=True)
    remove(tmp_path / "link", recursive=True)
    assert names(tmp_path) == ["kept", "kept/inner"]


def test_a_slash_at_the_end_does_not_follow_a_link_either(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "kept/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to("kept")
    answer = host.call_file("remove", path=f"{tmp_path}/link/", recursive=True, missing_ok=False)
    assert answer.value == {"removed": True}
    assert names(tmp_path) == ["kept", "kept/inner"]


def test_what_is_missing_is_an_error_unless_that_is_ok(tmp_path: Path) -> None:
    assert refused_remove(tmp_path / "none").code == "not_found"
    assert remove(tmp_path / "none", missing_ok=True) == {"removed": False}
    assert remove(tmp_path / "none/below", missing_ok=True) == {"removed": False}


@pytest.mark.parametrize("path", ["/", "/tmp/..", "/.", "/tmp/."])
def test_the_root_and_dots_are_never_removed(path: str) -> None:
    # Not recursively: this must be harmless even when it fails.
    assert refused_remove(path).code == "invalid"


def test_a_tree_deeper_than_any_path_is_removed(host: AgentHost, tmp_path: Path) -> None:
    script = "i=0; while [ $i -lt 600 ]; do mkdir dddddddd && cd dddddddd; i=$((i+1)); done; : >f"
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)
    path = f"{tmp_path}/dddddddd"
    answer = host.call_file("remove", path=path, recursive=True, missing_ok=False)
    assert answer.value == {"removed": True}
    assert names(tmp_path) == []


def test_a_directory_with_many_entries_is_removed(tmp_path: Path) -> None:
    (tmp_path / "many").mkdir()
    for n in range(1100):
        (tmp_path / f"many/{n}").touch()
    for n in range(50):
        (tmp_path / f"many/full-{n}/x").mkdir(parents=True)
    here = Path.cwd()
    assert remove(tmp_path / "many", recursive=True) == {"removed": True}
    assert Path.cwd() == here
    assert names(tmp_path) == []


def test_what_may_not_be_removed_is_named() -> None:
    with public_directory() as path, AgentHost(before=become_nobody) as host:
        (path / "tree/closed").mkdir(parents=True)
        (path / "tree/closed/file").touch()
        (path / "tree/closed").chmod(0o555)
        (path / "tree").chmod(0o777)
        answer = host.call_file("remove", path=f"{path}/tree", recursive=True, missing_ok=False)
        assert answer.error == "permission_denied"
        assert answer.detail == f"{path}/tree/closed: Permission denied"


# --- moving ---------------------------------------------------------------------------------


def test_a_file_is_moved_and_described(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"123")
    entry = move(tmp_path / "from", tmp_path / "to")
    assert (entry["path"], entry["size"], entry["type"]) == (f"{tmp_path}/to", 3, "file")
    assert names(tmp_path) == ["to"]


def test_a_file_in_the_way_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"new")
    (tmp_path / "to").write_bytes(b"old")
    move(tmp_path / "from", tmp_path / "to")
    assert (tmp_path / "to").read_bytes() == b"new"


def test_parents_of_the_destination_are_made_if_asked(tmp_path: Path) -> None:
    (tmp_path / "from").touch()
    error = refused_move(tmp_path / "from", tmp_path / "a/b/to")
    assert (error.code, error.detail) == ("not_found", f"{tmp_path}/a/b: No such file or directory")
    move(tmp_path / "from", tmp_path / "a/b/to", create_parents=True)
    assert names(tmp_path) == ["a", "a/b", "a/b/to"]


def test_a_missing_source_is_named_and_nothing_is_made(tmp_path: Path) -> None:
    error = refused_move(tmp_path / "none", tmp_path / "a/to", create_parents=True)
    assert (error.code, error.detail) == (
        "not_found",
        f"{tmp_path}/none: No such file or directory",
    )
    assert names(tmp_path) == []


def test_what_cannot_take_a_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "full/inner").mkdir(parents=True)
    (tmp_path / "directory").mkdir()
    assert refused_move(tmp_path / "directory", tmp_path / "full").code == "not_empty"
    assert refused_move(tmp_path / "file", tmp_path / "full").code == "is_a_directory"
    assert refused_move(tmp_path / "full", tmp_path / "file").code == "not_a_directory"
    assert refused_move(tmp_path / "full", tmp_path / "full/inner/x").code == "invalid"
    assert refused_move("/", tmp_path / "root").code == "invalid"
    assert refused_move(tmp_path / "file", tmp_path / "..").code == "invalid"
    assert names(tmp_path) == ["directory", "file", "full", "full/inner"]


@pytest.mark.usefixtures("across")
def test_a_tree_is_copied_to_another_file_system_and_removed(tmp_path: Path) -> None:
    source = tmp_path / "from"
    (source / "closed").mkdir(parents=True)
    (source / "closed/file").write_bytes(b"data" * 1000)
    (source / "closed/file").chmod(0o4711)
    (source / "link").symlink_to("/nowhere")
    os.mkfifo(source / "fifo", 0o640)
    os.utime(source / "closed/file", (1, 2))
    os.utime(source / "closed", (3, 4))
    os.setxattr(source / "closed", "user.vendor.a", b"1")
    os.setxattr(source / "closed/file", "user.vendor.a", b"2")
    (source / "closed").chmod(0o555)
    assert move(source, tmp_path / "to")["type"] == "directory"
    assert names(tmp_path) == ["to", "to/closed", "to/closed/file", "to/fifo", "to/link"]
    copied = (tmp_path / "to/closed/file").stat()
    assert (stat.S_IMODE(copied.st_mode), copied.st_mtime) == (0o4711, 2)
    assert (tmp_path / "to/closed/file").read_bytes() == b"data" * 1000
    closed = (tmp_path / "to/closed").stat()
    assert (stat.S_IMODE(closed.st_mode), closed.st_mtime) == (0o555, 4)
    assert os.getxattr(tmp_path / "to/closed", "user.vendor.a") == b"1"
    assert os.getxattr(tmp_path / "to/closed/file", "user.vendor.a") == b"2"
    assert (tmp_path / "to/link").readlink() == Path("/nowhere")
    assert stat.S_ISFIFO((tmp_path / "to/fifo").stat().st_mode)
    (tmp_path / "to/closed").chmod(0o755)


@pytest.mark.usefixtures("across")
def test_a_file_is_copied_to_another_file_system_over_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "from").write_bytes(b"new")
    (tmp_path / "to").write_bytes(b"old")
    move(tmp_path / "from", tmp_path / "to")
    assert names(tmp_path) == ["to"]
    assert (tmp_path / "to").read_bytes() == b"new"


@pytest.mark.usefixtures("across")
def test_a_copy_that_fails_leaves_everything_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/file").touch()
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "from/socket"))
    (tmp_path / "full/inner").mkdir(parents=True)
    error = refused_move(tmp_path / "from", tmp_path / "to")
    assert error.code == "failed"
    assert "socket" in error.detail
    (tmp_path / "from/socket").unlink()
    assert refused_move(tmp_path / "from", tmp_path / "full").code == "not_empty"
    assert refused_move(tmp_path / "from", tmp_path / "from/x").code == "invalid"
    assert names(tmp_path) == ["from", "from/file", "full", "full/inner"]


@pytest.mark.usefixtures("across")
def test_a_copy_that_is_cancelled_is_undone(tmp_path: Path) -> None:
    source = tmp_path / "from"
    source.mkdir()
    with (source / "huge").open("wb") as huge:
        huge.truncate(4 * 1024 * 1024 * 1024)
    options: dict[str, Any] = {"source": str(source), "destination": f"{tmp_path}/to"}
    with AgentHost() as host:
        number = host.file("move", create_parents=False, **options)
        wait_until(lambda: len(names(tmp_path)) > 2)
        assert host.call("cancel", target=number).value == {"cancelled": True}
        assert host.answer(number).detail == "the file operation was cancelled"
    assert names(tmp_path) == ["from", "from/huge"]
