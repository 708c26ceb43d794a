"""Everything that a guest sends is checked before it becomes a message."""

import json

import pytest

from headrace_guest import protocol
from headrace_guest.protocol import (
    AgentExit,
    AgentFailed,
    AgentReady,
    AgentReply,
    FrameReader,
    KernelDone,
    KernelError,
    KernelInput,
    KernelReady,
    KernelResult,
    ProtocolError,
    decode_body,
    encode_frame,
    parse_agent_message,
    parse_kernel_message,
)

RESULT = {
    "type": "result",
    "execution": "e",
    "bundle": {"text/plain": "1"},
    "is_main": True,
    "omitted": {},
    "is_update": False,
}
ERROR = {"type": "error", "execution": "e", "name": "N", "value": "v", "traceback": "t"}


def body(message: object) -> bytes:
    return json.dumps(message).encode()


def test_a_frame_comes_back_whole_however_it_is_cut() -> None:
    frame = encode_frame({"type": "ready"}) + encode_frame({"type": "x"})
    reader = FrameReader(100)
    bodies = [found for i in range(len(frame)) for found in reader.feed(frame[i : i + 1])]
    assert [decode_body(found)["type"] for found in bodies] == ["ready", "x"]
    assert reader.is_empty


def test_a_frame_that_is_too_long_is_refused_by_its_header() -> None:
    with pytest.raises(ProtocolError, match="exceeds 100"):
        list(FrameReader(100).feed((101).to_bytes(4, "big")))


def test_the_sender_does_not_send_what_is_too_long() -> None:
    with pytest.raises(ProtocolError, match="exceeds 10"):
        encode_frame({"a": "x" * 20}, 10)


@pytest.mark.parametrize(
    "garbage", [b"", b"{", b"[]", b"1", b'"x"', b"\xff", b'{"a": NaN}', b"9" * 5000]
)
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_body(garbage)


@pytest.mark.parametrize("depth", [2_000, 10_000, 1_000_000])
def test_deep_json_is_refused_and_harms_nothing(depth: int) -> None:
    with pytest.raises(ProtocolError):
        decode_body(b'{"a":' + b"[" * depth + b"]" * depth + b"}")


def test_json_as_deep_as_the_parser_takes_is_read_or_refused() -> None:
    for depth in range(100, 1000, 50):
        deep = b'"x"'
        deep = b"[" * depth + deep + b"]" * depth
        raw = body(RESULT)[:-1] + b',"bundle":{"a":' + deep + b"}}"
        try:
            parse_kernel_message(raw)
        except ProtocolError:
            continue


def test_kernel_messages_are_read() -> None:
    assert parse_kernel_message(body({"type": "ready"})) == KernelReady()
    assert parse_kernel_message(body(RESULT)) == KernelResult(
        "e", {"text/plain": "1"}, is_main=True, omitted={}, display_id=None, is_update=False
    )
    assert parse_kernel_message(body(ERROR)) == KernelError("e", "N", "v", "t")
    asked = {"type": "input", "execution": "e", "prompt": "?", "is_password": False}
    assert parse_kernel_message(body(asked)) == KernelInput("e", "?", is_password=False)
    done = {"type": "done", "execution": "e", "status": "error", "exit_code": 3}
    assert parse_kernel_message(body(done)) == KernelDone("e", "error", 3)


def test_parts_of_an_exception_group_are_read_in_order() -> None:
    grouped = {**ERROR, "parts": [{**ERROR, "name": "A"}, {**ERROR, "name": "B"}]}
    message = parse_kernel_message(body(grouped))
    assert isinstance(message, KernelError)
    assert [part.name for part in message.parts] == ["A", "B"]


def test_too_many_parts_are_refused() -> None:
    grouped = {**ERROR, "parts": [ERROR] * protocol.MAX_PARTS}
    with pytest.raises(ProtocolError, match="parts"):
        parse_kernel_message(body(grouped))


@pytest.mark.parametrize(
    "change",
    [
        {"type": "nonsense"},
        {"type": None},
        {"type": ["result"]},
        {"execution": 3},
        {"execution": "x" * 129},
        {"bundle": []},
        {"bundle": {str(i): "" for i in range(65)}},
        {"is_main": 1},
        {"omitted": {"a": -1}},
        {"omitted": {"a": True}},
        {"display_id": 5},
    ],
)
def test_a_result_with_a_wrong_field_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_kernel_message(body({**RESULT, **change}))


@pytest.mark.parametrize("status", ["done", "", 1, None])
def test_an_unknown_status_is_refused(status: object) -> None:
    with pytest.raises(ProtocolError):
        parse_kernel_message(body({"type": "done", "execution": "e", "status": status}))


@pytest.mark.parametrize("code", [-1, 2**64, "1", 1.5, True])
def test_an_exit_code_that_is_none_is_refused(code: object) -> None:
    done = {"type": "done", "execution": "e", "status": "ok", "exit_code": code}
    with pytest.raises(ProtocolError):
        parse_kernel_message(body(done))


def test_lone_surrogates_are_replaced_everywhere() -> None:
    message = parse_kernel_message(
        b'{"type":"result","execution":"e","bundle":{"\\ud800":["\\udfff",{"a":"\\ud83d"}]},'
        b'"is_main":false,"omitted":{},"is_update":false}'
    )
    json.dumps(message.bundle, ensure_ascii=False).encode()  # type: ignore[union-attr]


def test_infinite_numbers_become_null() -> None:
    raw = body(RESULT)[:-1] + b',"bundle":{"a":1e999}}'
    message = parse_kernel_message(raw)
    assert isinstance(message, KernelResult)
    assert message.bundle == {"a": None}


def test_agent_messages_are_read() -> None:
    assert parse_agent_message(body({"type": "ready"})) == AgentReady()
    assert parse_agent_message(body({"type": "failed", "detail": "d"})) == AgentFailed("d")
    reply = {"type": "reply", "request": 1, "value": {"a": 1}, "error": None, "detail": ""}
    assert parse_agent_message(body(reply)) == AgentReply(1, {"a": 1}, None, "")
    ended = {"type": "exit", "pid": 5, "exit_code": None, "signal": 9}
    assert parse_agent_message(body(ended)) == AgentExit(5, None, 9)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "reply", "request": -1, "value": {}, "error": None, "detail": ""},
        {"type": "reply", "request": 1, "value": [], "error": None, "detail": ""},
        {"type": "reply", "request": 1, "value": {}, "error": "odd", "detail": ""},
        {"type": "reply", "request": 1, "value": {}, "error": None},
        {"type": "exit", "pid": "5"},
        {"type": "failed"},
        {"type": 7},
        {},
    ],
)
def test_an_agent_message_with_a_wrong_field_is_refused(message: dict[str, object]) -> None:
    with pytest.raises(ProtocolError):
        parse_agent_message(body(message))


def test_a_lone_surrogate_becomes_one_replacement_character() -> None:
    assert protocol.clean_text("a\ud800b\udfff") == "a\ufffdb\ufffd"
    assert protocol.clean_text("häuser \U0001f600") == "häuser \U0001f600"
