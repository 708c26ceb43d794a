"""The forms of our own, seen through real kernels: JSON, data of frames, charts of figures."""

import base64
from collections.abc import Iterator
from typing import Any

import pytest

from headrace_guest.forms import CHART, DATA
from tests.support.kernel_process import KernelProcess, Outcome, shared_fork_server

JSON = "application/json"
PLOT = "import matplotlib.pyplot as plt\n"
FRAME = "import pandas as pd, numpy as np, datetime as dt, decimal\n"


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


def pictures(outcome: Outcome) -> list[bytes]:
    encoded = [result.bundle.get("image/png") for result in outcome.results]
    return [base64.b64decode(text) for text in encoded if isinstance(text, str)]


# --- lists and dicts ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "value"),
    [
        ("{'a': [1, None, 2.5]}", {"a": [1, None, 2.5]}),
        ("[]", []),
        ("import numpy as np\n[np.int64(1), np.zeros(2), np.nan]", [1, [0.0, 0.0], None]),
        ("import collections; collections.Counter('aab')", {"a": 2, "b": 1}),
    ],
)
def test_lists_and_dicts_are_json_too(kernel: KernelProcess, code: str, value: object) -> None:
    bundle = kernel.run(code).main.bundle
    assert bundle[JSON] == value
    assert list(bundle) == ["text/plain", JSON]


@pytest.mark.parametrize(
    "code",
    [
        *("{1, 2}", "(1, 2)", "'text'", "1", "[{1}]", "[object()]", "{(1, 2): 3}"),
        "a = []; a.append(a); a",
        "a = []\nfor _ in range(100): a = [a]\na",
    ],
)
def test_other_values_have_no_json(kernel: KernelProcess, code: str) -> None:
    outcome = kernel.run(code)
    assert list(outcome.main.bundle) == ["text/plain"]
    assert outcome.main.omitted == {}
    assert outcome.stderr == ""


def test_a_broken_dict_has_no_json_and_is_shown_all_the_same(kernel: KernelProcess) -> None:
    outcome = kernel.run(
        "class D(dict):\n    def items(self): 1 / 0\n    def __repr__(self): return 'D'\nD(a=1)"
    )
    assert outcome.main.bundle == {"text/plain": "D"}
    assert outcome.stderr == ""


def test_a_displayed_dict_is_json_too(kernel: KernelProcess) -> None:
    (result,) = kernel.run("display({'a': 1})").results
    assert (result.bundle[JSON], result.is_main) == ({"a": 1}, False)


def test_a_list_too_large_for_json_says_so(kernel: KernelProcess) -> None:
    result = kernel.run("['x'] * 1_000_000").main
    assert JSON not in result.bundle
    assert result.omitted[JSON] >= 8 * 1024 * 1024


def test_the_json_that_an_object_gives_itself_wins(kernel: KernelProcess) -> None:
    code = "class D(dict):\n    def _repr_json_(self): return {'own': 1}\nD(a=1)"
    assert kernel.run(code).main.bundle[JSON] == {"own": 1}


# --- data frames ----------------------------------------------------------------------------


def data_of(kernel: KernelProcess, code: str) -> Any:
    return kernel.run(FRAME + code).main.bundle[DATA]


def test_a_data_frame_has_its_columns_beside_text_and_html(kernel: KernelProcess) -> None:
    bundle = kernel.run(FRAME + "pd.DataFrame({'a': [1, 2], 'b': ['x', None]})").main.bundle
    assert bundle[DATA] == {"a": [1, 2], "b": ["x", None]}
    assert list(bundle) == ["text/plain", "text/html", DATA]


def test_a_displayed_data_frame_has_its_columns(kernel: KernelProcess) -> None:
    (result,) = kernel.run(FRAME + "display(pd.DataFrame({'a': [1]}))").results
    assert result.bundle[DATA] == {"a": [1]}


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("[1.5, np.nan, np.inf]", [1.5, None, None]),
        ("[True, False]", [True, False]),
        ("pd.to_datetime(['2026-01-02', None])", ["2026-01-02T00:00:00", None]),
        (
            "pd.to_datetime(['2026-01-02']).tz_localize('Europe/Berlin')",
            ["2026-01-02T00:00:00+01:00"],
        ),
        ("[dt.date(2026, 1, 2)]", ["2026-01-02"]),
        ("pd.to_timedelta(['1 day'])", ["P1DT0H0M0S"]),
        ("pd.period_range('2026-01', periods=1, freq='M')", ["2026-01"]),
        ("pd.Categorical(['x', 'y'])", ["x", "y"]),
        ("pd.array([1, None], dtype='Int64')", [1, None]),
        ("[decimal.Decimal('1.10'), {'k': [1]}]", ["1.10", {"k": [1]}]),
        ("[2**70, -1]", [2**70, -1]),
    ],
)
def test_values_of_a_column_are_json(
    kernel: KernelProcess, column: str, values: list[object]
) -> None:
    assert data_of(kernel, f"pd.DataFrame({{'c': {column}}})") == {"c": values}


