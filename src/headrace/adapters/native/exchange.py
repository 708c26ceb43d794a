"""One request and its answer: reading and checking at the edge, once."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import parse_qsl

import anyio
from pydantic import BaseModel, ValidationError

from headrace.adapters.base import Message, Receive, Scope, Send, origin
from headrace.adapters.native.answers import Answer, HeaderList
from headrace.adapters.native.errors import (
    BodyTimeoutError,
    ClientGoneError,
    UnsupportedMediaTypeError,
    error_response,
)
from headrace.engine.config import IsolationReport
from headrace.engine.tenancy import TenantEngine
from headrace.model.errors import HeadraceError, InvalidRequestError, LimitExceededError
from headrace.model.specs import MIB
from headrace.wire.ndjson import encode_json

M = TypeVar("M", bound=BaseModel)

BODY_TIMEOUT = 60.0
"""How many seconds a body of JSON may take to arrive."""

_MAX_FIELDS = 100
_SURELY_QUICK = 256 * 1024
_MAX_QUOTES = 100_000
_NAMED_FAULTS = 1000
_SHOWN_FAULTS = 10
_SHOWN_TEXT = 200


@dataclass(frozen=True)
class NativeSettings:
    """The bounds of this API, in seconds and bytes.

    ``heartbeat`` is the pause after which a silent stream says that it lives. ``max_body`` bounds
    bodies of JSON, ``max_outcome`` an outcome that is answered in one piece and ``max_upload`` a
    file that is written; without it the disk of the sandbox decides.
    """

    heartbeat: float = 15.0
    max_body: int = 20 * MIB
    max_outcome: int = 64 * MIB
    max_upload: int | None = None


class Client(NamedTuple):
    """Who asks, and the form of answer that it likes best."""

    scope: Scope
    receive: Receive
    send: Send
    form: str


class Exchange:
    """A request whose key was good, and the means to answer it.

    ``path`` has the parameters of the path by their names, ``tenant`` the engine as the owner of
    the key sees it.
    """

    __slots__ = ("form", "path", "receive", "report", "scope", "send", "settings", "tenant")

    def __init__(
        self,
        client: Client,
        tenant: TenantEngine,
        report: IsolationReport,
        settings: NativeSettings,
        path: Mapping[str, str],
    ) -> None:
        self.scope, self.receive, self.send = client.scope, client.receive, client.send
        self.form = client.form
        self.tenant = tenant
        self.report = report
        self.settings = settings
        self.path = path

    # --- reading ------------------------------------------------------------------------------

    @property
    def origin(self) -> str:
        """Scheme, host and port by which the client knows us."""
        return origin(self.scope)

    def header(self, name: bytes) -> str | None:
        """Give a header's value, the first if there are several; ``name`` is in lower case."""
        return find_header(self.scope, name)

    def declared_length(self) -> int | None:
        """Give the length of the body as the client declared it, None if it did not."""
        text = self.header(b"content-length")
        return int(text[:20]) if text is not None and text.isascii() and text.isdigit() else None

    def read_query(self, model: type[M]) -> M:
        """Check the query; raises InvalidRequestError."""
        return check_query(model, self.scope.get("query_string", b""))

    async def read_body(self, model: type[M], *, is_optional: bool = False) -> M:
        """Read and check the JSON body.

        Raises InvalidRequestError that says where, LimitExceededError, BodyTimeoutError or
        UnsupportedMediaTypeError; ClientGoneError if nobody waits for an answer any more.
        """
        data = await self._read_all()
        if not data and is_optional:
            data = b"{}"
        else:
            check_media_type(self.header(b"content-type"))
        return check_body(model, data)

    async def _read_all(self) -> bytes:
        maximum = self.settings.max_body
        if (self.declared_length() or 0) > maximum:
            raise too_large(maximum)
        with anyio.move_on_after(BODY_TIMEOUT):
            message = await self.receive()
            first: bytes = message.get("body", b"")
            if message["type"] == "http.request" and not message.get("more_body"):
                if len(first) > maximum:
                    raise too_large(maximum)
                return first
            body = bytearray(first)
            while message["type"] == "http.request" and message.get("more_body"):
                message = await self.receive()
                body += message.get("body", b"")
                if len(body) > maximum:
                    raise too_large(maximum)
            if message["type"] != "http.request":
                raise ClientGoneError
            return bytes(body)
        raise BodyTimeoutError(f"the body did not arrive within {BODY_TIMEOUT:g} s")

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
                raise too_large(maximum)
            if data:
                yield data
            if not message.get("more_body"):
                return

    async def await_disconnect(self) -> None:
        """Wait until the client has gone away; what it may still send is ignored."""
        while (await self.receive())["type"] != "http.disconnect":
            pass

    # --- answering ----------------------------------------------------------------------------

    async def answer(self, value: object, status: int = 200, *headers: tuple[bytes, bytes]) -> None:
        """Answer with a JSON value."""
        await Answer(status, encode_json(value), headers).send(self.send)

    async def answer_bytes(self, data: bytes, *headers: tuple[bytes, bytes]) -> None:
        """Answer with JSON that is encoded already."""
        await Answer(200, data, headers).send(self.send)

    async def answer_nothing(self) -> None:
        """Answer that it is done."""
        await Answer(204).send(self.send)

    async def refuse(self, error: HeadraceError, *headers: tuple[bytes, bytes]) -> None:
        """Answer with an error."""
        await error_response(error, self.scope, *headers).send(self.send)

    async def start(self, status: int, headers: HeaderList) -> None:
        """Begin an answer whose body follows in pieces."""
        await self.send({"type": "http.response.start", "status": status, "headers": list(headers)})

    async def write(self, data: bytes) -> None:
        """Send a piece of the body; waits while the client does not read."""
        await self.send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""
        await self.send({"type": "http.response.body", "body": data})


