"""Entries of directories and changes to them, as messages of the filesystem service.

They are proto3's JSON: 64-bit numbers as text, times in RFC 3339, enumerations by name, and no
field that has its default.
"""

import stat
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

from headrace.model.events import (
    ChangesDropped,
    FileChange,
    FileChanged,
    FinishReason,
    WatchEnded,
    WatchEvent,
    WatchStarted,
)
from headrace.model.files import FileInfo, FileType
from headrace.wire.connect import encode_message
from headrace.wire.ndjson import encode_json

Record: TypeAlias = dict[str, Any]
WatchedEvent: TypeAlias = tuple[WatchEvent, FileInfo | None]
"""An event of a watch, and what is at its path if somebody wants to know."""

HAS_ENTRY = frozenset({FileChange.CREATED, FileChange.WRITTEN, FileChange.CHMOD})
"""The changes after which there is something at the path."""

_TYPES = {
    FileType.FILE: "FILE_TYPE_FILE",
    FileType.DIRECTORY: "FILE_TYPE_DIRECTORY",
    FileType.SYMLINK: "FILE_TYPE_SYMLINK",
}
_CHANGES = {
    FileChange.CREATED: "EVENT_TYPE_CREATE",
    FileChange.WRITTEN: "EVENT_TYPE_WRITE",
    FileChange.REMOVED: "EVENT_TYPE_REMOVE",
    FileChange.RENAMED: "EVENT_TYPE_RENAME",
    FileChange.CHMOD: "EVENT_TYPE_CHMOD",
}
_LETTERS = {FileType.DIRECTORY: "d", FileType.SYMLINK: "L"}
_SPECIAL = ((stat.S_ISUID, "u"), (stat.S_ISGID, "g"), (stat.S_ISVTX, "t"))
_PERMISSIONS = 0o777
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST = -62_135_596_800
_LATEST = 253_402_300_799


def describe_entry(entry: FileInfo) -> Record:
    """Give an entry. A link has the type and mode of its target, and the rest is its own.

    A link that leads nowhere has no type, and itself as its target, as the vendor says it.
    """
    is_link = entry.type is FileType.SYMLINK
    kind = entry.target_type if is_link else entry.type
    mode = entry.target_mode if is_link else entry.mode
    record: Record = {
        "name": entry.name,
        "type": None if kind is None else _TYPES.get(kind),
        "path": entry.path,
        "size": str(entry.size) if entry.size else None,
        "mode": (mode or 0) & _PERMISSIONS,
        "permissions": describe_mode(entry.type, entry.mode),
        "owner": entry.owner,
        "group": entry.group,
        "modifiedTime": describe_time(entry.modified),
        "metadata": dict(entry.attributes) if entry.attributes else None,
    }
    if is_link:
        record["symlinkTarget"] = entry.path if entry.target is None else entry.target
        record["isSymlink"] = True
    return {name: value for name, value in record.items() if value}


def describe_mode(kind: FileType, mode: int) -> str:
    """Give type and permissions in the vendor's letters, such as ``-rw-r--r--`` or ``dtrwx...``."""
    letters = _LETTERS.get(kind, "") + "".join(each for bit, each in _SPECIAL if mode & bit)
    return (letters or "-") + stat.filemode(mode & _PERMISSIONS)[1:]


def describe_time(seconds: float) -> str:
    """Give a time in RFC 3339; those that it has no words for become the nearest it has."""
    bounded = min(max(seconds, _EARLIEST), _LATEST)
    moment = _EPOCH + timedelta(microseconds=round(bounded * 1_000_000))
    return moment.replace(tzinfo=None).isoformat() + "Z"


def describe_change(event: FileChanged, entry: FileInfo | None) -> Record:
    """Give a change to what is in a directory."""
    record: Record = {"name": event.path, "type": _CHANGES[event.change]}
    if entry is not None:
        record["entry"] = describe_entry(entry)
    return record


def encode_watch(batch: Sequence[WatchedEvent]) -> bytes:
    """Give the events of a watch as the envelopes of a stream; what ends it has none."""
    return b"".join(
        encode_message(encode_json(message))
        for event, entry in batch
        for message in _messages(event, entry)
    )


def encode_keepalive() -> bytes:
    """Give the sign of life of a stream."""
    return encode_message(b'{"keepalive":{}}')


def find_fault(event: WatchEvent) -> str | None:
    """Say what went wrong with a watch, if this event tells of that."""
    if isinstance(event, ChangesDropped):
        return f"changes were lost: {event.detail}"
    if isinstance(event, WatchEnded) and event.reason not in _GOOD_ENDS:
        return f"the watch ended: {event.detail or event.reason}"
    return None


_GOOD_ENDS: frozenset[FinishReason] = frozenset(
    {FinishReason.OK, FinishReason.KILLED, FinishReason.NODE_LOST}
)


def _messages(event: WatchEvent, entry: FileInfo | None) -> Sequence[Mapping[str, Any]]:
    match event:
        case WatchStarted():
            return ({"start": {}},)
        case FileChanged():
            return ({"filesystem": describe_change(event, entry)},)
        case ChangesDropped() | WatchEnded():
            return ()
