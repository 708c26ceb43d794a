"""Events of processes as envelopes: sizes of chunks, names of signals, what explains an end."""

import base64
import json
import signal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.adapters.e2b.codec.processes import (
    SIGNALS,
    ProcessEncoder,
    describe_exit,
    describe_process,
    encode_data,
)
from headrace.model.events import (
    FinishReason,
    OutputDropped,
    OutputWritten,
    ProcessExited,
    Stream,
)
from headrace.model.specs import ProcessRequest
from tests.support.e2b import open_envelopes

KIB = 1024


def exited(reason: FinishReason = FinishReason.ERROR, **fields: object) -> ProcessExited:
    return ProcessExited(9, 2.0, reason, 1.0, **fields)  # type: ignore[arg-type]  # as they are given


@pytest.mark.parametrize(
    ("stream", "size", "sizes"),
    [
        (Stream.STDOUT, 1, [1]),
        (Stream.STDOUT, 32 * KIB, [32 * KIB]),
        (Stream.STDOUT, 32 * KIB + 1, [32 * KIB, 1]),
        (Stream.STDERR, 64 * KIB, [32 * KIB, 32 * KIB]),
        (Stream.PTY, 16 * KIB, [16 * KIB]),
        (Stream.PTY, 40 * KIB, [16 * KIB, 16 * KIB, 8 * KIB]),
    ],
)
def test_output_is_cut_into_chunks_of_the_vendors_size(
    stream: Stream, size: int, sizes: list[int]
) -> None:
    data = bytes(index % 251 for index in range(size))

    messages = open_envelopes(b"".join(encode_data(stream, data)))

    chunks = [
        base64.b64decode(message["event"]["data"][stream], validate=True) for _, message in messages
    ]
    assert [len(chunk) for chunk in chunks] == sizes
    assert b"".join(chunks) == data


@given(st.lists(st.tuples(st.sampled_from(list(Stream)), st.binary(min_size=1, max_size=99))))
def test_every_byte_comes_back_in_its_order(written: list[tuple[Stream, bytes]]) -> None:
    events = [OutputWritten(seq, 1.0, *each) for seq, each in enumerate(written, 2)]

    messages = open_envelopes(ProcessEncoder().encode(events))

    told = [next(iter(message["event"]["data"].items())) for _, message in messages]
    assert [(Stream(name), base64.b64decode(text)) for name, text in told] == written


@pytest.mark.parametrize(
    ("number", "status"),
    [
        (signal.SIGHUP, "signal: hangup"),
        (signal.SIGINT, "signal: interrupt"),
        (signal.SIGABRT, "signal: aborted"),
        (signal.SIGKILL, "signal: killed"),
        (signal.SIGSEGV, "signal: segmentation fault"),
        (signal.SIGPIPE, "signal: broken pipe"),
        (signal.SIGTERM, "signal: terminated"),
        (signal.SIGSYS, "signal: bad system call"),
        (34, "signal: signal 34"),
    ],
)
def test_an_end_by_a_signal_is_named_as_go_does(number: int, status: str) -> None:
    assert describe_exit(exited(signal=int(number))) == {
        "exitCode": -1,
        "exited": False,
        "status": status,
        "error": status,
    }


def test_every_signal_below_32_has_a_name() -> None:
    assert set(SIGNALS) == set(range(1, 32))


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (exited(FinishReason.OK, exit_code=0), None),
        (exited(exit_code=255), "exit status 255"),
        (
            exited(FinishReason.KILLED, detail="its exit was not seen"),
            "signal: killed (its exit was not seen)",
        ),
        (
            exited(FinishReason.OUTPUT_LIMIT, signal=9, limit_value=2.0**40),
            "signal: killed (it wrote more than the output limit of 1099511627776 bytes)",
        ),
        (
            exited(FinishReason.OUTPUT_LIMIT, signal=9),
            "signal: killed (it wrote more than the output limit)",
        ),
    ],
)
def test_the_error_says_what_the_status_leaves_out(end: ProcessExited, error: str | None) -> None:
    assert describe_exit(end).get("error") == error


def test_output_that_was_lost_is_told_at_the_end_and_puts_nothing_into_the_output() -> None:
    encoder = ProcessEncoder()
    dropped = OutputDropped(2, 1.0, Stream.STDOUT, 12, "log disk too slow")

    assert encoder.encode([dropped]) == b""
    (_, message), _ = open_envelopes(encoder.encode([exited(FinishReason.OK, exit_code=0)]))

    assert message["event"]["end"]["error"] == ("(12 bytes of stdout were lost: log disk too slow)")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"limit_value": 0.25}, "the process was killed: the time of 0.25 s of its call was over"),
        ({}, "the process was killed: the time of its call was over"),
    ],
)
def test_the_deadline_is_told_by_the_last_envelope_alone(
    fields: dict[str, float], message: str
) -> None:
    body = ProcessEncoder().encode([exited(FinishReason.TIMEOUT, signal=9, **fields)])

    error = {"code": "deadline_exceeded", "message": message}
    assert open_envelopes(body) == [(2, {"error": error})]


def test_a_process_is_listed_without_what_it_has_not() -> None:
    full = ProcessRequest(("/bin/sh", "-c", "x"), env={"A": "1"}, cwd="/tmp", tag="mine")
    assert describe_process(full, 7) == {
        "config": {"cmd": "/bin/sh", "args": ["-c", "x"], "cwd": "/tmp", "envs": {"A": "1"}},
        "pid": 7,
        "tag": "mine",
    }
    assert describe_process(ProcessRequest(("ls",), cwd="/"), 8) == {
        "config": {"cmd": "ls", "cwd": "/"},
        "pid": 8,
    }


def test_messages_are_json_that_any_reader_accepts() -> None:
    (data,) = encode_data(Stream.STDOUT, b"\xff\xfe>>??")

    assert data[5:] == b'{"event":{"data":{"stdout":"//4+Pj8/"}}}'
    assert json.loads(data[5:])
