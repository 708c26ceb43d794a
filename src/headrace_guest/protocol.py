"""Frames and messages between the engine and a sandbox; shared by both ends, no I/O.

A frame is an unsigned 32-bit big-endian length and that many bytes of JSON, one object with a
``type``. What a guest sends is hostile: lengths are bounded before anything is allocated, the
JSON's depth is bounded by the parser's recursion limit, and every field is checked here before
it becomes a message. A frame never names a sandbox, a host path, a user id or a descriptor of
the host: the host knows whom it talks to from the socket that it read.

Descriptors travel from host to guest only, beside the first bytes of the frame that says in
``fds`` how many belong to it, in order.
"""

import json
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

HEADER = struct.Struct("!I")
MAX_GUEST_FRAME = 16 * 1024 * 1024
"""The largest frame that a kernel may send: a result with its pictures."""
MAX_AGENT_FRAME = 256 * 1024
"""The largest frame that an agent may send; long listings go through a pipe instead."""
MAX_HOST_FRAME = 20 * 1024 * 1024
"""The largest frame that the host sends: 16 MiB of code, escaped by JSON at worst."""
MAX_FDS = 8
MAX_PARTS = 64
MAX_TEXT = 1024 * 1024
MAX_VALUES = 1_000_000
"""The most values in the JSON of one frame: a parser takes its time and memory per value."""

_TOKEN = re.compile(rb'"(?:[^"\\]+|\\.)*+"|[,\[{]', re.DOTALL)
"""A string, or what begins another value."""


class ProtocolError(Exception):
    """The other end sent something that the protocol does not allow."""


def encode_frame(message: Mapping[str, Any], maximum: int = MAX_HOST_FRAME) -> bytes:
    """Put a message into one frame; raises ProtocolError if it is too long.

    The JSON is pure ASCII, so that lone surrogates survive the trip and are dealt with by the
    one who reads them.
    """
    body = _encode(message).encode("ascii")
    if len(body) > maximum:
        raise ProtocolError(f"a frame of {len(body)} bytes exceeds {maximum}")
    return HEADER.pack(len(body)) + body


class FrameReader:
    """Cuts a stream of bytes into frames; memory is bounded by ``maximum`` and what is fed."""

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes in and give the bodies of the frames that are now complete."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            (length,) = HEADER.unpack_from(self._buffer)
            if length > self._maximum:
                raise ProtocolError(f"a frame of {length} bytes exceeds {self._maximum}")
            end = HEADER.size + length
            if len(self._buffer) < end:
                return
            body = bytes(memoryview(self._buffer)[HEADER.size : end])
            del self._buffer[:end]
            yield body

    @property
    def is_empty(self) -> bool:
        """Say whether no unfinished frame is waiting."""
        return not self._buffer


def decode_body(body: bytes) -> dict[str, Any]:
    """Read one frame's JSON object; raises ProtocolError for anything else."""
    _check_values(body)
    try:
        message = _decode(body.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"a frame is not JSON: {error}") from error
    if not isinstance(message, dict):
        raise ProtocolError(f"a frame holds {type(message).__name__}, expected an object")
    return message


def _check_values(body: bytes) -> None:
    """Refuse JSON of too many values before it is parsed; the quick count errs upwards."""
    if sum(map(body.count, (b",", b"[", b"{"))) <= MAX_VALUES:
        return
    count = 0
    for token in _TOKEN.finditer(body):
        if token.end() - token.start() == 1:
            count += 1
            if count > MAX_VALUES:
                raise ProtocolError(f"a frame has more than {MAX_VALUES} values")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


# Bound once: user code in a kernel may replace the functions of the json module.
_encode = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode


# --- kernel to host -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class KernelReady:
    """The kernel can take code."""


@dataclass(frozen=True, slots=True)
class KernelResult:
    """A value was displayed; see `headrace.model.results.Result` for the fields."""

    execution: str
    bundle: Mapping[str, Json]
    is_main: bool
    omitted: Mapping[str, int]
    display_id: str | None
    is_update: bool


@dataclass(frozen=True, slots=True)
class KernelError:
    """The code ended with an exception; ``parts`` are those of an exception group."""

    execution: str
    name: str
    value: str
    traceback: str
    parts: tuple["KernelError", ...] = ()


