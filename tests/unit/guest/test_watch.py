"""Watching: each change once, new directories included, and how a watch ends."""

import json
import os
import select
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_guest import watch
from tests.support.agent_host import DEADLINE, AgentHost, read_all


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with AgentHost() as opened:
        yield opened


class Watch:
    """A watch that has begun, and the lines that it writes."""

    def __init__(
        self, host: AgentHost, path: Path, *, recursive: bool = True, tells_modes: bool = False
    ) -> None:
        self.reading, writing = os.pipe()
        self._host = host
        self._buffer = b""
        self.number = host.file(
            "watch", [writing], path=str(path), recursive=recursive, tells_modes=tells_modes
        )
        assert self._line() == {"started": True}

    def _line(self) -> dict[str, Any]:
        while b"\n" not in self._buffer:
            assert select.select([self.reading], [], [], DEADLINE)[0], "nothing came"
            piece = os.read(self.reading, 65536)
            assert piece, "the watch ended"
            self._buffer += piece
        line, _, self._buffer = self._buffer.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found

    def until(self, change: str, path: str) -> list[tuple[str, str]]:
        """Give all changes up to the one that is named."""
        seen: list[tuple[str, str]] = []
        while not seen or seen[-1] != (change, path):
            line = self._line()
            assert "overflow" not in line, seen
            seen.append((line["change"], line["path"]))
        return seen

    def end(self) -> list[tuple[str, str]]:
        """Cancel it and give what had not been read."""
        self._host.call("cancel", target=self.number)
        assert self._host.answer(self.number).value == {"ended": "cancelled"}
        rest = [json.loads(line) for line in (self._buffer + read_all(self.reading)).splitlines()]
        return [(line["change"], line["path"]) for line in rest]


def test_what_happens_in_a_directory_is_told(host: AgentHost, tmp_path: Path) -> None:
    opened = Watch(host, tmp_path)
    (tmp_path / "a").write_text("x")
    (tmp_path / "a").chmod(0o600)
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "b").unlink()
    assert opened.until("removed", "b") == [
        ("created", "a"),
        ("written", "a"),
        ("chmod", "a"),
        ("renamed", "a"),
        ("created", "b"),
        ("removed", "b"),
    ]
    assert opened.end() == []