def find_header(scope: Scope, name: bytes) -> str | None:
    """Give a header's value, the first if there are several."""
    for each, value in scope["headers"]:
        if each == name:
            text: str = value.decode("latin-1")
            return text
    return None


def check_media_type(value: str | None) -> None:
    """Refuse a body that says it is something else than JSON in UTF-8."""
    if value is None:
        return
    kind, _, parameters = value.partition(";")
    kind = kind.strip().lower()
    if kind != "application/json" and not (
        kind.startswith("application/") and kind.endswith("+json")
    ):
        raise UnsupportedMediaTypeError(
            f"the body must be application/json, not {kind[:_SHOWN_TEXT]!r}"
        )
    name, _, charset = parameters.strip().lower().partition("=")
    if name == "charset" and charset.strip('" ') not in ("utf-8", "utf8", "us-ascii"):
        raise UnsupportedMediaTypeError(f"the body must be in UTF-8, not {charset[:_SHOWN_TEXT]!r}")


def check_body(model: type[M], data: bytes) -> M:
    """Read a JSON body; raises InvalidRequestError that says where it is wrong."""
    check_values(data, "the body")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise explain_refusal(error, "the body") from None


def check_values(data: bytes | str, what: str) -> None:
    """Refuse JSON of so many texts that checking them one by one would hold up everybody.

    They are counted by their quotes; those within a text are escaped.
    """
    if len(data) < _SURELY_QUICK:
        return
    if isinstance(data, str):
        quotes = data.count('"') - data.count('\\"')
    else:
        quotes = data.count(b'"') - data.count(b'\\"')
    if quotes > _MAX_QUOTES:
        raise InvalidRequestError(
            f"{what} has {quotes // 2} texts; {_MAX_QUOTES // 2} are accepted"
        )


def check_query(model: type[M], query: bytes) -> M:
    """Read a query; raises InvalidRequestError that names what is wrong."""
    if not query:
        values: dict[str, Any] = {}
    else:
        values = _parse_query(model, query)
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise explain_refusal(error, "the query") from None


def too_large(maximum: int) -> LimitExceededError:
    """Give the refusal of a body that is too large."""
    return LimitExceededError(
        f"the body has more than {maximum} bytes, the most accepted", maximum=maximum
    )


def explain_refusal(error: ValidationError, what: str) -> InvalidRequestError:
    """Give the refusal of a value that does not fit; it names the fields."""
    if error.error_count() > _NAMED_FAULTS:
        # Describing millions of them would take minutes.
        return InvalidRequestError(f"{what} has {error.error_count()} faults")
    found = error.errors(include_url=False, include_context=False, include_input=False)
    faults = [
        {"field": _place(fault["loc"]), "message": _explain(fault["type"], fault["msg"])}
        for fault in found[:_SHOWN_FAULTS]
    ]
    first = faults[0]
    place = f"{what}: {first['field']}" if first["field"] else what
    return InvalidRequestError(f"{place}: {first['message']}", errors=faults)


def _parse_query(model: type[BaseModel], query: bytes) -> dict[str, Any]:
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=_MAX_FIELDS,
        )
    except ValueError as error:
        raise InvalidRequestError(f"the query cannot be read: {error}") from error
    values: dict[str, Any] = {}
    lists = {name for name, field in model.model_fields.items() if isinstance(field.default, tuple)}
    for name, value in pairs:
        if name in lists:
            values.setdefault(name, []).append(value)
        elif name in values:
            raise InvalidRequestError(f"{name[:_SHOWN_TEXT]!r} is in the query more than once")
        else:
            values[name] = value
    return values


def _place(loc: tuple[int | str, ...]) -> str:
    return ".".join(str(part)[:_SHOWN_TEXT] for part in loc)


def _explain(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such field"
    return message[0].lower() + message[1:] if message.startswith("Input") else message
