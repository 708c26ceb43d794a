# Made from the async face by scripts/generate-sync; change that one.
"""Streams over connections that break: nothing is lost, nothing comes twice, nothing hangs."""

import json
import random
from collections.abc import Callable

import pytest

from headrace import (
    CodeError,
    ConnectionFailedError,
    ExecutionEvent,
    ExecutionFinished,
    OutputWritten,
    Sandbox,
    SandboxFailedError,
    StreamBrokenError,
)
from headrace.model.events import FinishReason
from tests.integration.client.sync_face.conftest import Connect, Serve
from tests.support.face_sync import pause
from tests.support.scripted import (
    EXECUTION_ID,
    Asked,
    Reply,
    Script,
    encode_lines,
    event_records,
    position,
)

Spoil = Callable[[Reply, bytes], None]

LINES = 20
RECORDS = event_records(LINES)
TEXT = "".join(f"line {number} é\n" for number in range(LINES))


def begin(asked: Asked, reply: Reply) -> None:
    """Send the head of an answer that is a stream."""
    reply.head(
        content_type="application/x-ndjson",
        transfer_encoding="chunked",
        headrace_execution_id=EXECUTION_ID,
    )


def breaking(at_first: Spoil) -> Script:
    """Make a script that spoils the first stream and serves the others well."""
    spoiled: list[bool] = []

    def script(asked: Asked, reply: Reply) -> None:
        begin(asked, reply)
        lines = encode_lines(RECORDS, position(asked))
        if not spoiled:
            spoiled.append(True)
            at_first(reply, lines)
        reply.chunk(lines)
        reply.chunk(b"")

    return script


def numbers(sandbox: Sandbox) -> list[int]:
    """Run something and give the numbers of its events."""
    return [event.seq for event in sandbox.run_code_stream("code")]


def test_a_stream_comes_whole_and_in_order(serve: Serve, connect: Connect) -> None:
    server = serve(breaking(lambda reply, lines: None))
    with connect(server).run_code_stream("print(1)") as stream:
        events: list[ExecutionEvent] = list(stream)

    assert [event.seq for event in events] == list(range(1, LINES + 3))
    assert isinstance(events[-1], ExecutionFinished)
    assert stream.is_finished
    assert json.loads(server.asked[0].body) == {"code": "print(1)"}
    assert server.asked[0].headers["accept"] == "application/x-ndjson"


def test_a_stream_that_is_cut_in_mid_line_goes_on_behind_the_last_event(
    serve: Serve, connect: Connect
) -> None:
    def spoil(reply: Reply, lines: bytes) -> None:
        reply.chunk(lines[: lines.index(b"line 7") + 3])
        reply.cut()

    server = serve(breaking(spoil))
    assert numbers(connect(server)) == list(range(1, LINES + 3))

    assert [asked.method for asked in server.asked] == ["POST", "GET"]
    assert server.asked[1].target == f"/v1/executions/{EXECUTION_ID}/events?after=8"


def test_200_random_cuts_lose_nothing_and_repeat_nothing(serve: Serve, connect: Connect) -> None:
    chance = random.Random(20)
    records = event_records(400)

    def script(asked: Asked, reply: Reply) -> None:
        lines = encode_lines(records, position(asked))
        begin(asked, reply)
        if len(server.asked) > 200:
            reply.chunk(lines)
            reply.chunk(b"")
            return
        end = chance.randrange(min(len(lines), 400))
        while end and (size := chance.randint(1, end)):
            reply.chunk(lines[:size])
            lines, end = lines[size:], end - size
        reply.cut() if chance.random() < 0.5 else reply.close()

    server = serve(script)
    outcome = connect(server).run_code("code")

    assert len(server.asked) == 201
    assert outcome.stdout == "".join(f"line {number} é\n" for number in range(400))
    assert outcome.last_seq == 402


