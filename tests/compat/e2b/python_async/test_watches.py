"""Watching directories."""

import pytest
from e2b_code_interpreter import (
    AsyncSandbox,
    FileNotFoundException,
    FilesystemEventType,
    InvalidArgumentException,
)
from face_async import watching

CREATE = FilesystemEventType.CREATE
WRITE = FilesystemEventType.WRITE
REMOVE = FilesystemEventType.REMOVE
RENAME = FilesystemEventType.RENAME
CHMOD = FilesystemEventType.CHMOD


def pairs(events: list) -> list[tuple[str, FilesystemEventType]]:
    """Give name and type of each event."""
    return [(event.name, event.type) for event in events]


# covers: files.watch_dir, watch.stop
async def test_what_happens_in_a_directory_is_told(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("d")

    async with watching(sandbox, "d") as watch:
        await sandbox.files.write("d/f", "x")
        await watch.until(lambda events: ("f", WRITE) in pairs(events))
        await sandbox.commands.run("chmod 600 d/f")
        await watch.until(lambda events: ("f", CHMOD) in pairs(events))
        await sandbox.files.rename("d/f", "d/g")
        await watch.until(lambda events: ("g", CREATE) in pairs(events))
        await sandbox.files.remove("d/g")
        events = await watch.until(lambda events: ("g", REMOVE) in pairs(events))

    seen = pairs(events)
    order = [seen.index(pair) for pair in [("f", CREATE), ("f", WRITE), ("f", RENAME)]]
    assert order == sorted(order)
    assert seen.index(("f", RENAME)) < seen.index(("g", CREATE))
    assert all(event.entry is None for event in events)


async def test_only_a_recursive_watch_sees_what_is_below(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("d/sub")

    async with watching(sandbox, "d") as flat, watching(sandbox, "d", recursive=True) as deep:
        await sandbox.files.write("d/sub/f", "x")
        await deep.until(lambda events: ("sub/f", WRITE) in pairs(events))
        await sandbox.files.write("d/last", "x")
        await deep.until(lambda events: ("last", WRITE) in pairs(events))
        await flat.until(lambda events: ("last", WRITE) in pairs(events))

    assert "sub/f" not in [event.name for event in flat.events]


async def test_a_recursive_watch_sees_new_directories(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("d")

    async with watching(sandbox, "d", recursive=True) as watch:
        await sandbox.files.make_dir("d/new")
        await watch.until(lambda events: ("new", CREATE) in pairs(events))
        await sandbox.files.write("d/new/f", "x")
        await watch.until(lambda events: ("new/f", WRITE) in pairs(events))


async def test_an_event_may_describe_its_file(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("d")

    async with watching(sandbox, "d", include_entry=True) as watch:
        await sandbox.files.write("d/f", "12345")
        events = await watch.until(lambda events: ("f", WRITE) in pairs(events))

    entries = [event.entry for event in events if event.type is WRITE]
    assert entries
    assert entries[-1].path == "/home/user/d/f"
    assert entries[-1].owner == "user"


async def test_what_is_no_directory_cannot_be_watched(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("f", "")

    with pytest.raises(FileNotFoundException):
        await watching(sandbox, "missing").__aenter__()
    with pytest.raises(InvalidArgumentException):
        await watching(sandbox, "f").__aenter__()
