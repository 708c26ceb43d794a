"""Calls of Connect RPC: which method, in which form, and how it fails.

A unary method gets its message and gives one. A streaming method gets its message and writes
envelopes; its failures travel in the last envelope, and the status is 200 whatever happens.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from headrace.adapters.e2b.answers import Answer
from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.errors import (
    ClientGoneError,
    UnsupportedMediaTypeError,
    connect_answer,
    describe_connect,
    unknown_failure,
)
from headrace.adapters.e2b.exchange import Exchange, check_json
from headrace.adapters.e2b.following import Ending, Following, Form
from headrace.engine.event_log import EventLog
from headrace.model.errors import DeadlineError, HeadraceError, InvalidRequestError
from headrace.model.specs import MIB
from headrace.wire.connect import (
    STREAM_TYPE,
    UNARY_TYPE,
    EnvelopeReader,
    encode_end,
    encode_message,
    parse_timeout,
)
from headrace.wire.ndjson import encode_json

M = TypeVar("M", bound=BaseModel)

DEFAULT_KEEPALIVE = 90.0
"""The silence in seconds after which a stream carries a sign of life, unless the client says."""

MAX_MESSAGE = 16 * MIB
_STREAM_HEADERS = (
    (b"content-type", STREAM_TYPE),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


class Outgoing:
    """The client's end of a stream, which begins with the first envelope."""

    def __init__(self, call: Call) -> None:
        self.call = call
        self.has_begun = False
        self.has_ended = False
        self.timeout = parse_timeout(call.exchange.header(b"connect-timeout-ms"))
        self.keepalive = _read_keepalive(call.exchange)

    async def begin(self) -> None:
        """Send the status, once."""
        if not self.has_begun:
            self.has_begun = True
            await self.call.exchange.start(200, _STREAM_HEADERS)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        await self.begin()
        await self.call.exchange.write(encode_message(encode_json(message)))

    async def end(self, error: HeadraceError | None = None) -> None:
        """Send the last envelope, with what went wrong."""
        await self.begin()
        self.has_ended = True
        described = None if error is None else encode_json(describe_connect(error))
        await self.call.exchange.end(encode_end(described))

    async def follow(self, log: EventLog[Any], form: Form, after: int = 0) -> Ending:
        """Send the events of a log to its end, or to that of the call's time or of the client.

        ``form`` makes envelopes; the last one is added here. Raises DeadlineError when the time of
        the call is over.
        """
        await self.begin()
        whole = Form(form.encode, form.keepalive, encode_end())
        following = Following(self.call.exchange, self.call.sandbox, log, whole, after)
        ending = await following.run(interval=self.keepalive, time_limit=self.timeout)
        # One that was broken off has no end, and the client of the other two gets no more.
        self.has_ended = ending is not Ending.TIMED_OUT
        if ending is Ending.TIMED_OUT:
            raise DeadlineError("the time of this call is over")
        return ending


@dataclass(frozen=True)
class Unary(Generic[M]):
    """A method with one message in each direction; ``handler`` gives the answer's."""

    request: type[M]
    handler: Callable[[Call, M], Awaitable[Mapping[str, Any]]]

    async def run(self, call: Call) -> None:
        """Read the message, have it handled, answer."""
        exchange = call.exchange
        _check_type(exchange, UNARY_TYPE)
        try:
            message = await exchange.read_body(self.request)
            answer = await self.handler(call, message)
        except HeadraceError as error:
            await exchange.give(connect_answer(error))
        else:
            await exchange.answer(answer)


@dataclass(frozen=True)
class ServerStream(Generic[M]):
    """A method that gets one message and sends any number; ``handler`` ends the stream, or fails.

    If it returns without having ended it, the connection is broken off.
    """

    request: type[M]
    handler: Callable[[Outgoing, M], Awaitable[None]]

    async def run(self, call: Call) -> None:
        """Read the message, have it handled; a failure goes into the last envelope."""
        _check_type(call.exchange, STREAM_TYPE)
        outgoing = Outgoing(call)

        async def work() -> None:
            message = await _read_only(call.exchange, self.request)
            await self.handler(outgoing, message)

        await _see_through(outgoing, work)


@dataclass(frozen=True)
class ClientStream(Generic[M]):
    """A method that gets any number of messages, as they come, and gives one at their end."""

    request: type[M]
    handler: Callable[[Call, AsyncIterator[M]], Awaitable[Mapping[str, Any]]]

    async def run(self, call: Call) -> None:
        """Have the messages handled, then answer; a failure goes into the last envelope."""
        _check_type(call.exchange, STREAM_TYPE)
        outgoing = Outgoing(call)

        async def work() -> None:
            messages = _read_envelopes(call.exchange, self.request)
            answer = await self.handler(call, messages)
            await outgoing.send(answer)
            await outgoing.end()

        await _see_through(outgoing, work)


Method = Unary[Any] | ServerStream[Any] | ClientStream[Any]


async def call_method(call: Call, method: Method) -> None:
    """Carry a call out; whatever it raises has become its answer."""
    exchange = call.exchange
    if exchange.method != "POST":
        await exchange.give(Answer(405, headers=((b"allow", b"POST"),)))
        return
    try:
        await method.run(call)
    except UnsupportedMediaTypeError:
        # The protocol's own answer to a codec that is not spoken: a bare status.
        await exchange.give(Answer(415, headers=((b"accept-post", _accepted(method)),)))
    except HeadraceError as error:
        if not exchange.status:
            await exchange.give(connect_answer(error))


def _accepted(method: Method) -> bytes:
    return UNARY_TYPE if isinstance(method, Unary) else STREAM_TYPE


async def _see_through(outgoing: Outgoing, work: Callable[[], Awaitable[None]]) -> None:
    try:
        await work()
    except HeadraceError as error:
        if not outgoing.has_ended:
            await outgoing.end(error)
    except ClientGoneError:
        raise
    except Exception as error:  # noqa: BLE001 - logged, and told without its details
        failure = unknown_failure(error, outgoing.call.exchange.scope)
        if not outgoing.has_ended:
            await outgoing.end(failure)


async def _read_only(exchange: Exchange, model: type[M]) -> M:
    """Read the one message of a stream; raises InvalidRequestError if there is not just one."""
    messages = [each async for each in _cut(exchange, exchange.settings.max_body)]
    if len(messages) != 1:
        raise InvalidRequestError(f"expected one message, got {len(messages)}")
    return check_json(model, messages[0] or b"{}")


async def _read_envelopes(exchange: Exchange, model: type[M]) -> AsyncIterator[M]:
    async for message in _cut(exchange, None):
        yield check_json(model, message or b"{}")


async def _cut(exchange: Exchange, maximum: int | None) -> AsyncIterator[bytes]:
    reader = EnvelopeReader(MAX_MESSAGE)
    async for chunk in exchange.read_bytes(maximum):
        for message in reader.feed(chunk):
            yield message
    reader.end()


def _check_type(exchange: Exchange, expected: bytes) -> None:
    value = (exchange.header(b"content-type") or "").partition(";")[0].strip().lower()
    if value.encode("latin-1", "replace") != expected:
        raise UnsupportedMediaTypeError(f"the body must be {expected.decode()}, not {value!r:.100}")


def _read_keepalive(exchange: Exchange) -> float:
    text = exchange.header(b"keepalive-ping-interval")
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 6):
        return DEFAULT_KEEPALIVE
    return float(max(1, int(text)))
