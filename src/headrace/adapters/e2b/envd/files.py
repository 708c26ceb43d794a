"""Contents of files over plain HTTP: downloads and uploads, by token or by signature."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import replace

from headrace.adapters.base import Scope
from headrace.adapters.e2b.access import Purpose, SignedUrl
from headrace.adapters.e2b.answers import Answer, HeaderList, json_answer
from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.envd.compose import compose
from headrace.adapters.e2b.envd.downloads import VARY, download
from headrace.adapters.e2b.envd.paths import absolute_path
from headrace.adapters.e2b.envd.uploads import upload
from headrace.adapters.e2b.errors import (
    MethodNotAllowedError,
    NotAcceptableError,
    RangeNotSatisfiableError,
    json_error,
    sandbox_gone,
)
from headrace.adapters.e2b.exchange import Exchange
from headrace.adapters.e2b.users import DEFAULT_USER, check_username
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import (
    HeadraceError,
    QuotaError,
    UnauthenticatedError,
    WrongStateError,
)

_READING = ("GET", "HEAD")


async def serve_files(call: Call, *, is_trusted: bool) -> None:
    """Answer ``/files`` of a sandbox that the headers name."""

    async def work() -> None:
        if not is_trusted:
            _check_access(call)
        await _transfer(call)

    await _see_through(call, work)


async def serve_signed(call: Call, url: SignedUrl) -> None:
    """Answer ``/files`` of a sandbox that was found by a signature, which is good."""

    async def work() -> None:
        url.check_time(time.time())
        await _transfer(call)

    await _see_through(call, work)


async def serve_compose(call: Call) -> None:
    """Answer ``POST /files/compose``; the token was checked."""

    async def work() -> None:
        if call.exchange.method != "POST":
            raise _wrong_method(call.exchange, "POST")
        await compose(call)

    await _see_through(call, work)


def read_signed_url(exchange: Exchange) -> SignedUrl:
    """Read what a URL to a file says of its signature."""
    return SignedUrl(
        path=_first(exchange, "path") or "",
        operation="read" if exchange.method in _READING else "write",
        username=_first(exchange, "username") or "",
        signature=_first(exchange, "signature") or "",
        expiration=_first(exchange, "signature_expiration"),
    )


def _check_access(call: Call) -> None:
    """Raise UnauthenticatedError unless the token is good, or the URL signed with it.

    A token that is wrong is not made up for by a signature.
    """
    exchange, tokens = call.exchange, call.registry.tokens
    if exchange.header(b"x-access-token"):
        call.registry.check_agent_token(call.sandbox, exchange.scope)
        return
    url = read_signed_url(exchange)
    if not url.signature:
        raise UnauthenticatedError("missing access token, or signature in the query")
    if not url.is_signed_with(tokens.make(Purpose.AGENT, call.sandbox.id)):
        raise UnauthenticatedError("invalid signature")
    url.check_time(time.time())


async def _transfer(call: Call) -> None:
    exchange = call.exchange
    user = check_username(_first(exchange, "username") or DEFAULT_USER)
    path = _first(exchange, "path")
    if exchange.method in _READING:
        await download(call, absolute_path(path or "", user), user)
    elif exchange.method == "POST":
        await upload(call, path, user)
    else:
        raise _wrong_method(exchange, *_READING, "POST")


def _first(exchange: Exchange, name: str) -> str | None:
    values = exchange.query().get(name)
    return values[0] if values else None


def _wrong_method(exchange: Exchange, *allowed: str) -> MethodNotAllowedError:
    listed = ", ".join(allowed)
    return MethodNotAllowedError(
        f"{exchange.method[:20]} is not possible here, only {listed}", allowed
    )


# --- failing --------------------------------------------------------------------------------


async def _see_through(call: Call, work: Callable[[], Awaitable[None]]) -> None:
    """Do it, and answer with what went wrong, unless an answer has begun."""
    try:
        await work()
    except HeadraceError as error:
        if call.exchange.status:
            raise
        await _refuse(call, error)


async def _refuse(call: Call, error: HeadraceError) -> None:
    sandbox = call.sandbox
    if isinstance(error, WrongStateError) and sandbox.state is not SandboxState.RUNNING:
        await call.exchange.give(sandbox_gone(sandbox.id))
        return
    answer = _describe(error, call.exchange.scope)
    await call.exchange.give(replace(answer, headers=(*answer.headers, *_headers_of(error))))


def _describe(error: HeadraceError, scope: Scope) -> Answer:
    if isinstance(error, QuotaError) and error.details.get("reason") == "no_space":
        return json_answer({"code": 507, "message": error.message}, 507)
    return json_error(error, scope)


def _headers_of(error: HeadraceError) -> HeaderList:
    match error:
        case RangeNotSatisfiableError():
            return ((b"content-range", b"bytes */%d" % error.size), VARY)
        case NotAcceptableError():
            return (VARY,)
        case _:
            return ()
