"""Values of user code as JSON: bounded in size and depth, never NaN, text keys only.

Two ways: `to_json` makes something of everything, for forms that say themselves that they are
JSON. `to_strict_json` refuses what JSON cannot hold, for values that merely might be JSON.
"""

import base64
import datetime
import decimal
import json
import math
import sys
from collections.abc import Mapping, Set
from typing import Any

from headrace_guest.protocol import Json

MAX_REPRESENTATION = 8 * 1024 * 1024
"""The largest JSON form, in bytes, that one representation may have."""
VALUE_COST = 16
"""Bytes that a JSON value counts as at least: a host refuses frames of too many values."""
_MAX_DEPTH = 64
_MAX_INT_BITS = 4096
_NOT_A_TIME = "NaT"
_JSON_KINDS = "biufMUO"
"""Kinds of arrays of numpy whose members have a place in JSON."""


class TooLargeError(Exception):
    """A representation exceeds `MAX_REPRESENTATION`; ``size`` is what is known of its size."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


class NotJsonError(Exception):
    """A value has something in it that JSON cannot hold."""


def check_size(size: int) -> int:
    """Give the size back; raises TooLargeError if a representation may not have it."""
    if size > MAX_REPRESENTATION:
        raise TooLargeError(size)
    return size


def to_json(value: Any) -> Json:  # noqa: ANN401 - user code gives anything
    """Turn any value into what JSON can hold.

    Numbers and arrays of numpy become numbers and lists, dates ISO text, missing values null,
    bytes base64, anything else its ``str``. Raises TooLargeError.
    """
    return Cleaner().clean(value)


def to_strict_json(value: Any) -> Json:  # noqa: ANN401 - user code gives anything
    """Turn a value into JSON if all that it holds has a plain place there.

    That is what JSON has, numbers and arrays of numpy, dates (ISO text), decimals (their text),
    missing values and non-finite numbers (null), numbers as keys. Raises NotJsonError for all
    else, for what contains itself or is nested too deeply, and for keys that become equal;
    TooLargeError.
    """
    return _StrictCleaner().clean(value)


class Cleaner:
    """One walk over a value, or over several; counts roughly what the JSON form will take."""

    def __init__(self) -> None:
        self._spent = 0

    def clean(self, value: Any, depth: int = 0) -> Json:  # noqa: ANN401 - user code gives anything
        """Turn a value that is ``depth`` levels below the outermost one; see `to_json`."""
        self.spend(VALUE_COST)
        if value is None or value is True or value is False:
            return value
        if depth > _MAX_DEPTH:
            return self._too_deep()
        if isinstance(value, str):
            self.spend(len(value))
            return str.__str__(value)
        if isinstance(value, int):
            return self._int(int(value))
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return self._mapping(value, depth)
        if isinstance(value, list | tuple):
            check_size(self._spent + VALUE_COST * len(value))
            return [self.clean(item, depth + 1) for item in value]
        return self._object(value, depth)

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Json:
        return {self.key(key): self.clean(item, depth + 1) for key, item in value.items()}

    def _object(self, value: Any, depth: int) -> Json:  # noqa: ANN401 - see clean
        if isinstance(value, datetime.date | datetime.time):
            return _iso(value)
        if _is_numpy(value):
            return self._array(value, depth)
        if _is_missing(value):
            return None
        if isinstance(value, decimal.Decimal):
            return str(value) if value.is_finite() else None
        return self._anything(value, depth)

    def _array(self, array: Any, depth: int) -> Json:  # noqa: ANN401 - of numpy
        check_size(self._spent + 2 * array.size)
        if array.dtype.kind == "M":
            return self.clean(_iso_of_array(array), depth + 1)
        return self.clean(array.tolist(), depth + 1)

    def _anything(self, value: Any, depth: int) -> Json:  # noqa: ANN401 - see clean
        if isinstance(value, Set):
            return [self.clean(item, depth + 1) for item in value]
        if isinstance(value, bytes | bytearray | memoryview):
            self.spend(memoryview(value).nbytes)
            return base64.b64encode(value).decode("ascii")
        size = getattr(value, "size", 0)
        check_size(self._spent + (2 * size if isinstance(size, int) else 0))
        for method in ("tolist", "isoformat"):  # pandas
            convert = getattr(value, method, None)
            if callable(convert):
                return self.clean(convert(), depth + 1)
        text = str(value)
        self.spend(len(text))
        return text

    def _too_deep(self) -> Json:
        return "..."

    def _int(self, value: int) -> Json:
        bits = value.bit_length()
        return value if bits <= _MAX_INT_BITS else f"an integer of {bits} bits"

    def key(self, key: object) -> str:
        """Give the text that stands for a key."""
        if isinstance(key, bool) or key is None:
            return json.dumps(key)
        text = str.__str__(key) if isinstance(key, str) else str(key)
        self.spend(len(text))
        return text

    def spend(self, size: int) -> None:
        """Count so many bytes; raises TooLargeError beyond what a representation may have."""
        self._spent += size
        check_size(self._spent)


class _StrictCleaner(Cleaner):
    """A walk that gives up where the other one invents something."""

    def _mapping(self, value: Mapping[Any, Any], depth: int) -> Json:
        cleaned = super()._mapping(value, depth)
        if isinstance(cleaned, dict) and len(cleaned) != len(value):
            raise NotJsonError("two keys have the same text")
        return cleaned

    def _array(self, array: Any, depth: int) -> Json:  # noqa: ANN401 - of numpy
        if array.dtype.kind not in _JSON_KINDS:
            raise NotJsonError(f"an array of {array.dtype}")
        return super()._array(array, depth)

    def _anything(self, value: object, depth: int) -> Json:
        raise NotJsonError(type(value).__name__)

    def _too_deep(self) -> Json:
        raise NotJsonError(f"more than {_MAX_DEPTH} levels")

    def _int(self, value: int) -> Json:
        if value.bit_length() > _MAX_INT_BITS:
            raise NotJsonError("a huge integer")
        return value

    def key(self, key: object) -> str:
        if not isinstance(key, str | int | float | datetime.date | None) and not _is_numpy(key):
            raise NotJsonError(f"a key of type {type(key).__name__}")
        return super().key(key)


def _iso(value: datetime.date | datetime.time) -> str | None:
    text = value.isoformat()
    return None if text == _NOT_A_TIME else text  # pandas.NaT is a datetime


def _is_numpy(value: object) -> bool:
    numpy = sys.modules.get("numpy")
    return numpy is not None and issubclass(type(value), (numpy.generic, numpy.ndarray))


def _iso_of_array(array: Any) -> Any:  # noqa: ANN401 - text, or lists of it as deep as the array
    texts = sys.modules["numpy"].datetime_as_string(array).astype(object)
    return _null_for_missing(texts.tolist() if hasattr(texts, "tolist") else texts)


def _null_for_missing(value: Any) -> Any:  # noqa: ANN401 - see _iso_of_array
    if isinstance(value, list):
        return [_null_for_missing(item) for item in value]
    return None if value == _NOT_A_TIME else value


def _is_missing(value: object) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and value is getattr(pandas, "NA", None)
