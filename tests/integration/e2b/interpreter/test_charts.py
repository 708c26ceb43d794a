"""Figures of matplotlib as data, exactly as recorded from the vendor."""

from typing import Any

import pytest

from tests.support.interpreting import (
    Interpreter,
    size_of_png,
)

pytestmark = pytest.mark.sandbox

BAR = """
import matplotlib.pyplot as plt

# Prepare data
categories = ['Category A', 'Category B', 'Category C', 'Category D']
values = [10, 20, 15, 25]

# Create and customize the bar chart
plt.figure(figsize=(10, 6))
plt.bar(categories, values, color='green')
plt.xlabel('Categories')
plt.ylabel('Values')
plt.title('Values by Category')

# Display the chart
plt.show()
"""
NO_LABELS = {"x_label": None, "y_label": None, "x_unit": None, "y_unit": None}


async def chart_of(shared: Interpreter, code: str) -> Any:
    """Give the chart of the one figure that code shows."""
    (result,) = (await shared.outcome(f"import matplotlib.pyplot as plt\n{code}")).results
    assert set(result) == {"type", "text", "png", "chart", "extra", "is_main_result"}
    assert result["text"].startswith("<Figure size")
    assert size_of_png(result["png"])[0] > 100
    assert not result["is_main_result"]
    return result["chart"]


def element(label: str, value: float) -> dict[str, object]:
    return {"label": label, "group": "Group 0", "value": value}


async def test_the_documented_bar_chart_is_data(shared: Interpreter) -> None:
    (result,) = (await shared.outcome(BAR)).results
    assert result["text"] == "<Figure size 1000x600 with 1 Axes>"
    assert result["chart"] == {
        "type": "bar",
        "title": "Values by Category",
        "elements": [
            element("Category A", 10.0),
            element("Category B", 20.0),
            element("Category C", 15.0),
            element("Category D", 25.0),
        ],
        "x_label": "Categories",
        "y_label": "Values",
        "x_unit": None,
        "y_unit": None,
    }


async def test_a_pie_is_angles(shared: Interpreter) -> None:
    assert await chart_of(shared, "plt.pie([1, 3], labels=['a', 'b'])\nplt.show()") == {
        "type": "pie",
        "title": None,
        "elements": [
            {"label": "a", "angle": 90.0, "radius": 1.0},
            {"label": "b", "angle": 270.0, "radius": 1.0},
        ],
    }


async def test_a_line_has_points_ticks_and_units(shared: Interpreter) -> None:
    code = "plt.plot([1, 2], [3, 4], label='s'); plt.title('L'); plt.xlabel('t (s)'); plt.show()"
    chart = await chart_of(shared, code)
    ticks = {name: chart.pop(name) for name in list(chart) if "tick" in name}
    assert chart == {
        "type": "line",
        "title": "L",
        "elements": [{"label": "s", "points": [[1.0, 3.0], [2.0, 4.0]]}],
        "x_label": "t (s)",
        "y_label": None,
        "x_unit": "s",
        "y_unit": None,
        "x_scale": "linear",
        "y_scale": "linear",
    }
    assert ticks["x_ticks"][:2] == pytest.approx([0.8, 1.0])
    assert ticks["x_tick_labels"][:2] == ["0.8", "1.0"]
    assert ticks["y_ticks"][:2] == pytest.approx([2.8, 3.0])
    assert ticks["y_tick_labels"][:2] == ["2.8", "3.0"]


async def test_a_scatter_keeps_the_names_of_matplotlib(shared: Interpreter) -> None:
    chart = await chart_of(shared, "plt.scatter([1, 2], [3, 4]); plt.show()")
    assert chart["type"] == "scatter"
    assert chart["elements"] == [{"label": "_child0", "points": [[1.0, 3.0], [2.0, 4.0]]}]


async def test_boxes_are_quartiles(shared: Interpreter) -> None:
    code = "plt.boxplot([[1, 2, 3, 4, 100]], tick_labels=['x']); plt.show()"
    assert await chart_of(shared, code) == {
        "type": "box_and_whisker",
        "title": None,
        "elements": [
            {
                "label": "x",
                "min": 1.0,
                "first_quartile": 2.0,
                "median": 3.0,
                "third_quartile": 4.0,
                "max": 4.0,
                "outliers": [100.0],
            }
        ],
        **NO_LABELS,
    }


async def test_several_axes_are_a_chart_of_charts(shared: Interpreter) -> None:
    code = (
        "figure, (left, right) = plt.subplots(1, 2)\n"
        "left.bar(['q'], [1]); right.pie([1], labels=['p']); figure.suptitle('S'); plt.show()"
    )
    assert await chart_of(shared, code) == {
        "type": "superchart",
        "title": "S",
        "elements": [
            {"type": "bar", "title": None, "elements": [element("q", 1.0)], **NO_LABELS},
            {
                "type": "pie",
                "title": None,
                "elements": [{"label": "p", "angle": 360.0, "radius": 1.0}],
            },
        ],
    }


async def test_what_is_no_chart_is_unknown(shared: Interpreter) -> None:
    assert await chart_of(shared, "plt.imshow([[0, 1], [1, 0]]); plt.show()") == {
        "type": "unknown",
        "title": None,
        "elements": [],
    }


async def test_open_figures_are_shown_once_at_the_end(shared: Interpreter) -> None:
    code = "import matplotlib.pyplot as plt\nplt.plot([1, 2]);"
    assert len((await shared.outcome(code)).results) == 1
    assert (await shared.outcome("1;")).results == []
    shown = await shared.outcome(f"{code}\nplt.show()\nplt.show()")
    assert len(shown.results) == 1
