"""Rich values: what is made of them, and what reaches the host."""

import base64
from collections.abc import Iterator

import pytest

from headrace_guest.display import MAX_REPRESENTATIONS, CleanJson, OmittedText, make_bundle
from headrace_guest.json_form import MAX_REPRESENTATION
from headrace_guest.protocol import MAX_GUEST_FRAME, decode_body, encode_frame
from tests.support.kernel_process import KernelProcess, Outcome, shared_fork_server


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


# --- bundles --------------------------------------------------------------------------------


def test_binary_representations_become_base64() -> None:
    bundle, omitted = make_bundle({"image/png": b"\x89PNG", "text/plain": "text", "x/none": None})
    assert bundle == {"image/png": "iVBORw==", "text/plain": "text"}
    assert omitted == {}


def test_a_too_large_representation_is_named_with_its_size() -> None:
    data = {"text/plain": "small", "text/html": "x" * (MAX_REPRESENTATION + 1)}
    bundle, omitted = make_bundle(data)
    assert bundle == {"text/plain": "small"}
    assert omitted == {"text/html": MAX_REPRESENTATION + 1}


def test_the_size_that_counts_is_that_of_the_json() -> None:
    bundle, omitted = make_bundle({"text/html": "\U0001f600" * 1_000_000})
    assert bundle == {}
    assert omitted == {"text/html": 12_000_002}


def test_large_bytes_are_omitted_by_the_size_of_their_base64() -> None:
    _bundle, omitted = make_bundle({"image/png": bytes(9_000_000)})
    assert omitted == {"image/png": 12_000_000}


def test_a_bundle_fits_one_frame_without_its_largest() -> None:
    half = MAX_REPRESENTATION - 100
    data = {"a/a": "x" * half, "b/b": "y" * (half - 1), "c/c": "z" * (half - 2), "text/plain": "t"}
    bundle, omitted = make_bundle(data)
    assert set(omitted) == {"a/a", "b/b"}
    encode_frame({"bundle": bundle, "omitted": omitted}, MAX_GUEST_FRAME)


def test_a_bundle_has_a_bounded_number_of_representations() -> None:
    bundle, omitted = make_bundle({f"x/{n}": "text" for n in range(1000)})
    assert (len(bundle), omitted) == (MAX_REPRESENTATIONS, {})


def test_strange_keys_become_text() -> None:
    bundle, _omitted = make_bundle({1: "a", "x" * 5000: "b"})
    assert set(bundle) == {"1", "x" * 256}


def test_text_that_was_never_made_is_omitted() -> None:
    assert make_bundle({"text/plain": OmittedText.of(5)}) == ({}, {"text/plain": 5})


def test_two_forms_of_many_values_fit_one_frame_together() -> None:
    many = CleanJson([1] * 510_000)
    bundle, omitted = make_bundle({"application/a+json": many, "application/b+json": many})
    assert (len(bundle), len(omitted)) == (1, 1)
    decode_body(encode_frame({"bundle": bundle, "omitted": omitted}, MAX_GUEST_FRAME)[4:])


# --- through a kernel -----------------------------------------------------------------------


def test_display_is_no_main_result(kernel: KernelProcess) -> None:
    outcome = kernel.run("display('a', 'b')\n'c'")
    assert [(r.bundle["text/plain"], r.is_main) for r in outcome.results] == [
        ("'a'", False),
        ("'b'", False),
        ("'c'", True),
    ]


def test_a_display_can_be_updated(kernel: KernelProcess) -> None:
    code = "h = display(1, display_id='here')\nh.update(2)\nh.display(3)"
    shown = [(r.bundle["text/plain"], r.display_id, r.is_update) for r in kernel.run(code).results]
    assert shown == [("1", "here", False), ("2", "here", True), ("3", "here", False)]


def test_a_raw_bundle_is_passed_on(kernel: KernelProcess) -> None:
    (result,) = kernel.run(
        "display({'x/y': {'a': float('nan')}, 'text/plain': 'p'}, raw=True)"
    ).results
    assert result.bundle == {"x/y": {"a": None}, "text/plain": "p"}


def test_all_repr_methods_are_asked(kernel: KernelProcess) -> None:
    code = (
        "class R:\n"
        "    def __repr__(self): return 'plain'\n"
        "    def _repr_html_(self): return '<b>'\n"
        "    def _repr_png_(self): return b'png'\n"
        "    def _repr_json_(self): return {'n': 1}\n"
        "    def _repr_latex_(self): return '$x$'\n"
        "    def _repr_mimebundle_(self, **kw): return {'application/x': [1, 2]}\n"
        "R()"
    )
    assert kernel.run(code).main.bundle == {
        "text/plain": "plain",
        "text/html": "<b>",
        "image/png": base64.b64encode(b"png").decode(),
        "application/json": {"n": 1},
        "text/latex": "$x$",
        "application/x": [1, 2],
    }


