"""The columns of a data frame as JSON: what ``to_dict(orient="list")`` has, in bounded time."""

import sys
from typing import Any

from headrace_guest.json_form import VALUE_COST, Cleaner, NotJsonError, check_size
from headrace_guest.protocol import Json

_COLUMN_COST = 1024
"""Bytes that a column counts as at least: pandas takes its time for each."""


def is_data_frame(value: object) -> bool:
    """Say whether a value is a data frame of pandas, without importing it or asking the value."""
    kind = getattr(sys.modules.get("pandas"), "DataFrame", None)
    return isinstance(kind, type) and issubclass(type(value), kind)


def columns_of(frame: Any) -> dict[str, list[Json]]:  # noqa: ANN401 - of pandas
    """Give each column as a list: dates as ISO text, missing values as null; no index.

    Raises TooLargeError, before anything is converted if the number of values says so, and
    NotJsonError if two columns have the same name: one would hide the other.
    """
    rows, columns = frame.shape
    check_size(columns * (rows * VALUE_COST + _COLUMN_COST))
    cleaner = Cleaner()
    data: dict[str, list[Json]] = {}
    for key, column in frame.items():
        name = cleaner.key(key)
        if name in data:
            raise NotJsonError("two columns have the same name")
        data[name] = _values_of(column, cleaner)
    return data


def _values_of(column: Any, cleaner: Cleaner) -> list[Json]:  # noqa: ANN401 - of pandas
    values: list[Any] = column.tolist()
    if _is_plain(column):
        cleaner.spend(VALUE_COST * len(values))
        return values
    return [cleaner.clean(value, 2) for value in values]


def _is_plain(column: Any) -> bool:  # noqa: ANN401 - of pandas
    """Say whether all values are numbers that JSON has, so that none must be looked at."""
    numpy = sys.modules["numpy"]
    dtype = column.dtype
    if not isinstance(dtype, numpy.dtype):
        return False
    return dtype.kind in "iub" or (dtype.kind == "f" and bool(numpy.isfinite(column).all()))
