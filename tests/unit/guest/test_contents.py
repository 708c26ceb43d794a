"""Reading and writing files: ranges, atomic replacement, and what must never block."""

import errno
import os
import resource
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace_guest import contents
from headrace_guest.attributes import Attributes
from headrace_guest.contents import WriteRequest, read_file, write_file
from headrace_guest.spawn import OperationError
from tests.support.agent_host import (
    AgentHost,
    become_nobody,
    public_directory,
    read_all,
    wait_until,
)

WRITE = {"mode": None, "create_parents": False, "append": False}


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with AgentHost() as opened:
        yield opened


def written(path: Path, data: bytes, **options: object) -> object:
    """Write in this process; gives the size that was reported."""
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    request = WriteRequest(os.fsencode(path), **options)  # type: ignore[arg-type]  # by name
    try:
        return write_file(request, reading, lambda: None)["size"]
    finally:
        os.close(reading)


def refused_write(path: Path, data: bytes = b"x", **options: object) -> OperationError:
    with pytest.raises(OperationError) as caught:
        written(path, data, **options)
    return caught.value


def noted(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture(params=["without a name", "with a name"])
def spool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the file system knows no files without a name."""
    if request.param == "with a name":
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY | os.O_WRONLY)


# --- reading --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [
        (0, None, b"0123456789"),
        (3, None, b"3456789"),
        (3, 4, b"3456"),
        (3, 0, b""),
        (8, 100, b"89"),
        (10, None, b""),
        (99, 5, b""),
    ],
)
def test_a_range_is_read(tmp_path: Path, offset: int, length: int | None, expected: bytes) -> None:
    (tmp_path / "file").write_bytes(b"0123456789")
    reading, writing = os.pipe()
    result = read_file(os.fsencode(tmp_path / "file"), offset, length, writing)
    os.close(writing)
    assert read_all(reading) == expected
    assert result == {"size": 10, "sent": len(expected)}


def test_a_large_file_streams_through_the_agent(host: AgentHost, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    (tmp_path / "file").write_bytes(data)
    reading, writing = os.pipe()
    number = host.file("read", [writing], path=f"{tmp_path}/file", offset=1, length=None)
    assert read_all(reading) == data[1:]
    assert host.answer(number).value == {"size": 5_000_000, "sent": 4_999_999}


def test_a_file_that_the_kernel_cannot_send_is_copied(host: AgentHost) -> None:
    reading, writing = os.pipe()
    number = host.file("read", [writing], path="/proc/self/status", offset=0, length=None)
    assert b"Threads:\t1\n" in read_all(reading)
    assert host.answer(number).error is None


def test_a_fifo_is_refused_at_once(host: AgentHost, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reading, writing = os.pipe()
    number = host.file("read", [writing], path=f"{tmp_path}/fifo", offset=0, length=None)
    answer = host.answer(number)
    assert answer.error == "invalid"
    assert answer.detail == f"{tmp_path}/fifo is a FIFO, not a regular file"
    assert read_all(reading) == b""


def test_what_is_no_regular_file_is_not_read(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "socket"))
    for path, code in (("/dev/zero", "invalid"), (str(tmp_path), "is_a_directory")):
        with pytest.raises(OperationError) as caught:
            read_file(path.encode(), 0, None, -1)
        assert caught.value.code == code
    with pytest.raises(OperationError) as caught:
        read_file(os.fsencode(tmp_path / "socket"), 0, None, -1)
    assert str(tmp_path / "socket") in caught.value.detail


def test_a_reader_that_goes_away_ends_the_reading(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    reading, writing = os.pipe()
    number = host.file("read", [writing], path=f"{tmp_path}/file", offset=0, length=None)
    os.read(reading, 10)
    os.close(reading)
    answer = host.answer(number)
    assert answer.error == "failed"
    assert "the reader went away" in answer.detail


def test_a_reading_that_is_cancelled_ends(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3_000_000))
    reading, writing = os.pipe()
    number = host.file("read", [writing], path=f"{tmp_path}/file", offset=0, length=None)
    os.read(reading, 10)
    assert host.call("cancel", target=number).value == {"cancelled": True}
    answer = host.answer(number)
    assert (answer.error, answer.detail) == ("failed", "the file operation was cancelled")
    os.close(reading)


# --- writing --------------------------------------------------------------------------------


@pytest.mark.usefixtures("spool")
def test_a_new_file_is_made_with_its_mode_and_nothing_else(tmp_path: Path) -> None:
    assert written(tmp_path / "plain", b"hello") == 5
    assert written(tmp_path / "secret", b"", mode=0o600) == 0
    assert (tmp_path / "plain").read_bytes() == b"hello"
    assert (mode_of(tmp_path / "plain"), mode_of(tmp_path / "secret")) == (0o644, 0o600)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["plain", "secret"]


@pytest.mark.usefixtures("spool")
def test_an_existing_file_is_replaced_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"before, and longer")
    path.chmod(0o4750)
    with path.open("rb") as before:
        assert written(path, b"after") == 5
        assert before.read() == b"before, and longer"
    assert path.read_bytes() == b"after"
    assert mode_of(path) == 0o4750
    assert written(path, b"again", mode=0o640) == 5
    assert mode_of(path) == 0o640
    assert list(tmp_path.iterdir()) == [path]


def test_an_existing_file_keeps_its_owner(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.touch()
    if os.getuid() == 0:
        os.chown(path, 12345, 54321)
    before = path.stat()
    written(path, b"new")
    assert (path.stat().st_uid, path.stat().st_gid) == (before.st_uid, before.st_gid)


@pytest.mark.usefixtures("spool")
@pytest.mark.usefixtures("spool")
def test_attributes_come_with_the_bytes_and_replace_those_before(tmp_path: Path) -> None:
    file = tmp_path / "file"
    written(file, b"1", attributes=Attributes(b"user.vendor.", {b"a": b"1", b"b": b"2"}))
    os.setxattr(file, "user.other.c", b"3")
    written(file, b"2", attributes=Attributes(b"user.vendor.", {b"b": b"4"}))
    assert noted(file) == {"user.vendor.b": b"4", "user.other.c": b"3"}
    written(file, b"3")
    assert noted(file) == {"user.vendor.b": b"4", "user.other.c": b"3"}
    written(file, b"4", append=True, attributes=Attributes(b"user.vendor."))
    assert noted(file) == {"user.other.c": b"3"}
    assert file.read_bytes() == b"34"


def test_attributes_of_a_file_that_is_changed_in_place_are_replaced() -> None:
    with public_directory() as path, AgentHost(before=become_nobody) as host:
        closed = path / "closed"
        closed.mkdir()
        (closed / "file").touch()
        (closed / "file").chmod(0o666)
        os.setxattr(closed / "file", "user.vendor.a", b"1")
        closed.chmod(0o555)
        wanted = {"prefix": "user.vendor.", "values": {"b": "2"}}
        _send(host, closed / "file", b"new", attributes=wanted)
        assert (closed / "file").read_bytes() == b"new"
        assert noted(closed / "file") == {"user.vendor.b": b"2"}


@pytest.mark.usefixtures("spool")
def test_a_file_without_room_for_attributes_is_written_and_the_lack_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_target: int | bytes, _name: bytes, _value: bytes) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "setxattr", refuse)
    wanted = Attributes(b"user.vendor.", {b"a": b"1"})
    for append, content in ((False, b"x"), (True, b"xx")):
        error = refused_write(tmp_path / "file", append=append, attributes=wanted)
        assert error.code == "not_supported"
        assert error.detail.startswith(f"{tmp_path}/file was written, but")
        assert (tmp_path / "file").read_bytes() == content


def test_attributes_for_which_there_is_no_space_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"old")

    def refuse(_target: int | bytes, _name: bytes, _value: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "setxattr", refuse)
    wanted = Attributes(b"user.vendor.", {b"a": b"1"})
    assert refused_write(tmp_path / "file", attributes=wanted).code == "no_space"
    assert (tmp_path / "file").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_parents_are_made_if_asked(tmp_path: Path) -> None:
    assert refused_write(tmp_path / "a/b/file").code == "not_found"
    assert list(tmp_path.iterdir()) == []
    assert written(tmp_path / "a/b/file", b"x", create_parents=True) == 1
    assert mode_of(tmp_path / "a") == 0o755
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["file"]


@pytest.mark.usefixtures("spool")
def test_a_link_is_followed_also_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/file").write_bytes(b"old")
    (tmp_path / "near").symlink_to("there/file")
    (tmp_path / "far").symlink_to(tmp_path / "near")
    (tmp_path / "dangling").symlink_to("there/new")
    written(tmp_path / "far", b"new")
    written(tmp_path / "dangling", b"made")
    assert (tmp_path / "far").is_symlink()
    assert (tmp_path / "there/file").read_bytes() == b"new"
    assert (tmp_path / "there/new").read_bytes() == b"made"


def test_a_loop_of_links_is_refused(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert refused_write(tmp_path / "loop").code == "invalid"


def test_what_is_no_regular_file_is_not_written(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    assert refused_write(tmp_path).code == "is_a_directory"
    assert refused_write(tmp_path / "fifo").code == "invalid"
    assert refused_write(tmp_path / "fifo", append=True).code == "invalid"
    assert refused_write(Path("/dev/null")).code == "invalid"


@pytest.mark.usefixtures("spool")
def test_appending_grows_the_file_that_others_hold_open(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"one ")
    with path.open("rb") as held:
        assert written(path, b"two", append=True) == 7
        assert held.read() == b"one two"
    assert written(tmp_path / "a/new", b"x", append=True, create_parents=True) == 1
    assert mode_of(tmp_path / "a/new") == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "log"]


def test_a_file_in_a_directory_that_may_not_be_changed_is_overwritten() -> None:
    with public_directory() as path, AgentHost(before=become_nobody) as host:
        closed = path / "closed"
        closed.mkdir()
        (closed / "file").write_bytes(b"long before")
        (closed / "file").chmod(0o666)
        closed.chmod(0o555)
        _send(host, closed / "file", b"short")
        assert (closed / "file").read_bytes() == b"short"
        _send(host, closed / "file", b" and more", append=True)
        assert (closed / "file").read_bytes() == b"short and more"
        refused = ("permission_denied", f"{closed}: Permission denied")
        assert _try(host, closed / "new", b"x") == refused
        (closed / "file").chmod(0o444)
        refused = ("permission_denied", f"{closed}/file may not be written")
        assert _try(host, closed / "file", b"x") == refused


def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    """The limit on a file's size stands for the disk; only the code differs."""
    path = tmp_path / "file"
    path.write_bytes(b"before")

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    with AgentHost(before=limit) as host:
        code, detail = _try(host, path, bytes(200_000))
        assert (code, detail) == ("too_large", f"{path}: File too large")
        path.write_bytes(bytes(90_000))
        assert _try(host, path, bytes(20_000), append=True)[0] == "too_large"
    assert path.read_bytes() == bytes(90_000)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_shows_before_the_end(host: AgentHost, tmp_path: Path) -> None:
    path = tmp_path / "file"
    reading, writing = os.pipe()
    number = host.file("write", [reading], path=str(path), **WRITE)
    os.write(writing, b"half")
    wait_until(lambda: host.children() != [])
    assert list(tmp_path.iterdir()) == []
    os.close(writing)
    assert host.answer(number).value == {"size": 4}
    assert path.read_bytes() == b"half"


@pytest.mark.usefixtures("spool")
def test_a_write_that_is_cancelled_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"before")
    with AgentHost() as host:
        for append in (False, True):
            fields = {**WRITE, "append": append, "path": f"{tmp_path}/file"}
            reading, writing = os.pipe()
            number = host.file("write", [reading], **fields)
            os.write(writing, b"half of it")
            wait_until(lambda: host.children() != [])
            assert host.call("cancel", target=number).value == {"cancelled": True}
            assert host.answer(number).error == "failed"
            os.close(writing)
            assert [path.name for path in tmp_path.iterdir()] == ["file"]
            assert (tmp_path / "file").read_bytes() == b"before"


