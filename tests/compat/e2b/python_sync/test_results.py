# Made from the async face by scripts/generate-sync; change that one.
"""Rich results: every form that the SDK knows."""

import base64
import json
from typing import Any

import pytest
from e2b_code_interpreter import Sandbox


def only_result(sandbox: Sandbox, code: str) -> Any:
    """Give the only result."""
    execution = sandbox.run_code(code)
    assert execution.error is None
    (result,) = execution.results
    return result


@pytest.mark.parametrize(
    ("mime", "field"),
    [
        ("text/html", "html"),
        ("text/markdown", "markdown"),
        ("image/svg+xml", "svg"),
        ("text/latex", "latex"),
        ("application/javascript", "javascript"),
    ],
)
def test_a_text_form_has_its_field(sandbox: Sandbox, mime: str, field: str) -> None:
    result = only_result(sandbox, f"display({{'{mime}': '<b>ü</b>'}}, raw=True)")

    assert result[field] == "<b>ü</b>"
    assert list(result.formats()) == [field]
    assert not result.is_main_result


@pytest.mark.parametrize(
    ("mime", "field"),
    [("image/png", "png"), ("image/jpeg", "jpeg"), ("application/pdf", "pdf")],
)
def test_a_binary_form_is_base64(sandbox: Sandbox, mime: str, field: str) -> None:
    data = base64.b64encode(bytes(range(256))).decode()
    code = f"display({{'{mime}': '{data}'}}, raw=True)"

    result = only_result(sandbox, code)

    assert base64.b64decode(result[field]) == bytes(range(256))


def test_json_is_json(sandbox: Sandbox) -> None:
    result = only_result(sandbox, "display({'application/json': {'a': [1, None, 'ü']}}, raw=True)")

    assert result.json == {"a": [1, None, "ü"]}


def test_other_forms_are_extra(sandbox: Sandbox) -> None:
    result = only_result(sandbox, "display({'x-own/form': 'value'}, raw=True)")

    assert result.extra == {"x-own/form": "value"}
    assert "x-own/form" in result.formats()


def test_an_object_may_have_several_forms(sandbox: Sandbox) -> None:
    code = """
class Rich:
    def __repr__(self): return 'plain'
    def _repr_html_(self): return '<i>html</i>'
    def _repr_markdown_(self): return '*md*'
    def _repr_latex_(self): return '$x$'
Rich()
"""
    result = only_result(sandbox, code)

    assert result.is_main_result
    assert (result.text, result.html, result.markdown, result.latex) == (
        "plain",
        "<i>html</i>",
        "*md*",
        "$x$",
    )


def test_the_quotes_of_a_string_are_stripped_once(sandbox: Sandbox) -> None:
    assert (only_result(sandbox, "'plain'")).text == "plain"
    assert (only_result(sandbox, '"it\'s"')).text == "it's"
    assert (only_result(sandbox, "'\"quoted\"'")).text == '"quoted"'


def test_lists_and_dictionaries_are_json_too(sandbox: Sandbox) -> None:
    listed = only_result(sandbox, "[1, 'two', [3.5]]")
    keyed = only_result(sandbox, "import numpy as np\n{'a': np.int64(1), 'b': {'c': None}}")

    assert listed.text == "[1, 'two', [3.5]]"
    assert listed.json == [1, "two", [3.5]]
    assert keyed.json == {"a": 1, "b": {"c": None}}


def test_a_data_frame_has_its_columns(sandbox: Sandbox) -> None:
    code = """
import pandas as pd
pd.DataFrame({
    "name": ["a", "b"],
    "amount": [1, 2.5],
    "day": pd.to_datetime(["2024-01-02", "2024-03-04"]),
})
"""
    result = only_result(sandbox, code)

    assert "<table" in result.html
    assert "amount" in result.text
    assert result.data["name"] == ["a", "b"]
    assert result.data["amount"] == [1.0, 2.5]
    assert [day[:10] for day in result.data["day"]] == ["2024-01-02", "2024-03-04"]


def test_a_data_frame_with_gaps_is_told(sandbox: Sandbox) -> None:
    result = only_result(
        sandbox,
        "import pandas as pd, numpy as np\npd.DataFrame({'a': [1.0, np.nan], 'b': ['x', None]})",
    )

    assert "<table" in result.html
    assert result.data["b"] == ["x", None]


def test_an_image_is_a_picture(sandbox: Sandbox) -> None:
    code = "from PIL import Image\nImage.new('RGB', (3, 2), 'red')"

    result = only_result(sandbox, code)

    assert result.is_main_result
    assert base64.b64decode(result.png).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("call", ["show()", "save('red.png')"])
def test_an_image_that_is_shown_or_saved_is_displayed(sandbox: Sandbox, call: str) -> None:
    code = f"from PIL import Image\nimage = Image.new('RGB', (3, 2), 'red')\nimage.{call}"

    result = only_result(sandbox, code)

    assert base64.b64decode(result.png).startswith(b"\x89PNG\r\n")


def test_results_come_in_order_between_the_output(sandbox: Sandbox) -> None:
    order: list[str] = []

    execution = sandbox.run_code(
        "print('one')\ndisplay('two')\nprint('three')\n'four'",
        on_stdout=lambda message: order.append(message.line.strip()),
        on_result=lambda result: order.append(result.text or ""),
    )

    assert order == ["one", "two", "three", "four"]
    assert [result.is_main_result for result in execution.results] == [False, True]
    assert execution.text == "four"


def test_an_execution_can_be_written_as_json(sandbox: Sandbox) -> None:
    execution = sandbox.run_code("print('out')\n{'a': 1}")

    written = json.loads(execution.to_json())

    assert written["results"][0]["json"] == {"a": 1}
    assert json.loads(written["logs"])["stdout"] == ["out\n"]


def test_a_large_picture_arrives_whole(sandbox: Sandbox) -> None:
    code = (
        "import base64\ndata = base64.b64encode(bytes(5_000_000)).decode()\n"
        "display({'image/png': data}, raw=True)"
    )

    result = only_result(sandbox, code)

    assert base64.b64decode(result.png) == bytes(5_000_000)
