"""Every event comes back from its record as it was."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from headrace.model.events import (
    ChangesDropped,
    CodeError,
    CodeRaised,
    ExecutionFinished,
    ExecutionStarted,
    FileChange,
    FileChanged,
    FinishReason,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ProcessExited,
    ProcessStarted,
    ResultDisplayed,
    Stream,
    WatchEnded,
    WatchStarted,
)
from headrace.model.records import (
    CODECS,
    EXECUTION_CODEC,
    PROCESS_CODEC,
    WATCH_CODEC,
    RecordError,
)
from headrace.model.results import Result

SEQ = st.integers(1, 2**40)
TIME = st.floats(0, 1e11)
# Lone surrogates, too: the records must keep whatever the model can hold.
TEXT = st.text(st.characters(codec=None), max_size=20)
WHOLE = st.integers(-(2**70), 2**70)
JSON = st.recursive(
    st.none() | st.booleans() | WHOLE | st.floats(allow_nan=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=10,
)
RESULT = st.builds(
    Result,
    bundle=st.dictionaries(TEXT, JSON, max_size=3),
    is_main=st.booleans(),
    omitted=st.dictionaries(TEXT, st.integers(0, 2**70), max_size=3),
    display_id=st.none() | TEXT,
    is_update=st.booleans(),
)
ERROR = st.recursive(
    st.builds(CodeError, TEXT, TEXT, TEXT),
    lambda inner: st.builds(CodeError, TEXT, TEXT, TEXT, st.lists(inner, max_size=3).map(tuple)),
    max_leaves=5,
)
STREAM = st.sampled_from(Stream)
REASON = st.sampled_from(FinishReason)
ENDING = {
    "reason": REASON,
    "duration": TIME,
    "exit_code": st.none() | WHOLE,
    "signal": st.none() | WHOLE,
    "limit": st.none() | TEXT,
    "limit_value": st.none() | TIME | WHOLE,
    "detail": st.none() | TEXT,
}
OUTPUT = st.builds(OutputWritten, SEQ, TIME, STREAM, st.binary(max_size=50)) | st.builds(
    OutputDropped, SEQ, TIME, STREAM, WHOLE, TEXT
)
EXECUTION = OUTPUT | st.one_of(
    st.builds(ExecutionStarted, SEQ, TIME, TEXT, TEXT, WHOLE),
    st.builds(ResultDisplayed, SEQ, TIME, RESULT),
    st.builds(CodeRaised, SEQ, TIME, ERROR),
    st.builds(InputRequested, SEQ, TIME, TEXT, st.booleans()),
    st.builds(ExecutionFinished, SEQ, TIME, state_lost=st.booleans(), **ENDING),
)
PROCESS = OUTPUT | st.one_of(
    st.builds(ProcessStarted, SEQ, TIME, TEXT, WHOLE),
    st.builds(ProcessExited, SEQ, TIME, **ENDING),
)
WATCH = st.one_of(
    st.builds(WatchStarted, SEQ, TIME, TEXT, TEXT),
    st.builds(FileChanged, SEQ, TIME, st.sampled_from(FileChange), TEXT),
    st.builds(ChangesDropped, SEQ, TIME, TEXT),
    st.builds(WatchEnded, SEQ, TIME, REASON, st.none() | TEXT),
)


@given(EXECUTION)
def test_events_of_executions_come_back(event: Any) -> None:
    record = EXECUTION_CODEC.encode(event)
    assert EXECUTION_CODEC.decode(event.seq, event.timestamp, record) == event


@given(PROCESS)
def test_events_of_processes_come_back(event: Any) -> None:
    record = PROCESS_CODEC.encode(event)
    assert PROCESS_CODEC.decode(event.seq, event.timestamp, record) == event


@given(WATCH)
def test_events_of_watches_come_back(event: Any) -> None:
    record = WATCH_CODEC.encode(event)
    assert WATCH_CODEC.decode(event.seq, event.timestamp, record) == event


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=40) | JSON.map(repr).map(str.encode))
def test_garbage_is_refused_and_nothing_else_happens(codec: str, data: bytes) -> None:
    try:
        CODECS[codec].decode(1, 1.0, data)
    except RecordError:
        return
    raise AssertionError("garbage was taken for a record")
