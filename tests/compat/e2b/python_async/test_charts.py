"""Charts: the figure as a picture, and its data."""

import base64
from typing import Any

import pytest
from e2b_code_interpreter import AsyncSandbox
from e2b_code_interpreter.charts import (
    BarChart,
    BoxAndWhiskerChart,
    LineChart,
    PieChart,
    ScatterChart,
    SuperChart,
)

PLOT = "import matplotlib.pyplot as plt\n"


async def chart_of(sandbox: AsyncSandbox, code: str) -> Any:
    """Give the chart of the only result."""
    execution = await sandbox.run_code(PLOT + code + "\nplt.show()")
    assert execution.error is None
    (result,) = execution.results
    assert result.png is not None
    assert base64.b64decode(result.png).startswith(b"\x89PNG\r\n")
    assert result.text is not None
    assert result.text.startswith("<Figure size")
    return result.chart


async def test_a_line_chart_has_points_and_axes(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(
        sandbox,
        "plt.plot([1, 2, 3], [4, 5, 7], label='s')\nplt.plot([1, 2], [0, 1])\n"
        "plt.title('T')\nplt.xlabel('Time (s)')\nplt.ylabel('Way [m]')\nplt.legend()",
    )

    assert isinstance(chart, LineChart)
    assert chart.title == "T"
    assert (chart.x_label, chart.x_unit) == ("Time (s)", "s")
    assert (chart.y_label, chart.y_unit) == ("Way [m]", "m")
    assert (chart.x_scale, chart.y_scale) == ("linear", "linear")
    assert chart.elements[0].label == "s"
    assert chart.elements[0].points == [(1.0, 4.0), (2.0, 5.0), (3.0, 7.0)]
    assert chart.elements[1].points == [(1.0, 0.0), (2.0, 1.0)]
    assert len(chart.x_ticks) == len(chart.x_tick_labels) > 0


async def test_a_line_chart_of_dates_has_dates(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(
        sandbox,
        "from datetime import datetime\n"
        "plt.plot([datetime(2024, 1, 1), datetime(2024, 1, 3)], [1, 2])",
    )

    assert isinstance(chart, LineChart)
    assert chart.x_scale == "datetime"
    assert [str(x)[:10] for x, _ in chart.elements[0].points] == ["2024-01-01", "2024-01-03"]


async def test_a_logarithmic_axis_says_so(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(sandbox, "plt.plot([1, 2], [10, 1000])\nplt.yscale('log')")

    assert chart.y_scale == "log"


async def test_a_scatter_chart_has_points(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(sandbox, "plt.scatter([1, 2], [3, 4], label='dots')")

    assert isinstance(chart, ScatterChart)
    assert chart.elements[0].label == "dots"
    assert chart.elements[0].points == [(1.0, 3.0), (2.0, 4.0)]


async def test_a_bar_chart_has_groups(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(
        sandbox,
        "plt.bar(['a', 'b'], [1, 2], label='first')\n"
        "plt.bar(['a', 'b'], [3, 4], bottom=[1, 2], label='second')\nplt.legend()",
    )

    assert isinstance(chart, BarChart)
    assert [(e.label, e.group, e.value) for e in chart.elements] == [
        ("a", "first", 1.0),
        ("b", "first", 2.0),
        ("a", "second", 3.0),
        ("b", "second", 4.0),
    ]


async def test_a_horizontal_bar_chart_is_one_too(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(
        sandbox, "plt.barh(['a', 'b'], [1, 2])\nplt.xlabel('Amount')\nplt.ylabel('Name')"
    )

    assert isinstance(chart, BarChart)
    assert [(e.label, e.value) for e in chart.elements] == [("a", 1.0), ("b", 2.0)]
    assert (chart.x_label, chart.y_label) == ("Name", "Amount")


async def test_a_pie_chart_has_angles(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(sandbox, "plt.pie([1, 3], labels=['a', 'b'])\nplt.title('Pie')")

    assert isinstance(chart, PieChart)
    assert chart.title == "Pie"
    assert [(e.label, round(e.angle), e.radius) for e in chart.elements] == [
        ("a", 90, 1.0),
        ("b", 270, 1.0),
    ]


async def test_a_box_plot_has_quartiles(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(
        sandbox,
        "plt.boxplot([[1, 2, 3, 4, 5, 20], [2, 3, 4, 5, 6]], labels=['a', 'b'])\n"
        "plt.title('Boxes')",
    )

    assert isinstance(chart, BoxAndWhiskerChart)
    assert [e.label for e in chart.elements] == ["a", "b"]
    first, second = chart.elements
    assert (first.min, first.median, first.max) == (1, 3.5, 5)
    assert list(first.outliers) == [20]
    assert (second.first_quartile, second.third_quartile) == (3, 5)


async def test_several_axes_are_a_chart_of_charts(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(
        sandbox,
        "figure, (left, right) = plt.subplots(1, 2)\nfigure.suptitle('Both')\n"
        "left.plot([1, 2], [3, 4])\nright.bar(['a'], [1])",
    )

    assert isinstance(chart, SuperChart)
    assert [type(one) for one in chart.elements] == [LineChart, BarChart]


async def test_a_picture_is_a_chart_of_unknown_type(sandbox: AsyncSandbox) -> None:
    chart = await chart_of(sandbox, "plt.imshow([[0, 1], [1, 0]])")

    assert chart.type == "unknown"
    assert chart.elements == []


@pytest.mark.parametrize("end", ["", "\nplt.show()", "\nplt.gcf()"])
async def test_a_figure_is_shown_once_however_the_code_ends(
    sandbox: AsyncSandbox, end: str
) -> None:
    first = await sandbox.run_code(PLOT + "line, = plt.plot([1, 2])" + end)
    second = await sandbox.run_code("'nothing more'")

    assert [result.chart is not None for result in first.results if result.png] == [True]
    assert [result.text for result in second.results] == ["nothing more"]


async def test_two_figures_are_two_results(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code(
        PLOT + "plt.plot([1]); plt.show()\nprint('between')\nplt.bar(['a'], [1]); plt.show()"
    )

    assert [result.chart.type for result in execution.results if result.chart] == ["line", "bar"]
