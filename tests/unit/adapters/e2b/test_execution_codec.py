"""Events become the lines that clients of this dialect can read, whatever is in them."""

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.adapters.e2b.codec.execution import ExecutionEncoder, describe_result
from headrace.model.events import (
    CodeError,
    CodeRaised,
    ExecutionEvent,
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ResultDisplayed,
    Stream,
)
from headrace.model.ids import ContextId, ExecutionId
from headrace.model.results import Json, Result
from headrace.model.specs import Language

AT = 1795230116.889582
ISO = "2026-11-21T03:01:56.889582Z"

# Making examples takes longer on a busy machine; that is no fault of what is tested.
AT_LEISURE = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)
MIMES = st.sampled_from(
    [
        "text/plain",
        "text/html",
        "image/png",
        "application/json",
        "application/vnd.headrace.data+json",
        "application/vnd.headrace.chart+json",
        "e2b/chart",
        "application/x-other",
    ]
)


def lines_of(*events: ExecutionEvent) -> list[Any]:
    """Encode events in one batch and read what came of it."""
    return read(ExecutionEncoder().encode(events))


def read(data: bytes) -> list[Any]:
    """Read lines as the SDKs do: pure ASCII, none of them empty."""
    assert data.isascii()
    text = data.decode()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def started(count: int = 1) -> ExecutionStarted:
    return ExecutionStarted(1, AT, ExecutionId("x"), ContextId("c"), count)


def finished(reason: FinishReason = FinishReason.OK, **fields: Any) -> ExecutionFinished:
    return ExecutionFinished(9, AT, reason, 0.5, **fields)


def raised(name: str = "KeyboardInterrupt", value: str = "") -> CodeRaised:
    return CodeRaised(5, AT, CodeError(name, value, f"Traceback\n{name}"))


def shown(bundle: dict[str, Json], **fields: Any) -> dict[str, Any]:
    return describe_result(Result(bundle, **fields))


# --- lines ----------------------------------------------------------------------------------------


def test_a_stream_begins_with_the_count_and_ends_with_the_end() -> None:
    assert lines_of(started(7), finished()) == [
        {"type": "number_of_executions", "execution_count": 7},
        {"type": "end_of_execution"},
    ]
    assert ExecutionEncoder().keepalive() == b'{"type":"keepalive"}\n'


def test_what_never_began_has_no_count() -> None:
    assert [line["type"] for line in lines_of(started(0), finished())] == ["end_of_execution"]


@pytest.mark.parametrize("stream", [Stream.STDOUT, Stream.STDERR])
def test_each_write_is_a_line_of_its_own_with_its_time(stream: Stream) -> None:
    lines = lines_of(OutputWritten(2, AT, stream, b"a\n"), OutputWritten(3, AT + 1, stream, b"b"))
    assert lines == [
        {"type": stream, "text": "a\n", "timestamp": ISO},
        {"type": stream, "text": "b", "timestamp": ISO.replace("56.", "57.")},
    ]


def test_a_whole_second_has_its_microseconds() -> None:
    (line,) = lines_of(OutputWritten(2, 1795230116.0, Stream.STDOUT, b"a"))
    assert line["timestamp"] == "2026-11-21T03:01:56.000000Z"


def test_bytes_that_are_no_text_are_marked() -> None:
    (line,) = lines_of(OutputWritten(2, AT, Stream.STDOUT, b"a\xff"))
    assert line["text"] == "a\ufffd"


def test_missing_output_is_told_in_its_place() -> None:
    (line,) = lines_of(OutputDropped(2, AT, Stream.STDERR, 10, "the limit"))
    assert (line["type"], line["timestamp"]) == ("stderr", ISO)
    assert line["text"] == "[10 bytes of output are missing here: the limit]\n"


def test_a_request_for_input_is_no_line() -> None:
    assert lines_of(InputRequested(2, AT, "name?", is_password=False)) == []


def test_prints_that_arrive_together_are_lines_of_their_own() -> None:
    data = b'{"type": "start"}\n{"type": "end"}\n\nrest'
    lines = lines_of(OutputWritten(2, AT, Stream.STDOUT, data))
    assert [line["text"] for line in lines] == [
        '{"type": "start"}\n',
        '{"type": "end"}\n',
        "\n",
        "rest",
    ]


def test_only_a_newline_ends_a_line() -> None:
    text = "50%\r100%\r\n\x0b\x0c\x1c\x85\u2028\n"
    lines = lines_of(OutputWritten(2, AT, Stream.STDOUT, text.encode()))
    assert [line["text"] for line in lines] == ["50%\r100%\r\n", "\x0b\x0c\x1c\x85\u2028\n"]


