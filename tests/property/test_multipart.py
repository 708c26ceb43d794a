"""Forms of any content cut anywhere mean the same; garbage never passes for one."""

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from headrace.adapters.e2b.envd.multipart import (
    FormEnded,
    FormEvent,
    FormParser,
    PartBegan,
    PartData,
    PartEnded,
)
from headrace.model.errors import InvalidRequestError

BOUNDARY = b"bound"
NASTY = st.sampled_from(
    [
        b"\r",
        b"\n",
        b"\r\n",
        b"-",
        b"--",
        b"\r\n--",
        b"\r\n--boun",
        b"--bound",
        b"bound",
        b"x",
        b"\0",
    ]
)
CONTENT = st.lists(NASTY | st.binary(max_size=20), max_size=12).map(b"".join)
"""Contents that look like the boundary as far as they may."""
CUTS = st.lists(st.integers(0, 2000), max_size=20)


def build(contents: list[bytes]) -> bytes:
    parts = [
        b'--%s\r\nContent-Disposition: form-data; name="file"; filename="d/%d"\r\n\r\n%s\r\n'
        % (BOUNDARY, index, content)
        for index, content in enumerate(contents)
    ]
    return b"".join(parts) + b"--" + BOUNDARY + b"--\r\n"


def cut(data: bytes, at: list[int]) -> list[bytes]:
    edges = [0, *sorted(min(each, len(data)) for each in at), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def parse(pieces: list[bytes]) -> list[FormEvent]:
    parser = FormParser(BOUNDARY)
    events = [event for piece in pieces for event in parser.feed(piece)]
    parser.end()
    return events


def contents_of(events: list[FormEvent]) -> list[bytes]:
    found: list[bytes] = []
    for event in events:
        match event:
            case PartBegan(filename=filename):
                assert filename == f"d/{len(found)}"
                found.append(b"")
            case PartData(data=data):
                found[-1] += data
            case PartEnded() | FormEnded():
                pass
    return found


@given(st.lists(CONTENT, max_size=4), CUTS)
@example([b"\r\n--boun"], list(range(200)))
@example([b"\r\n--\r\n--boun\r"], list(range(200)))
@example([b""], list(range(200)))
def test_contents_arrive_as_they_were_however_the_form_is_cut(
    contents: list[bytes], cuts: list[int]
) -> None:
    contents = [each for each in contents if b"\r\n--" + BOUNDARY not in b"\r\n" + each]
    if not contents:
        return

    events = parse(cut(build(contents), cuts))

    assert contents_of(events) == contents
    assert events[-1] == FormEnded()


@given(st.lists(CONTENT, min_size=1, max_size=3), st.integers(0, 5000), CUTS)
def test_a_form_that_is_cut_off_is_never_complete(
    contents: list[bytes], length: int, cuts: list[int]
) -> None:
    contents = [each for each in contents if BOUNDARY not in each] or [b"x"]
    whole = build(contents)
    beginning = whole[: min(length, len(whole) - len(b"--\r\n"))]

    try:
        parse(cut(beginning, cuts))
    except InvalidRequestError:
        return
    raise AssertionError(beginning)


@given(st.binary(max_size=300), CUTS)
def test_garbage_is_refused_and_nothing_else_happens(data: bytes, cuts: list[int]) -> None:
    try:
        parse(cut(data, cuts))
    except InvalidRequestError:
        return
    assert data.lstrip(b"\r\n").find(b"--" + BOUNDARY) >= 0
