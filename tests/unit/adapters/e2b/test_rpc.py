"""Calls of RPC: forms, deadlines, failures; the methods here are the tests' own."""

import logging
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import anyio
import pytest
from pydantic import BaseModel

from headrace.adapters.base import Receive, Scope, Send
from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.envd import rpc
from headrace.adapters.e2b.envd.rpc import ClientStream, Method, Outgoing, ServerStream, Unary
from headrace.adapters.e2b.errors import ClientGoneError
from headrace.adapters.e2b.exchange import Exchange
from headrace.adapters.e2b.registry import Registry
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import HeadraceError, PathNotFoundError, WrongStateError
from tests.support.e2b import TOKENS, E2bService, envelope, open_envelopes
from tests.support.native import Client, Reply

UNARY = "application/json"
STREAM = "application/connect+json"
SPENT = {"code": "deadline_exceeded", "message": "the time of this call is over"}


class Word(BaseModel):
    """A message."""

    word: str = ""


async def echo(_call: Call, message: Word) -> Mapping[str, Any]:
    return {"word": message.word}


async def say_twice(outgoing: Outgoing, message: Word) -> None:
    await outgoing.send({"word": message.word})
    await outgoing.send({"word": message.word})
    await outgoing.end()


async def join(_call: Call, messages: AsyncIterator[Word]) -> Mapping[str, Any]:
    return {"word": "".join([message.word async for message in messages])}


def raising(error: Exception) -> Callable[..., Awaitable[Any]]:
    async def fail(*_given: object) -> None:
        raise error

    return fail


async def hang(*_given: object) -> Any:
    await anyio.sleep_forever()


def serve(service: E2bService, sandbox: Sandbox, method: Method) -> Client:
    """Give a client of an application that knows this one method."""
    registry = Registry(service.engine, TOKENS)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, E2bSettings())
        try:
            await rpc.call_method(Call(exchange, sandbox, registry), method)
        except ClientGoneError:
            return

    return Client(app, None)


Asked = Callable[..., Awaitable[Reply]]


@pytest.fixture
def ask(service: E2bService, sandbox: Sandbox) -> Asked:
    """Call a method with a whole body."""

    async def ask(method: Method, *messages: object, verb: str = "POST", **headers: str) -> Reply:
        is_unary = isinstance(method, Unary)
        headers.setdefault("content_type", UNARY if is_unary else STREAM)
        content = [each if isinstance(each, bytes) else envelope(each) for each in messages]
        client = serve(service, sandbox, method)
        return await client.request(verb, "/any", content=content or [b""], **headers)

    return ask


# --- forms ----------------------------------------------------------------------------------


async def test_a_unary_call_has_a_message_each_way(ask: Asked) -> None:
    reply = await ask(Unary(Word, echo), b'{"word":"hi","later":[1]}')

    assert (reply.status, reply.json()) == (200, {"word": "hi"})
    assert reply.headers["content-type"] == UNARY


async def test_an_empty_message_is_one_without_fields(ask: Asked) -> None:
    unary = await ask(Unary(Word, echo))
    stream = await ask(ServerStream(Word, say_twice), struct.pack(">BI", 0, 0))

    assert unary.json() == {"word": ""}
    assert open_envelopes(stream.body) == [(0, {"word": ""}), (0, {"word": ""}), (2, {})]


async def test_a_stream_has_envelopes_and_an_end(ask: Asked) -> None:
    reply = await ask(ServerStream(Word, say_twice), {"word": "hi"})

    assert reply.status == 200
    assert reply.headers == {
        "content-type": STREAM,
        "cache-control": "no-store",
        "x-accel-buffering": "no",
    }
    assert open_envelopes(reply.body) == [(0, {"word": "hi"}), (0, {"word": "hi"}), (2, {})]


async def test_a_stream_of_the_client_is_answered_at_its_end(ask: Asked) -> None:
    body = b"".join(envelope({"word": word}) for word in ("a", "b", "c"))

    reply = await ask(ClientStream(Word, join), *(body[i : i + 1] for i in range(len(body))))

    assert open_envelopes(reply.body) == [(0, {"word": "abc"}), (2, {})]