@dataclass(frozen=True, slots=True)
class KernelInput:
    """The code called ``input()`` and waits."""

    execution: str
    prompt: str
    is_password: bool


@dataclass(frozen=True, slots=True)
class KernelDone:
    """The code ended and everything it wrote is in the pipes.

    ``status`` is ``ok``, ``error`` or ``interrupted``; ``exit_code`` is that of ``sys.exit``.
    """

    execution: str
    status: str
    exit_code: int | None


KernelMessage = KernelReady | KernelResult | KernelError | KernelInput | KernelDone

DONE_STATUSES = ("ok", "error", "interrupted")


def parse_kernel_message(body: bytes) -> KernelMessage:
    """Check and read what a kernel sent; raises ProtocolError that says what is wrong."""
    message = decode_body(body)
    kind = message.get("type")
    parser = _KERNEL_PARSERS.get(kind) if isinstance(kind, str) else None
    if parser is None:
        raise ProtocolError(f"unknown kernel message {_shorten(kind)}")
    return parser(message)


def _parse_ready(_message: dict[str, Any]) -> KernelReady:
    return KernelReady()


def _parse_result(message: dict[str, Any]) -> KernelResult:
    bundle = take(message, "bundle", dict)
    if len(bundle) > 64:
        raise ProtocolError(f"a result has {len(bundle)} representations, at most 64 are allowed")
    omitted = take(message, "omitted", dict)
    for mime, size in omitted.items():
        if not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise ProtocolError(f"omitted[{_shorten(mime)}] is not a size: {_shorten(size)}")
    if len(omitted) > 64:
        raise ProtocolError("a result omits more than 64 representations")
    return KernelResult(
        execution=take_text(message, "execution", 128),
        bundle=clean_json(bundle),  # type: ignore[arg-type]  # a dict stays a dict
        is_main=take(message, "is_main", bool),
        omitted={clean_text(mime): size for mime, size in omitted.items()},
        display_id=take_optional_text(message, "display_id", 1024),
        is_update=take(message, "is_update", bool),
    )


def _parse_error(message: dict[str, Any]) -> KernelError:
    execution = take_text(message, "execution", 128)
    budget = [MAX_PARTS]
    return _read_error(message, execution, budget)


def _read_error(message: dict[str, Any], execution: str, budget: list[int]) -> KernelError:
    budget[0] -= 1
    if budget[0] < 0:
        raise ProtocolError(f"an error has more than {MAX_PARTS} parts")
    parts = message.get("parts", [])
    if not isinstance(parts, list):
        raise ProtocolError("parts of an error must be a list")
    read = []
    for part in parts:
        if not isinstance(part, dict):
            raise ProtocolError("a part of an error must be an object")
        read.append(_read_error(part, execution, budget))
    return KernelError(
        execution=execution,
        name=take_text(message, "name", MAX_TEXT),
        value=take_text(message, "value", MAX_TEXT),
        traceback=take_text(message, "traceback", MAX_TEXT),
        parts=tuple(read),
    )


def _parse_input(message: dict[str, Any]) -> KernelInput:
    return KernelInput(
        execution=take_text(message, "execution", 128),
        prompt=take_text(message, "prompt", MAX_TEXT),
        is_password=take(message, "is_password", bool),
    )


def _parse_done(message: dict[str, Any]) -> KernelDone:
    status = take_text(message, "status", 32)
    if status not in DONE_STATUSES:
        raise ProtocolError(f"unknown status {status!r}, expected one of {DONE_STATUSES}")
    return KernelDone(
        execution=take_text(message, "execution", 128),
        status=status,
        exit_code=take_optional_int(message, "exit_code"),
    )


_KERNEL_PARSERS: dict[str, Callable[[dict[str, Any]], KernelMessage]] = {
    "ready": _parse_ready,
    "result": _parse_result,
    "error": _parse_error,
    "input": _parse_input,
    "done": _parse_done,
}


# --- agent to host --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AgentReady:
    """The sandbox stands and the agent takes requests."""


@dataclass(frozen=True, slots=True)
class AgentFailed:
    """The sandbox could not be built; the process has ended."""

    detail: str


@dataclass(frozen=True, slots=True)
class AgentReply:
    """The answer to the request of that number.

    ``error`` is None or a short code (`AGENT_ERRORS`) and ``detail`` a sentence for people.
    ``value`` is what the request asked for.
    """

    request: int
    value: Mapping[str, Json]
    error: str | None
    detail: str