@pytest.mark.parametrize("size", [1, 100, 4092, 4100, 10_000, 32_000])
def test_what_is_no_line_goes_on_at_once(size: int) -> None:
    (line,) = lines_of(OutputWritten(2, AT, Stream.STDOUT, b"x" * size))
    assert line["text"] == "x" * size


@pytest.mark.parametrize("size", [65536, 65533, 57344, 4096, 4093, 8192, 64834])
def test_a_line_that_the_pipe_has_cut_is_whole_again(size: int) -> None:
    encoder = ExecutionEncoder()
    assert encoder.encode([OutputWritten(2, AT, Stream.STDOUT, b"x" * size)]) == b""
    assert encoder.encode([OutputWritten(3, AT, Stream.STDOUT, b"y" * 65536)]) == b""
    lines = read(encoder.encode([OutputWritten(4, AT + 1, Stream.STDOUT, b"z\nnext\n")]))
    assert [line["text"] for line in lines] == ["x" * size + "y" * 65536 + "z\n", "next\n"]
    assert lines[0]["timestamp"].startswith("2026-11-21T03:01:57")


@pytest.mark.parametrize(
    ("event", "then"),
    [
        (OutputWritten(3, AT, Stream.STDERR, b"e\n"), "stderr"),
        (ResultDisplayed(3, AT, Result({"text/plain": "1"})), "result"),
        (OutputDropped(3, AT, Stream.STDOUT, 5, "why"), "stdout"),
        (finished(), "end_of_execution"),
    ],
)
def test_what_is_held_back_keeps_its_place(event: ExecutionEvent, then: str) -> None:
    held, following = lines_of(OutputWritten(2, AT, Stream.STDOUT, b"x" * 65536), event)
    assert (held["type"], held["text"]) == ("stdout", "x" * 65536)
    assert following["type"] == then


def test_a_silence_ends_the_wait_for_the_rest_of_a_line() -> None:
    encoder = ExecutionEncoder()
    encoder.encode([OutputWritten(2, AT, Stream.STDOUT, b"x" * 65536)])
    assert [line["type"] for line in read(encoder.keepalive())] == ["stdout", "keepalive"]
    assert [line["type"] for line in read(encoder.keepalive())] == ["keepalive"]


def test_it_says_whether_something_is_held_back() -> None:
    encoder = ExecutionEncoder()
    encoder.encode([OutputWritten(2, AT, Stream.STDOUT, b"short")])
    assert not encoder.holds()
    encoder.encode([OutputWritten(3, AT, Stream.STDOUT, b"x" * 65536)])
    assert encoder.holds()
    encoder.keepalive()
    assert not encoder.holds()


def test_in_java_the_end_of_a_line_comes_by_itself() -> None:
    encoder = ExecutionEncoder(Language.JAVA)
    lines = read(encoder.encode([OutputWritten(2, AT, Stream.STDOUT, b"one\n\ntwo\nthree")]))
    assert [line["text"] for line in lines] == ["one", "\n", "\n", "two", "\n", "three"]


def test_in_r_the_parts_of_a_line_are_one_piece() -> None:
    encoder = ExecutionEncoder(Language.R)
    parts = [OutputWritten(2, AT, Stream.STDOUT, part) for part in (b"[1]", b' "a"\n', b"b")]
    lines = read(b"".join(encoder.encode([part]) for part in parts))
    assert [line["text"] for line in lines] == ['[1] "a"\n']
    assert encoder.holds()
    assert read(encoder.keepalive())[0]["text"] == "b"


def test_a_line_without_an_end_is_held_up_to_a_bound() -> None:
    encoder = ExecutionEncoder()
    piece = OutputWritten(2, AT, Stream.STDOUT, b"x" * 65536)
    told = b"".join(encoder.encode([piece]) for _ in range(65))
    (line,) = read(told)
    assert len(line["text"]) == 65 * 65536


@AT_LEISURE
@given(st.lists(st.tuples(st.sampled_from([Stream.STDOUT, Stream.STDERR]), st.text()), max_size=8))
def test_any_output_arrives_whole_and_as_pure_ascii(texts: list[tuple[Stream, str]]) -> None:
    wanted = [(stream, text * 200) for stream, text in texts]
    events = [
        OutputWritten(2, AT, stream, text.encode("utf-8", "replace")) for stream, text in wanted
    ]
    lines = lines_of(*events, finished())[:-1]
    for stream in Stream.STDOUT, Stream.STDERR:
        told = "".join(line["text"] for line in lines if line["type"] == stream)
        written = [event.text for event in events if event.stream is stream]
        assert told == "".join(written)
    assert all("\n" not in line["text"][:-1] for line in lines)