def test_a_change_below_is_told_only_recursively(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    flat, deep = Watch(host, tmp_path, recursive=False), Watch(host, tmp_path)
    (tmp_path / "sub/file").touch()
    (tmp_path / "last").touch()
    assert flat.until("created", "last") == [("created", "last")]
    assert deep.until("created", "sub/file") == [("created", "sub/file")]
    deep.until("created", "last")
    flat.end()
    deep.end()


def test_a_directory_made_later_is_watched_too(host: AgentHost, tmp_path: Path) -> None:
    opened = Watch(host, tmp_path)
    (tmp_path / "new").mkdir()
    assert opened.until("created", "new") == [("created", "new")]
    (tmp_path / "new/deep").mkdir()
    opened.until("created", "new/deep")
    (tmp_path / "new/deep/file").touch()
    opened.until("created", "new/deep/file")
    opened.end()


def test_everything_in_trees_made_at_full_speed_is_told_exactly_once(
    host: AgentHost, tmp_path: Path
) -> None:
    opened = Watch(host, tmp_path)
    expected = set()
    for n in range(200):
        directory = tmp_path / f"{n}/x/y"
        directory.mkdir(parents=True)
        (directory / "file").touch()
        (tmp_path / f"{n}/other").touch()
        expected |= {f"{n}", f"{n}/x", f"{n}/x/y", f"{n}/x/y/file", f"{n}/other"}
    (tmp_path / "last").touch()
    changes = opened.until("created", "last")
    created = [path for change, path in changes if change == "created"]
    # The last directories may be looked into after the last file was seen.
    created += [path for change, path in opened.end() if change == "created"]
    assert sorted(created) == sorted({*expected, "last"})


def test_a_tree_that_is_moved_within_is_new_at_its_place(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "old/sub").mkdir(parents=True)
    (tmp_path / "old/sub/file").touch()
    opened = Watch(host, tmp_path)
    (tmp_path / "old").rename(tmp_path / "new")
    assert opened.until("created", "new/sub/file") == [
        ("renamed", "old"),
        ("created", "new"),
        ("created", "new/sub"),
        ("created", "new/sub/file"),
    ]
    (tmp_path / "new/sub/file").write_text("x")
    assert opened.until("written", "new/sub/file") == [("written", "new/sub/file")]
    opened.end()


def test_a_tree_that_is_moved_out_is_watched_no_more(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    opened = Watch(host, tmp_path / "in")
    (tmp_path / "in/sub").rename(tmp_path / "out/sub")
    opened.until("renamed", "sub")
    (tmp_path / "out/sub/file").touch()
    (tmp_path / "in/last").touch()
    assert opened.until("created", "last") == [("created", "last")]
    opened.end()


def test_links_are_not_followed(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "in/link").symlink_to(tmp_path / "out")
    opened = Watch(host, tmp_path / "in")
    (tmp_path / "in/later").symlink_to(tmp_path / "out")
    (tmp_path / "out/file").touch()
    (tmp_path / "in/last").touch()
    assert opened.until("created", "last") == [("created", "later"), ("created", "last")]
    opened.end()


def test_the_watched_directory_may_itself_be_a_link(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    opened = Watch(host, tmp_path / "link")
    (tmp_path / "real/file").touch()
    assert opened.until("created", "file") == [("created", "file")]
    opened.end()


def test_names_that_are_not_utf8_survive_as_lone_surrogates(
    host: AgentHost, tmp_path: Path
) -> None:
    opened = Watch(host, tmp_path)
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\n")).touch()
    assert opened.until("created", "\udcff\n")
    opened.end()


def test_a_flood_of_writes_is_not_told_one_by_one(host: AgentHost, tmp_path: Path) -> None:
    opened = Watch(host, tmp_path)
    with (tmp_path / "file").open("wb", buffering=0) as file:
        for _ in range(20_000):
            file.write(b"x")
    (tmp_path / "last").touch()
    changes = opened.until("created", "last")
    assert ("written", "file") in changes
    assert len(changes) < 20_000
    opened.end()


def test_removing_the_directory_ends_the_watch(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "sub/deep").mkdir(parents=True)
    opened = Watch(host, tmp_path / "sub")
    (tmp_path / "sub/deep").rmdir()
    (tmp_path / "sub").rmdir()
    assert host.answer(opened.number).value == {"ended": "removed"}
    assert read_all(opened.reading) == b'{"change":"removed","path":"deep"}\n'


def test_removing_a_directory_that_somebody_holds_open_ends_the_watch(
    host: AgentHost, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    opened = Watch(host, tmp_path / "sub")
    held = os.open(tmp_path / "sub", os.O_RDONLY)
    (tmp_path / "sub").rmdir()
    assert host.answer(opened.number).value == {"ended": "removed"}
    os.close(held)
    os.close(opened.reading)


def test_moving_the_directory_away_ends_the_watch(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    opened = Watch(host, tmp_path / "sub")
    (tmp_path / "sub").rename(tmp_path / "other")
    assert host.answer(opened.number).value == {"ended": "removed"}
    os.close(opened.reading)


def test_a_neighbour_of_the_same_length_changes_nothing(host: AgentHost, tmp_path: Path) -> None:
    for name in ("sub", "bus"):
        (tmp_path / name).mkdir()
    opened = Watch(host, tmp_path / "sub")
    (tmp_path / "bus").rmdir()
    (tmp_path / "sub/file").touch()
    assert opened.until("created", "file") == [("created", "file")]
    opened.end()


def test_a_reader_that_goes_away_ends_the_watch(host: AgentHost, tmp_path: Path) -> None:
    opened = Watch(host, tmp_path)
    os.close(opened.reading)
    assert host.answer(opened.number).value == {"ended": "closed"}


def test_a_file_or_nothing_cannot_be_watched(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, code in (("file", "not_a_directory"), ("none", "not_found")):
        reading, writing = os.pipe()
        number = host.file("watch", [writing], path=f"{tmp_path}/{name}", recursive=True)
        answer = host.answer(number)
        assert answer.error == code
        assert f"{tmp_path}/{name}" in answer.detail
        assert read_all(reading) == b""


def test_too_many_directories_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(watch, "MAX_DIRECTORIES", 3)
    for name in "abc":
        (tmp_path / name).mkdir()
    with AgentHost() as host:
        reading, writing = os.pipe()
        answer = host.answer(host.file("watch", [writing], path=str(tmp_path), recursive=True))
        assert answer.error == "too_large"
        assert read_all(reading) == b""
        (tmp_path / "c").rmdir()
        opened = Watch(host, tmp_path)
        (tmp_path / "d").mkdir()
        assert opened._line() == {"change": "created", "path": "d"}
        assert opened._line() == {"overflow": True}
        opened.end()


def test_lost_changes_are_said_and_the_tree_is_watched_anew(
    host: AgentHost, tmp_path: Path
) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (tmp_path / "old").mkdir()
    opened = Watch(host, tmp_path)
    (child,) = host.children()
    os.kill(child, signal.SIGSTOP)
    script = "i=0; while [ $i -lt $0 ]; do : >a; : >b; i=$((i+1)); done; mkdir made; mv old new"
    subprocess.run(["sh", "-c", script, str(limit // 2)], cwd=tmp_path, check=True)
    os.kill(child, signal.SIGCONT)
    while opened._line() != {"overflow": True}:
        pass
    for name in ("made", "new"):
        (tmp_path / name / "file").touch()
        opened.until("created", f"{name}/file")
    opened.end()


def test_a_watch_that_nobody_reads_takes_no_more_memory(host: AgentHost, tmp_path: Path) -> None:
    opened = Watch(host, tmp_path)
    (child,) = host.children()
    before = _memory(child)
    script = "i=0; while [ $i -lt 20000 ]; do : >a; : >b; i=$((i+1)); done"
    subprocess.run(["sh", "-c", script], cwd=tmp_path, check=True)
    assert _memory(child) - before < 4 * 1024 * 1024
    opened.end()


def _memory(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("the process has no memory")


def write(host: AgentHost, path: Path, content: bytes) -> None:
    reading, writing = os.pipe()
    fields = {"mode": None, "create_parents": True, "append": False}
    number = host.file("write", [reading], path=str(path), **fields)
    os.write(writing, content)
    os.close(writing)
    assert host.answer(number).value == {"size": len(content)}


def test_a_file_that_is_written_for_somebody_looks_like_any_other(
    host: AgentHost, tmp_path: Path
) -> None:
    opened = Watch(host, tmp_path)
    write(host, tmp_path / "a", b"one")
    (tmp_path / "mid").touch()
    write(host, tmp_path / "a", b"two")
    (tmp_path / "last").touch()
    assert opened.until("created", "last") == [
        ("created", "a"),
        ("written", "a"),
        ("created", "mid"),
        ("written", "a"),
        ("created", "last"),
    ]
    opened.end()


def test_whoever_wants_to_hears_that_a_new_file_got_its_mode(
    host: AgentHost, tmp_path: Path
) -> None:
    opened = Watch(host, tmp_path, tells_modes=True)
    write(host, tmp_path / "a", b"one")
    (tmp_path / "mid").touch()
    write(host, tmp_path / "a", b"two")
    (tmp_path / "last").touch()
    assert opened.until("created", "last") == [
        ("created", "a"),
        ("chmod", "a"),
        ("written", "a"),
        ("created", "mid"),
        ("written", "a"),
        ("created", "last"),
    ]
    opened.end()


def test_a_name_like_that_of_a_file_without_one_is_told(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "#12").touch()
    opened = Watch(host, tmp_path)
    (tmp_path / "#12").chmod(0o600)
    assert opened.until("chmod", "#12") == [("chmod", "#12")]
    opened.end()
