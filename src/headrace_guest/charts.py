"""Figures of matplotlib to chart data: what is drawn, as numbers and texts that others can draw.

`e2b_charts` reads lines, points and pies. Bars and boxes are read by `chart_shapes`, because the
library guesses their direction and their labels from the picture. What it gets wrong about the
others is mended here: no ticks, dates of pandas, straight lines that are not of the grid.

Imported in the fork server only; without matplotlib or e2b_charts it cannot be imported.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from datetime import date
from typing import Any

import numpy as np
from e2b_charts import main as reader  # type: ignore[import-untyped]  # the library has no types
from e2b_charts.charts import base, planar  # type: ignore[import-untyped]  # see above
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from headrace_guest.chart_axis import make_date_reader
from headrace_guest.chart_shapes import Shapes, is_of_data, read_bars, read_boxes
from headrace_guest.json_form import VALUE_COST, TooLargeError

MAX_POINTS = 50_000
"""The most points of one figure: reading them takes a few tenths of a second."""

Chart = dict[str, Any]


def chart_of(figure: Figure) -> Chart:
    """Give the figure's chart; an empty one if it shows no data.

    Axes that are blank or the scale of colours do not count. Several axes make a ``superchart``.
    Raises TooLargeError for more than `MAX_POINTS` points.
    """
    drawn = [axes for axes in figure.axes if axes.has_data() and axes.get_label() != "<colorbar>"]
    _check_points(drawn)
    with warnings.catch_warnings():  # of matplotlib, about how the library uses it
        warnings.simplefilter("ignore")
        charts = [_chart_of_axes(axes) for axes in drawn]
    if len(charts) < 2:
        return charts[0] if charts else {}
    title = figure.get_suptitle() or None
    return {"type": "superchart", "title": title, "elements": charts}


def _check_points(drawn: Sequence[Axes]) -> None:
    count = 0
    for axes in drawn:
        count += len(axes.patches)
        count += sum(np.size(line.get_xdata()) for line in axes.lines)
        count += sum(np.size(collection.get_offsets()) // 2 for collection in axes.collections)
    if count > MAX_POINTS:
        raise TooLargeError(3 * count * VALUE_COST)


def _chart_of_axes(axes: Axes) -> Chart:
    if hasattr(axes, "get_zlim"):
        return _plain(axes)
    for kind, read in (("box_and_whisker", read_boxes), ("bar", read_bars)):
        shapes = read(axes)
        if shapes is not None:
            return _chart_of_shapes(kind, axes, shapes)
    try:
        chart = reader.get_chart_from_ax(axes)
    except Exception:  # noqa: BLE001 - what the library cannot read is unknown
        return _plain(axes)
    fields: Chart = {**chart.model_dump(warnings=False), "type": chart.type.value}
    if fields["type"] in ("line", "scatter"):
        _mend_points(fields, axes)
    elif fields["type"] != "pie":
        return _plain(axes)
    return fields


def _plain(axes: Axes) -> Chart:
    return {**base.Chart(ax=axes, type="unknown").model_dump(), "type": "unknown"}


def _chart_of_shapes(kind: str, axes: Axes, shapes: Shapes) -> Chart:
    fields: Chart = {**base.Chart2D(ax=axes, type=kind).model_dump(), "type": kind}
    fields["elements"] = shapes.elements
    if shapes.is_horizontal:
        for name in ("label", "unit"):
            x, y = f"x_{name}", f"y_{name}"
            fields[x], fields[y] = fields[y], fields[x]
    return fields


# --- lines and points -----------------------------------------------------------------------


def _mend_points(fields: Chart, axes: Axes) -> None:
    for index, axis in enumerate((axes.xaxis, axes.yaxis)):
        name = "xy"[index]
        ticks = [float(tick) for tick in axis.get_ticklocs()]
        read_date = make_date_reader(axis)
        if read_date is not None:
            fields[f"{name}_scale"] = "datetime"
            fields[f"{name}_ticks"] = [read_date(tick, True) for tick in ticks]
            _turn_into_dates(fields["elements"], index, read_date)
        elif fields[f"{name}_scale"] == "categorical":
            labels = fields[f"{name}_tick_labels"]
            if all(map(_is_number, labels, ticks)):
                fields[f"{name}_scale"] = "linear"


def _is_number(label: str, tick: float) -> bool:
    """Say whether a tick's label is just its number."""
    try:
        return math.isclose(float(label.replace("\N{MINUS SIGN}", "-")), tick, abs_tol=1e-9)
    except ValueError:
        return False


def _turn_into_dates(
    elements: Sequence[Chart], index: int, read_date: Callable[[float, bool], str | None]
) -> None:
    for element in elements:
        points = [list(point) for point in element["points"]]
        for point in points:
            if isinstance(point[index], float):
                point[index] = read_date(point[index], False)
        element["points"] = points


def _plain_coordinate(value: Any) -> str | float:  # noqa: ANN401 - users plot anything
    """Give a number, or the ISO text of a date; stands in for what the library does."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if hasattr(value, "to_timestamp"):  # a period of pandas
        value = value.to_timestamp()
    if isinstance(value, date):
        text = value.isoformat()
        return math.nan if text == "NaT" else text
    if value is None:
        return math.nan
    return str(value) if isinstance(value, str) else float(value)


def _is_no_data(line: Any) -> bool:  # noqa: ANN401 - of matplotlib
    """Say whether a line is a mark across the axes, which is no line of a line chart."""
    return not is_of_data(line)


def _is_mark(line: Any) -> bool:  # noqa: ANN401 - of matplotlib
    """Say whether a line beside other shapes is none of them: also if it is drawn as data."""
    return _is_no_data(line) or _is_straight(line)


def _list_ticks(_converter: object, ticks: Sequence[float]) -> list[float]:
    """Give the ticks as numbers; the library fails without any."""
    return [float(tick) for tick in ticks]


planar.PointData._parse_point = staticmethod(_plain_coordinate)
planar.PointChart._extract_ticks_info = staticmethod(_list_ticks)
_is_straight = reader.is_grid_line
reader.is_grid_line = _is_mark
planar.is_grid_line = _is_no_data
