"""Figures as chart data: what each kind of plot becomes, and that nothing makes it fail."""

import datetime as dt
import io
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

mpl.use("agg")

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from headrace_guest.charts import MAX_POINTS, chart_of
from headrace_guest.json_form import TooLargeError, to_json

DAYS = [dt.date(2026, 1, 1), dt.date(2026, 1, 2)]
TWO_DAYS = ["2026-01-01T00:00:00", "2026-01-02T00:00:00"]
SAMPLES = [[1, 2, 3, 4, 10], [2, 3, 4, 5]]
FIRST_BOX = {
    "label": "1",
    "min": 1.0,
    "first_quartile": 2.0,
    "median": 3.0,
    "third_quartile": 4.0,
    "max": 4.0,
    "outliers": [10.0],
}


@pytest.fixture
def axes() -> Iterator[Axes]:
    figure = plt.figure()
    yield figure.subplots()
    plt.close(figure)


def read(axes: Axes) -> dict[str, Any]:
    """Draw the figure, as showing it does, and give its chart as a host would see it."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.savefig(io.BytesIO())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chart = to_json(chart_of(figure))
    assert isinstance(chart, dict)
    return chart


def points(chart: dict[str, Any]) -> Any:
    (element,) = chart["elements"]
    return element["points"]


# --- lines and points -----------------------------------------------------------------------


def test_a_line_has_its_points_labels_units_and_ticks(axes: Axes) -> None:
    axes.plot([1, 2], [3, 4], label="s")
    axes.set(title="T", xlabel="t (s)", ylabel="v [m/s]", xticks=[1, 2])
    chart = read(axes)
    assert chart["type"] == "line"
    assert chart["title"] == "T"
    assert chart["elements"] == [{"label": "s", "points": [[1.0, 3.0], [2.0, 4.0]]}]
    assert (chart["x_label"], chart["x_unit"]) == ("t (s)", "s")
    assert (chart["y_label"], chart["y_unit"]) == ("v [m/s]", "m/s")
    assert (chart["x_ticks"], chart["x_tick_labels"]) == ([1.0, 2.0], ["1", "2"])
    assert chart["x_scale"] == chart["y_scale"] == "linear"


def test_lines_without_labels_are_numbered(axes: Axes) -> None:
    axes.plot([1, 2])
    axes.plot([2, 1])
    assert [element["label"] for element in read(axes)["elements"]] == ["Line 0", "Line 1"]


def test_points_are_a_scatter_chart(axes: Axes) -> None:
    axes.scatter([1, 2], [3, 4], label="p")
    chart = read(axes)
    assert chart["type"] == "scatter"
    assert chart["elements"] == [{"label": "p", "points": [[1.0, 3.0], [2.0, 4.0]]}]


@pytest.mark.parametrize(
    "mark",
    [
        lambda axes: axes.axhline(1),
        lambda axes: axes.plot([0, 9], [3, 3]),
        lambda axes: axes.grid(),
    ],
)
def test_points_with_a_mark_are_a_scatter_chart(axes: Axes, mark: Callable[[Axes], Any]) -> None:
    axes.scatter([1, 2], [3, 4])
    mark(axes)
    chart = read(axes)
    assert (chart["type"], len(chart["elements"])) == ("scatter", 1)


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, 2], dtype=np.int32),
        [Decimal(1), Decimal(2)],
        pd.Series([1, 2]),
        np.array([1, 2], dtype=np.float16),
    ],
)
def test_numbers_of_any_kind_are_numbers(axes: Axes, values: Any) -> None:
    axes.plot([0, 1], values)
    assert points(read(axes)) == [[0.0, 1.0], [1.0, 2.0]]


def test_missing_points_are_null(axes: Axes) -> None:
    axes.plot([1, 2, 3], [1, float("nan"), 3])
    assert points(read(axes)) == [[1.0, 1.0], [2.0, None], [3.0, 3.0]]


@pytest.mark.parametrize("scale", ["log", "symlog", "logit", "asinh"])
def test_the_scale_of_an_axis_is_told(axes: Axes, scale: Any) -> None:
    axes.plot([0.1, 0.2], [0.3, 0.4])
    axes.set_yscale(scale)
    assert read(axes)["y_scale"] == scale


def test_names_along_an_axis_are_categories(axes: Axes) -> None:
    axes.plot(["a", "b"], [3, 4])
    chart = read(axes)
    assert (chart["x_scale"], chart["x_tick_labels"]) == ("categorical", ["a", "b"])
    assert points(chart) == [["a", 3.0], ["b", 4.0]]


def test_ticks_that_just_count_are_no_categories(axes: Axes) -> None:
    axes.plot([0, 1, 2], [3, 4, 5])
    axes.set_xticks([0, 1, 2], ["0.0", "1.0", "2.0"])
    assert read(axes)["x_scale"] == "linear"


def test_an_axis_without_ticks_is_no_obstacle(axes: Axes) -> None:
    axes.plot([1, 2], [3, 4])
    axes.set_xticks([])
    chart = read(axes)
    assert (chart["x_ticks"], chart["x_scale"]) == ([], "linear")
    assert points(chart) == [[1.0, 3.0], [2.0, 4.0]]


def test_a_level_line_is_data_and_a_mark_across_the_axes_is_not(axes: Axes) -> None:
    axes.plot([1, 2], [3, 3])
    axes.axhline(1)
    axes.axvline(1)
    assert points(read(axes)) == [[1.0, 3.0], [2.0, 3.0]]


# --- dates ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "dates",
    [
        pd.to_datetime(DAYS),
        [pd.Timestamp(day) for day in DAYS],
        np.array(DAYS, dtype="datetime64[ns]"),
        [dt.datetime(day.year, day.month, day.day) for day in DAYS],  # noqa: DTZ001
    ],
)
def test_dates_are_iso_text(axes: Axes, dates: Any) -> None:
    axes.plot(dates, [1, 2])
    chart = read(axes)
    assert chart["x_scale"] == "datetime"
    assert chart["x_ticks"][0] == "2026-01-01T00:00:00+00:00"
    assert points(chart) == [[TWO_DAYS[0], 1.0], [TWO_DAYS[1], 2.0]]


def test_dates_of_points_are_iso_text_too(axes: Axes) -> None:
    axes.scatter(DAYS, [1, 2])  # type: ignore[arg-type]  # matplotlib knows dates
    chart = read(axes)
    assert chart["x_scale"] == "datetime"
    assert points(chart) == [[TWO_DAYS[0], 1.0], [TWO_DAYS[1], 2.0]]


@pytest.mark.parametrize(
    ("days", "frequency"),
    [
        (["2026-01-01", "2026-01-02", "2026-01-03"], "D"),
        (["2026-01-01", "2026-02-01", "2026-03-01"], "MS"),
        (["2026-01-01", "2026-03-05"], None),
    ],
)
def test_dates_that_pandas_plots_are_iso_text(axes: Axes, days: list[str], frequency: Any) -> None:
    index = pd.DatetimeIndex(days, freq=frequency)
    pd.DataFrame({"a": range(len(days))}, index=index).plot(ax=axes)
    chart = read(axes)
    assert chart["x_scale"] == "datetime"
    assert [x for x, _y in points(chart)] == [f"{day}T00:00:00" for day in days]
    assert chart["x_ticks"][0].startswith("2026-01-01T00:00:00")


# --- bars -----------------------------------------------------------------------------------


def bars(chart: dict[str, Any]) -> list[tuple[str, str, float]]:
    return [(bar["label"], bar["group"], bar["value"]) for bar in chart["elements"]]


def test_bars_have_labels_groups_and_values(axes: Axes) -> None:
    axes.bar(["a", "b"], [1, 2])
    axes.set(title="T", xlabel="what", ylabel="n (kg)")
    assert read(axes) == {
        "type": "bar",
        "title": "T",
        "elements": [
            {"label": "a", "group": "Group 0", "value": 1.0},
            {"label": "b", "group": "Group 0", "value": 2.0},
        ],
        "x_label": "what",
        "y_label": "n (kg)",
        "x_unit": None,
        "y_unit": "kg",
    }


@pytest.mark.parametrize("heights", [[4], [4, 4]])
def test_bars_of_one_height_are_upright_all_the_same(axes: Axes, heights: list[int]) -> None:
    axes.bar(list("ab")[: len(heights)], heights)
    assert [bar[2] for bar in bars(read(axes))] == heights


def test_lying_bars_swap_the_axes(axes: Axes) -> None:
    axes.barh(["a", "b"], [1, 1])
    axes.set(xlabel="n (kg)", ylabel="what")
    chart = read(axes)
    assert bars(chart) == [("a", "Group 0", 1.0), ("b", "Group 0", 1.0)]
    assert (chart["x_label"], chart["y_label"], chart["y_unit"]) == ("what", "n (kg)", "kg")


def test_groups_of_bars_share_the_labels(axes: Axes) -> None:
    places = np.arange(2)
    axes.bar(places - 0.2, [1, 2], 0.4, label="m")
    axes.bar(places + 0.2, [3, 4], 0.4, label="f")
    axes.set_xticks(places, ["p", "q"])
    axes.legend()
    assert bars(read(axes)) == [("p", "m", 1), ("q", "m", 2), ("p", "f", 3), ("q", "f", 4)]


def test_stacked_bars_keep_their_own_heights(axes: Axes) -> None:
    axes.bar(["a"], [1], label="low")
    axes.bar(["a"], [3], bottom=[1], label="high")
    assert bars(read(axes)) == [("a", "low", 1.0), ("a", "high", 3.0)]


def test_bars_at_numbers_are_named_by_them(axes: Axes) -> None:
    axes.bar([1, 2, 2.5], [4, 5, 6], width=0.1)
    assert [bar[0] for bar in bars(read(axes))] == ["1", "2", "2.5"]


def test_bars_at_dates_are_named_by_them(axes: Axes) -> None:
    axes.bar(DAYS, [4, 5])  # type: ignore[arg-type]  # matplotlib knows dates
    assert [bar[0] for bar in bars(read(axes))] == TWO_DAYS


def test_fixed_ticks_that_several_bars_share_name_none_of_them(axes: Axes) -> None:
    axes.bar([0, 1, 2, 3], [1, 1, 1, 1])
    axes.set_xticks([0, 3], ["first", "last"])
    assert [bar[0] for bar in bars(read(axes))] == ["0", "1", "2", "3"]


def test_a_histogram_is_bars_named_by_their_middle(axes: Axes) -> None:
    axes.hist([1, 2, 2, 3], bins=[0.5, 1.5, 2.5, 3.5])
    assert bars(read(axes)) == [("1", "Group 0", 1), ("2", "Group 0", 2), ("3", "Group 0", 1)]


@pytest.mark.parametrize(
    "add",
    [
        lambda axes: axes.bar(["c"], [1], yerr=[0.5], capsize=3),
        lambda axes: (axes.bar(["c"], [1]), axes.axhline(1)),
        lambda axes: axes.bar_label(axes.bar(["c"], [1])),
        lambda axes: (axes.bar(["c"], [1]), axes.text(0, 0, "note")),
    ],
)
def test_what_decorates_bars_does_not_hide_them(axes: Axes, add: Callable[[Axes], Any]) -> None:
    add(axes)
    assert bars(read(axes)) == [("c", "Group 0", 1.0)]


def test_bars_with_a_line_over_them_are_unknown(axes: Axes) -> None:
    axes.bar(["a", "b"], [1, 2])
    axes.plot([0, 1], [1, 2])
    assert read(axes) == {"type": "unknown", "title": None, "elements": []}


# --- pies -----------------------------------------------------------------------------------


def test_a_pie_has_angles_and_radii(axes: Axes) -> None:
    axes.pie([1, 3], labels=["a", "b"], autopct="%d%%")
    assert read(axes) == {
        "type": "pie",
        "title": None,
        "elements": [
            {"label": "a", "angle": 90.0, "radius": 1.0},
            {"label": "b", "angle": 270.0, "radius": 1.0},
        ],
    }


# --- boxes ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "style",
    [
        {},
        {"patch_artist": True},
        {"orientation": "horizontal"},
        {"orientation": "horizontal", "patch_artist": True},
        {"notch": True},
        {"notch": True, "patch_artist": True},
        {"showmeans": True},
        {"showmeans": True, "meanline": True},
        {"showcaps": False},
    ],
)
def test_boxes_are_read_however_they_are_drawn(axes: Axes, style: dict[str, Any]) -> None:
    axes.boxplot(SAMPLES, **style)
    chart = read(axes)
    assert chart["type"] == "box_and_whisker"
    assert chart["elements"] == [
        FIRST_BOX,
        {
            "label": "2",
            "min": 2.0,
            "first_quartile": 2.75,
            "median": 3.5,
            "third_quartile": 4.25,
            "max": 5.0,
            "outliers": [],
        },
    ]


def test_boxes_without_outliers_shown_have_none(axes: Axes) -> None:
    axes.boxplot(SAMPLES[0], showfliers=False)
    assert read(axes)["elements"] == [{**FIRST_BOX, "outliers": []}]


def test_boxes_have_the_labels_of_the_plot(axes: Axes) -> None:
    axes.boxplot(SAMPLES, tick_labels=["p", "q"], orientation="horizontal")
    axes.set(xlabel="v (s)", ylabel="class")
    chart = read(axes)
    assert [box["label"] for box in chart["elements"]] == ["p", "q"]
    assert (chart["x_label"], chart["y_label"], chart["y_unit"]) == ("class", "v (s)", "s")


def test_a_box_of_equal_values_is_a_box(axes: Axes) -> None:
    axes.boxplot([[5, 5, 5]])
    (box,) = read(axes)["elements"]
    assert {box[name] for name in ("min", "first_quartile", "median", "max")} == {5.0}


def test_boxes_of_pandas_are_read(axes: Axes) -> None:
    pd.DataFrame({"a": [1, 2, 3, 9], "b": [3, 4, 5, 6]}).plot.box(ax=axes)
    assert [box["label"] for box in read(axes)["elements"]] == ["a", "b"]


def test_boxes_drawn_twice_are_one(axes: Axes) -> None:
    axes.boxplot(SAMPLES, tick_labels=["p", "q"])
    axes.boxplot(SAMPLES, tick_labels=["p", "q"], patch_artist=True)
    assert [box["label"] for box in read(axes)["elements"]] == ["p", "q"]


def test_closed_lines_are_no_boxes(axes: Axes) -> None:
    axes.plot([0, 1, 1, 0, 0], [0, 0, 1, 1, 0])
    axes.plot([0.5, 0.5], [2, 3])
    axes.plot([0.5, 0.5], [4, 5])
    axes.plot([0, 1], [3.5, 3.5])
    assert read(axes)["type"] == "line"


# --- whole figures --------------------------------------------------------------------------


def test_several_axes_are_a_superchart() -> None:
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([1, 2])
    right.bar(["a"], [1])
    figure.suptitle("S")
    chart = read(left)
    plt.close(figure)
    assert (chart["type"], chart["title"]) == ("superchart", "S")
    assert [part["type"] for part in chart["elements"]] == ["line", "bar"]


def test_a_picture_among_several_axes_is_unknown() -> None:
    figure, (left, right) = plt.subplots(1, 2)
    left.plot([1, 2])
    right.imshow([[1, 2], [3, 4]])
    chart = read(left)
    plt.close(figure)
    assert (chart["title"], chart["elements"][1]["type"]) == (None, "unknown")


def test_a_scale_of_colours_is_no_axes_of_its_own(axes: Axes) -> None:
    drawn = axes.scatter([1, 2], [1, 2], c=[1, 2])
    plt.colorbar(drawn, ax=axes)
    assert read(axes)["type"] == "scatter"


def test_blank_axes_do_not_count() -> None:
    figure, grid = plt.subplots(2, 2)
    grid[0][0].plot([1, 2])
    chart = read(grid[0][0])
    plt.close(figure)
    assert chart["type"] == "line"


def test_a_blank_figure_has_an_empty_chart(axes: Axes) -> None:
    assert read(axes) == {}
    axes.remove()
    figure = plt.figure()
    assert chart_of(figure) == {}
    plt.close(figure)


@pytest.mark.parametrize(
    "draw",
    [
        lambda axes: axes.imshow([[1]]),
        lambda axes: axes.violinplot([1, 2, 3]),
        lambda axes: axes.fill_between([1, 2], [3, 4]),
        lambda axes: axes.stem([1, 2]),
        lambda axes: axes.quiver([1], [1]),
        lambda axes: axes.contour([[1, 2], [3, 4]]),
        lambda axes: axes.errorbar([1, 2], [3, 4], yerr=0.1),
    ],
)
def test_other_plots_are_unknown_and_keep_their_title(
    axes: Axes, draw: Callable[[Axes], Any]
) -> None:
    draw(axes)
    axes.set_title("T")
    assert read(axes) == {"type": "unknown", "title": "T", "elements": []}


def test_three_dimensions_are_unknown() -> None:
    figure = plt.figure()
    axes = figure.add_subplot(projection="3d")
    axes.plot([0, 1], [1, 2], [3, 4])
    assert read(axes)["type"] == "unknown"
    plt.close(figure)


@pytest.mark.parametrize(
    "draw",
    [
        lambda axes, count: axes.plot(np.zeros(count)),
        lambda axes, count: axes.scatter(np.zeros(count), np.zeros(count)),
    ],
)
def test_a_figure_of_too_many_points_is_refused_before_they_are_read(
    axes: Axes, draw: Callable[[Axes, int], Any]
) -> None:
    draw(axes, MAX_POINTS + 1)
    with pytest.raises(TooLargeError):
        chart_of(axes.figure)  # type: ignore[arg-type]  # no figure within a figure
