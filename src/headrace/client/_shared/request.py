"""Requests as data, and the parts that they are made of."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode

from headrace.model.errors import InvalidRequestError
from headrace.wire.ndjson import encode_json

JSON = "application/json"
NDJSON = "application/x-ndjson"
BYTES = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``can_repeat``: if no answer came it may be sent again without harm."""

    method: str
    target: str
    accept: str = JSON
    body: bytes = b""
    content_type: str | None = None
    can_repeat: bool = False
    is_transfer: bool = False

    def __str__(self) -> str:
        return f"{self.method} {self.target.partition('?')[0]}"

    def describe(self, size: int | None) -> list[tuple[str, str]]:
        """Give the headers; ``size`` is that of the body, None if it is not known yet."""
        found = [("accept", self.accept)]
        if self.content_type is not None:
            found.append(("content-type", self.content_type))
        if size is None:
            found.append(("transfer-encoding", "chunked"))
        elif size or self.method != "GET":
            found.append(("content-length", str(size)))
        return found


def path_to(*parts: str, query: Sequence[tuple[str, object]] = ()) -> str:
    """Give the path below /v1 made of ``parts``, with a query of what is not None."""
    path = "/v1/" + "/".join(quote(segment(part), safe="") for part in parts)
    wanted = [(name, _word(value)) for name, value in query if value is not None]
    return f"{path}?{urlencode(wanted)}" if wanted else path


def segment(part: str) -> str:
    """Give a part of a path; raises InvalidRequestError for what would lead elsewhere."""
    if not part or part in (".", ".."):
        raise InvalidRequestError(f"{part!r} is no id")
    return part


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def as_json(method: str, target: str, body: Mapping[str, object], **more: Any) -> Request:  # noqa: ANN401 - fields of Request
    """Give a request with a body of those fields that are not None."""
    wanted = {name: value for name, value in body.items() if value is not None}
    try:
        data = encode_json(wanted)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"the request cannot be written as JSON: {error}") from error
    return Request(method, target, body=data, content_type=JSON, **more)


def get(target: str) -> Request:
    """Give a request that reads."""
    return Request("GET", target, can_repeat=True)


def delete(target: str) -> Request:
    """Give a request that removes."""
    return Request("DELETE", target, can_repeat=True)