@AT_LEISURE
@given(st.dictionaries(MIMES, JSON_VALUES))
def test_any_bundle_is_one_line_that_has_all_of_it(bundle: dict[str, Json]) -> None:
    (line,) = lines_of(ResultDisplayed(2, AT, Result(bundle)))
    fields = set(line) - {"type", "extra", "is_main_result"}
    assert len(fields) + len(line["extra"]) == len(bundle)
    for name in fields - {"text"}:
        assert line[name] in bundle.values()


@AT_LEISURE
@given(st.text(), st.text(), st.text())
def test_any_error_arrives_as_it_was_told(name: str, value: str, traceback: str) -> None:
    event = CodeRaised(2, AT, CodeError(name, value, traceback))
    error, end = lines_of(event, finished(FinishReason.ERROR))
    assert error == {"type": "error", "name": name, "value": value, "traceback": traceback}
    assert end == {"type": "end_of_execution"}


def test_huge_numbers_and_half_characters_keep_what_they_are() -> None:
    bundle: dict[str, Json] = {"application/json": [2**70, "\ud800", "é"]}
    (line,) = lines_of(ResultDisplayed(2, AT, Result(bundle)))
    assert line["json"] == [2**70, "\ud800", "é"]


@pytest.mark.parametrize("beside", [1, 2**70, "é", "\ud800"])
def test_numbers_that_json_does_not_have_are_null(beside: Json) -> None:
    bundle: dict[str, Json] = {"application/json": [float("inf"), beside]}
    data = ExecutionEncoder().encode([ResultDisplayed(2, AT, Result(bundle))])
    assert b"Infinity" not in data
    (line,) = read(data)
    assert line["json"] == [None, beside]


# --- results --------------------------------------------------------------------------------------


def test_every_form_has_its_field() -> None:
    chart: Json = {"type": "unknown", "title": None, "elements": []}
    assert shown(
        {
            "text/plain": "p",
            "text/html": "h",
            "text/markdown": "m",
            "image/svg+xml": "s",
            "image/png": "cG5n",
            "image/jpeg": "anBn",
            "application/pdf": "cGRm",
            "text/latex": "l",
            "application/json": [1],
            "application/javascript": "j",
            "application/vnd.headrace.data+json": {"a": [1]},
            "application/vnd.headrace.chart+json": chart,
            "application/vnd.plotly.v1+json": {"data": []},
        },
        is_main=True,
    ) == {
        "type": "result",
        "text": "p",
        "html": "h",
        "markdown": "m",
        "svg": "s",
        "png": "cG5n",
        "jpeg": "anBn",
        "pdf": "cGRm",
        "latex": "l",
        "json": [1],
        "javascript": "j",
        "data": {"a": [1]},
        "chart": chart,
        "extra": {"application/vnd.plotly.v1+json": {"data": []}},
        "is_main_result": True,
    }


def test_absent_forms_are_absent_and_extra_is_always_there() -> None:
    assert shown({"text/plain": "1"}) == {
        "type": "result",
        "text": "1",
        "extra": {},
        "is_main_result": False,
    }


def test_the_chart_of_a_figure_without_data_is_an_empty_object() -> None:
    assert shown({"application/vnd.headrace.chart+json": {}})["chart"] == {}


def test_the_vendors_own_names_of_forms_are_known() -> None:
    assert shown({"e2b/data": {"a": []}, "e2b/chart": {}}) == {
        "type": "result",
        "data": {"a": []},
        "chart": {},
        "extra": {},
        "is_main_result": False,
    }


@pytest.mark.parametrize("mime", ["text/plain", "image/png", "application/vnd.headrace.data+json"])
def test_a_form_of_a_wrong_type_is_extra(mime: str) -> None:
    assert shown({mime: 7})["extra"] == {mime: 7}


@pytest.mark.parametrize("value", [1, "text", True])
def test_json_is_an_object_or_an_array(value: Json) -> None:
    result = shown({"application/json": value})
    assert "json" not in result
    assert result["extra"] == {"application/json": value}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("'a'", "a"),
        ('"a"', "a"),
        ("''a''", "'a'"),
        ("'", "'"),
        ("''", ""),
        ("'a\"", "'a\""),
        ("", ""),
        ("a", "a"),
        ("'a'\n", "'a'\n"),
    ],
)
def test_one_pair_of_quotes_is_taken_off(text: str, expected: str) -> None:
    assert shown({"text/plain": text})["text"] == expected


