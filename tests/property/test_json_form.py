"""Whatever user code has, its JSON form is JSON, or there is none."""

import json
from typing import Any

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace_guest.data_frame import columns_of
from headrace_guest.json_form import NotJsonError, to_json, to_strict_json

KEYS = st.one_of(
    st.text(),
    st.integers(),
    st.none(),
    st.booleans(),
    st.floats(),
    st.dates(),
    st.tuples(st.text()),
)
SCALARS = st.one_of(
    KEYS,
    st.binary(),
    st.datetimes(),
    st.complex_numbers(),
    st.decimals(),
    st.sampled_from([pd.NaT, pd.NA, np.datetime64("NaT"), np.float32("nan"), np.int8(3)]),
)
VALUES: st.SearchStrategy[Any] = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner),
        st.dictionaries(KEYS, inner),
        st.tuples(inner),
        st.lists(st.floats(), max_size=3).map(np.array),
    ),
)


@given(VALUES)
@settings(max_examples=100)
def test_any_value_becomes_json(value: object) -> None:
    json.dumps(to_json(value), allow_nan=False)


@given(VALUES)
@settings(max_examples=100)
def test_a_value_becomes_json_or_is_refused(value: object) -> None:
    try:
        form = to_strict_json(value)
    except NotJsonError:
        return
    assert json.loads(json.dumps(form, allow_nan=False)) == form


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_is_json_stays_as_it_is(value: object) -> None:
    assert to_strict_json(value) == value


@given(
    st.integers(0, 5).flatmap(
        lambda rows: st.dictionaries(
            KEYS, st.lists(SCALARS, min_size=rows, max_size=rows), max_size=3
        )
    )
)
@settings(max_examples=100)
def test_any_data_frame_becomes_json_of_its_shape_or_is_refused(columns: dict[Any, Any]) -> None:
    frame = pd.DataFrame(
        {n: pd.Series(list(values), dtype=object) for n, values in enumerate(columns.values())}
    )
    frame.columns = pd.Index(list(columns), dtype=object)
    try:
        data = columns_of(frame)
    except NotJsonError:
        return
    assert [len(values) for values in data.values()] == [len(frame)] * len(columns)
    json.dumps(data, allow_nan=False)
