"""Server-sent events as browsers read them."""

from headrace.wire import sse


def test_an_event_has_number_name_and_data() -> None:
    assert sse.encode_event("stdout", b'{"a":1}', 7) == b'id: 7\nevent: stdout\ndata: {"a":1}\n\n'


def test_an_event_without_a_number_leaves_that_of_the_last_one() -> None:
    assert sse.encode_event("failed", b"{}") == b"event: failed\ndata: {}\n\n"


def test_the_parts_make_the_whole() -> None:
    parts = sse.begin_event("x", 1) + b"{}" + sse.END

    assert parts == sse.encode_event("x", b"{}", 1)


def test_a_heartbeat_is_a_comment() -> None:
    assert sse.HEARTBEAT.startswith(b":")
    assert sse.HEARTBEAT.endswith(b"\n\n")
