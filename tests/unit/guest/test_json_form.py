"""Values of user code as JSON: what each becomes, what is refused, and that all of it ends."""

import datetime
import decimal
import enum
import json
import uuid
from collections import Counter, OrderedDict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
import pytest

from headrace_guest.json_form import NotJsonError, TooLargeError, to_json, to_strict_json


class _Word(str, enum.Enum):  # noqa: UP042 - its str() is another one than that of StrEnum
    RED = "red"


class _Colour(enum.IntEnum):
    RED = 1


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        (None, None),
        (True, True),
        (_Colour.RED, 1),
        (1.5, 1.5),
        (float("nan"), None),
        (float("-inf"), None),
        (np.int64(3), 3),
        (np.float32("inf"), None),
        (np.bool_(True), True),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (pd.Series([1.0, float("nan")]), [1.0, None]),
        (
            {3: "a", None: "b", True: "c", 2.5: "d"},
            {"3": "a", "null": "b", "true": "c", "2.5": "d"},
        ),
        (MappingProxyType({"k": (1, 2)}), {"k": [1, 2]}),
        ({3}, [3]),
        (b"ab", "YWI="),
        (_Word.RED, "red"),
        (pd.NA, None),
        (pd.NaT, None),
        (np.datetime64("NaT"), None),
        (
            np.array(["2026-01-02", "NaT"], "datetime64[ns]"),
            ["2026-01-02T00:00:00.000000000", None],
        ),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (np.datetime64("2026-01-02T03:04:05", "s"), "2026-01-02T03:04:05"),
        (pd.Timestamp("2026-01-02"), "2026-01-02T00:00:00"),
        (decimal.Decimal("1.10"), "1.10"),
        (10**400, 10**400),
        (1 << 5000, "an integer of 5001 bits"),
        (object, "<class 'object'>"),
    ],
)
def test_values_become_json(value: object, cleaned: object) -> None:
    assert to_json(value) == cleaned
    json.dumps(to_json(value), allow_nan=False)


def test_a_value_that_contains_itself_ends_somewhere() -> None:
    value: list[Any] = []
    value.append(value)
    assert json.dumps(to_json(value)).count("[") == 65


@pytest.mark.parametrize("value", [["x" * 1000] * 10_000, np.zeros(10_000_000), bytes(9_000_000)])
def test_json_beyond_the_limit_is_refused_early(value: object) -> None:
    with pytest.raises(TooLargeError):
        to_json(value)


# --- strict ---------------------------------------------------------------------------------


class _Strange:
    def __str__(self) -> str:
        return "strange"


@pytest.mark.parametrize(
    ("value", "cleaned"),
    [
        ([], []),
        ({"a": [1, (2.5, None)], "b": {"c": True}}, {"a": [1, [2.5, None]], "b": {"c": True}}),
        ({"n": np.int64(3), "a": np.eye(2)}, {"n": 3, "a": [[1.0, 0.0], [0.0, 1.0]]}),
        ([float("nan"), np.float64("inf"), pd.NA, pd.NaT], [None] * 4),
        ([datetime.datetime(2026, 1, 2, 3, 4)], ["2026-01-02T03:04:00"]),  # noqa: DTZ001
        ([np.datetime64("2026-01-02")], ["2026-01-02"]),
        ([decimal.Decimal("1.10"), decimal.Decimal("NaN")], ["1.10", None]),
        (
            {3: "a", 2.5: "b", None: "c", True: "d"},
            {"3": "a", "2.5": "b", "null": "c", "true": "d"},
        ),
        ({np.int64(7): 1}, {"7": 1}),
        ({datetime.date(2026, 1, 2): 1}, {"2026-01-02": 1}),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (Counter("aab"), {"a": 2, "b": 1}),
        ([np.array([None, "x"], dtype=object)], [[None, "x"]]),
    ],
)
def test_what_json_can_hold_keeps_its_shape(value: object, cleaned: object) -> None:
    assert to_strict_json(value) == cleaned
    json.dumps(to_strict_json(value), allow_nan=False)


@pytest.mark.parametrize(
    "value",
    [
        [{1, 2}],
        [b"bytes"],
        [1j],
        [np.array([1j])],
        [np.timedelta64(1, "ns")],
        [np.array([(1, 2)], dtype="i4,i4")],
        [_Strange()],
        [pd.Series([1])],
        [uuid.UUID(int=1)],
        {(1, 2): "a tuple as a key"},
        {"1": "a", 1: "b"},
        [1 << 5000],
        {_Strange(): 1},
    ],
)
def test_what_json_cannot_hold_is_refused(value: object) -> None:
    with pytest.raises(NotJsonError):
        to_strict_json(value)


def test_what_contains_itself_is_refused() -> None:
    value: list[Any] = []
    value += [value, value]
    with pytest.raises(NotJsonError):
        to_strict_json(value)


def test_deep_values_are_refused_and_less_deep_ones_are_not() -> None:
    deep: list[Any] = []
    for _ in range(64):
        deep = [deep]
    assert to_strict_json(deep) == deep
    with pytest.raises(NotJsonError):
        to_strict_json([deep])


class _Endless(Mapping[str, int]):
    """Says that it is empty, and has items without end."""

    def __len__(self) -> int:
        return 0

    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            number += 1
            yield str(number)


def test_a_mapping_without_end_is_refused() -> None:
    with pytest.raises(TooLargeError):
        to_strict_json([_Endless()])


def test_a_long_list_is_refused_before_its_items_are_looked_at() -> None:
    with pytest.raises(TooLargeError) as caught:
        to_strict_json([_Strange()] * 10_000_000)
    assert caught.value.size >= 10_000_000
