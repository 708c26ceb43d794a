"""Calls of Connect RPC: which method, in which form, and how it fails.

A unary method gets its message and gives one. A streaming method gets its message and writes
envelopes; its failures travel in the last envelope, and the status is 200 whatever happens. Both
end when the client's ``Connect-Timeout-Ms`` is over, with ``deadline_exceeded``.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

import anyio
from pydantic import BaseModel

from headrace.adapters.e2b.answers import Answer
from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.errors import (
    BodyTimeoutError,
    ClientGoneError,
    NotSupportedError,
    connect_answer,
    describe_connect,
    sandbox_gone,
    unknown_failure,
)
from headrace.adapters.e2b.exchange import BODY_TIMEOUT, Exchange, check_json
from headrace.adapters.e2b.following import Ending, Following, Form
from headrace.engine.event_log import EventLog
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import (
    DeadlineError,
    HeadraceError,
    InvalidRequestError,
    WrongStateError,
)
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
MAX_SILENCE = 3600.0
"""How many seconds a client may think about its next message. The SDK for Python sends nothing
meanwhile, and its user may be a person at a prompt."""

_FAREWELL = 10.0
_VERSION = "1"
_STREAM_HEADERS = (
    (b"content-type", STREAM_TYPE),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


class Outgoing:
    """The client's end of a stream, which begins with the first envelope.

    Raises InvalidRequestError if the client's headers for it are wrong, DeadlineError if its time
    is over already.
    """

    def __init__(self, call: Call) -> None:
        self.call = call
        self.has_begun = False
        self.has_ended = False
        self.keepalive = _read_keepalive(call.exchange)
        timeout = _read_timeout(call.exchange)
        self._deadline = None if timeout is None else anyio.current_time() + timeout

    @property
    def time_left(self) -> float | None:
        """The seconds until the call must end; None if it may take its time."""
        return None if self._deadline is None else max(0.0, self._deadline - anyio.current_time())

    async def begin(self) -> None:
        """Send the status, once."""
        if not self.has_begun:
            self.has_begun = True
            await self.call.exchange.start(200, _STREAM_HEADERS)

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send one message."""
        await self.write(encode_message(encode_json(message)))

    async def write(self, envelopes: bytes) -> None:
        """Send envelopes."""
        await self.begin()
        await self.call.exchange.write(envelopes)

    async def end(self, error: HeadraceError | None = None) -> None:
        """Send the last envelope, with what went wrong.

        For a client that does not even take that the connection is broken off.
        """
        described = None if error is None else encode_json(describe_connect(error))
        with anyio.move_on_after(_FAREWELL):
            await self.begin()
            self.has_ended = True
            await self.call.exchange.end(encode_end(described))

    async def follow(
        self,
        log: EventLog[Any],
        form: Form,
        after: int = 0,
        *,
        has_end: bool = False,
        overtime: float = 0.0,
    ) -> Ending:
        """Send the events of a log to its end, or to that of the call's time or of the client.

        ``form`` makes envelopes; the last one is added here, unless its events end with one
        (``has_end``). The stream may end ``overtime`` seconds after the call's time. Raises
        DeadlineError when that is over.
        """
        await self.begin()
        whole = form if has_end else replace(form, end=encode_end())
        following = Following(self.call.exchange, self.call.sandbox, log, whole, after)
        left = self.time_left
        limit = None if left is None else left + overtime
        ending = await following.run(interval=self.keepalive, time_limit=limit)
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
        try:
            _check_call(exchange, b"content-encoding")
            with _within(_read_timeout(exchange)):
                message = await exchange.read_body(self.request)
                answer = await self.handler(call, message)
        except HeadraceError as error:
            await _refuse(call, error)
        except ClientGoneError:
            raise
        except Exception as error:  # noqa: BLE001 - logged, and told without its details
            await _refuse(call, unknown_failure(error, exchange.scope))
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

        async def work(outgoing: Outgoing) -> None:
            with _within(outgoing.time_left):
                message = await _read_only(call.exchange, self.request)
            await self.handler(outgoing, message)

        await _see_through(call, work)


@dataclass(frozen=True)
class ClientStream(Generic[M]):
    """A method that gets any number of messages, as they come, and gives one at their end."""

    request: type[M]
    handler: Callable[[Call, AsyncIterator[M]], Awaitable[Mapping[str, Any]]]

    async def run(self, call: Call) -> None:
        """Have the messages handled, then answer; a failure goes into the last envelope."""

        async def work(outgoing: Outgoing) -> None:
            with _within(outgoing.time_left):
                async with aclosing(_read_each(call.exchange, self.request)) as messages:
                    answer = await self.handler(call, messages)
            await outgoing.send(answer)
            await outgoing.end()

        await _see_through(call, work)


Method = Unary[Any] | ServerStream[Any] | ClientStream[Any]