async def test_messages_of_a_client_are_handled_before_the_next_one_comes(
    service: E2bService, sandbox: Sandbox
) -> None:
    seen: list[str] = []
    came = anyio.Event()

    async def note(_call: Call, messages: AsyncIterator[Word]) -> Mapping[str, Any]:
        async for message in messages:
            seen.append(message.word)
            came.set()
        return {}

    async with anyio.create_task_group() as tasks:
        pieces = [envelope({"word": "first"}), envelope({"word": "second"})]
        talk = serve(service, sandbox, ClientStream(Word, note)).begin(
            tasks, "POST", "/any", content=pieces, content_type=STREAM
        )
        talk.withheld = 1
        await came.wait()
        assert seen == ["first"]
        talk.disconnect()

    assert (talk.status, talk.body) == (0, b"")


METHODS: list[Method] = [
    Unary(Word, raising(AssertionError("was called"))),
    ServerStream(Word, raising(AssertionError("was called"))),
    ClientStream(Word, raising(AssertionError("was called"))),
]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("verb", ["GET", "PUT", "HEAD"])
async def test_other_verbs_than_post_are_refused(ask: Asked, method: Method, verb: str) -> None:
    reply = await ask(method, verb=verb)

    assert (reply.status, reply.headers["allow"], reply.body) == (405, "POST", b"")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    "kind",
    [
        "application/proto",
        "application/connect+proto",
        "application/grpc",
        "application/grpc+json",
        "application/grpc-web+json",
        "text/json",
        "",
        "\xff",
    ],
)
async def test_other_codecs_than_json_are_refused(ask: Asked, method: Method, kind: str) -> None:
    reply = await ask(method, {}, content_type=kind)

    expected = UNARY if isinstance(method, Unary) else STREAM
    assert (reply.status, reply.headers["accept-post"]) == (415, expected)


async def test_a_unary_call_and_a_stream_are_not_mistaken_for_each_other(ask: Asked) -> None:
    assert (await ask(Unary(Word, echo), {}, content_type=STREAM)).status == 415
    assert (await ask(ServerStream(Word, say_twice), {}, content_type=UNARY)).status == 415


async def test_a_parameter_of_the_type_does_not_matter(ask: Asked) -> None:
    reply = await ask(Unary(Word, echo), b"{}", content_type="Application/JSON; charset=utf-8")

    assert reply.status == 200


def failure(reply: Reply) -> Any:
    """Give the error of a call, however it is told."""
    assert reply.is_complete
    if reply.headers["content-type"] == UNARY:
        return reply.json()
    ((flags, last),) = open_envelopes(reply.body)
    assert flags == 2
    return last["error"]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"connect_protocol_version": "2"}, "invalid_argument"),
        ({"connect_protocol_version": ""}, "invalid_argument"),
        ({"connect_timeout_ms": "soon"}, "invalid_argument"),
        ({"connect_timeout_ms": "0"}, "deadline_exceeded"),
        ({"content_encoding": "gzip", "connect_content_encoding": "gzip"}, "unimplemented"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
async def test_calls_that_cannot_be_made_so_are_refused(
    ask: Asked, method: Method, headers: dict[str, str], code: str
) -> None:
    reply = await ask(method, {}, **headers)

    assert failure(reply)["code"] == code
    assert (reply.status == 200) is not isinstance(method, Unary)


async def test_the_version_and_the_encoding_of_the_protocol_are_taken(ask: Asked) -> None:
    headers = {"connect_protocol_version": "1", "content_encoding": "identity"}

    assert (await ask(Unary(Word, echo), b"{}", **headers)).status == 200


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ([b""], "got none"),
        ([envelope({}), envelope({})], "got more"),
        ([envelope({})[:-1]], "within an envelope"),
        ([b"\x01\0\0\0\x02{}"], "compressed"),
        ([b"\x02\0\0\0\x02{}"], "flags"),
        ([b"\0\xff\xff\xff\xff"], "at most"),
        ([b"\0\0\0\0\x01["], "JSON"),
        ([envelope([])], "an object"),
        ([envelope({"word": 1})], "word"),
    ],
)
async def test_what_is_no_message_is_refused_within_the_stream(
    ask: Asked, content: list[bytes], why: str
) -> None:
    reply = await ask(ServerStream(Word, say_twice), *content)

    assert reply.status == 200
    assert failure(reply)["code"] == "invalid_argument"
    assert why in failure(reply)["message"]