@dataclass(frozen=True, slots=True)
class AgentExit:
    """A process that was spawned has ended; everything it wrote is in the pipes."""

    pid: int
    exit_code: int | None
    signal: int | None


AgentMessage = AgentReady | AgentFailed | AgentReply | AgentExit

AGENT_ERRORS = (
    "not_found",
    "already_exists",
    "not_a_directory",
    "is_a_directory",
    "not_empty",
    "permission_denied",
    "no_space",
    "too_large",
    "not_supported",
    "no_directory",
    "invalid",
    "failed",
)


def parse_agent_message(body: bytes) -> AgentMessage:
    """Check and read what an agent sent; raises ProtocolError that says what is wrong."""
    message = decode_body(body)
    kind = message.get("type")
    if kind == "ready":
        return AgentReady()
    if kind == "failed":
        return AgentFailed(take_text(message, "detail", 64 * 1024))
    if kind == "reply":
        return _parse_reply(message)
    if kind == "exit":
        return AgentExit(
            pid=take_int(message, "pid"),
            exit_code=take_optional_int(message, "exit_code"),
            signal=take_optional_int(message, "signal"),
        )
    raise ProtocolError(f"unknown agent message {_shorten(kind)}")


def _parse_reply(message: dict[str, Any]) -> AgentReply:
    error = take_optional_text(message, "error", 64)
    if error is not None and error not in AGENT_ERRORS:
        raise ProtocolError(f"unknown agent error {error!r}")
    return AgentReply(
        request=take_int(message, "request"),
        value=clean_json(take(message, "value", dict)),  # type: ignore[arg-type]  # stays a dict
        error=error,
        detail=take_text(message, "detail", 64 * 1024),
    )


# --- checking -------------------------------------------------------------------------------


def take(message: Mapping[str, Any], key: str, kind: type) -> Any:  # noqa: ANN401 - checked JSON
    """Give a field of exactly that type."""
    value = message.get(key)
    if type(value) is not kind:
        raise ProtocolError(f"{key} must be {kind.__name__}, got {type(value).__name__}")
    return value


def take_text(message: Mapping[str, Any], key: str, maximum: int) -> str:
    """Give a text field of at most ``maximum`` characters, without lone surrogates."""
    value = message.get(key)
    if not isinstance(value, str):
        raise ProtocolError(f"{key} must be text, got {type(value).__name__}")
    if len(value) > maximum:
        raise ProtocolError(f"{key} has {len(value)} characters, at most {maximum} are allowed")
    return clean_text(value)


def take_optional_text(message: Mapping[str, Any], key: str, maximum: int) -> str | None:
    """Give a text field that may be missing or null."""
    return None if message.get(key) is None else take_text(message, key, maximum)


def take_int(message: Mapping[str, Any], key: str) -> int:
    """Give a whole number that fits 63 bits and is not negative."""
    value: int = take(message, key, int)
    if not 0 <= value < 2**63:
        raise ProtocolError(f"{key} is out of range: {_shorten(value)}")
    return value


def take_optional_int(message: Mapping[str, Any], key: str) -> int | None:
    """Give a whole number that may be missing or null."""
    return None if message.get(key) is None else take_int(message, key)


def clean_text(text: str) -> str:
    """Replace each lone surrogate, which is not text and cannot be sent on, by U+FFFD."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def clean_json(value: Any) -> Json:  # noqa: ANN401 - any JSON comes in
    """Replace lone surrogates and non-finite numbers everywhere in a JSON value.

    The depth is bounded by the parser that made the value; what is deeper than this function's
    own recursion allows is refused.
    """
    try:
        return _clean(value)
    except RecursionError as error:
        raise ProtocolError("a JSON value is nested too deeply") from error


def _clean(value: Any) -> Json:  # noqa: ANN401 - any JSON comes in
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {clean_text(key): _clean(item) for key, item in value.items()}
    return value  # type: ignore[no-any-return]  # None, bool, int, float


def _shorten(value: object) -> str:
    text = repr(value) if not isinstance(value, int) or abs(value) < 2**64 else "a huge number"
    return text if len(text) <= 80 else text[:77] + "..."