@pytest.mark.parametrize(
    "garbage",
    [
        b"this is no json\n",
        b"\xff\xfe\x00\n",
        b"[1, 2]\n",
        b'{"seq": 9, "type": "stdout", "timestamp": 1, "text": "from the future"}\n',
        b'{"seq": "2", "type": "stdout", "timestamp": 1, "text": ""}\n',
        b'{"seq": 2, "type": "stdout", "timestamp": 1}\n',
        b'{"seq": 2, "type": "stdout", "timestamp": 1, "text": "", "base64": "?"}\n',
        b'{"seq": 2, "type": "finished", "timestamp": 1, "reason": "bored", "duration": 1}\n',
        b'{"seq": 2, "timestamp": 1}\n',
        b'{"timestamp": 1}\n',
    ],
)
def test_garbage_counts_as_a_cut(serve: Serve, connect: Connect, garbage: bytes) -> None:
    def spoil(reply: Reply, lines: bytes) -> None:
        reply.chunk(encode_lines(RECORDS[:1]) + garbage)
        reply.chunk(b"")
        reply.close()

    server = serve(breaking(spoil))
    assert numbers(connect(server)) == list(range(1, LINES + 3))

    assert position(server.asked[1]) == 1


@pytest.mark.parametrize("ending", [b"", b"zz\r\n", b"ffffff\r\nshort"])
def test_a_chunked_body_that_is_not_complete_counts_as_a_cut(
    serve: Serve, connect: Connect, ending: bytes
) -> None:
    def spoil(reply: Reply, lines: bytes) -> None:
        reply.chunk(encode_lines(RECORDS[:3]))
        reply.send(ending)
        reply.close()

    server = serve(breaking(spoil))
    assert numbers(connect(server)) == list(range(1, LINES + 3))

    assert position(server.asked[1]) == 3


def test_a_stream_that_ends_properly_but_too_early_counts_as_cut(
    serve: Serve, connect: Connect
) -> None:
    def spoil(reply: Reply, lines: bytes) -> None:
        reply.chunk(encode_lines(RECORDS[:5]))
        reply.chunk(b"")
        reply.close()

    server = serve(breaking(spoil))
    assert numbers(connect(server)) == list(range(1, LINES + 3))


def test_events_that_come_again_are_given_once(serve: Serve, connect: Connect) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        begin(asked, reply)
        reply.chunk(encode_lines(RECORDS[:4]) + encode_lines(RECORDS[1:]))
        reply.chunk(b"")

    server = serve(script)
    assert numbers(connect(server)) == list(range(1, LINES + 3))


def test_events_of_a_newer_service_are_passed_over(serve: Serve, connect: Connect) -> None:
    records = event_records(1)
    records[1] = {"seq": 2, "timestamp": 1.0, "type": "smelled", "smell": "burnt"}

    def script(asked: Asked, reply: Reply) -> None:
        begin(asked, reply)
        reply.chunk(encode_lines(records))
        reply.chunk(b"")

    server = serve(script)
    assert numbers(connect(server)) == [1, 3]


def test_a_connection_without_heartbeats_counts_as_dead(serve: Serve, connect: Connect) -> None:
    waited_in_vain: list[bool] = []

    def spoil(reply: Reply, lines: bytes) -> None:
        reply.chunk(encode_lines(RECORDS[:2]))
        if not server.released.wait(10):
            waited_in_vain.append(True)
        reply.close()

    server = serve(breaking(spoil))
    seen = numbers(connect(server, silence=0.2))

    assert seen == list(range(1, LINES + 3))
    assert not waited_in_vain


def test_heartbeats_keep_a_stream_alive(serve: Serve, connect: Connect) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        begin(asked, reply)
        for _ in range(12):
            reply.chunk(b'{"type": "heartbeat", "timestamp": 1.0}\n')
            server.released.wait(0.05)
        reply.chunk(encode_lines(RECORDS))
        reply.chunk(b"")

    server = serve(script)
    outcome = connect(server, silence=0.3).run_code("code")

    assert outcome.stdout == TEXT
    assert len(server.asked) == 1


