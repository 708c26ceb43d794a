"""Our errors to the statuses and bodies of the API; docs/errors.md has the table."""

import json
import logging
from collections.abc import Mapping
from typing import Any

from headrace.adapters.base import Scope, request_id
from headrace.adapters.native.answers import Answer, HeaderList
from headrace.model import errors
from headrace.model.errors import HeadraceError, InvalidRequestError
from headrace.wire.ndjson import encode_json

_logger = logging.getLogger(__name__)


class MethodNotAllowedError(InvalidRequestError):
    """There is such a thing, but this cannot be done with it."""

    code = "method_not_allowed"

    def __init__(self, method: str, allowed: list[str]) -> None:
        super().__init__(f"{method[:20]} is not possible here", allowed=allowed)
        self.headers: HeaderList = ((b"allow", ", ".join(allowed).encode()),)


class NotAcceptableError(InvalidRequestError):
    """The client accepts none of the forms that the answer can have."""

    code = "not_acceptable"


class BodyTimeoutError(InvalidRequestError):
    """The body of the request did not arrive in time."""

    code = "body_timeout"


class UnsupportedMediaTypeError(InvalidRequestError):
    """The body of the request is not JSON."""

    code = "unsupported_media_type"


class RangeNotSatisfiableError(InvalidRequestError):
    """The file ends before the part that was asked for."""

    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the range begins behind the end of the file, at {size}", size=size)
        self.headers: HeaderList = ((b"content-range", b"bytes */%d" % size),)


class ClientGoneError(Exception):
    """The client went away before its request was complete; nobody reads an answer."""


STATUSES: Mapping[type[HeadraceError], int] = {
    HeadraceError: 500,
    errors.InvalidRequestError: 400,
    errors.LanguageUnavailableError: 400,
    errors.UnauthenticatedError: 401,
    errors.PermissionDeniedError: 403,
    errors.NotFoundError: 404,
    errors.SandboxNotFoundError: 404,
    errors.ContextNotFoundError: 404,
    errors.ExecutionNotFoundError: 404,
    errors.ProcessNotFoundError: 404,
    errors.PathNotFoundError: 404,
    errors.TemplateNotFoundError: 404,
    errors.PortUnreachableError: 502,
    errors.ConflictError: 409,
    errors.AlreadyExistsError: 409,
    errors.WrongStateError: 409,
    errors.LimitExceededError: 413,
    errors.OutputTooLargeError: 413,
    errors.QuotaError: 429,
    errors.DeadlineError: 504,
    errors.OutOfMemoryError: 507,
    errors.SandboxFailedError: 500,
    errors.LaunchError: 500,
    errors.KernelDiedError: 500,
    errors.AgentProtocolError: 500,
    errors.IsolationError: 500,
    errors.UnavailableError: 503,
    MethodNotAllowedError: 405,
    NotAcceptableError: 406,
    BodyTimeoutError: 408,
    UnsupportedMediaTypeError: 415,
    RangeNotSatisfiableError: 416,
}
"""Every class of ours; an error of an unlisted class has the status of the nearest base."""

_HEADERS: Mapping[int, HeaderList] = {
    401: ((b"www-authenticate", b"Bearer"),),
    # The rest of the body is still missing, and nobody will wait for it.
    408: ((b"connection", b"close"),),
    503: ((b"retry-after", b"1"),),
}


def status_of(error: HeadraceError) -> int:
    """Give the status that tells of this error."""
    return status_of_class(type(error))


def status_of_class(kind: type[HeadraceError]) -> int:
    """Give the status that tells of errors of this class."""
    return next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)


def describe_error(error: HeadraceError, request: str) -> dict[str, Any]:
    """Give the object that stands under ``error`` in bodies and in streams."""
    return {
        "code": error.code,
        "message": error.message,
        "details": _plain(error.details),
        "request_id": request,
    }


def error_response(error: HeadraceError, scope: Scope, *headers: tuple[bytes, bytes]) -> Answer:
    """Give the answer that tells of an error; send it by calling it like an ASGI application."""
    status = status_of(error)
    body = encode_json({"error": describe_error(error, request_id(scope))})
    own: HeaderList = getattr(error, "headers", ())
    return Answer(status, body, (*_HEADERS.get(status, ()), *own, *headers))


def unknown_failure(error: BaseException, scope: Scope) -> HeadraceError:
    """Log a defect of ours with its traceback, and give what may be said of it."""
    name = request_id(scope)
    _logger.error("request failed", exc_info=error, extra={"request_id": name})
    return HeadraceError(f"internal failure; the service's log has it as request {name!r}")


def _plain(details: Mapping[str, object]) -> object:
    """Give details as JSON whatever is in them."""
    try:
        encode_json(dict(details))
    except (TypeError, ValueError, RecursionError):
        return json.loads(json.dumps({key: str(value) for key, value in details.items()}))
    return dict(details)
