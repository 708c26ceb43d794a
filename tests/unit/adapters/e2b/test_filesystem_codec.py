"""How entries and changes look in the filesystem service's messages."""

from dataclasses import replace
from typing import Any

import pytest

from headrace.adapters.e2b.codec.filesystem import (
    describe_entry,
    describe_mode,
    describe_time,
    encode_keepalive,
    encode_watch,
    find_fault,
)
from headrace.model.events import (
    ChangesDropped,
    FileChange,
    FileChanged,
    FinishReason,
    WatchEnded,
    WatchStarted,
)
from headrace.model.files import FileInfo, FileType
from headrace.model.ids import WatchId
from tests.support.e2b import open_envelopes

FILE = FileInfo(
    path="/home/user/a.txt",
    name="a.txt",
    type=FileType.FILE,
    size=2**40,
    mode=0o644,
    owner="user",
    group="staff",
    modified=1_700_000_000.25,
)
LINK = replace(FILE, type=FileType.SYMLINK, mode=0o777, size=3)


def test_an_entry_has_text_for_large_numbers_and_names_for_types() -> None:
    assert describe_entry(FILE) == {
        "name": "a.txt",
        "type": "FILE_TYPE_FILE",
        "path": "/home/user/a.txt",
        "size": "1099511627776",
        "mode": 420,
        "permissions": "-rw-r--r--",
        "owner": "user",
        "group": "staff",
        "modifiedTime": "2023-11-14T22:13:20.250000Z",
    }


def test_a_link_has_the_type_and_mode_of_its_target_and_the_rest_of_itself() -> None:
    target = replace(LINK, target="/srv/data", target_type=FileType.DIRECTORY, target_mode=0o1750)

    entry = describe_entry(target)

    assert (entry["type"], entry["mode"]) == ("FILE_TYPE_DIRECTORY", 0o750)
    assert (entry["permissions"], entry["size"]) == ("Lrwxrwxrwx", "3")
    assert (entry["symlinkTarget"], entry["isSymlink"]) == ("/srv/data", True)


def test_a_link_that_leads_nowhere_has_no_type_and_leads_to_itself() -> None:
    entry = describe_entry(LINK)

    assert "type" not in entry
    assert "mode" not in entry
    assert (entry["symlinkTarget"], entry["isSymlink"]) == (LINK.path, True)


def test_what_is_neither_file_nor_directory_has_no_type() -> None:
    assert "type" not in describe_entry(replace(FILE, type=FileType.OTHER))


@pytest.mark.parametrize(("attributes", "told"), [(None, None), ({}, None), ({"a": ""}, {"a": ""})])
def test_metadata_are_told_if_there_are_any(attributes: Any, told: Any) -> None:
    assert describe_entry(replace(FILE, attributes=attributes)).get("metadata") == told


@pytest.mark.parametrize(
    ("kind", "mode", "text"),
    [
        (FileType.FILE, 0, "----------"),
        (FileType.FILE, 0o4755, "urwxr-xr-x"),
        (FileType.DIRECTORY, 0o755, "drwxr-xr-x"),
        (FileType.DIRECTORY, 0o1777, "dtrwxrwxrwx"),
        (FileType.DIRECTORY, 0o2770, "dgrwxrwx---"),
        (FileType.OTHER, 0o600, "-rw-------"),
    ],
)
def test_permissions_are_in_the_vendors_letters(kind: FileType, mode: int, text: str) -> None:
    assert describe_mode(kind, mode) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (-0.5, "1969-12-31T23:59:59.500000Z"),
        (1e300, "9999-12-31T23:59:59Z"),
        (-1e300, "0001-01-01T00:00:00Z"),
        (float("inf"), "9999-12-31T23:59:59Z"),
    ],
)
def test_any_time_that_a_file_can_have_can_be_told(seconds: float, text: str) -> None:
    assert describe_time(seconds) == text


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (FileChange.CREATED, "EVENT_TYPE_CREATE"),
        (FileChange.WRITTEN, "EVENT_TYPE_WRITE"),
        (FileChange.REMOVED, "EVENT_TYPE_REMOVE"),
        (FileChange.RENAMED, "EVENT_TYPE_RENAME"),
        (FileChange.CHMOD, "EVENT_TYPE_CHMOD"),
    ],
)
def test_a_change_has_a_name_and_a_type(change: FileChange, name: str) -> None:
    encoded = encode_watch([(FileChanged(2, 1.0, change, "sub/f"), None)])

    assert open_envelopes(encoded) == [(0, {"filesystem": {"name": "sub/f", "type": name}})]


def test_a_stream_begins_with_start_and_its_changes_may_have_entries() -> None:
    started = WatchStarted(1, 1.0, WatchId("w"), "/home/user")
    changed = FileChanged(2, 1.0, FileChange.CREATED, "a.txt")

    envelopes = open_envelopes(encode_watch([(started, None), (changed, FILE)]))

    assert envelopes[0] == (0, {"start": {}})
    assert envelopes[1][1]["filesystem"]["entry"] == describe_entry(FILE)


def test_the_end_of_a_watch_has_no_message_and_a_sign_of_life_has_one() -> None:
    assert encode_watch([(WatchEnded(3, 1.0, FinishReason.OK), None)]) == b""
    assert open_envelopes(encode_keepalive()) == [(0, {"keepalive": {}})]


def test_a_name_that_is_no_text_can_still_be_told() -> None:
    changed = FileChanged(2, 1.0, FileChange.CREATED, "\udcff")

    assert open_envelopes(encode_watch([(changed, None)]))[0][1]["filesystem"]["name"] == "\udcff"


def test_lost_changes_and_bad_ends_are_faults_and_nothing_else() -> None:
    assert find_fault(ChangesDropped(2, 1.0, "too many")) == "changes were lost: too many"
    bad = WatchEnded(3, 1.0, FinishReason.OUTPUT_LIMIT, "full")
    assert find_fault(bad) == "the watch ended: full"
    assert find_fault(WatchEnded(3, 1.0, FinishReason.ERROR)) == "the watch ended: error"
    for good in (FinishReason.OK, FinishReason.KILLED, FinishReason.NODE_LOST):
        assert find_fault(WatchEnded(3, 1.0, good)) is None
    assert find_fault(FileChanged(2, 1.0, FileChange.CREATED, "a")) is None
