"""Lines of JSON, in both directions."""

import json
from collections.abc import Iterator

import orjson

from headrace.model.errors import InvalidRequestError

_FALLBACK = json.JSONEncoder(separators=(",", ":"), allow_nan=False)


def encode_json(value: object) -> bytes:
    """Give a value as JSON; raises TypeError or ValueError if it is none.

    What the fast encoder refuses (integers of more than 64 bits, lone surrogates) is left to the
    slow one, which writes it as JSON allows.
    """
    try:
        return orjson.dumps(value)
    except orjson.JSONEncodeError:
        return _FALLBACK.encode(value).encode("ascii")


def encode_line(value: object) -> bytes:
    """Give a value as a line of JSON."""
    return encode_json(value) + b"\n"


def decode_json(data: bytes | bytearray | memoryview | str) -> object:
    """Read JSON; raises ValueError that says where it is none."""
    try:
        value: object = orjson.loads(data)
    except orjson.JSONDecodeError:
        # It accepts more (integers of any size) and says more exactly what is wrong.
        text = data if isinstance(data, str) else bytes(data).decode("utf-8")
        value = json.loads(text)
    return value


class LineDecoder:
    """Cuts a stream of bytes into lines of at most ``maximum`` bytes and reads each as JSON.

    Empty lines are skipped. Raises InvalidRequestError for a line that is too long or no JSON;
    it is of no more use then.
    """

    def __init__(self, maximum: int) -> None:
        self._maximum = maximum
        self._rest = bytearray()

    def feed(self, data: bytes) -> Iterator[object]:
        """Give the values of all lines that are complete now; iterate to the end."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            if self._rest:
                self._rest += line
                whole = bytes(self._rest)
                self._rest.clear()
            else:
                whole = line
            self._check(len(whole))
            if whole.strip():
                yield self._read(whole)
        self._rest += rest
        self._check(len(self._rest))

    def end(self) -> None:
        """Note the end of the stream; raises InvalidRequestError if it cut a line off."""
        if self._rest.strip():
            raise InvalidRequestError(
                f"the stream ended within a line, after {len(self._rest)} bytes"
            )

    def _check(self, size: int) -> None:
        if size > self._maximum:
            raise InvalidRequestError(
                f"a line has {size} bytes; at most {self._maximum} are accepted"
            )

    def _read(self, line: bytes) -> object:
        try:
            return decode_json(line)
        except (ValueError, RecursionError) as error:
            raise InvalidRequestError(f"a line is not JSON: {error}") from error
