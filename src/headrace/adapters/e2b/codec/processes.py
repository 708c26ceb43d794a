"""Events of a process as envelopes of Connect, and processes as they are listed. Pure.

Bytes of a stream become ``data`` messages of at most the size that the vendor's have. The end is an
``end`` message and the envelope that ends the stream; a process that was ended by its deadline has
``deadline_exceeded`` in the latter, and no ``end``. Output that was lost has no message, since a
text of ours would look like the process's own: the ``error`` of the end says how much it was.
"""

from binascii import b2a_base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, assert_never

from headrace.model.events import (
    FinishReason,
    OutputDropped,
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
    Stream,
)
from headrace.model.specs import ProcessRequest
from headrace.wire.connect import Code, encode_end, encode_message
from headrace.wire.ndjson import encode_json

KIB = 1024
CHUNKS: Mapping[Stream, int] = {
    Stream.STDOUT: 32 * KIB,
    Stream.STDERR: 32 * KIB,
    Stream.PTY: 16 * KIB,
}
"""The most bytes of a stream that one message carries."""

SIGNALS: Mapping[int, str] = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
    16: "stack fault",
    17: "child exited",
    18: "continued",
    19: "stopped (signal)",
    20: "stopped",
    21: "stopped (tty input)",
    22: "stopped (tty output)",
    23: "urgent I/O condition",
    24: "CPU time limit exceeded",
    25: "file size limit exceeded",
    26: "virtual timer expired",
    27: "profiling timer expired",
    28: "window changed",
    29: "I/O possible",
    30: "power failure",
    31: "bad system call",
}
"""What the vendor's agent, which is written in Go, calls the signals of Linux."""

KEEPALIVE = encode_message(b'{"event":{"keepalive":{}}}')
"""The sign of life of a stream."""

_SIGKILL = 9


def encode_start(pid: int) -> bytes:
    """Give the first message of a stream."""
    return encode_message(b'{"event":{"start":{"pid":%d}}}' % pid)


def encode_data(stream: Stream, data: bytes) -> Iterator[bytes]:
    """Give the messages with these bytes."""
    size = CHUNKS[stream]
    name = stream.value.encode("ascii")
    for start in range(0, len(data), size):
        # Base64 needs no escapes; there may be a hundred thousand of these a second.
        text = b2a_base64(data[start : start + size], newline=False)
        yield encode_message(b'{"event":{"data":{"%s":"%s"}}}' % (name, text))


class ProcessEncoder:
    """Makes the envelopes of one stream; keeps in mind what output the client will never see."""

    def __init__(self) -> None:
        self._lost: list[OutputDropped] = []

    def encode(self, events: Sequence[ProcessEvent]) -> bytes:
        """Give the envelopes of consecutive events."""
        parts: list[bytes] = []
        for event in events:
            match event:
                case OutputWritten():
                    parts.extend(encode_data(event.stream, event.data))
                case ProcessStarted():
                    parts.append(encode_start(event.pid))
                case OutputDropped():
                    self._lost.append(event)
                case ProcessExited():
                    parts.append(encode_exit(event, self._lost))
                case _:
                    assert_never(event)
        return b"".join(parts)


def encode_exit(event: ProcessExited, lost: Sequence[OutputDropped] = ()) -> bytes:
    """Give what ends a stream; ``lost`` is the output that was not sent."""
    if event.reason is FinishReason.TIMEOUT:
        limit = "" if event.limit_value is None else f" of {event.limit_value:g} s"
        message = f"the process was killed: the time{limit} of its call was over"
        return encode_end(encode_json({"code": Code.DEADLINE_EXCEEDED, "message": message}))
    end = {"event": {"end": describe_exit(event, lost)}}
    return encode_message(encode_json(end)) + encode_end()


def describe_exit(event: ProcessExited, lost: Sequence[OutputDropped] = ()) -> dict[str, Any]:
    """Give the ``end`` of a process, whose ``error`` is absent if all went well."""
    if event.exit_code is not None:
        status = f"exit status {event.exit_code}"
    else:
        number = _SIGKILL if event.signal is None else event.signal
        status = f"signal: {SIGNALS.get(number, f'signal {number}')}"
    end = {
        "exitCode": -1 if event.exit_code is None else event.exit_code,
        "exited": event.exit_code is not None,
        "status": status,
    }
    causes = [*_explain(event), *(_describe_loss(each) for each in lost)]
    failure = [] if event.exit_code == 0 else [status]
    if causes:
        failure.append(f"({'; '.join(causes)})")
    return {**end, "error": " ".join(failure)} if failure else end


def _explain(event: ProcessExited) -> list[str]:
    """Say what the bare status leaves out."""
    if event.reason is FinishReason.OUTPUT_LIMIT:
        limit = "" if event.limit_value is None else f" of {event.limit_value:.0f} bytes"
        return [f"it wrote more than the output limit{limit}"]
    return [] if event.detail is None else [event.detail]


def _describe_loss(event: OutputDropped) -> str:
    return f"{event.dropped} bytes of {event.stream} were lost: {event.reason}"


def describe_process(request: ProcessRequest, pid: int) -> dict[str, Any]:
    """Give a process as it is listed, with the variables that it was started with."""
    config: dict[str, Any] = {"cmd": request.argv[0], "cwd": request.cwd}
    if len(request.argv) > 1:
        config["args"] = list(request.argv[1:])
    if request.env:
        config["envs"] = dict(request.env)
    process: dict[str, Any] = {"config": config, "pid": pid}
    return process if request.tag is None else {**process, "tag": request.tag}
