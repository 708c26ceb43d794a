"""Rich results: every form that the SDK knows."""

import base64
import json
from typing import Any

import pytest
from e2b_code_interpreter import AsyncSandbox


async def only_result(sandbox: AsyncSandbox, code: str) -> Any:
    """Give the only result."""
    execution = await sandbox.run_code(code)
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
async def test_a_text_form_has_its_field(sandbox: AsyncSandbox, mime: str, field: str) -> None:
    result = await only_result(sandbox, f"display({{'{mime}': '<b>ü</b>'}}, raw=True)")

    assert result[field] == "<b>ü</b>"
    assert list(result.formats()) == [field]
    assert not result.is_main_result


@pytest.mark.parametrize(
    ("mime", "field"),
    [("image/png", "png"), ("image/jpeg", "jpeg"), ("application/pdf", "pdf")],
)
async def test_a_binary_form_is_base64(sandbox: AsyncSandbox, mime: str, field: str) -> None:
    data = base64.b64encode(bytes(range(256))).decode()
    code = f"display({{'{mime}': '{data}'}}, raw=True)"

    result = await only_result(sandbox, code)

    assert base64.b64decode(result[field]) == bytes(range(256))


async def test_json_is_json(sandbox: AsyncSandbox) -> None:
    result = await only_result(
        sandbox, "display({'application/json': {'a': [1, None, 'ü']}}, raw=True)"
    )

    assert result.json == {"a": [1, None, "ü"]}


async def test_other_forms_are_extra(sandbox: AsyncSandbox) -> None:
    result = await only_result(sandbox, "display({'x-own/form': 'value'}, raw=True)")

    assert result.extra == {"x-own/form": "value"}
    assert "x-own/form" in result.formats()


async def test_an_object_may_have_several_forms(sandbox: AsyncSandbox) -> None:
    code = """
class Rich:
    def __repr__(self): return 'plain'
    def _repr_html_(self): return '<i>html</i>'
    def _repr_markdown_(self): return '*md*'
    def _repr_latex_(self): return '$x$'
Rich()
"""
    result = await only_result(sandbox, code)

    assert result.is_main_result
    assert (result.text, result.html, result.markdown, result.latex) == (
        "plain",
        "<i>html</i>",
        "*md*",
        "$x$",
    )


async def test_the_quotes_of_a_string_are_stripped_once(sandbox: AsyncSandbox) -> None:
    assert (await only_result(sandbox, "'plain'")).text == "plain"
    assert (await only_result(sandbox, '"it\'s"')).text == "it's"
    assert (await only_result(sandbox, "'\"quoted\"'")).text == '"quoted"'


async def test_lists_and_dictionaries_are_json_too(sandbox: AsyncSandbox) -> None:
    listed = await only_result(sandbox, "[1, 'two', [3.5]]")
    keyed = await only_result(sandbox, "import numpy as np\n{'a': np.int64(1), 'b': {'c': None}}")

    assert listed.text == "[1, 'two', [3.5]]"
    assert listed.json == [1, "two", [3.5]]
    assert keyed.json == {"a": 1, "b": {"c": None}}


async def test_a_data_frame_has_its_columns(sandbox: AsyncSandbox) -> None:
    code = """
import pandas as pd
pd.DataFrame({
    "name": ["a", "b"],
    "amount": [1, 2.5],
    "day": pd.to_datetime(["2024-01-02", "2024-03-04"]),
})
"""
    result = await only_result(sandbox, code)

    assert "<table" in result.html
    assert "amount" in result.text
    assert result.data["name"] == ["a", "b"]
    assert result.data["amount"] == [1.0, 2.5]
    assert [day[:10] for day in result.data["day"]] == ["2024-01-02", "2024-03-04"]


async def test_a_data_frame_with_gaps_is_told(sandbox: AsyncSandbox) -> None:
    result = await only_result(
        sandbox,
        "import pandas as pd, numpy as np\npd.DataFrame({'a': [1.0, np.nan], 'b': ['x', None]})",
    )

    assert "<table" in result.html
    assert result.data["b"] == ["x", None]


async def test_an_image_is_a_picture(sandbox: AsyncSandbox) -> None:
    code = "from PIL import Image\nImage.new('RGB', (3, 2), 'red')"

    result = await only_result(sandbox, code)

    assert result.is_main_result
    assert base64.b64decode(result.png).startswith(b"\x89PNG\r\n")


@pytest.mark.parametrize("call", ["show()", "save('red.png')"])
async def test_an_image_that_is_shown_or_saved_is_displayed(
    sandbox: AsyncSandbox, call: str
) -> None:
    code = f"from PIL import Image\nimage = Image.new('RGB', (3, 2), 'red')\nimage.{call}"

    result = await only_result(sandbox, code)

    assert base64.b64decode(result.png).startswith(b"\x89PNG\r\n")


async def test_results_come_in_order_between_the_output(sandbox: AsyncSandbox) -> None:
    order: list[str] = []

    execution = await sandbox.run_code(
        "print('one')\ndisplay('two')\nprint('three')\n'four'",
        on_stdout=lambda message: order.append(message.line.strip()),
        on_result=lambda result: order.append(result.text or ""),
    )

    assert order == ["one", "two", "three", "four"]
    assert [result.is_main_result for result in execution.results] == [False, True]
    assert execution.text == "four"


async def test_an_execution_can_be_written_as_json(sandbox: AsyncSandbox) -> None:
    execution = await sandbox.run_code("print('out')\n{'a': 1}")

    written = json.loads(execution.to_json())

    assert written["results"][0]["json"] == {"a": 1}
    assert json.loads(written["logs"])["stdout"] == ["out\n"]


async def test_a_large_picture_arrives_whole(sandbox: AsyncSandbox) -> None:
    code = (
        "import base64\ndata = base64.b64encode(bytes(5_000_000)).decode()\n"
        "display({'image/png': data}, raw=True)"
    )

    result = await only_result(sandbox, code)

    assert base64.b64decode(result.png) == bytes(5_000_000)
