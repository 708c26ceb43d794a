"""The index of a log as it is on disk, and readers of batches."""

import pytest

from headrace.engine.event_index import (
    ENTRY,
    HEADER,
    Entry,
    EventReader,
    Kind,
    pack_entry,
    pack_header,
    unpack_entries,
    unpack_header,
)
from headrace.model.ids import SANDBOX_LENGTH, SUFFIX_LENGTH


def test_an_index_entry_has_32_bytes() -> None:
    assert ENTRY.size == 32


def test_entries_come_back() -> None:
    entries = [
        Entry(Kind.STDOUT, 2**32 - 1, 2**63, 1234.5, 1),
        Entry(Kind.END, 0, 0, 0.0, 2**63),
    ]
    assert unpack_entries(b"".join(pack_entry(*entry) for entry in entries)) == entries


def test_a_header_names_the_log_and_its_codec() -> None:
    log_id = "a" * SANDBOX_LENGTH + "-" + "b" * SUFFIX_LENGTH
    header = pack_header("execution", log_id)
    assert len(header) == HEADER.size
    assert unpack_header(header + b"more") == ("execution", log_id)


@pytest.mark.parametrize("data", [b"", b"HRLOG", b"HRLOG\0\0\2" + b"\0" * 120, b"\0" * 128])
def test_what_is_no_index_of_this_version_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="not an event log"):
        unpack_header(data)


async def numbers(position: int) -> list[int]:
    """Three numbers at a time, up to ten."""
    return list(range(position + 1, min(position + 3, 10) + 1))


async def test_a_reader_hands_out_single_events() -> None:
    reader = EventReader(numbers, 4)
    assert [number async for number in reader] == [5, 6, 7, 8, 9, 10]
    assert reader.position == 10


async def test_a_reader_hands_out_batches() -> None:
    reader = EventReader(numbers, 0)
    assert await reader.batch() == [1, 2, 3]
    assert await reader.batch() == [4, 5, 6]
    assert reader.position == 6


async def test_single_events_and_batches_may_be_mixed() -> None:
    reader = EventReader(numbers, 0)
    assert await anext(reader) == 1
    assert reader.position == 1
    assert await reader.batch() == [2, 3]
    assert await anext(reader) == 4


async def test_a_reader_at_the_end_stays_there() -> None:
    reader = EventReader(numbers, 10)
    assert await reader.batch() == []
    assert await anext(reader, None) is None
    assert await anext(reader, None) is None