def test_forms_that_were_too_large_are_named_with_their_size() -> None:
    event = ResultDisplayed(2, AT, Result({"text/plain": "B"}, omitted={"image/png": 9_000_000}))
    result, note = lines_of(event)
    assert result["omitted"] == {"image/png": 9_000_000}
    assert result["extra"] == {}
    assert note["type"] == "stderr"
    assert "image/png of 9000000 bytes" in note["text"]


def test_updates_are_results_that_name_their_display() -> None:
    update = shown({"text/plain": "2"}, display_id="d", is_update=True)
    assert (update["text"], update["display_id"], update["is_update"]) == ("2", "d", True)


# --- errors ---------------------------------------------------------------------------------------


def test_the_end_of_good_code_is_no_error() -> None:
    assert lines_of(finished(exit_code=None)) == [{"type": "end_of_execution"}]


def test_leaving_by_sys_exit_is_told_as_an_error_even_if_it_was_no_failure() -> None:
    error, _ = lines_of(raised("SystemExit", "0"), finished(FinishReason.OK, exit_code=0))
    assert (error["name"], error["value"]) == ("SystemExit", "0")


def test_code_without_exceptions_has_its_status_as_the_error() -> None:
    error, _ = lines_of(finished(FinishReason.ERROR, exit_code=3))
    assert (error["name"], error["value"]) == ("ExitStatus", "3")
    assert error["traceback"] == "exit status 3"


@pytest.mark.parametrize(
    ("end", "name", "value"),
    [
        (
            finished(
                FinishReason.KERNEL_DIED, exit_code=7, state_lost=True, detail="it exited with 7"
            ),
            "UnexpectedEndOfExecution",
            "it exited with 7; the state of the context is lost",
        ),
        (
            finished(
                FinishReason.OOM, state_lost=True, limit="memory", limit_value=2.0**30, detail="why"
            ),
            "UnexpectedEndOfExecution",
            "the sandbox ran out of memory (memory: 1073741824 bytes); why; "
            "the state of the context is lost",
        ),
        (
            finished(FinishReason.KILLED, state_lost=True, detail="the context was removed"),
            "UnexpectedEndOfExecution",
            "the context was removed; the state of the context is lost",
        ),
        (
            finished(FinishReason.KILLED, state_lost=True, detail="the context was restarted"),
            "ContextRestarting",
            "the context was restarted; the state of the context is lost",
        ),
        (
            finished(FinishReason.OUTPUT_LIMIT, limit="output", limit_value=1024),
            "OutputLimitExceeded",
            "the execution wrote more output than its limit (output: 1024 bytes)",
        ),
        (
            finished(FinishReason.TIMEOUT, limit="timeout", limit_value=1.5),
            "ExecutionTimeout",
            "the execution took more time than its limit (timeout: 1.5 s)",
        ),
        (
            finished(FinishReason.INTERRUPTED, detail="it had not begun"),
            "ExecutionInterrupted",
            "the execution was interrupted; it had not begun",
        ),
    ],
)
def test_an_end_from_outside_says_its_cause(end: ExecutionFinished, name: str, value: str) -> None:
    error, last = lines_of(end)
    assert error == {"type": "error", "name": name, "value": value, "traceback": value}
    assert last == {"type": "end_of_execution"}


@pytest.mark.parametrize("reason", list(FinishReason))
def test_every_reason_but_success_is_one_error_with_texts(reason: FinishReason) -> None:
    lines = lines_of(finished(reason, exit_code=1))
    errors = [line for line in lines if line["type"] == "error"]
    assert len(errors) == (0 if reason is FinishReason.OK else 1)
    assert all(isinstance(value, str) and value for line in errors for value in line.values())


def test_a_limit_wins_over_the_interrupt_by_which_it_was_enforced() -> None:
    encoder = ExecutionEncoder()
    assert encoder.encode([raised()]) == b""
    end = finished(FinishReason.OUTPUT_LIMIT, limit="output", limit_value=5)
    error, _ = read(encoder.encode([end]))
    assert error["name"] == "OutputLimitExceeded"
    assert error["traceback"] == "Traceback\nKeyboardInterrupt"


def test_an_interrupt_is_what_the_code_made_of_it() -> None:
    error, _ = lines_of(raised(), finished(FinishReason.INTERRUPTED))
    assert error["name"] == "KeyboardInterrupt"


@pytest.mark.parametrize("reason", [FinishReason.OK, FinishReason.ERROR])
def test_a_loss_before_the_execution_is_told_beside_its_own_end(reason: FinishReason) -> None:
    end = finished(reason, exit_code=1, state_lost=True, detail="it died between two executions")
    note = lines_of(end)[0]
    assert note["type"] == "stderr"
    assert "it died between two executions" in note["text"]
