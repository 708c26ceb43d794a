# Made from the async face by scripts/generate-sync; change that one.
"""The examples of the vendor's page on streaming, with the outputs that the page prints."""

import time

import pytest
from e2b_code_interpreter import Sandbox


# covers: Sandbox.create, Sandbox.run_code
def test_stdout_and_stderr_are_streamed_in_order_and_apart(
    sandbox: Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    code_to_run = """
      import time
      import sys
      print("This goes first to stdout")
      time.sleep(3)
      print("This goes later to stderr", file=sys.stderr)
      time.sleep(3)
      print("This goes last")
    """
    arrivals = []

    def show(label: str, data: object) -> None:
        arrivals.append(time.monotonic())
        print(f"{label}:", data)  # noqa: T201 - what the page does

    sandbox.run_code(
        code_to_run,
        on_error=lambda error: show("error", error),
        on_stdout=lambda data: show("stdout", data),
        on_stderr=lambda data: show("stderr", data),
    )

    assert capsys.readouterr().out == (
        "stdout: This goes first to stdout\n\n"
        "stderr: This goes later to stderr\n\n"
        "stdout: This goes last\n\n"
    )
    first, second, third = arrivals
    assert second - first > 2
    assert third - second > 2


# covers: Sandbox.run_code
def test_a_chart_is_a_result(sandbox: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    code_to_run = """
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
    results = []

    def show(result: object) -> None:
        results.append(result)
        print("result:", result)  # noqa: T201 - what the page does

    sandbox.run_code(code_to_run, on_result=show)

    assert capsys.readouterr().out == "result: Result(<Figure size 1000x600 with 1 Axes>)\n"
    (result,) = results
    assert list(result.formats()) == ["text", "png", "chart"]
    assert result.chart.to_dict() == {
        "type": "bar",
        "title": "Values by Category",
        "elements": [
            {"label": "Category A", "group": "Group 0", "value": 10.0},
            {"label": "Category B", "group": "Group 0", "value": 20.0},
            {"label": "Category C", "group": "Group 0", "value": 15.0},
            {"label": "Category D", "group": "Group 0", "value": 25.0},
        ],
        "x_label": "Categories",
        "y_label": "Values",
        "x_unit": None,
        "y_unit": None,
    }
