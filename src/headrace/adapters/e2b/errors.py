"""Our errors in the four shapes of this dialect.

The control plane and plain HTTP of envd answer ``{"code": status, "message": text}``; its RPC
answers a code of Connect; the interpreter answers plain text. A sandbox that is gone, and a port
that nobody listens at, have a shape of their own wherever they are met.
"""

import logging
from collections.abc import Iterable, Mapping

from headrace.adapters.base import Scope, request_id
from headrace.adapters.e2b.answers import TEXT, Answer, HeaderList, json_answer
from headrace.model import errors
from headrace.model.errors import HeadraceError
from headrace.wire.connect import STATUSES as CONNECT_STATUSES
from headrace.wire.connect import Code

_logger = logging.getLogger(__name__)


class MethodNotAllowedError(errors.InvalidRequestError):
    """There is such a path, but this cannot be done with it; ``allowed`` is what can."""

    code = "method_not_allowed"

    def __init__(self, message: str, allowed: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.allowed = tuple(allowed)


class BodyTimeoutError(errors.InvalidRequestError):
    """The body of the request did not arrive in time."""

    code = "body_timeout"


class UnsupportedMediaTypeError(errors.InvalidRequestError):
    """The body is in a form that is not spoken here, such as Connect's binary one."""

    code = "unsupported_media_type"


class NotAcceptableError(errors.InvalidRequestError):
    """The client accepts no encoding that the answer can have."""

    code = "not_acceptable"


class RangeNotSatisfiableError(errors.InvalidRequestError):
    """The file ends before the part that was asked for; ``size`` is where."""

    code = "range_not_satisfiable"

    def __init__(self, size: int) -> None:
        super().__init__(f"the range begins behind the end of the file, at {size}", size=size)
        self.size = size


class NotSupportedError(HeadraceError):
    """The vendor has it, this version does not."""

    code = "not_supported"


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
    NotSupportedError: 501,
}
"""Every class of ours; an error of an unlisted class has the status of the nearest base."""

CONNECT_CODES: Mapping[type[HeadraceError], Code] = {
    HeadraceError: Code.INTERNAL,
    errors.InvalidRequestError: Code.INVALID_ARGUMENT,
    errors.LanguageUnavailableError: Code.INVALID_ARGUMENT,
    errors.UnauthenticatedError: Code.UNAUTHENTICATED,
    errors.PermissionDeniedError: Code.PERMISSION_DENIED,
    errors.NotFoundError: Code.NOT_FOUND,
    errors.SandboxNotFoundError: Code.UNAVAILABLE,
    errors.ContextNotFoundError: Code.NOT_FOUND,
    errors.ExecutionNotFoundError: Code.NOT_FOUND,
    errors.ProcessNotFoundError: Code.NOT_FOUND,
    errors.PathNotFoundError: Code.NOT_FOUND,
    errors.TemplateNotFoundError: Code.NOT_FOUND,
    errors.PortUnreachableError: Code.UNAVAILABLE,
    errors.ConflictError: Code.FAILED_PRECONDITION,
    errors.AlreadyExistsError: Code.ALREADY_EXISTS,
    errors.WrongStateError: Code.INTERNAL,
    errors.LimitExceededError: Code.RESOURCE_EXHAUSTED,
    errors.OutputTooLargeError: Code.RESOURCE_EXHAUSTED,
    errors.QuotaError: Code.RESOURCE_EXHAUSTED,
    errors.DeadlineError: Code.DEADLINE_EXCEEDED,
    errors.OutOfMemoryError: Code.RESOURCE_EXHAUSTED,
    errors.SandboxFailedError: Code.INTERNAL,
    errors.LaunchError: Code.INTERNAL,
    errors.KernelDiedError: Code.INTERNAL,
    errors.AgentProtocolError: Code.INTERNAL,
    errors.IsolationError: Code.INTERNAL,
    errors.UnavailableError: Code.UNAVAILABLE,
    NotSupportedError: Code.UNIMPLEMENTED,
}
"""What RPC says of each class; a write to an input that is closed is ``internal`` there."""


def status_of(error: HeadraceError) -> int:
    """Give the status that tells of this error outside RPC."""
    return next(STATUSES[base] for base in type(error).__mro__ if base in STATUSES)


def connect_code_of(error: HeadraceError) -> Code:
    """Give the code that tells of this error in RPC."""
    return next(CONNECT_CODES[base] for base in type(error).__mro__ if base in CONNECT_CODES)


def describe_connect(error: HeadraceError) -> dict[str, object]:
    """Give the object that RPC fails with."""
    return {"code": connect_code_of(error), "message": error.message}


def connect_answer(error: HeadraceError) -> Answer:
    """Give what a unary call fails with; also a stream that has not begun."""
    described = describe_connect(error)
    return json_answer(described, CONNECT_STATUSES[connect_code_of(error)])


def json_error(error: HeadraceError, scope: Scope) -> Answer:
    """Give the control plane's answer, and that of envd's plain HTTP; ``scope`` is not needed."""
    del scope
    status = status_of(error)
    headers = _headers(status)
    if isinstance(error, MethodNotAllowedError) and error.allowed:
        headers = ((b"allow", ", ".join(error.allowed).encode()),)
    return json_answer({"code": status, "message": error.message}, status, *headers)


def text_error(error: HeadraceError) -> Answer:
    """Give the interpreter's answer."""
    return Answer(status_of(error), error.message.encode("utf-8", "replace"), (), TEXT)


def sandbox_gone(sandbox_id: str) -> Answer:
    """Give the answer of every port of a sandbox that is not there, or paused."""
    body = {"sandboxId": sandbox_id, "message": "The sandbox was not found", "code": 502}
    return json_answer(body, 502)


def port_closed(sandbox_id: str, port: int) -> Answer:
    """Give the answer of a port that nothing listens at."""
    message = "The sandbox is running but port is not open"
    body = {"sandboxId": sandbox_id, "message": message, "port": port, "code": 502}
    return json_answer(body, 502)


def traffic_refused(sandbox_id: str) -> Answer:
    """Give the answer of a port that is not for everybody."""
    message = "The sandbox is not open to public traffic; a valid traffic access token is required"
    return json_answer({"sandboxId": sandbox_id, "message": message, "code": 403}, 403)


def unknown_failure(error: BaseException, scope: Scope) -> HeadraceError:
    """Log a defect of ours with its traceback, and give what may be said of it."""
    name = request_id(scope)
    _logger.error("request failed", exc_info=error, extra={"request_id": name})
    return HeadraceError(f"internal failure; the service's log has it as request {name!r}")


def _headers(status: int) -> HeaderList:
    # The SDKs try again on 429, 502, 503 and 504 unless they are told not to; a body that is
    # missing will not come.
    if status in (429, 504):
        return ((b"should-retry", b"false"),)
    if status == 503:
        return ((b"retry-after", b"1"),)
    return ((b"connection", b"close"),) if status == 408 else ()