def test_a_stream_that_cannot_be_taken_up_again_says_where_it_broke_off(
    serve: Serve, connect: Connect
) -> None:
    def spoil(reply: Reply, lines: bytes) -> None:
        reply.chunk(encode_lines(RECORDS[:4]))
        reply.cut()

    def script(asked: Asked, reply: Reply) -> None:
        first(asked, reply) if asked.method == "POST" else reply.cut()

    first = breaking(spoil)
    server = serve(script)
    with pytest.raises(StreamBrokenError, match="behind number 4") as caught:
        connect(server, reconnect=0.2).run_code("code")

    assert caught.value.details == {"id": EXECUTION_ID, "last_seq": 4}
    assert len(server.asked) > 2


def test_a_stream_whose_log_is_gone_is_broken_at_once(serve: Serve, connect: Connect) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        if asked.method == "GET":
            reply.error("execution_not_found", 404)
            return
        begin(asked, reply)
        reply.chunk(encode_lines(RECORDS[:4]))
        reply.cut()

    server = serve(script)
    with pytest.raises(StreamBrokenError, match="execution_not_found"):
        connect(server).run_code("code")

    assert len(server.asked) == 2


def test_a_service_that_is_busy_is_asked_again(serve: Serve, connect: Connect) -> None:
    refused: list[str] = []

    def script(asked: Asked, reply: Reply) -> None:
        if asked.method == "GET" and len(refused) < 2:
            refused.append(asked.target)
            reply.error("unavailable", 503)
            return
        begin(asked, reply)
        reply.chunk(encode_lines(RECORDS, position(asked)) if refused else b"\n")
        reply.chunk(b"")

    server = serve(script)
    assert numbers(connect(server)) == list(range(1, LINES + 3))


def test_wrong_content_is_no_stream(serve: Serve, connect: Connect) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        reply.head(content_type="text/html", content_length="5", headrace_execution_id="x")
        reply.send(b"login")

    server = serve(script)
    with pytest.raises(ConnectionFailedError, match="text/html"):
        numbers(connect(server))

    assert server.count_open(0) == 0


def test_code_whose_answer_never_came_is_not_run_twice(serve: Serve, connect: Connect) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        reply.cut()

    server = serve(script)
    with pytest.raises(ConnectionFailedError, match="unknown whether"):
        numbers(connect(server))

    assert len(server.asked) == 1


def test_a_stream_that_broke_behind_its_head_is_taken_up_from_the_start(
    serve: Serve, connect: Connect
) -> None:
    def spoil(reply: Reply, lines: bytes) -> None:
        reply.cut()

    server = serve(breaking(spoil))
    assert numbers(connect(server)) == list(range(1, LINES + 3))

    assert [asked.method for asked in server.asked] == ["POST", "GET"]


def test_a_failure_of_the_service_in_mid_stream_is_raised_behind_the_events(
    serve: Serve, connect: Connect
) -> None:
    failed = {"type": "failed", "error": {"code": "sandbox_failed", "message": "it burst"}}

    def script(asked: Asked, reply: Reply) -> None:
        begin(asked, reply)
        reply.chunk(encode_lines(RECORDS[:3]) + json.dumps(failed).encode() + b"\n")
        reply.chunk(b"")

    seen: list[int] = []
    server = serve(script)
    with pytest.raises(SandboxFailedError, match="it burst"):
        connect(server).run_code("code", on_stdout=lambda event: seen.append(event.seq))

    assert seen == [2, 3]


def test_what_the_code_does_is_data(serve: Serve, connect: Connect) -> None:
    records = event_records(0)
    records[1:1] = [
        {"type": "error", "name": "ValueError", "value": "no", "traceback": "…", "parts": []}
    ]
    records[2] |= {"reason": "error"}
    numbered = [{"timestamp": 1.0, **each, "seq": seq} for seq, each in enumerate(records, 1)]

    def script(asked: Asked, reply: Reply) -> None:
        begin(asked, reply)
        reply.chunk(encode_lines(numbered))
        reply.chunk(b"")

    server = serve(script)
    outcome = connect(server).run_code("code")

    assert outcome.error is not None
    assert outcome.error.name == "ValueError"
    assert outcome.reason is FinishReason.ERROR
    assert not outcome.is_ok