def test_names_of_columns_are_text(kernel: KernelProcess) -> None:
    assert data_of(kernel, "pd.DataFrame({1: [1], ('a', 'b'): [2]})") == {
        "1": [1],
        "('a', 'b')": [2],
    }


def test_an_empty_data_frame_has_empty_columns(kernel: KernelProcess) -> None:
    assert data_of(kernel, "pd.DataFrame({'a': []})") == {"a": []}
    assert data_of(kernel, "pd.DataFrame()") == {}


def test_columns_of_one_name_have_no_data_as_one_would_hide_the_other(
    kernel: KernelProcess,
) -> None:
    outcome = kernel.run(FRAME + "pd.DataFrame([[1, 2]], columns=['a', 'a'])")
    assert list(outcome.main.bundle) == ["text/plain", "text/html"]
    assert outcome.stderr == ""


def test_a_data_frame_of_a_million_rows_is_shown_without_its_data(kernel: KernelProcess) -> None:
    result = kernel.run(FRAME + "pd.DataFrame({'a': np.arange(1_000_000)})").main
    assert "[1000000 rows x 1 columns]" in str(result.bundle["text/plain"])
    assert "1000000 rows" in str(result.bundle["text/html"])
    assert result.omitted == {DATA: 16_001_024}


def test_a_data_frame_of_very_many_columns_is_shown_without_its_data(
    kernel: KernelProcess,
) -> None:
    result = kernel.run(FRAME + "pd.DataFrame(columns=range(100_000))").main
    assert list(result.omitted) == [DATA]


def test_a_data_frame_of_long_texts_is_given_up_while_it_is_read(kernel: KernelProcess) -> None:
    result = kernel.run(FRAME + "pd.DataFrame({'a': ['x' * 10_000] * 1000})").main
    assert list(result.omitted) == [DATA]


def test_a_series_has_no_data_form(kernel: KernelProcess) -> None:
    assert list(kernel.run(FRAME + "pd.Series([1])").main.bundle) == ["text/plain"]


# --- figures --------------------------------------------------------------------------------


def test_a_figure_has_its_chart_beside_its_picture(kernel: KernelProcess) -> None:
    (result,) = kernel.run(PLOT + "plt.bar(['a'], [2])\nplt.show()").results
    assert list(result.bundle) == ["text/plain", "image/png", CHART]
    chart: Any = result.bundle[CHART]
    assert chart["elements"] == [{"label": "a", "group": "Group 0", "value": 2.0}]


def test_a_figure_at_the_end_of_the_cell_has_its_chart(kernel: KernelProcess) -> None:
    (result,) = kernel.run(PLOT + "plt.pie([1, 1]);").results
    chart: Any = result.bundle[CHART]
    assert chart["type"] == "pie"


def test_a_blank_figure_has_an_empty_chart(kernel: KernelProcess) -> None:
    (result,) = kernel.run(PLOT + "plt.subplots();").results
    assert result.bundle[CHART] == {}


def test_a_figure_that_cannot_be_read_has_an_empty_chart(kernel: KernelProcess) -> None:
    code = "figure, axes = plt.subplots()\naxes.has_data = lambda: 1 / 0"
    outcome = kernel.run(PLOT + code)
    assert outcome.results[0].bundle[CHART] == {}
    assert outcome.stderr == ""


def test_a_figure_of_very_many_points_has_a_picture_only(kernel: KernelProcess) -> None:
    (result,) = kernel.run(PLOT + "plt.plot(range(60_000));").results
    assert list(result.bundle) == ["text/plain", "image/png"]
    assert list(result.omitted) == [CHART]


def test_a_figure_that_is_the_last_expression_is_shown_once(kernel: KernelProcess) -> None:
    outcome = kernel.run(PLOT + "figure, axes = plt.subplots()\naxes.plot([1, 2])\nfigure")
    assert [result.is_main for result in outcome.results] == [True]
    assert len(pictures(outcome)) == 1


@pytest.mark.parametrize("show", ["display(figure)", "figure.show()", "plt.show()"])
def test_a_figure_that_was_shown_is_not_shown_again_at_the_end(
    kernel: KernelProcess, show: str
) -> None:
    outcome = kernel.run(PLOT + f"figure = plt.figure()\nplt.plot([1, 2])\n{show}\nx = 1")
    assert len(pictures(outcome)) == 1
    assert kernel.run("plt.get_fignums()").main.bundle[JSON] == []


def test_a_figure_that_changed_after_it_was_shown_is_shown_again(kernel: KernelProcess) -> None:
    code = "figure = plt.figure()\nline = plt.plot([1, 2])\ndisplay(figure)\n"
    for change in ("plt.plot([2, 1]);", "line[0].set_color('red');", "plt.title('new');"):
        first, second = pictures(kernel.run(PLOT + code + change))
        assert first != second


