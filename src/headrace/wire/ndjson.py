"""Lines of JSON, in both directions."""

import json
from collections.abc import Iterator

import orjson

from headrace.model.errors import InvalidRequestError

_HUGE = 2.0**63
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
        # It accepts more (lone surrogates) and says more exactly what is wrong.
        return _decode_slowly(data)
    return _decode_slowly(data) if _has_huge_number(value) else value


def _decode_slowly(data: bytes | bytearray | memoryview | str) -> object:
    value: object = json.loads(data if isinstance(data, str) else bytes(data).decode("utf-8"))
    return value


def _has_huge_number(value: object) -> bool:
    """Say whether there is a number that may have been an integer of more than 64 bits.

    The fast decoder makes a float of such an integer, which loses its digits.
    """
    waiting = [value]
    while waiting:
        each = waiting.pop()
        if type(each) is float:
            if abs(each) >= _HUGE:
                return True
        elif type(each) is dict:
            waiting.extend(each.values())
        elif type(each) is list:
            waiting.extend(each)
    return False


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