def test_callbacks_are_told_everything(serve: Serve, connect: Connect) -> None:
    told: list[str] = []
    server = serve(breaking(lambda reply, lines: None))
    outcome = connect(server).run_code("code", on_stdout=lambda event: told.append(event.text))

    assert "".join(told) == outcome.stdout == TEXT


def test_a_callback_that_raises_is_heard_and_the_connection_closed(
    serve: Serve, connect: Connect
) -> None:
    def refuse(event: OutputWritten) -> None:
        raise LookupError(event.text)

    server = serve(breaking(lambda reply, lines: None))
    with pytest.raises(LookupError, match="line 0"):
        connect(server).run_code("code", on_stdout=refuse)

    assert server.count_open(0) == 0


def test_leaving_a_stream_early_closes_its_connection(serve: Serve, connect: Connect) -> None:
    def spoil(reply: Reply, lines: bytes) -> None:
        reply.chunk(encode_lines(RECORDS[:5]))
        server.released.wait(10)

    server = serve(breaking(spoil))
    sandbox = connect(server)
    with sandbox.run_code_stream("code") as stream:
        for event in stream:
            if isinstance(event, OutputWritten):
                break
    server.released.set()

    assert server.count_open(0) == 0


def test_a_loop_that_is_left_without_a_with_block_closes_its_connection(
    serve: Serve, connect: Connect
) -> None:
    def spoil(reply: Reply, lines: bytes) -> None:
        reply.chunk(encode_lines(RECORDS[:5]))
        server.released.wait(10)

    server = serve(breaking(spoil))
    for event in connect(server).run_code_stream("code"):
        if isinstance(event, OutputWritten):
            break
    server.released.set()
    pause(0.05)

    assert server.count_open(0) == 0


def test_a_loop_in_an_entered_stream_can_be_left_and_another_one_goes_on(
    serve: Serve, connect: Connect
) -> None:
    server = serve(breaking(lambda reply, lines: None))
    with connect(server).run_code_stream("code") as stream:
        for event in stream:
            if event.seq == 5:
                break
        rest = [event.seq for event in stream]

    assert rest == list(range(6, LINES + 3))


def test_an_execution_is_found_again_by_its_id(serve: Serve, connect: Connect) -> None:
    server = serve(breaking(lambda reply, lines: None))
    execution = connect(server).execution(EXECUTION_ID)
    outcome = execution.wait()
    rest = [event.seq for event in execution.events(after=20)]

    assert outcome.stdout == TEXT
    assert outcome.id == EXECUTION_ID
    assert rest == [21, 22]


def test_a_finished_log_with_nothing_behind_the_position_has_no_events(
    serve: Serve, connect: Connect
) -> None:
    def script(asked: Asked, reply: Reply) -> None:
        reply.head(204)

    server = serve(script)
    events = connect(server).execution(EXECUTION_ID).events(after=22)

    assert list(events) == []


def test_an_error_in_the_code_is_told_to_its_callback(serve: Serve, connect: Connect) -> None:
    told: list[str] = []
    raised = {"type": "error", "name": "E", "value": "v", "traceback": "t", "parts": []}
    records = [{"timestamp": 1.0, "seq": 1, **raised}, {**RECORDS[-1], "seq": 2}]

    def script(asked: Asked, reply: Reply) -> None:
        begin(asked, reply)
        reply.chunk(encode_lines(records))
        reply.chunk(b"")

    server = serve(script)
    outcome = connect(server).run_code("x", on_error=lambda e: told.append(e.name))

    assert outcome.error == CodeError("E", "v", "t")

    assert told == ["E"]