def test_one_of_two_figures_that_was_shown_does_not_hide_the_other(kernel: KernelProcess) -> None:
    code = "one = plt.figure()\nplt.plot([1])\ntwo = plt.figure()\nplt.plot([2, 3])\none"
    assert len(pictures(kernel.run(PLOT + code))) == 2


def test_figures_stay_open_where_the_user_wants_that(kernel: KernelProcess) -> None:
    kernel.run(PLOT + "%config InlineBackend.close_figures = False")
    kernel.run("figure = plt.figure()\nplt.plot([1])\ndisplay(figure)")
    assert kernel.run("plt.get_fignums()").main.bundle[JSON] == [1]


def test_a_figure_saved_to_a_file_is_shown_once(kernel: KernelProcess) -> None:
    outcome = kernel.run(PLOT + "plt.plot([1, 2])\nplt.savefig('/dev/null', format='png')")
    assert len(pictures(outcome)) == 1


def test_reading_charts_leaves_no_module_behind_that_user_code_did_not_import(
    kernel: KernelProcess,
) -> None:
    kernel.run(
        PLOT + "plt.plot([1]); plt.figure(); plt.boxplot([1, 2]); plt.figure(); plt.pie([1]);"
    )
    kernel.run(
        "plt.scatter([1], [2]); plt.figure(); plt.bar([1], [2]); plt.figure(); plt.imshow([[1]]);"
    )
    outcome = kernel.run("import sys\n[n for n in sys.modules if 'pydantic' in n or 'e2b' in n]")
    assert outcome.main.bundle[JSON] == []


def test_user_code_imports_a_pydantic_of_its_own(kernel: KernelProcess) -> None:
    kernel.run("import pydantic\nclass M(pydantic.BaseModel):\n    n: int")
    assert kernel.run("M(n='3')").text == "M(n=3)"
    assert "chart" in str(kernel.run(PLOT + "plt.plot([1]);").results[0].bundle.keys())


# --- other libraries ------------------------------------------------------------------------

FAKE_PLOTLY = """
import sys, pathlib, tempfile
root = pathlib.Path(tempfile.mkdtemp())
package = root / 'plotly'
(package / 'io').mkdir(parents=True)
(package / '__init__.py').write_text('')
(package / 'basedatatypes.py').write_text('''
class BaseFigure:
    def show(self):
        import plotly.io
        plotly.io.show(self)
    def _ipython_display_(self):
        raise ValueError('nbformat is missing')
    def _repr_mimebundle_(self, **kw):
        raise ValueError('nbformat is missing')
    def __repr__(self):
        return 'Figure()'
''')
(package / 'io' / '__init__.py').write_text('''
from plotly.io._renderers import renderers, show
def to_json(figure, validate): return '{"data": [], "layout": {}}'
def to_html(figure, **options): return f"<div>{sorted(options)}</div>"
''')
(package / 'io' / '_renderers.py').write_text('''
class ExternalRenderer: pass
class Renderers(dict): default = 'notebook'
renderers = Renderers()
def show(figure): renderers[renderers.default].render({})
''')
sys.path.insert(0, str(root))
from plotly.basedatatypes import BaseFigure
class Figure(BaseFigure): pass
"""
PLOTLY = "application/vnd.plotly.v1+json"


@pytest.mark.parametrize(
    ("show", "is_main", "text"),
    [
        ("Figure()", True, "Figure()"),
        ("display(Figure())", False, "Figure()"),
        ("Figure().show()", False, "<plotly figure>"),
    ],
)
def test_a_figure_of_plotly_has_its_own_form_and_html(
    kernel: KernelProcess, show: str, is_main: bool, text: str
) -> None:
    outcome = kernel.run(FAKE_PLOTLY + show)
    (result,) = outcome.results
    assert result.bundle[PLOTLY] == {"config": {}, "data": [], "layout": {}}
    assert str(result.bundle["text/html"]).startswith("<div>")
    assert (result.bundle["text/plain"], result.is_main) == (text, is_main)
    assert outcome.stderr == ""


def test_plotly_is_left_alone_where_its_renderer_is_chosen(kernel: KernelProcess) -> None:
    kernel.run("import os; os.environ['PLOTLY_RENDERER'] = 'svg'")
    code = FAKE_PLOTLY + "import plotly.io; plotly.io.renderers.default"
    assert kernel.run(code).text == "'notebook'"


def test_an_object_that_displays_itself_does_so(kernel: KernelProcess) -> None:
    code = "class D:\n    def _ipython_display_(self): display('itself')\nD()"
    assert [result.bundle["text/plain"] for result in kernel.run(code).results] == ["'itself'"]


def test_any_other_form_is_kept_under_its_name(kernel: KernelProcess) -> None:
    code = (
        "class V:\n"
        "    def _repr_mimebundle_(self, include=None, exclude=None):\n"
        "        return {'application/vnd.vega.v5+json': {'marks': []}, 'text/plain': 'v'}\nV()"
    )
    bundle = kernel.run(code).main.bundle
    assert bundle == {"application/vnd.vega.v5+json": {"marks": []}, "text/plain": "v"}