def test_a_cancellation_sent_before_the_pipe_closed_always_wins(tmp_path: Path) -> None:
    with AgentHost() as host:
        for n in range(50):
            path = tmp_path / str(n)
            reading, writing = os.pipe()
            number = host.file("write", [reading], path=str(path), **WRITE)
            os.write(writing, b"half")
            if n % 2:
                wait_until(lambda: host.children() != [])
            host.ask("cancel", target=number)
            os.close(writing)
            assert host.answer(number).error == "failed"
    assert list(tmp_path.iterdir()) == []


def test_a_cancellation_after_the_commit_is_too_late(host: AgentHost, tmp_path: Path) -> None:
    _send(host, tmp_path / "file", b"data")
    assert host.call("cancel", target=1).value == {"cancelled": False}
    assert (tmp_path / "file").read_bytes() == b"data"


def test_many_writers_of_one_file_leave_one_of_their_versions(
    host: AgentHost, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    versions = [bytes([n]) * 100_000 for n in range(10)]
    threads, numbers = [], []
    for version in versions:
        reading, writing = os.pipe()
        numbers.append(host.file("write", [reading], path=str(path), **WRITE))
        threads.append(threading.Thread(target=_feed, args=(writing, version)))
        threads[-1].start()
    for number in numbers:
        assert host.answer(number).value == {"size": 100_000}
    for thread in threads:
        thread.join()
    assert path.read_bytes() in versions
    assert list(tmp_path.iterdir()) == [path]


def test_a_large_file_is_written_through_the_agent(host: AgentHost, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    assert _try(host, tmp_path / "file", data) == (None, "")
    assert (tmp_path / "file").read_bytes() == data


def test_a_pipe_that_does_not_block_is_waited_for(host: AgentHost, tmp_path: Path) -> None:
    reading, writing = os.pipe2(os.O_NONBLOCK)
    number = host.file("write", [reading], path=f"{tmp_path}/file", **WRITE)
    wait_until(lambda: host.children() != [])
    time.sleep(0.01)
    os.write(writing, b"late")
    os.close(writing)
    assert host.answer(number).value == {"size": 4}


def test_room_is_made_before_a_file_is_overwritten(tmp_path: Path) -> None:
    """Where a file cannot be replaced, lack of room is noticed while it is still whole."""
    path = tmp_path / "file"
    path.write_bytes(b"before")
    fd = os.open(path, os.O_RDWR)
    try:
        with pytest.raises(OSError, match=r"File too large|No space left"):
            contents.reserve(fd, 6, 2**62)
        assert os.fstat(fd).st_size == 6
    finally:
        os.close(fd)


def _feed(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.close(fd)


def _try(host: AgentHost, path: Path, data: bytes, **options: object) -> tuple[str | None, str]:
    reading, writing = os.pipe()
    number = host.file("write", [reading], path=str(path), **{**WRITE, **options})
    try:
        _feed(writing, data)
    except BrokenPipeError:
        os.close(writing)
    answer = host.answer(number)
    return answer.error, answer.detail


def _send(host: AgentHost, path: Path, data: bytes, **options: object) -> None:
    assert _try(host, path, data, **options) == (None, "")
