"""One request and its answer: reading and checking at the edge, once."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import anyio
from pydantic import BaseModel, ValidationError

from headrace.adapters.base import Message, Receive, Scope, Send, origin
from headrace.adapters.e2b.answers import Answer, HeaderList, json_answer
from headrace.adapters.e2b.errors import BodyTimeoutError, ClientGoneError
from headrace.adapters.e2b.settings import E2bSettings
from headrace.model.errors import InvalidRequestError, LimitExceededError

M = TypeVar("M", bound=BaseModel)

BODY_TIMEOUT = 60.0
"""How many seconds a body may stand still before it is given up."""

_MAX_FIELDS = 100
_MAX_TEXTS = 50_000
_SHOWN_FAULTS = 10
_SHOWN_TEXT = 200


class Exchange:
    """A request, and the means to answer it."""

    __slots__ = ("_body", "receive", "scope", "send", "settings", "status")

    def __init__(self, scope: Scope, receive: Receive, send: Send, settings: E2bSettings) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.settings = settings
        self.status = 0
        self._body: bytes | None = None

    # --- reading ------------------------------------------------------------------------------

    @property
    def method(self) -> str:
        """The method; WebSockets have none."""
        method: str = self.scope.get("method", "WEBSOCKET")
        return method

    @property
    def path(self) -> str:
        """The path, unescaped."""
        path: str = self.scope["path"]
        return path

    @property
    def origin(self) -> str:
        """Scheme, host and port by which the client knows us."""
        return origin(self.scope)

    def header(self, name: bytes) -> str | None:
        """Give a header's value, the first if there are several; ``name`` is in lower case."""
        return find_header(self.scope, name)

    def query(self) -> dict[str, list[str]]:
        """Give the query's values by name; raises InvalidRequestError."""
        found: dict[str, list[str]] = {}
        try:
            pairs = parse_qsl(
                self.scope.get("query_string", b"").decode("ascii"),
                keep_blank_values=True,
                errors="strict",
                max_num_fields=_MAX_FIELDS,
            )
        except ValueError as error:
            raise InvalidRequestError(f"the query cannot be read: {error}") from error
        for name, value in pairs:
            found.setdefault(name, []).append(value)
        return found

    async def read_body(self, model: type[M]) -> M:
        """Read and check the JSON body; an empty one is an empty object.

        Raises InvalidRequestError that says where it is wrong, LimitExceededError,
        BodyTimeoutError, or ClientGoneError if nobody waits for an answer any more.
        """
        return check_json(model, await self.read_all() or b"{}")

    async def read_all(self) -> bytes:
        """Read the whole body, within the bound of the settings; raises like `read_body`."""
        if self._body is None:
            body = bytearray()
            async for chunk in self.read_bytes(self.settings.max_body):
                body += chunk
            self._body = bytes(body)
        return self._body

    async def read_bytes(self, maximum: int | None = None) -> AsyncIterator[bytes]:
        """Give the body in pieces as they come, an empty one never.

        Raises ClientGoneError if the client breaks off, LimitExceededError if there are more than
        ``maximum`` bytes, BodyTimeoutError if nothing comes for a minute.
        """
        received = 0
        while True:
            message: Message = {}
            with anyio.move_on_after(BODY_TIMEOUT) as scope:
                message = await self.receive()
            if scope.cancelled_caught:
                raise BodyTimeoutError(f"nothing came for {BODY_TIMEOUT:g} s")
            if message["type"] != "http.request":
                raise ClientGoneError
            data: bytes = message.get("body", b"")
            received += len(data)
            if maximum is not None and received > maximum:
                raise LimitExceededError(
                    f"the body has more than {maximum} bytes, the most accepted", maximum=maximum
                )
            if data:
                yield data
            if not message.get("more_body"):
                return

    async def await_disconnect(self) -> None:
        """Wait until the client has gone away; what it may still send is ignored."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    # --- answering ----------------------------------------------------------------------------

    async def give(self, answer: Answer) -> None:
        """Answer with this."""
        self.status = answer.status
        await answer.send(self.send)

    async def answer(self, value: object, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """Answer with a JSON value."""
        await self.give(json_answer(value, status, *headers))

    async def answer_nothing(self) -> None:
        """Answer that it is done."""
        await self.give(Answer(204))

    async def start(self, status: int, headers: HeaderList) -> None:
        """Begin an answer whose body follows in pieces; left without an end it is broken off."""
        self.status = status
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits while the client does not read."""
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""
        await self.send({"type": "http.response.body", "body": data})

    async def unless_gone(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Do something for as long as the client is there; says whether it was done."""
        failure: Exception | None = None
        is_done = False
        async with anyio.create_task_group() as tasks:

            async def watch() -> None:
                await self.await_disconnect()
                tasks.cancel_scope.cancel()

            tasks.start_soon(watch)
            try:
                await work()
                is_done = True
            except Exception as error:  # noqa: BLE001 - raised below, not in a group of one
                failure = error
            tasks.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return is_done


def find_header(scope: Scope, name: bytes) -> str | None:
    """Give a header's value, the first if there are several."""
    for each, value in scope["headers"]:
        if each == name:
            text: str = value.decode("latin-1")
            return text
    return None


def check_json(model: type[M], data: bytes) -> M:
    """Read a JSON object; raises InvalidRequestError that says where it is wrong."""
    # Checking millions of texts one by one would hold up everybody.
    if len(data) > _MAX_TEXTS and data.count(b'"') - data.count(b'\\"') > 2 * _MAX_TEXTS:
        raise InvalidRequestError(f"the body has more than {_MAX_TEXTS} texts")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise explain_refusal(error, "the body") from None


def check_values(model: type[M], values: dict[str, Any]) -> M:
    """Read values, such as those of a query; raises InvalidRequestError that names the fault."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain_refusal(error, "the query") from None


def explain_refusal(error: ValidationError, what: str) -> InvalidRequestError:
    """Give the refusal of a value that does not fit; it names the fields."""
    if error.error_count() > _SHOWN_FAULTS * 100:
        # Describing millions of them would take minutes.
        return InvalidRequestError(f"{what} has {error.error_count()} faults")
    found = error.errors(include_url=False, include_context=False, include_input=False)
    first = found[0]
    place = ".".join(str(part)[:_SHOWN_TEXT] for part in first["loc"])
    return InvalidRequestError(f"{what}: {place}: {first['msg']}" if place else first["msg"])
