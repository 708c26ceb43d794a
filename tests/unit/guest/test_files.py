"""What is there: entries, listings, names; and making directories."""

import json
import os
import resource
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_guest import files
from headrace_guest.spawn import OperationError
from tests.support.agent_host import AgentHost, become_nobody, public_directory, read_all


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with AgentHost() as opened:
        yield opened


def listing(path: Path, depth: int = 1) -> list[dict[str, Any]]:
    """List in this process, with a reader that takes everything."""
    reading, writing = os.pipe()
    found: list[bytes] = []
    reader = threading.Thread(target=lambda: found.append(read_all(reading)))
    reader.start()
    try:
        result = files.list_directory(os.fsencode(path), depth, writing)
    finally:
        os.close(writing)
        reader.join()
    entries = [json.loads(line) for line in found[0].splitlines()]
    assert result == {"count": len(entries)}
    return entries


def names(path: Path, depth: int = 1) -> list[str]:
    return [entry["path"].removeprefix(f"{path}/") for entry in listing(path, depth)]


def make_directory(path: Path, **options: Any) -> dict[str, Any]:
    defaults = {"mode": None, "parents": False, "exist_ok": False}
    return files.make_directory(os.fsencode(path), **{**defaults, **options})


def test_an_entry_says_what_lstat_says(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    os.chown(tmp_path / "file", os.getuid(), os.getgid())
    (tmp_path / "file").chmod(0o4751)
    os.utime(tmp_path / "file", (1, 1234.5))
    entry = files.describe(os.fsencode(tmp_path / "file"))
    known = files.Names()
    assert entry == {
        "path": f"{tmp_path}/file",
        "name": "file",
        "type": "file",
        "size": 5,
        "mode": 0o4751,
        "owner": known.user(os.getuid()),
        "group": known.group(os.getgid()),
        "modified": 1234.5,
        "target": None,
        "target_type": None,
        "target_mode": None,
    }


def test_an_entry_has_the_attributes_that_are_asked_for(tmp_path: Path) -> None:
    os.setxattr(tmp_path, "user.vendor.a", b"1")
    assert "attributes" not in files.describe(os.fsencode(tmp_path))
    entry = files.describe(os.fsencode(tmp_path), b"user.vendor.")
    assert entry["attributes"] == {"a": "1"}


def test_the_largest_entries_fit_into_a_report(host: AgentHost) -> None:
    with public_directory() as top:
        directory = top
        while len(os.fsencode(directory)) < 3800:
            directory /= "\udcff" * 200
        directory.mkdir(parents=True)
        os.setxattr(directory, "user.vendor.a", b"\x01" * 3500)
        (top / "link").symlink_to(directory)
        options = {"attributes_prefix": "user.vendor."}
        entry = host.call_file("stat", path=str(directory), **options).value["entry"]
        assert isinstance(entry, dict)
        assert entry["attributes"] == {"a": "\x01" * 3500}
        entry = host.call_file("stat", path=str(top / "link"), **options).value["entry"]
        assert isinstance(entry, dict)
        assert len(str(entry["target"])) == len(str(directory))


def test_the_disk_is_measured(host: AgentHost) -> None:
    usage = host.call_file("disk_usage").value
    assert set(usage) == {"total", "free", "inodes", "inodes_free"}
    status = os.statvfs("/")
    assert usage["total"] == status.f_blocks * status.f_frsize


def test_the_root_has_a_name(host: AgentHost) -> None:
    entry = host.call_file("stat", path="/").value["entry"]
    assert isinstance(entry, dict)
    assert (entry["path"], entry["name"], entry["type"]) == ("/", "/", "directory")


def test_a_link_says_where_it_finally_leads(tmp_path: Path) -> None:
    (tmp_path / "directory").mkdir(0o750)
    (tmp_path / "near").symlink_to("directory")
    (tmp_path / "far").symlink_to(tmp_path / "near")
    entry = files.describe(os.fsencode(tmp_path / "far"))
    assert entry["type"] == "symlink"
    assert (entry["target"], entry["target_type"]) == (f"{tmp_path}/directory", "directory")
    assert entry["target_mode"] == 0o750


def test_a_broken_link_and_a_loop_have_no_target(tmp_path: Path) -> None:
    (tmp_path / "broken").symlink_to("nothing")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("broken", "loop"):
        entry = files.describe(os.fsencode(tmp_path / name))
        assert (entry["target"], entry["target_type"]) == (None, None)
        assert entry["target_mode"] is None


def test_a_fifo_is_something_else(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    assert files.describe(os.fsencode(tmp_path / "fifo"))["type"] == "other"
    assert files.describe(os.fsencode(tmp_path / "link"))["target_type"] == "other"


def test_a_missing_path_is_named(tmp_path: Path) -> None:
    with pytest.raises(OperationError) as caught:
        files.stat_path(os.fsencode(tmp_path / "none"))
    assert caught.value.code == "not_found"
    assert str(tmp_path / "none") in caught.value.detail


def test_a_file_in_the_way_is_not_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperationError) as caught:
        files.stat_path(os.fsencode(tmp_path / "file/below"))
    assert caught.value.code == "not_a_directory"


def test_owners_are_read_from_the_databases_by_hand(tmp_path: Path) -> None:
    users, groups = tmp_path / "passwd", tmp_path / "group"
    users.write_text(
        "root:x:0:0::/:/bin/sh\nbad line\nx:y\nfirst:x:7:7::\nsecond:x:7:7::\nn:x:q:\n"
    )
    groups.write_bytes(b"g\xff:x:12:\n")
    known = files.Names(str(users), str(groups))
    assert [known.user(n) for n in (0, 7, 8)] == ["root", "first", "8"]
    assert [known.group(n) for n in (12, 13)] == ["g\ufffd", "13"]


def test_a_fifo_or_nothing_in_place_of_the_databases_gives_numbers(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "passwd")
    known = files.Names(str(tmp_path / "passwd"), str(tmp_path / "none"))
    assert (known.user(0), known.group(0)) == ("0", "0")


def test_a_listing_is_sorted_and_as_deep_as_asked(tmp_path: Path) -> None:
    for name in ("b/x/deep", "a", "c", "b/y"):
        (tmp_path / name).mkdir(parents=True, exist_ok=True)
    assert names(tmp_path) == ["a", "b", "c"]
    assert names(tmp_path, 2) == ["a", "b", "b/x", "b/y", "c"]
    assert names(tmp_path, 9) == ["a", "b", "b/x", "b/x/deep", "b/y", "c"]


def test_a_listing_does_not_follow_links_below(tmp_path: Path) -> None:
    (tmp_path / "real/inner").mkdir(parents=True)
    (tmp_path / "real/up").symlink_to(tmp_path)
    (tmp_path / "link").symlink_to("real")
    assert names(tmp_path, 9) == ["link", "real", "real/inner", "real/up"]
    assert names(tmp_path / "link", 9) == ["inner", "up"]


def test_names_that_are_not_utf8_survive_as_lone_surrogates(
    host: AgentHost, tmp_path: Path
) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n\xc3\xa4")).touch()
    reading, writing = os.pipe()
    number = host.file("list", [writing], path=str(tmp_path), depth=1)
    (line,) = read_all(reading).splitlines()
    entry = json.loads(line)
    assert entry["name"] == "\udcff\nä"
    assert host.answer(number).value == {"count": 1}
    assert host.call_file("stat", path=entry["path"]).error is None


def test_a_file_or_nothing_cannot_be_listed(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, code in (("file", "not_a_directory"), ("none", "not_found")):
        reading, writing = os.pipe()
        answer = host.answer(host.file("list", [writing], path=f"{tmp_path}/{name}", depth=1))
        assert answer.error == code
        assert f"{tmp_path}/{name}" in answer.detail
        assert read_all(reading) == b""


def test_a_directory_that_may_not_be_read_is_listed_but_not_entered() -> None:
    with public_directory() as path, AgentHost(before=become_nobody) as host:
        (path / "closed/secret").mkdir(parents=True)
        (path / "open/inner").mkdir(parents=True)
        (path / "closed").chmod(0)
        reading, writing = os.pipe()
        number = host.file("list", [writing], path=str(path), depth=3)
        lines = read_all(reading).splitlines()
        assert [json.loads(line)["name"] for line in lines] == ["closed", "open", "inner"]
        assert host.answer(number).value == {"count": 3}
        reading, writing = os.pipe()
        answer = host.answer(host.file("list", [writing], path=f"{path}/closed", depth=1))
        assert answer.error == "permission_denied"
        assert read_all(reading) == b""


def test_a_huge_directory_is_listed_in_little_memory(tmp_path: Path) -> None:
    """A hundred thousand long names while the child may take 6 MiB more than it starts with."""
    first = tmp_path
    for n in range(100_000):
        if n % 50_000 == 0:  # a file may have only so many names
            first = tmp_path / f"{n:0150d}"
            first.touch()
        else:
            os.link(first, f"{tmp_path}/{n:0150d}")
    with AgentHost(before=lambda: _allow_memory(6 * 1024 * 1024)) as host:
        reading, writing = os.pipe()
        number = host.file("list", [writing], path=str(tmp_path), depth=1)
        assert read_all(reading).count(b"\n") == 100_000
        assert host.answer(number).value == {"count": 100_000}
    shutil.rmtree(tmp_path)


def _allow_memory(size: int) -> None:
    fields = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    used = int(fields["VmData"].split()[0]) * 1024
    resource.setrlimit(resource.RLIMIT_DATA, (used + size, used + size))


def test_a_listing_that_nobody_reads_ends(host: AgentHost) -> None:
    reading, writing = os.pipe()
    number = host.file("list", [writing], path="/usr", depth=20)
    os.read(reading, 1)
    os.close(reading)
    answer = host.answer(number)
    assert (answer.error, answer.detail) == ("failed", "the reader went away")


def test_a_directory_is_made_with_the_mode_asked_for(tmp_path: Path) -> None:
    assert make_directory(tmp_path / "plain") == {"created": True}
    assert make_directory(tmp_path / "a/b/c", parents=True, mode=0o2777) == {"created": True}
    assert (tmp_path / "plain").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "a/b/c").stat().st_mode & 0o7777 == 0o2777


def test_a_directory_that_exists_is_made_only_if_that_is_ok(tmp_path: Path) -> None:
    assert make_directory(tmp_path, exist_ok=True) == {"created": False}
    with pytest.raises(OperationError) as caught:
        make_directory(tmp_path)
    assert caught.value.code == "already_exists"


def test_a_file_in_a_directorys_place_is_never_ok(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OperationError) as caught:
        make_directory(tmp_path / "file", exist_ok=True)
    assert caught.value.code == "not_a_directory"
    assert caught.value.detail == f"{tmp_path}/file exists and is not a directory"


def test_a_file_in_a_parents_place_is_named_as_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file/a", tmp_path / "file/a/b"):
        with pytest.raises(OperationError) as caught:
            make_directory(path, parents=True)
        assert caught.value.code == "not_a_directory"


def test_a_listing_through_a_link_has_paths_below_the_link(tmp_path: Path) -> None:
    (tmp_path / "directory/sub").mkdir(parents=True)
    (tmp_path / "link").symlink_to("directory")
    assert [entry["path"] for entry in listing(tmp_path / "link", 2)] == [f"{tmp_path}/link/sub"]


def test_a_missing_parent_is_not_made_unasked(tmp_path: Path) -> None:
    with pytest.raises(OperationError) as caught:
        make_directory(tmp_path / "a/b")
    assert caught.value.code == "not_found"
    assert list(tmp_path.iterdir()) == []


def test_a_mode_is_set_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("file")
    assert files.set_mode(os.fsencode(tmp_path / "link"), 0o1604) == {}
    assert (tmp_path / "file").stat().st_mode & 0o7777 == 0o1604


def test_a_child_that_is_killed_fails_its_operation_only(host: AgentHost) -> None:
    reading, writing = os.pipe()
    number = host.file("list", [writing], path="/usr", depth=20)
    os.read(reading, 1)
    (child,) = host.children()
    os.kill(child, signal.SIGKILL)
    answer = host.answer(number)
    assert answer.error == "failed"
    assert "killed by signal 9" in answer.detail
    os.close(reading)
    assert host.call_file("stat", path="/").error is None
