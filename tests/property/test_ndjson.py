"""Lines of JSON survive every cut, and events keep every byte."""

import base64
import itertools
import json

import orjson
from hypothesis import given
from hypothesis import strategies as st

from headrace.adapters.native.codec import encode_ndjson, encode_sse
from headrace.model.events import OutputWritten, Stream
from headrace.wire.ndjson import LineDecoder, decode_json, encode_json, encode_line

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.text(st.characters(categories=["Cs", "Ll", "Cc"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


def as_json(value: object) -> object:
    """Give a value as JSON has it, which knows no difference between a pair and a character."""
    return json.loads(json.dumps(value))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at these places, wherever they fall."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(VALUES)
def test_every_value_comes_back(value: object) -> None:
    data = encode_json(value)

    assert decode_json(data) == json.loads(data) == as_json(value)
    assert b"\n" not in data


@given(st.lists(VALUES, max_size=6), st.lists(st.integers(0, 10_000)), st.booleans())
def test_lines_are_read_however_they_are_cut(
    values: list[object], places: list[int], has_blanks: bool
) -> None:
    data = (b"\n \r\n" if has_blanks else b"").join(encode_line(value) for value in values)
    decoder = LineDecoder(max(1, len(data)))

    found = [value for piece in cut(data, places) for value in decoder.feed(piece)]
    decoder.end()

    assert found == as_json(values)


PIECES = st.lists(
    st.binary(max_size=40) | st.text(max_size=20).map(lambda text: text.encode()), max_size=8
)


def events_of(pieces: list[bytes]) -> list[OutputWritten]:
    return [
        OutputWritten(seq, 1.0, Stream.STDOUT, data) for seq, data in enumerate(pieces, start=1)
    ]


def exact(told: dict[str, str]) -> bytes:
    return base64.b64decode(told["base64"]) if "base64" in told else told["text"].encode()


@given(PIECES)
def test_every_byte_of_output_can_be_had_from_lines(pieces: list[bytes]) -> None:
    lines = [orjson.loads(line) for line in encode_ndjson(events_of(pieces)).splitlines()]

    assert [exact(line) for line in lines] == pieces
    assert [line["text"] for line in lines] == [data.decode("utf-8", "replace") for data in pieces]


@given(PIECES)
def test_every_byte_of_output_can_be_had_from_server_sent_events(pieces: list[bytes]) -> None:
    blocks = encode_sse(events_of(pieces)).split(b"\n\n")

    assert blocks.pop() == b""
    told = [orjson.loads(block.partition(b"\ndata: ")[2]) for block in blocks]
    assert [exact(each) for each in told] == pieces
    assert [each["seq"] for each in told] == list(range(1, len(pieces) + 1))
