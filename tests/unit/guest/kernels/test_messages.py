"""What an interpreter says is bounded and checked, whatever it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace_guest.kernels import messages
from headrace_guest.kernels.messages import LineReader, read_message
from headrace_guest.protocol import ProtocolError


def read(**message: Any) -> dict[str, Any]:
    return read_message(json.dumps(message).encode())


@given(st.lists(st.binary(max_size=40)), st.data())
def test_lines_come_whole_however_the_bytes_are_cut(
    lines: list[bytes], data: st.DataObject
) -> None:
    wanted = [line.replace(b"\n", b"") for line in lines]
    stream = b"".join(line + b"\n" for line in wanted)
    reader = LineReader()
    got: list[bytes] = []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += reader.feed(stream[:size])
        stream = stream[size:]
    assert got == wanted


def test_an_endless_line_is_refused_before_it_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_LINE", 1000)
    reader = LineReader()
    assert list(reader.feed(b"x" * 1000)) == []
    with pytest.raises(ProtocolError, match="exceeds 1000"):
        list(reader.feed(b"x"))


def test_a_result_has_all_its_fields() -> None:
    assert read(type="result", bundle={"text/plain": "1"}, more="ignored") == {
        "type": "result",
        "bundle": {"text/plain": "1"},
        "omitted": {},
        "is_main": False,
        "display_id": None,
        "is_update": False,
    }


def test_representations_that_are_too_large_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MAX_REPRESENTATION", 10)
    result = read(type="result", bundle={"text/plain": "1", "text/html": "x" * 11})
    assert result["bundle"] == {"text/plain": "1"}
    assert result["omitted"] == {"text/html": 11}


def test_an_interpreter_may_name_itself_what_was_too_large() -> None:
    result = read(type="result", bundle={"text/plain": "1"}, omitted={"image/png": 20_000_000})
    assert result["bundle"] == {"text/plain": "1"}
    assert result["omitted"] == {"image/png": 20_000_000}
    result = read(type="result", bundle={}, omitted={f"text/{n}": n for n in range(100)})
    assert len(result["omitted"]) == 64


def test_a_result_has_so_many_representations_at_most() -> None:
    result = read(type="result", bundle={f"text/{n}": "x" for n in range(100)})
    assert len(result["bundle"]) == 64


def test_texts_of_an_error_are_cut_to_what_a_frame_may_hold() -> None:
    error = read(type="error", name="E", value="x" * 2_000_000, traceback="\ud800")
    assert len(error["value"]) == 1024 * 1024
    assert error["traceback"] == "\ufffd"


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"type": None},
        {"type": ["done"]},
        {"type": "ready"},
        {"type": "done"},
        {"type": "done", "status": "root"},
        {"type": "done", "status": "ok", "exit_code": -1},
        {"type": "done", "status": "ok", "exit_code": True},
        {"type": "done", "status": "ok", "exit_code": 2**63},
        {"type": "result"},
        {"type": "result", "bundle": "x"},
        {"type": "result", "bundle": {}, "display_id": 1},
        {"type": "result", "bundle": {}, "omitted": ["image/png"]},
        {"type": "result", "bundle": {}, "omitted": {"image/png": -1}},
        {"type": "error", "name": "x" * 2000, "value": "", "traceback": ""},
        {"type": "error", "name": "E", "value": None, "traceback": ""},
        {"type": "moved"},
        {"type": "moved", "pid": "1"},
        {"type": "moved", "pid": -1},
    ],
)
def test_what_is_no_message_is_refused(message: dict[str, Any]) -> None:
    with pytest.raises(ProtocolError):
        read(**message)


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_nothing_else_happens(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_message(line)