async def call_method(call: Call, method: Method) -> None:
    """Carry a call out; whatever it raises has become its answer.

    What is no POST of JSON gets a bare status, which is the protocol's own answer: the binary
    codec, gRPC and calls by GET are not spoken.
    """
    exchange = call.exchange
    expected = UNARY_TYPE if isinstance(method, Unary) else STREAM_TYPE
    if exchange.method != "POST":
        await exchange.give(Answer(405, headers=((b"allow", b"POST"),)))
    elif not _has_type(exchange, expected):
        await exchange.give(Answer(415, headers=((b"accept-post", expected),)))
    else:
        await method.run(call)


# --- failing --------------------------------------------------------------------------------


async def _see_through(call: Call, work: Callable[[Outgoing], Awaitable[None]]) -> None:
    outgoing: Outgoing | None = None
    try:
        _check_call(call.exchange, b"connect-content-encoding")
        outgoing = Outgoing(call)
        await work(outgoing)
    except HeadraceError as error:
        await _fail(call, outgoing, error)
    except ClientGoneError:
        raise
    except Exception as error:  # noqa: BLE001 - logged, and told without its details
        await _fail(call, outgoing, unknown_failure(error, call.exchange.scope))


async def _fail(call: Call, outgoing: Outgoing | None, error: HeadraceError) -> None:
    """Put a failure into the last envelope of a stream, if it can still have one."""
    has_begun = outgoing is not None and outgoing.has_begun
    if _is_gone(call, error):
        if not has_begun:
            await _refuse(call, error)
    elif outgoing is None:
        body = encode_end(encode_json(describe_connect(error)))
        await call.exchange.give(Answer(200, body, content_type=STREAM_TYPE))
    elif not outgoing.has_ended:
        await outgoing.end(error)


async def _refuse(call: Call, error: HeadraceError) -> None:
    """Answer with a failure, outside a stream."""
    is_gone = _is_gone(call, error)
    await call.exchange.give(sandbox_gone(call.sandbox.id) if is_gone else connect_answer(error))


def _is_gone(call: Call, error: HeadraceError) -> bool:
    """Say whether a call failed because its sandbox has ended, or was paused, meanwhile."""
    if not call.sandbox.is_alive:
        return True
    return isinstance(error, WrongStateError) and call.sandbox.state is not SandboxState.RUNNING


@contextmanager
def _within(timeout: float | None) -> Iterator[None]:
    """Raise DeadlineError if what is done inside takes longer."""
    with anyio.move_on_after(timeout) as scope:
        yield
    if scope.cancelled_caught:
        raise DeadlineError("the time of this call is over")


# --- reading --------------------------------------------------------------------------------


async def _read_only(exchange: Exchange, model: type[M]) -> M:
    """Read the one message of a stream; raises InvalidRequestError if there is not just one."""
    found: list[bytes] = []
    async with aclosing(_cut(exchange, BODY_TIMEOUT)) as messages:
        async for message in messages:
            if found:
                raise InvalidRequestError("expected one message, got more")
            found.append(message)
    if not found:
        raise InvalidRequestError("expected one message, got none")
    return check_json(model, found[0] or b"{}")


async def _read_each(exchange: Exchange, model: type[M]) -> AsyncGenerator[M, None]:
    async with aclosing(_cut(exchange, MAX_SILENCE)) as messages:
        async for message in messages:
            yield check_json(model, message or b"{}")


async def _cut(exchange: Exchange, patience: float) -> AsyncGenerator[bytes, None]:
    """Give the messages in a body as they come; it may stand still for ``patience`` seconds."""
    reader = EnvelopeReader(MAX_MESSAGE)
    is_open = True
    while is_open:
        data, is_open = await _receive(exchange, patience)
        for message in reader.feed(data):
            yield message
    reader.end()


async def _receive(exchange: Exchange, patience: float) -> tuple[bytes, bool]:
    """Give the next piece of a body, and whether there is more."""
    with anyio.move_on_after(patience):
        message = await exchange.receive()
        if message["type"] != "http.request":
            raise ClientGoneError
        return message.get("body", b""), bool(message.get("more_body"))
    raise BodyTimeoutError(f"nothing came for {patience:g} s")


def _has_type(exchange: Exchange, expected: bytes) -> bool:
    value = (exchange.header(b"content-type") or "").partition(";")[0].strip().lower()
    return value.encode("latin-1", "replace") == expected


def _check_call(exchange: Exchange, encoding_header: bytes) -> None:
    """Refuse another version of the protocol, and compression."""
    version = exchange.header(b"connect-protocol-version")
    if version not in (None, _VERSION):
        raise InvalidRequestError(f"Connect-Protocol-Version must be 1, got {version!r:.40}")
    encoding = (exchange.header(encoding_header) or "identity").strip().lower()
    if encoding != "identity":
        raise NotSupportedError(f"the body must not be compressed, got {encoding!r:.40}")


def _read_timeout(exchange: Exchange) -> float | None:
    timeout = parse_timeout(exchange.header(b"connect-timeout-ms"))
    if timeout == 0:
        raise DeadlineError("the time of this call was over when it arrived")
    return timeout


def _read_keepalive(exchange: Exchange) -> float:
    text = exchange.header(b"keepalive-ping-interval")
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 6):
        return DEFAULT_KEEPALIVE
    return float(max(1, int(text)))
