"""The exceptions that the SDK adds, and those for the errors that a service answers with."""

from collections.abc import Iterator, Mapping
from typing import Any

from headrace.model.errors import (
    ConflictError,
    DeadlineError,
    HeadraceError,
    InvalidRequestError,
    LimitExceededError,
    NotFoundError,
    PermissionDeniedError,
    QuotaError,
    UnauthenticatedError,
    UnavailableError,
)


class ConnectionFailedError(HeadraceError):
    """The service cannot be reached, went away, or what answers is no Headrace service.

    If the message says that it is unknown whether a request was carried out, then it was sent
    and no answer came.
    """

    code = "connection_failed"


class StreamBrokenError(HeadraceError):
    """A stream was cut and could not be taken up again.

    ``details`` has ``id`` (of the execution, process or watch) and ``last_seq``, the number of the
    last event that arrived: enough to go on later.
    """

    code = "stream_broken"


_BY_STATUS: Mapping[int, type[HeadraceError]] = {
    400: InvalidRequestError,
    401: UnauthenticatedError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    413: LimitExceededError,
    429: QuotaError,
    503: UnavailableError,
    504: DeadlineError,
}


def _descend(base: type[HeadraceError]) -> Iterator[type[HeadraceError]]:
    yield base
    for each in base.__subclasses__():
        yield from _descend(each)


def _by_code() -> Mapping[str, type[HeadraceError]]:
    # Others derive from our errors, too; only what this package ships counts, and of two classes
    # with one code the more general.
    known: dict[str, type[HeadraceError]] = {}
    for each in _descend(HeadraceError):
        if each.__module__ in ("headrace.model.errors", __name__):
            known.setdefault(each.code, each)
    return known


_BY_CODE = _by_code()


def make_error(record: object, status: int | None = None) -> HeadraceError:
    """Give the exception for an error as the API writes it: ``code``, ``message``, ``details``.

    A code that this version does not know becomes the exception of the HTTP status; the code is
    among the details then.
    """
    fields: Mapping[str, Any] = record if isinstance(record, dict) else {}
    code, message, details = fields.get("code"), fields.get("message"), fields.get("details")
    kind = _BY_CODE.get(code) if isinstance(code, str) else None
    facts = dict(details) if isinstance(details, dict) else {}
    if kind is None:
        kind = _find_kind(status, HeadraceError)
        facts["code"] = code
    if fields.get("request_id"):
        facts["request_id"] = fields["request_id"]
    error = kind(message if isinstance(message, str) else f"the service failed: {record!r:.200}")
    # Not as keywords: a detail may have the name of a parameter.
    error.details = facts
    return error


def make_foreign_error(status: int, message: str) -> HeadraceError:
    """Give the exception for an error that is not in our form: another service's, or a proxy's."""
    return _find_kind(status, ConnectionFailedError)(message, status=status)


def _find_kind(status: int | None, otherwise: type[HeadraceError]) -> type[HeadraceError]:
    known = _BY_STATUS.get(status or 0)
    if known is None and status is not None and 400 <= status < 500:
        return InvalidRequestError
    return known or otherwise
