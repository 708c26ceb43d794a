"""What is told about an exception, without a kernel."""

import pytest

from headrace_guest.failure import (
    TEXT_LIMITS,
    describe,
    describe_plainly,
    format_without_shell,
    shorten,
    shorten_texts,
    shorten_traceback,
)
from headrace_guest.protocol import (
    MAX_GUEST_FRAME,
    MAX_PARTS,
    KernelError,
    encode_frame,
    parse_kernel_message,
)


def _raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301 - to give it a traceback
    except BaseException as caught:  # noqa: BLE001 - that is what it is for
        return caught


def test_a_text_within_the_limit_stays_as_it_is() -> None:
    assert shorten("abc", 3) == "abc"


@pytest.mark.parametrize("limit", [0, 1, 10, 60, 100, 999])
def test_a_cut_text_keeps_the_limit(limit: int) -> None:
    assert len(shorten("x" * 1000, limit)) == limit


def test_a_cut_text_keeps_head_and_tail_and_says_so() -> None:
    text = shorten("HEAD" + "x" * 1000 + "TAIL", 200)
    assert text.startswith("HEAD")
    assert text.endswith("TAIL")
    assert "[... 808 characters and more cut ...]" in text


def test_a_description_has_the_fields_of_an_error_frame() -> None:
    message = describe(_raised(ValueError("why")), format_without_shell)
    assert (message["name"], message["value"]) == ("ValueError", "why")
    assert message["traceback"].endswith("ValueError: why")


def test_a_renderer_that_fails_is_replaced() -> None:
    def render(error: BaseException) -> str:
        raise RuntimeError("IPython has a bug")

    message = describe(_raised(ValueError("why")), render)
    assert message["traceback"].endswith("ValueError: why")


def test_a_plain_description_calls_nothing_of_the_class() -> None:
    class Meta(type):
        @property
        def __name__(cls) -> str:  # type: ignore[override]
            raise AssertionError("user code was called")

    class OddError(Exception, metaclass=Meta):
        def __str__(self) -> str:
            raise AssertionError("user code was called")

    message = describe_plainly(OddError(), "reason")
    assert message == {"name": "OddError", "value": "reason", "traceback": "OddError: reason"}


def test_the_largest_description_fits_a_frame_at_some_limit() -> None:
    parts = [ValueError("\U0001f600" * 100_000) for _ in range(MAX_PARTS + 10)]
    message = describe(ExceptionGroup("\U0001f600" * 2_000_000, parts), format_without_shell)
    sizes = [
        len(encode_frame({"type": "error", **shorten_texts(message, limit)}, 1 << 30))
        for limit in TEXT_LIMITS
    ]
    assert sizes[0] > MAX_GUEST_FRAME > sizes[-1]


def test_a_deep_group_is_understood_by_the_host() -> None:
    group: ExceptionGroup[Exception] = ExceptionGroup("innermost", [KeyError(1)])
    for _ in range(200):
        group = ExceptionGroup("around", [group])
    message = shorten_texts(describe(group, lambda error: "text"), TEXT_LIMITS[0])
    frame = encode_frame({"type": "error", "execution": "e", **message})
    parsed = parse_kernel_message(frame[4:])
    assert isinstance(parsed, KernelError)
    depth = 0
    while parsed.parts:
        (parsed,) = parsed.parts
        depth += 1
    assert depth == MAX_PARTS - 1


def _recurse(depth: int) -> None:
    if depth:
        _recurse(depth - 1)
    raise ValueError("at the bottom")


def test_a_long_traceback_keeps_its_ends() -> None:
    with pytest.raises(ValueError, match="bottom") as caught:
        _recurse(200)
    short, left_out = shorten_traceback(caught.value.__traceback__)
    entries = 0
    while short is not None:
        entries += 1
        short = short.tb_next
    assert (entries, left_out) == (50, 152)


def test_a_short_traceback_stays() -> None:
    error = _raised(ValueError())
    assert shorten_traceback(error.__traceback__) == (error.__traceback__, 0)
    assert shorten_traceback(None) == (None, 0)
