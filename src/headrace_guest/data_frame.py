"""The columns of a data frame as JSON: what ``to_dict(orient="list")`` has, in bounded time."""

import sys
from typing import Any

from headrace_guest.json_form import VALUE_COST, Cleaner, NotJsonError, check_size
from headrace_guest.protocol import Json


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
    check_size(rows * columns * VALUE_COST)
    cleaner = Cleaner()
    names = [cleaner.key(name) for name in frame.columns]
    if len(set(names)) != len(names):
        raise NotJsonError("two columns have the same name")
    return {name: _values_of(frame.iloc[:, n], cleaner) for n, name in enumerate(names)}


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
