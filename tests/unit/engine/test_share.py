"""One guest's share of the loop's time."""

import pytest

from headrace.engine.share import Share


def test_short_work_needs_no_rest() -> None:
    share, now = Share(0.0), 0.0
    for _ in range(1000):
        now += 0.001
        assert share.spend(now, now + 0.0001) == 0.0


def test_a_burst_needs_no_rest() -> None:
    share = Share(0.0)
    assert share.spend(0.0, 0.4) == 0.0


def test_long_work_needs_three_times_as_much_rest() -> None:
    share, now, worked = Share(0.0), 0.0, 0.0
    while now < 100.0:
        rest = share.spend(now, now + 0.1)
        worked += 0.1
        now += 0.1 + rest
    assert worked / now == pytest.approx(0.25, abs=0.02)


def test_savings_are_bounded() -> None:
    share = Share(0.0)
    assert share.spend(1_000_000.0, 1_000_002.0) == pytest.approx(6.0)
