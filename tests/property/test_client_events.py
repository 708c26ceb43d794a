"""What the service writes the SDK reads: every event comes back as it was."""

from dataclasses import replace
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.adapters.native.codec import encode_ndjson
from headrace.client._shared.events import EXECUTION, PROCESS, WATCH
from headrace.client._shared.feed import Feed
from headrace.model.events import OutputWritten, Stream
from tests.property import test_records as known

TIMES = ("timestamp", "duration")


def as_sent(event: Any, seq: int) -> Any:
    """Give an event as it is behind rounding, with the number that its place gives it."""
    times = {name: round(getattr(event, name), 6) for name in TIMES if hasattr(event, name)}
    return replace(event, seq=seq, **times)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.one_of(
        st.tuples(st.just(EXECUTION), st.lists(known.EXECUTION, max_size=5)),
        st.tuples(st.just(PROCESS), st.lists(known.PROCESS, max_size=5)),
        st.tuples(st.just(WATCH), st.lists(known.WATCH, max_size=5)),
    )
)
def test_events_come_back_as_they_were(case: tuple[Any, list[Any]]) -> None:
    kind, events = case
    sent: list[Any] = []
    for event in events:
        if kind is EXECUTION and isinstance(event, OutputWritten) and event.stream is Stream.PTY:
            continue
        sent.append(as_sent(event, len(sent) + 1))
        if isinstance(event, kind.terminal):
            break

    feed = Feed(kind)
    feed.push(encode_ndjson(sent))

    assert list(feed.ready) == sent
