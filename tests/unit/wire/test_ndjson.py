"""Lines of JSON: written so that everybody can read them, read within bounds."""

import itertools
import json

import pytest

from headrace.model.errors import InvalidRequestError
from headrace.wire.ndjson import LineDecoder, decode_json, encode_json, encode_line


@pytest.mark.parametrize(
    "value",
    [None, True, 1, -(2**63), 2**64 - 1, 2**64, 10**100, 1.5, "ä\u2028\n\0", [], {"a": [1]}],
)
def test_a_value_comes_back(value: object) -> None:
    assert decode_json(encode_json(value)) == value


def test_a_lone_surrogate_is_written_so_that_it_can_be_read() -> None:
    assert json.loads(encode_json({"a": "x\ud800"})) == {"a": "x\ud800"}


@pytest.mark.parametrize("value", [object(), {1: 2, "a": object()}, {1, 2}])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        encode_json(value)


def test_a_line_has_one_line_break_at_its_end() -> None:
    assert encode_line({"a": "b\nc"}) == b'{"a":"b\\nc"}\n'


@pytest.mark.parametrize("data", [b"", b"{", b"nul", b"\xff", b'{"a":1}x', "{"])
def test_reading_says_where_it_is_wrong(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"char|position"):
        decode_json(data)


def test_lines_are_given_as_they_become_complete() -> None:
    decoder = LineDecoder(100)

    assert list(decoder.feed(b'{"a"')) == []
    assert list(decoder.feed(b':1}\n\r\n  \n[2]\n"x')) == [{"a": 1}, [2]]
    assert list(decoder.feed(b'y"\n')) == ["xy"]
    decoder.end()


@pytest.mark.parametrize("cut", [5, 11, 12])
def test_a_line_that_is_too_long_is_refused_also_before_its_end(cut: int) -> None:
    decoder = LineDecoder(10)
    line = b'"' + b"x" * 20 + b'"\n'

    both = itertools.chain(decoder.feed(line[:cut]), decoder.feed(line[cut:]))

    with pytest.raises(InvalidRequestError, match="at most 10"):
        list(both)


def test_a_line_of_just_the_bound_is_read() -> None:
    assert list(LineDecoder(4).feed(b'"xy"\n')) == ["xy"]


@pytest.mark.parametrize("line", [b"{\n", b"\xff\n", b"[" * 5000 + b"\n"])
def test_a_line_that_is_no_json_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="a line is not JSON"):
        list(LineDecoder(10_000).feed(line))


def test_the_end_within_a_line_is_refused() -> None:
    decoder = LineDecoder(100)
    list(decoder.feed(b'[1]\n{"a'))

    with pytest.raises(InvalidRequestError, match="after 3 bytes"):
        decoder.end()
