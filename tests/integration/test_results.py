"""Rich results of real sandboxes: every form arrives, and what is too large says so."""

import base64
import json
from typing import Any

import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from headrace.model.results import Result
from tests.support.running import run_python

DATA = "application/vnd.headrace.data+json"
CHART = "application/vnd.headrace.chart+json"
MIB = 1024 * 1024

EVERY_FORM = """
class Every:
    def __repr__(self): return 'plain'
    def _repr_html_(self): return '<b>html</b>'
    def _repr_markdown_(self): return '**markdown**'
    def _repr_svg_(self): return '<svg/>'
    def _repr_png_(self): return b'png'
    def _repr_jpeg_(self): return b'jpeg'
    def _repr_pdf_(self): return b'pdf'
    def _repr_latex_(self): return '$latex$'
    def _repr_json_(self): return {'json': [1]}
    def _repr_javascript_(self): return 'java()'
    def _repr_mimebundle_(self, **options): return {'application/x-other': {'other': 1}}
Every()
"""


async def results_of(sandbox: Sandbox, code: str) -> list[Result]:
    """Run code that ends well, and give what it displayed."""
    outcome = await run_python(sandbox, code)
    assert outcome.finished.reason is FinishReason.OK, outcome.events
    assert outcome.stderr == ""
    return outcome.results


async def result_of(sandbox: Sandbox, code: str) -> Result:
    """Run code that displays one thing, and give that."""
    (result,) = await results_of(sandbox, code)
    return result


async def test_every_form_of_an_object_arrives(sandbox: Sandbox) -> None:
    result = await result_of(sandbox, EVERY_FORM)
    assert result.bundle == {
        "text/plain": "plain",
        "text/html": "<b>html</b>",
        "text/markdown": "**markdown**",
        "image/svg+xml": "<svg/>",
        "image/png": base64.b64encode(b"png").decode(),
        "image/jpeg": base64.b64encode(b"jpeg").decode(),
        "application/pdf": base64.b64encode(b"pdf").decode(),
        "text/latex": "$latex$",
        "application/json": {"json": [1]},
        "application/javascript": "java()",
        "application/x-other": {"other": 1},
    }
    assert result.is_main


async def test_a_semicolon_hides_the_result_and_none_is_none(sandbox: Sandbox) -> None:
    assert await results_of(sandbox, "{'a': 1};") == []
    assert await results_of(sandbox, "None") == []
    assert await results_of(sandbox, "x = {'a': 1}") == []


async def test_a_dict_comes_as_json(sandbox: Sandbox) -> None:
    result = await result_of(sandbox, "import numpy as np\n{'n': np.int64(3), 'l': [1.5, np.nan]}")
    assert result.bundle["application/json"] == {"n": 3, "l": [1.5, None]}


async def test_a_display_is_updated_under_its_name(sandbox: Sandbox) -> None:
    shown = await results_of(sandbox, "h = display({'n': 1}, display_id='d')\nh.update({'n': 2})")
    assert [(r.display_id, r.is_update, r.is_main) for r in shown] == [
        ("d", False, False),
        ("d", True, False),
    ]
    assert [r.bundle["application/json"] for r in shown] == [{"n": 1}, {"n": 2}]


@pytest.mark.parametrize("show", ["frame", "display(frame)"])
async def test_a_data_frame_comes_with_its_columns(sandbox: Sandbox, show: str) -> None:
    code = (
        "import pandas as pd\n"
        "frame = pd.DataFrame({'day': pd.to_datetime(['2026-01-02']), 'n': [1.5], 'w': ['x']})\n"
    )
    result = await result_of(sandbox, code + show)
    assert result.bundle[DATA] == {"day": ["2026-01-02T00:00:00"], "n": [1.5], "w": ["x"]}
    assert "<table" in str(result.bundle["text/html"])


