"""No bytes that a guest can send make the parsers do anything but refuse."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_guest.protocol import (
    MAX_GUEST_FRAME,
    FrameReader,
    ProtocolError,
    encode_frame,
    parse_agent_message,
    parse_kernel_message,
)

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
FIELDS = st.sampled_from(
    [
        *("type", "execution", "bundle", "is_main", "omitted", "display_id", "is_update", "name"),
        *("value", "traceback", "parts", "prompt", "is_password", "status", "exit_code", "pid"),
        *("request", "error", "detail", "signal"),
    ]
)
TYPES = st.sampled_from(["ready", "result", "error", "input", "done", "reply", "exit", "failed"])


@given(st.binary(max_size=400), st.integers(1, 40))
def test_any_bytes_in_any_cut_are_frames_or_refused(data: bytes, step: int) -> None:
    reader = FrameReader(64)
    try:
        for start in range(0, len(data), step):
            for body in reader.feed(data[start : start + step]):
                assert len(body) <= 64
    except ProtocolError:
        pass


@given(TYPES, st.dictionaries(FIELDS, JSON, max_size=8))
def test_any_object_is_a_message_or_refused(kind: str, fields: dict[str, Any]) -> None:
    raw = json.dumps({**fields, "type": kind}).encode()
    for parse in (parse_kernel_message, parse_agent_message):
        try:
            parse(raw)
        except ProtocolError:
            continue


@given(st.binary(max_size=200))
def test_any_body_is_a_message_or_refused(raw: bytes) -> None:
    for parse in (parse_kernel_message, parse_agent_message):
        try:
            parse(raw)
        except ProtocolError:
            continue


@given(st.lists(st.dictionaries(st.text(), st.text(), max_size=3), max_size=5), st.integers(1, 9))
def test_frames_survive_any_cut(messages: list[dict[str, str]], step: int) -> None:
    stream = b"".join(encode_frame(message) for message in messages)
    reader = FrameReader(10_000)
    found = [
        json.loads(body)
        for start in range(0, len(stream), step)
        for body in reader.feed(stream[start : start + step])
    ]
    assert found == messages
    assert reader.is_empty


CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.name)
def test_each_hostile_frame_of_the_corpus_is_judged_as_its_name_says(path: Path) -> None:
    expected = path.name.partition("-")[0]
    reader = FrameReader(MAX_GUEST_FRAME)
    judged = "incomplete"
    try:
        for body in reader.feed(path.read_bytes()):
            message = parse_kernel_message(body)
            judged = "accepted"
            # What is accepted can be sent on as it is.
            json.dumps(asdict(message), allow_nan=False, ensure_ascii=False).encode()
    except ProtocolError:
        judged = "refused"
    assert judged == expected


@given(st.sampled_from(CORPUS), st.integers(0, 400), st.binary(min_size=1, max_size=4))
def test_what_comes_of_the_corpus_by_changing_it_is_judged_too(
    path: Path, position: int, change: bytes
) -> None:
    data = bytearray(path.read_bytes()[:2000])
    data[position : position + len(change)] = change
    try:
        for body in FrameReader(MAX_GUEST_FRAME).feed(bytes(data)):
            parse_kernel_message(body)
    except ProtocolError:
        return
