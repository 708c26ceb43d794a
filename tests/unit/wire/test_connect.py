"""Envelopes, timeouts and codes of the Connect protocol."""

import struct

import pytest

from headrace.model.errors import InvalidRequestError
from headrace.wire.connect import (
    STATUSES,
    Code,
    EnvelopeReader,
    encode_end,
    encode_message,
    parse_timeout,
)


def test_a_message_has_a_flag_of_zero_and_its_length() -> None:
    assert encode_message(b'{"a":1}') == b'\x00\x00\x00\x00\x07{"a":1}'


def test_the_end_has_a_flag_of_two_and_says_what_went_wrong() -> None:
    assert encode_end() == b"\x02\x00\x00\x00\x02{}"
    assert (
        encode_end(b'{"code":"internal"}') == b'\x02\x00\x00\x00\x1d{"error":{"code":"internal"}}'
    )


def test_every_code_has_the_status_of_the_protocol() -> None:
    assert {str(code): status for code, status in STATUSES.items()} == {
        "canceled": 499,
        "unknown": 500,
        "invalid_argument": 400,
        "deadline_exceeded": 504,
        "not_found": 404,
        "already_exists": 409,
        "permission_denied": 403,
        "resource_exhausted": 429,
        "failed_precondition": 400,
        "aborted": 409,
        "out_of_range": 400,
        "unimplemented": 501,
        "internal": 500,
        "unavailable": 503,
        "data_loss": 500,
        "unauthenticated": 401,
    }
    assert set(STATUSES) == set(Code)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [(None, None), ("1", 0.001), ("60000", 60.0), ("0", 0.0), ("9999999999", 9_999_999.999)],
)
def test_a_timeout_is_milliseconds(text: str | None, seconds: float | None) -> None:
    assert parse_timeout(text) == seconds


@pytest.mark.parametrize(
    "text", ["", "-1", "1.5", "1e3", " 1", "10000000000", "x", "\u0661", "1\n"]
)
def test_what_is_no_timeout_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="Connect-Timeout-Ms"):
        parse_timeout(text)


def test_messages_are_given_when_they_are_complete() -> None:
    reader = EnvelopeReader(10)
    data = encode_message(b"one") + encode_message(b"") + encode_message(b"three")

    assert list(reader.feed(data[:4])) == []
    assert list(reader.feed(data[4:14])) == [b"one", b""]
    assert list(reader.feed(data[14:])) == [b"three"]
    reader.end()


@pytest.mark.parametrize(
    ("flags", "length", "why"),
    [
        (1, 3, "compressed"),
        (3, 3, "compressed"),
        (2, 2, "flags 0x2"),
        (4, 0, "flags 0x4"),
        (128, 0, "flags 0x80"),
        (0, 11, "at most 10"),
        (0, 2**32 - 1, "at most 10"),
    ],
)
def test_what_is_no_envelope_of_a_client_is_refused_by_its_header(
    flags: int, length: int, why: str
) -> None:
    reader = EnvelopeReader(10)

    with pytest.raises(InvalidRequestError, match=why):
        list(reader.feed(struct.pack(">BI", flags, length)))


@pytest.mark.parametrize("size", [1, 4, 5, 7])
def test_an_envelope_that_is_cut_off_is_refused(size: int) -> None:
    reader = EnvelopeReader(10)
    assert list(reader.feed(encode_message(b"one")[:size])) == []

    with pytest.raises(InvalidRequestError, match=f"after {size} bytes"):
        reader.end()
