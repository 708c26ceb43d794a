"""What the control plane's answers are made of, without an engine."""

import pytest

from headrace.adapters.e2b.codec.sandbox import (
    choose_domain,
    count_cpus,
    format_time,
    make_place,
    make_token,
    read_filter,
    read_token,
    select_entries,
)
from headrace.model.errors import InvalidRequestError
from headrace.model.life import HistoryEntry, Level
from headrace.model.specs import Limits


@pytest.mark.parametrize(
    ("origin", "domain"),
    [
        ("http://127.0.0.1:8000", "localhost:8000"),
        ("http://127.9.9.9", "localhost"),
        ("http://[::1]:8000", "localhost:8000"),
        ("http://localhost:8000", "localhost:8000"),
        ("http://a.localhost:8000", "localhost:8000"),
        ("http://localhost", "localhost"),
        ("https://sandboxes.example.org", "sandboxes.example.org"),
        ("https://example.org:8443", "example.org:8443"),
        ("http://10.0.0.5:8000", "10.0.0.5:8000"),
        ("http://[2001:db8::1]:8000", "[2001:db8::1]:8000"),
    ],
)
def test_host_names_of_ports_are_below_the_host_that_was_called(origin: str, domain: str) -> None:
    assert choose_domain(None, origin) == domain
    assert choose_domain("configured.example", origin) == "configured.example"


@pytest.mark.parametrize(("cpus", "count"), [(0.25, 1), (1.0, 1), (1.01, 2), (4.0, 4)])
def test_processors_are_counted_whole(cpus: float, count: int) -> None:
    assert count_cpus(Limits(cpus=cpus)) == count


def test_times_are_those_of_utc() -> None:
    assert format_time(0.0015) == "1970-01-01T00:00:00.001Z"


def test_places_are_in_the_order_of_time() -> None:
    places = [make_place(9.5, "b"), make_place(10.0, "a"), make_place(10.0, "b")]

    assert sorted(places, reverse=True) == places[::-1]
    assert [read_token(make_token(place)) for place in places] == places


@pytest.mark.parametrize("token", ["x", "====", "ä", "a" * 5, "_w=="])
def test_a_token_of_somebody_else_is_refused(token: str) -> None:
    with pytest.raises(InvalidRequestError, match="nextToken"):
        read_token(token)


def test_no_filter_wants_nothing() -> None:
    assert read_filter(None) == {}
    assert read_filter("") == {}
    assert read_filter("a%2520b=c%252520d&e=") == {"a b": "c%20d", "e": ""}


def test_entries_below_a_level_are_left_out() -> None:
    entries = [HistoryEntry(float(number), level, level) for number, level in enumerate(Level)]

    assert select_entries(entries) == entries
    assert select_entries(entries, level=Level.WARN) == entries[2:]
    assert select_entries(entries, level=Level.ERROR, search="err") == entries[3:]
    assert select_entries(entries, cursor=1000, is_backward=True) == entries[:1]
