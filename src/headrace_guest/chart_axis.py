"""What the positions along an axis of a figure mean: dates, or the labels of ticks."""

import math
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import matplotlib.dates as mdates
import numpy as np
from matplotlib.axis import Axis
from matplotlib.category import StrCategoryLocator
from matplotlib.ticker import FixedLocator

_PERIODS_OF_PANDAS = "PeriodConverter"


def make_date_reader(axis: Axis) -> Callable[[float, bool], str | None] | None:
    """Give what turns a position into ISO text, with the time zone if asked; None for no dates."""
    converter = axis.get_converter()
    if converter is None:
        return None
    kind = type(converter).__name__
    frequency = getattr(axis.axes, "freq", None)
    if kind == _PERIODS_OF_PANDAS and frequency is not None:
        return lambda position, _with_zone: _read_period(position, frequency)
    if isinstance(converter, _DATE_CONVERTERS):
        return _read_date
    return None


_DATE_CONVERTERS = (
    mdates.DateConverter,  # and those of pandas, which are derived from it
    mdates.ConciseDateConverter,
    mdates._SwitchableDateConverter,
)


def _read_date(position: float, with_zone: bool) -> str | None:
    if not math.isfinite(position):
        return None
    moment: datetime = mdates.num2date(position)  # type: ignore[no-untyped-call]  # is untyped
    return (moment if with_zone else moment.replace(tzinfo=None)).isoformat()


def _read_period(position: float, frequency: Any) -> str | None:  # noqa: ANN401 - of pandas
    if not math.isfinite(position):
        return None
    pandas = sys.modules["pandas"]  # which has made this axis
    period = pandas.Period(ordinal=round(position), freq=frequency)
    return str(period.to_timestamp().isoformat())


def label_positions(axis: Axis, positions: Sequence[float]) -> list[str]:
    """Name positions: by the nearest tick where each has one of its own, or by their value."""
    locator = axis.get_major_locator()
    if isinstance(locator, FixedLocator | StrCategoryLocator):
        ticks = np.asarray(axis.get_ticklocs(), dtype=float)
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if len(ticks) == len(labels) and len(ticks) > 0:
            nearest = [int(np.abs(ticks - position).argmin()) for position in positions]
            if len(set(nearest)) == len(nearest):
                return [labels[index] for index in nearest]
    read_date = make_date_reader(axis)
    if read_date is not None:
        return [read_date(position, False) or "" for position in positions]
    return [f"{position:g}" for position in positions]
