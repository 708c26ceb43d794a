# Made from the async face by scripts/generate-sync; change that one.
"""Watching directories."""

import pytest
from e2b_code_interpreter import (
    FileNotFoundException,
    FilesystemEventType,
    InvalidArgumentException,
    Sandbox,
)
from face_sync import watching

CREATE = FilesystemEventType.CREATE
WRITE = FilesystemEventType.WRITE
REMOVE = FilesystemEventType.REMOVE
RENAME = FilesystemEventType.RENAME
CHMOD = FilesystemEventType.CHMOD


def pairs(events: list) -> list[tuple[str, FilesystemEventType]]:
    """Give name and type of each event."""
    return [(event.name, event.type) for event in events]


# covers: files.watch_dir, watch.stop
def test_what_happens_in_a_directory_is_told(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d")

    with watching(sandbox, "d") as watch:
        sandbox.files.write("d/f", "x")
        watch.until(lambda events: ("f", WRITE) in pairs(events))
        sandbox.commands.run("chmod 600 d/f")
        watch.until(lambda events: ("f", CHMOD) in pairs(events))
        sandbox.files.rename("d/f", "d/g")
        watch.until(lambda events: ("g", CREATE) in pairs(events))
        sandbox.files.remove("d/g")
        events = watch.until(lambda events: ("g", REMOVE) in pairs(events))

    seen = pairs(events)
    order = [seen.index(pair) for pair in [("f", CREATE), ("f", WRITE), ("f", RENAME)]]
    assert order == sorted(order)
    assert seen.index(("f", RENAME)) < seen.index(("g", CREATE))
    assert all(event.entry is None for event in events)


def test_only_a_recursive_watch_sees_what_is_below(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d/sub")

    with watching(sandbox, "d") as flat, watching(sandbox, "d", recursive=True) as deep:
        sandbox.files.write("d/sub/f", "x")
        deep.until(lambda events: ("sub/f", WRITE) in pairs(events))
        sandbox.files.write("d/last", "x")
        deep.until(lambda events: ("last", WRITE) in pairs(events))
        flat.until(lambda events: ("last", WRITE) in pairs(events))

    assert "sub/f" not in [event.name for event in flat.events]


def test_a_recursive_watch_sees_new_directories(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d")

    with watching(sandbox, "d", recursive=True) as watch:
        sandbox.files.make_dir("d/new")
        watch.until(lambda events: ("new", CREATE) in pairs(events))
        sandbox.files.write("d/new/f", "x")
        watch.until(lambda events: ("new/f", WRITE) in pairs(events))


def test_an_event_may_describe_its_file(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("d")

    with watching(sandbox, "d", include_entry=True) as watch:
        sandbox.files.write("d/f", "12345")
        events = watch.until(lambda events: ("f", WRITE) in pairs(events))

    entries = [event.entry for event in events if event.type is WRITE]
    assert entries
    assert entries[-1].path == "/home/user/d/f"
    assert entries[-1].owner == "user"


def test_what_is_no_directory_cannot_be_watched(sandbox: Sandbox) -> None:
    sandbox.files.write("f", "")

    with pytest.raises(FileNotFoundException):
        watching(sandbox, "missing").__enter__()
    with pytest.raises(InvalidArgumentException):
        watching(sandbox, "f").__enter__()