async def test_figures_come_with_their_charts_each_once(sandbox: Sandbox) -> None:
    code = (
        "import matplotlib.pyplot as plt\n"
        "plt.figure(); plt.plot([1, 2], [3, 4]); plt.show()\n"
        "plt.figure(); plt.boxplot([[1, 2, 3]])\n"
        "figure = plt.figure(); plt.barh(['a'], [2])\n"
        "figure"
    )
    shown = await results_of(sandbox, code)
    charts: list[Any] = [result.bundle[CHART] for result in shown]
    assert [chart["type"] for chart in charts] == ["line", "bar", "box_and_whisker"]
    assert [result.is_main for result in shown] == [False, True, False]
    assert all("image/png" in result.bundle for result in shown)


@pytest.mark.parametrize("show", ["image", "image.show()", "image.save('picture.png')"])
async def test_a_picture_of_pillow_is_shown(sandbox: Sandbox, show: str) -> None:
    code = f"from PIL import Image\nimage = Image.new('RGB', (3, 2), 'red')\n{show}"
    result = await result_of(sandbox, code)
    assert base64.b64decode(str(result.bundle["image/png"])).startswith(b"\x89PNG")
    assert result.is_main is (show == "image")


async def test_a_picture_of_20_mb_is_left_out_with_its_size(sandbox: Sandbox) -> None:
    code = "class Big:\n    def _repr_png_(self): return bytes(20 * 1024 * 1024)\nBig()"
    result = await result_of(sandbox, code)
    assert list(result.bundle) == ["text/plain"]
    assert result.omitted["image/png"] > 20 * MIB
    assert (await result_of(sandbox, "1")).text == "1"


async def test_a_picture_of_five_mb_arrives(sandbox: Sandbox) -> None:
    code = "class Big:\n    def _repr_png_(self): return bytes(5 * 1024 * 1024)\nBig()"
    result = await result_of(sandbox, code)
    assert len(base64.b64decode(str(result.bundle["image/png"]))) == 5 * MIB


async def test_a_data_frame_of_a_million_rows_comes_without_its_data(sandbox: Sandbox) -> None:
    code = "import pandas as pd, numpy as np\npd.DataFrame({'a': np.arange(1_000_000), 'b': 1.5})"
    result = await result_of(sandbox, code)
    assert "1000000 rows" in str(result.bundle["text/plain"])
    assert "1000000 rows" in str(result.bundle["text/html"])
    assert list(result.omitted) == [DATA]


async def test_the_largest_data_that_is_sent_is_taken(sandbox: Sandbox) -> None:
    code = "import pandas as pd, numpy as np\npd.DataFrame({'a': np.zeros(500_000, dtype=int)})"
    result = await result_of(sandbox, code)
    data: Any = result.bundle[DATA]
    assert (len(data["a"]), result.omitted) == (500_000, {})


async def test_two_forms_of_very_many_values_do_not_end_the_kernel(sandbox: Sandbox) -> None:
    code = "display({'a/one+json': [0] * 510_000, 'a/two+json': [0] * 510_000}, raw=True)"
    result = await result_of(sandbox, code)
    assert (len(result.bundle), len(result.omitted)) == (1, 1)
    assert (await result_of(sandbox, "1")).text == "1"


async def test_a_figure_of_a_million_points_comes_without_its_chart(sandbox: Sandbox) -> None:
    code = "import matplotlib.pyplot as plt, numpy as np\nplt.plot(np.zeros(1_000_000));"
    result = await result_of(sandbox, code)
    assert "image/png" in result.bundle
    assert list(result.omitted) == [CHART]


@pytest.mark.parametrize(
    "code",
    [
        "a = []; a.append(a); a",
        "a = {}\nfor _ in range(500): a = {'a': a}\na",
        "{float('nan'): float('inf'), (1,): 2}",
        "[b'\\xff', 1j, object]",
        "import pandas as pd\npd.DataFrame({'a': [object(), b'\\xff', pd.NaT, 1j, [1]]})",
        "['\\ud800']",
    ],
)
async def test_strange_values_are_shown_and_are_json(sandbox: Sandbox, code: str) -> None:
    result = await result_of(sandbox, code)
    assert result.is_main
    json.dumps(dict(result.bundle), allow_nan=False)
