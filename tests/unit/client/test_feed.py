"""The position in a stream of events: gaps, repetitions, pieces, garbage."""

import json
from contextlib import suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.client._shared.events import EXECUTION, PROCESS, WATCH
from headrace.client._shared.feed import BrokenFeedError, Feed, ServiceFailed
from headrace.model.errors import QuotaError
from headrace.model.events import ExecutionEvent
from tests.support.scripted import encode_lines, event_records

RECORDS = event_records(6)
LINES = encode_lines(RECORDS)


def feed_all(*pieces: bytes) -> Feed[ExecutionEvent]:
    feed = Feed(EXECUTION)
    for piece in pieces:
        feed.push(piece)
    return feed


@settings(deadline=None)
@given(st.lists(st.integers(0, len(LINES)), max_size=20))
def test_it_does_not_matter_how_the_bytes_are_cut(cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), len(LINES)]
    feed = feed_all(*(LINES[a:b] for a, b in pairwise(edges)))

    assert [event.seq for event in feed.ready] == list(range(1, 9))
    assert feed.is_finished


@settings(deadline=None)
@given(st.lists(st.integers(1, len(LINES)), max_size=30))
def test_any_number_of_cuts_loses_nothing(lengths: list[int]) -> None:
    feed = Feed(EXECUTION)
    for length in lengths:
        if not feed.is_finished:
            feed.restart()
            feed.push(encode_lines(RECORDS, feed.last_seq)[:length])
    if not feed.is_finished:
        feed.restart()
        feed.push(encode_lines(RECORDS, feed.last_seq))

    assert [event.seq for event in feed.ready] == list(range(1, 9))


def test_events_before_garbage_are_kept() -> None:
    feed = Feed(EXECUTION)

    with pytest.raises(BrokenFeedError, match="not JSON"):
        feed.push(encode_lines(RECORDS[:2]) + b"garbage\n")

    assert feed.last_seq == 2
    assert len(feed.ready) == 2


def test_a_gap_is_no_continuation() -> None:
    with pytest.raises(BrokenFeedError, match="the number 3 follows 1"):
        feed_all(encode_lines(RECORDS[:1]), encode_lines(RECORDS[2:]))


def test_a_repetition_is_passed_over() -> None:
    feed = feed_all(encode_lines(RECORDS[:3]), encode_lines(RECORDS[:4]))

    assert [event.seq for event in feed.ready] == [1, 2, 3, 4]


def test_nothing_follows_the_last_event() -> None:
    with pytest.raises(BrokenFeedError, match="follows the last event"):
        feed_all(LINES, b'{"type": "heartbeat"}\n')


def test_a_line_has_a_bound() -> None:
    feed = Feed(EXECUTION, max_line=1000)

    with pytest.raises(BrokenFeedError, match="at most 1000"):
        feed.push(b"x" * 1001)


def test_the_failure_of_a_service_is_its_error() -> None:
    failed = {"type": "failed", "error": {"code": "quota", "message": "full", "details": {"a": 1}}}

    with pytest.raises(ServiceFailed) as caught:
        feed_all(json.dumps(failed).encode() + b"\n")

    assert isinstance(caught.value.error, QuotaError)
    assert caught.value.error.details == {"a": 1}


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
NAMES = sorted({*EXECUTION.readers, *PROCESS.readers, *WATCH.readers, "failed", "heartbeat"})
FIELDS = [
    *("id", "context_id", "execution_count", "text", "base64", "stream", "dropped", "reason"),
    *("duration", "bundle", "is_main", "omitted", "display_id", "is_update", "name", "value"),
    *("traceback", "parts", "prompt", "is_password", "exit_code", "signal", "state_lost"),
    *("limit", "limit_value", "detail", "pid", "path", "change", "error", "timestamp"),
]


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([EXECUTION, PROCESS, WATCH]),
    st.sampled_from(NAMES),
    st.dictionaries(st.sampled_from(FIELDS), ANYTHING, max_size=6),
)
def test_no_record_of_any_shape_does_anything_but_be_refused(
    kind: Any, name: str, fields: dict[str, object]
) -> None:
    feed = Feed[object](kind)
    record = {"type": name, "seq": 1, "timestamp": 1.0, **fields}

    try:
        feed.push(json.dumps(record).encode() + b"\n")
    except BrokenFeedError:
        assert feed.last_seq == 0
    else:
        assert feed.last_seq == 1


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_do_anything_but_be_refused(data: bytes) -> None:
    with suppress(BrokenFeedError, ServiceFailed):
        feed_all(data)
