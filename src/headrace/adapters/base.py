"""What every adapter is given by the service, and what it may tell it; knows no dialect."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeAlias

from headrace.engine.tenancy import TenantEngine

# The types of ASGI (asgi.readthedocs.io), which every adapter speaks.
Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_FACTS = "headrace.facts"
_ORIGIN = "headrace.origin"
_REQUEST_ID = "headrace.request_id"


class Access(Protocol):
    """Tells whose request it is."""

    def authenticate(self, presented: str | None) -> TenantEngine:
        """Give the engine as the owner of a key sees it; raises UnauthenticatedError.

        ``presented`` is what the client sent, without "Bearer" and the like.
        """

    def is_key(self, presented: str) -> bool:
        """Say whether this is one of our keys, which no guest may ever see."""


def note(scope: Scope, **facts: str) -> None:
    """Add facts such as ``sandbox_id`` and ``execution_id`` to the log line of this request."""
    scope.setdefault(_FACTS, {}).update(facts)


def noted(scope: Scope) -> dict[str, str]:
    """Give the facts that were noted of a request."""
    facts: dict[str, str] = scope.get(_FACTS, {})
    return facts


def set_request(scope: Scope, request_id: str, origin: str) -> None:
    """Name a request and say by which origin its client knows us; the service does this first."""
    scope[_REQUEST_ID], scope[_ORIGIN] = request_id, origin


def request_id(scope: Scope) -> str:
    """Give the name of this request in logs and error answers."""
    name: str = scope.get(_REQUEST_ID, "")
    return name


def origin(scope: Scope) -> str:
    """Give scheme, host and port by which the client knows us, without a slash at the end."""
    value: str = scope.get(_ORIGIN, "http://localhost")
    return value
