"""Waiting: bounds, delays, what is left."""

import pytest

from headrace.client._shared.patience import Patience, Timer, TimeUpError


def test_delays_grow_to_a_bound() -> None:
    patience = Patience(first_delay=0.1, longest_delay=1.0)

    assert [patience.delay(failures) for failures in (1, 2, 3, 4, 5, 5000)] == [
        pytest.approx(delay) for delay in (0.1, 0.2, 0.4, 0.8, 1.0, 1.0)
    ]


def test_a_total_runs_out() -> None:
    now = [10.0]
    timer = Timer(5.0, clock=lambda: now[0])
    now[0] = 12.0

    assert timer.left() == 3.0
    now[0] = 15.0
    with pytest.raises(TimeUpError):
        timer.left()


def test_the_time_for_each_wait_does_not_run_out() -> None:
    now = [10.0]
    timer = Timer(5.0, is_total=False, clock=lambda: now[0])
    now[0] = 99.0

    assert timer.left() == 5.0
