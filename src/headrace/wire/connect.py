"""The server half of the Connect protocol with JSON messages: envelopes, error codes, timeouts.

Pure framing (connectrpc.com, protocol reference); who calls what is not known here. A stream's body
is a sequence of envelopes: a byte of flags, a length of four bytes, big-endian, and a JSON object.
"""

import re
import struct
from collections.abc import Iterator, Mapping
from enum import StrEnum

from headrace.model.errors import InvalidRequestError

UNARY_TYPE = b"application/json"
STREAM_TYPE = b"application/connect+json"

_HEADER = struct.Struct(">BI")
_MESSAGE = 0
_COMPRESSED = 1
_END = 2
_TIMEOUT = re.compile(r"[0-9]{1,10}", re.ASCII)


class Code(StrEnum):
    """Why a call failed, in the protocol's words."""

    CANCELED = "canceled"
    UNKNOWN = "unknown"
    INVALID_ARGUMENT = "invalid_argument"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    NOT_FOUND = "not_found"
    ALREADY_EXISTS = "already_exists"
    PERMISSION_DENIED = "permission_denied"
    RESOURCE_EXHAUSTED = "resource_exhausted"
    FAILED_PRECONDITION = "failed_precondition"
    ABORTED = "aborted"
    OUT_OF_RANGE = "out_of_range"
    UNIMPLEMENTED = "unimplemented"
    INTERNAL = "internal"
    UNAVAILABLE = "unavailable"
    DATA_LOSS = "data_loss"
    UNAUTHENTICATED = "unauthenticated"


STATUSES: Mapping[Code, int] = {
    Code.CANCELED: 499,
    Code.UNKNOWN: 500,
    Code.INVALID_ARGUMENT: 400,
    Code.DEADLINE_EXCEEDED: 504,
    Code.NOT_FOUND: 404,
    Code.ALREADY_EXISTS: 409,
    Code.PERMISSION_DENIED: 403,
    Code.RESOURCE_EXHAUSTED: 429,
    Code.FAILED_PRECONDITION: 400,
    Code.ABORTED: 409,
    Code.OUT_OF_RANGE: 400,
    Code.UNIMPLEMENTED: 501,
    Code.INTERNAL: 500,
    Code.UNAVAILABLE: 503,
    Code.DATA_LOSS: 500,
    Code.UNAUTHENTICATED: 401,
}
"""The HTTP status that a unary call fails with."""


def encode_message(message: bytes) -> bytes:
    """Put a JSON object into an envelope."""
    return _HEADER.pack(_MESSAGE, len(message)) + message


def encode_end(error: bytes | None = None) -> bytes:
    """Give the envelope that ends a stream; ``error`` is the JSON object of a failure."""
    body = b"{}" if error is None else b'{"error":%s}' % error
    return _HEADER.pack(_END, len(body)) + body


def parse_timeout(text: str | None) -> float | None:
    """Read ``Connect-Timeout-Ms``, in seconds; None if there is none.

    Raises InvalidRequestError for anything but a whole number of at most ten digits. With 0 the
    time is over when the call arrives.
    """
    if text is None:
        return None
    if not _TIMEOUT.fullmatch(text):
        raise InvalidRequestError(
            f"Connect-Timeout-Ms must be a number of at most ten digits, got {text[:40]!r}"
        )
    return int(text) / 1000


class EnvelopeReader:
    """Cuts the body of a stream into messages of at most ``maximum`` bytes.

    Raises InvalidRequestError for what is no envelope of a client, as soon as its header is there;
    it is of no more use then. It keeps an envelope that is incomplete, and the last piece.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Give the messages that are complete now; iterate to the end."""
        self._rest += data
        while len(self._rest) >= _HEADER.size:
            flags, length = _HEADER.unpack_from(self._rest)
            self._check(flags, length)
            end = _HEADER.size + length
            if len(self._rest) < end:
                return
            message = bytes(self._rest[_HEADER.size : end])
            del self._rest[:end]
            yield message

    def end(self) -> None:
        """Note the end of the body; raises InvalidRequestError if it cut an envelope off."""
        if self._rest:
            raise InvalidRequestError(
                f"the stream ended within an envelope, after {len(self._rest)} bytes"
            )

    def _check(self, flags: int, length: int) -> None:
        if flags & _COMPRESSED:
            raise InvalidRequestError("an envelope is compressed, which was not agreed on")
        if flags != _MESSAGE:
            raise InvalidRequestError(f"an envelope has the flags {flags:#x}; expected 0")
        if length > self._maximum:
            raise InvalidRequestError(
                f"an envelope has {length} bytes; at most {self._maximum} are accepted"
            )
