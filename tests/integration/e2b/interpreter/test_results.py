"""What code shows, as the fields that clients know."""

import base64

import pytest

from tests.support.interpreting import (
    Interpreter,
    size_of_png,
)

pytestmark = pytest.mark.sandbox


async def test_a_data_frame_has_text_table_and_data(shared: Interpreter) -> None:
    code = (
        "import pandas as pd\n"
        "pd.DataFrame({'n': [1, 2], 'at': pd.to_datetime(['2026-01-01', '2026-01-02'])})"
    )
    (result,) = (await shared.outcome(code)).results
    assert set(result) == {"type", "text", "html", "data", "extra", "is_main_result"}
    assert result["data"] == {"n": [1, 2], "at": ["2026-01-01T00:00:00", "2026-01-02T00:00:00"]}
    assert "<table" in result["html"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("[1, {'a': None}]", [1, {"a": None}]),
        ("import numpy as np\n{'n': np.int64(3)}", {"n": 3}),
    ],
)
async def test_lists_and_dicts_are_json_too(
    shared: Interpreter, code: str, expected: object
) -> None:
    (result,) = (await shared.outcome(code)).results
    assert result["json"] == expected


async def test_pictures_of_pillow_are_shown(shared: Interpreter) -> None:
    code = (
        "from PIL import Image\nimage = Image.new('RGB', (4, 2))\n"
        "image.show()\nimage.save('picture.png')\nimage"
    )
    results = (await shared.outcome(code)).results
    assert [each["is_main_result"] for each in results] == [False, False, True]
    for each in results:
        assert size_of_png(each["png"]) == (4, 2)


async def test_other_forms_have_their_fields_and_the_rest_is_extra(shared: Interpreter) -> None:
    code = """
class Formula:
    def __repr__(self): return 'x**2'
    def _repr_latex_(self): return '$x^{2}$'
display({'application/vnd.plotly.v1+json': {'data': []}, 'text/plain': 'p'}, raw=True)
Formula()
"""
    plot, formula = (await shared.outcome(code)).results
    assert plot["extra"] == {"application/vnd.plotly.v1+json": {"data": []}}
    assert (formula["text"], formula["latex"]) == ("x**2", "$x^{2}$")


async def test_a_picture_that_is_too_large_is_told(shared: Interpreter) -> None:
    code = """
class Poster:
    def __repr__(self): return 'poster'
    def _repr_png_(self): return bytes(20_000_000)
Poster()
"""
    outcome = await shared.outcome(code)
    (result,) = outcome.results
    assert result["text"] == "poster"
    assert "png" not in result
    assert result["omitted"]["image/png"] > 20_000_000
    assert "image/png" in outcome.stderr


async def test_a_picture_of_six_megabytes_arrives(shared: Interpreter) -> None:
    code = """
class Poster:
    def _repr_png_(self): return bytes(6_000_000)
Poster()
"""
    (result,) = (await shared.outcome(code)).results
    assert base64.b64decode(result["png"]) == bytes(6_000_000)