async def test_millions_of_messages_in_place_of_one_are_refused_at_the_second(
    service: E2bService, sandbox: Sandbox
) -> None:
    client = serve(service, sandbox, ServerStream(Word, say_twice))
    async with anyio.create_task_group() as tasks:
        talk = client.begin(
            tasks, "POST", "/any", content=[envelope({}) * 2, b"never"], content_type=STREAM
        )
        talk.withheld = 1
        await talk.wait_for(b"got more")
        talk.disconnect()


async def test_a_message_that_is_too_large_is_refused(ask: Asked) -> None:
    unary = await ask(Unary(Word, echo), *[b" " * 2**20] * 21)

    assert (unary.status, failure(unary)["code"]) == (429, "resource_exhausted")


# --- failures -------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Unary, ServerStream, ClientStream])
async def test_an_error_of_ours_has_its_code(ask: Asked, kind: Any) -> None:
    reply = await ask(kind(Word, raising(PathNotFoundError("no /x"))), envelope({}))

    if kind is Unary:
        reply = await ask(kind(Word, raising(PathNotFoundError("no /x"))), b"{}")
        assert reply.status == 404
    assert failure(reply) == {"code": "not_found", "message": "no /x"}


@pytest.mark.parametrize("kind", [Unary, ServerStream, ClientStream])
async def test_a_defect_is_logged_and_told_without_its_details(
    ask: Asked, kind: Any, caplog: pytest.LogCaptureFixture
) -> None:
    content = b"{}" if kind is Unary else envelope({})
    with caplog.at_level(logging.ERROR):
        reply = await ask(kind(Word, raising(KeyError("secret"))), content)

    assert failure(reply)["code"] == "internal"
    assert "secret" not in reply.body.decode()
    assert "request-1" in failure(reply)["message"]
    (record,) = caplog.records
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], KeyError)


async def test_a_failure_after_the_first_message_is_the_end(ask: Asked) -> None:
    async def begin(outgoing: Outgoing, _message: Word) -> None:
        await outgoing.send({"word": "begun"})
        raise HeadraceError("then it broke")

    reply = await ask(ServerStream(Word, begin), {})

    error = {"code": "internal", "message": "then it broke"}
    assert open_envelopes(reply.body) == [(0, {"word": "begun"}), (2, {"error": error})]


async def test_a_stream_that_its_method_does_not_end_is_broken_off(ask: Asked) -> None:
    async def begin(outgoing: Outgoing, _message: Word) -> None:
        await outgoing.send({"word": "begun"})

    reply = await ask(ServerStream(Word, begin), {})

    assert open_envelopes(reply.body) == [(0, {"word": "begun"})]
    assert not reply.is_complete


@pytest.mark.parametrize("kind", [Unary, ServerStream, ClientStream])
async def test_a_call_whose_sandbox_ends_meanwhile_is_told_so(
    ask: Asked, sandbox: Sandbox, kind: Any
) -> None:
    async def end(*_given: object) -> None:
        await sandbox.kill()
        raise WrongStateError("the sandbox is killed")

    reply = await ask(kind(Word, end), b"{}" if kind is Unary else envelope({}))

    assert reply.status == 502
    assert reply.json() == {
        "sandboxId": sandbox.id,
        "message": "The sandbox was not found",
        "code": 502,
    }


async def test_a_call_whose_sandbox_is_paused_meanwhile_is_told_so(
    ask: Asked, sandbox: Sandbox
) -> None:
    async def pause(*_given: object) -> Any:
        await sandbox.pause()
        raise WrongStateError("the sandbox is paused")

    assert (await ask(Unary(Word, pause), b"{}")).status == 502


async def test_a_stream_whose_sandbox_ends_meanwhile_is_broken_off(
    ask: Asked, sandbox: Sandbox
) -> None:
    async def end(outgoing: Outgoing, _message: Word) -> None:
        await outgoing.send({"word": "begun"})
        await sandbox.kill()
        raise WrongStateError("the sandbox is killed")

    reply = await ask(ServerStream(Word, end), {})

    assert open_envelopes(reply.body) == [(0, {"word": "begun"})]
    assert not reply.is_complete


