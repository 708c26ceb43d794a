"""What the end of user code means for the host."""

import pytest

from headrace_guest.outcome import judge


@pytest.mark.parametrize(
    ("error", "status", "exit_code"),
    [
        (None, "ok", None),
        (ValueError(), "error", None),
        (SystemExit(), "ok", 0),
        (SystemExit(None), "ok", 0),
        (SystemExit(0), "ok", 0),
        (SystemExit(False), "ok", 0),
        (SystemExit(3), "error", 3),
        (SystemExit(True), "error", 1),
        (SystemExit(-1), "error", 255),
        (SystemExit(256), "error", 0),
        (SystemExit("a reason"), "error", 1),
        (SystemExit(1, 2), "error", 1),
    ],
)
def test_an_end_has_a_status_and_an_exit_code(
    error: BaseException | None, status: str, exit_code: int | None
) -> None:
    assert judge(error, was_interrupted=False) == (status, exit_code)


@pytest.mark.parametrize(("was_interrupted", "status"), [(True, "interrupted"), (False, "error")])
def test_a_keyboard_interrupt_counts_as_one_if_somebody_interrupted(
    was_interrupted: bool, status: str
) -> None:
    assert judge(KeyboardInterrupt(), was_interrupted) == (status, None)


def test_another_error_after_an_interrupt_is_an_error() -> None:
    assert judge(ValueError(), was_interrupted=True) == ("error", None)
