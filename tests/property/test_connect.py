"""Envelopes survive every cut, and whatever comes is either envelopes or refused."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from headrace.model.errors import InvalidRequestError
from headrace.wire.connect import EnvelopeReader, encode_message

MAXIMUM = 50


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes at these places, wherever they fall."""
    edges = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(edges)]


@given(st.lists(st.binary(max_size=MAXIMUM), max_size=8), st.lists(st.integers(0, 1000)))
def test_messages_come_back_however_they_are_cut(messages: list[bytes], places: list[int]) -> None:
    reader = EnvelopeReader(MAXIMUM)
    data = b"".join(map(encode_message, messages))

    found = [message for piece in cut(data, places) for message in reader.feed(piece)]
    reader.end()

    assert found == messages


@given(st.binary(max_size=300), st.lists(st.integers(0, 1000)))
def test_garbage_is_read_or_refused_in_the_same_way_however_it_is_cut(
    data: bytes, places: list[int]
) -> None:
    def read(pieces: list[bytes]) -> tuple[list[bytes], str | None]:
        reader = EnvelopeReader(MAXIMUM)
        found: list[bytes] = []
        try:
            for piece in pieces:
                found.extend(reader.feed(piece))
            reader.end()
        except InvalidRequestError as error:
            return found, error.message
        return found, None

    found, refusal = read([data])
    in_pieces, its_refusal = read(cut(data, places))

    # Those before the refusal may be handed over before it or not; nothing else may differ.
    assert its_refusal == refusal
    assert in_pieces[: len(found)] == found
    if refusal is None:
        assert b"".join(map(encode_message, found)) == data