@pytest.mark.parametrize("failure", ["1 / 0", "raise MemoryError", "raise RecursionError"])
def test_a_broken_repr_is_told_on_stderr_and_the_rest_is_shown(
    kernel: KernelProcess, failure: str
) -> None:
    code = (
        f"class R:\n    def _repr_html_(self): {failure}\n"
        "    def __repr__(self): return 'fine'\nR()"
    )
    outcome = kernel.run(code)
    assert (outcome.status, outcome.text) == ("ok", "fine")
    assert "in R._repr_html_(self)" in outcome.stderr
    assert "headrace" not in outcome.stderr


@pytest.mark.parametrize("failure", ["raise SystemExit(3)", "raise KeyboardInterrupt"])
def test_a_repr_that_wants_to_end_everything_ends_the_execution(
    kernel: KernelProcess, failure: str
) -> None:
    outcome = kernel.run(f"class R:\n    def __repr__(self): {failure}\nR()")
    assert outcome.status == "error"
    assert outcome.error.name in failure
    assert kernel.run("1").text == "1"


def test_unusable_json_is_an_error(kernel: KernelProcess) -> None:
    code = (
        "class S:\n    def __str__(self): raise ValueError('no text')\n"
        "display({'application/json': [S()]}, raw=True)"
    )
    assert kernel.run(code).error.value == "no text"


def test_long_sequences_are_shown_whole(kernel: KernelProcess) -> None:
    text = kernel.run("list(range(5000))").text
    assert isinstance(text, str)
    assert (text.count("\n"), text[-6:]) == (4999, " 4999]")


def test_deep_values_are_shown_though_they_cannot_be_laid_out(kernel: KernelProcess) -> None:
    outcome = kernel.run("a = []\nfor _ in range(600): a = [a]\na")
    assert outcome.text == "[" * 601 + "]" * 601
    assert outcome.stderr == ""


@pytest.mark.parametrize("value", ["'x' * 20_000_000", "['x' * 1000] * 20_000"])
def test_a_value_too_large_to_send_is_omitted_visibly(kernel: KernelProcess, value: str) -> None:
    result = kernel.run(value).main
    assert result.bundle == {}
    assert result.omitted["text/plain"] > MAX_REPRESENTATION


def test_a_data_frame_has_text_and_html(kernel: KernelProcess) -> None:
    code = "import pandas as pd; pd.DataFrame({'a': [1, 2], 'b': ['x', None]})"
    bundle = kernel.run(code).main.bundle
    assert bundle["text/plain"] == "   a    b\n0  1    x\n1  2  NaN"
    assert "<table" in str(bundle["text/html"])


# --- pictures -------------------------------------------------------------------------------


def _pictures(outcome: Outcome) -> list[bytes]:
    encoded = [result.bundle.get("image/png") for result in outcome.results]
    return [base64.b64decode(text) for text in encoded if isinstance(text, str)]


def test_a_figure_is_shown_once_by_show(kernel: KernelProcess) -> None:
    outcome = kernel.run("import matplotlib.pyplot as plt\nplt.plot([1, 2]);\nplt.show()")
    (picture,) = _pictures(outcome)
    assert picture.startswith(b"\x89PNG\r\n")
    assert outcome.results[0].bundle["text/plain"] == "<Figure size 640x480 with 1 Axes>"
    assert not outcome.results[0].is_main


def test_open_figures_are_shown_at_the_end_each_once(kernel: KernelProcess) -> None:
    code = (
        "import matplotlib.pyplot as plt\n"
        "plt.figure(); plt.plot([1])\nplt.show()\n"
        "for n in range(2):\n    plt.figure(); x = plt.plot([n])\n"
        "print('last')"
    )
    outcome = kernel.run(code)
    assert len(_pictures(outcome)) == 3
    assert outcome.stdout == "last\n"
    assert kernel.run("plt.get_fignums()").text == "[]"


def test_a_figure_that_cannot_be_drawn_is_told_on_stderr(kernel: KernelProcess) -> None:
    outcome = kernel.run("import matplotlib.pyplot as plt\nplt.title('$\\\\frac{$');")
    assert "ValueError" in outcome.stderr
    assert outcome.status == "ok"


def test_the_inline_backend_can_be_asked_for_again(kernel: KernelProcess) -> None:
    outcome = kernel.run("%matplotlib inline\nimport matplotlib.pyplot as plt\nplt.plot([1]);")
    assert len(_pictures(outcome)) == 1


def test_a_pillow_image_is_a_picture(kernel: KernelProcess) -> None:
    outcome = kernel.run("from PIL import Image\nImage.new('RGB', (3, 2), 'red')")
    (picture,) = _pictures(outcome)
    assert picture.startswith(b"\x89PNG\r\n")


def test_showing_a_pillow_image_displays_it(kernel: KernelProcess) -> None:
    outcome = kernel.run("from PIL import Image\nImage.new('RGB', (3, 2), 'red').show()")
    assert len(_pictures(outcome)) == 1


def test_json_of_too_many_values_is_omitted_before_a_host_refuses_it() -> None:
    bundle, omitted = make_bundle({"text/plain": "zeros", "application/json": [0] * 600_000})
    assert list(bundle) == ["text/plain"]
    assert list(omitted) == ["application/json"]