# --- deadlines ------------------------------------------------------------------------------


async def test_a_unary_call_ends_when_its_time_is_over(ask: Asked) -> None:
    reply = await ask(Unary(Word, hang), b"{}", connect_timeout_ms="10")

    assert (reply.status, reply.json()) == (504, SPENT)


async def test_a_stream_of_the_client_ends_when_its_time_is_over(ask: Asked) -> None:
    reply = await ask(ClientStream(Word, hang), {}, connect_timeout_ms="10")

    assert open_envelopes(reply.body) == [(2, {"error": SPENT})]


@pytest.mark.parametrize("kind", [Unary, ServerStream, ClientStream])
async def test_a_body_that_does_not_come_ends_with_the_time_of_the_call(
    service: E2bService, sandbox: Sandbox, kind: Any
) -> None:
    handler = join if kind is ClientStream else raising(AssertionError("was called"))
    kind_of_body = UNARY if kind is Unary else STREAM
    async with anyio.create_task_group() as tasks:
        talk = serve(service, sandbox, kind(Word, handler)).begin(
            tasks,
            *("POST", "/any"),
            content=[b"", b"never"],
            content_type=kind_of_body,
            connect_timeout_ms="10",
        )
        talk.withheld = 1
        await talk.wait_for(b"deadline_exceeded")
        talk.disconnect()


async def test_a_body_that_stands_still_is_given_up(
    service: E2bService, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "BODY_TIMEOUT", 0.01)
    async with anyio.create_task_group() as tasks:
        talk = serve(service, sandbox, ServerStream(Word, say_twice)).begin(
            tasks, "POST", "/any", content=[b"\0\0", b"never"], content_type=STREAM
        )
        talk.withheld = 1
        await talk.wait_for(b"nothing came for 0.01 s")
        talk.disconnect()


async def test_a_client_that_thinks_for_too_long_is_given_up(
    service: E2bService, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "MAX_SILENCE", 0.01)
    async with anyio.create_task_group() as tasks:
        talk = serve(service, sandbox, ClientStream(Word, join)).begin(
            tasks, "POST", "/any", content=[envelope({}), b"never"], content_type=STREAM
        )
        talk.withheld = 1
        await talk.wait_for(b"nothing came for 0.01 s")
        talk.disconnect()


async def test_a_client_that_does_not_take_the_end_is_given_up(
    service: E2bService, sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "_FAREWELL", 0.01)
    begun = anyio.Event()
    may_end = anyio.Event()

    async def begin(outgoing: Outgoing, _message: Word) -> None:
        await outgoing.send({"word": "begun"})
        begun.set()
        await may_end.wait()
        await outgoing.end()

    with anyio.fail_after(5):
        async with anyio.create_task_group() as tasks:
            talk = serve(service, sandbox, ServerStream(Word, begin)).begin(
                tasks, "POST", "/any", content=envelope({}), content_type=STREAM
            )
            await begun.wait()
            talk.stop_reading()
            may_end.set()

    assert not talk.is_complete


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, 90.0),
        ("50", 50.0),
        ("0", 1.0),
        ("1", 1.0),
        ("x", 90.0),
        ("-1", 90.0),
        ("1.5", 90.0),
        ("9999999", 90.0),
    ],
)
async def test_the_client_says_how_long_a_stream_may_be_silent(
    ask: Asked, text: str | None, seconds: float
) -> None:
    found: list[float] = []

    async def look(outgoing: Outgoing, _message: Word) -> None:
        found.append(outgoing.keepalive)
        await outgoing.end()

    headers = {} if text is None else {"keepalive_ping_interval": text}
    await ask(ServerStream(Word, look), {}, **headers)

    assert found == [seconds]


async def test_the_time_that_is_left_grows_less(ask: Asked) -> None:
    found: list[float | None] = []

    async def look(outgoing: Outgoing, _message: Word) -> None:
        found.append(outgoing.time_left)
        await outgoing.end()

    await ask(ServerStream(Word, look), {})
    await ask(ServerStream(Word, look), {}, connect_timeout_ms="5000")

    assert found[0] is None
    assert found[1] is not None
    assert 4.0 < found[1] < 5.0
