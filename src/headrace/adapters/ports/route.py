"""Which server in which sandbox a request is for, and by what address the client knows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

from anyio.abc import SocketStream

from headrace.adapters.base import Scope, origin

_DEFAULT_PORTS = {"http": 80, "https": 443}
_LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1", "0.0.0.0"})  # noqa: S104 - only compared


class Reachable(Protocol):
    """What the proxy needs of a sandbox."""

    @property
    def id(self) -> str:
        """Its id."""

    @property
    def is_alive(self) -> bool:
        """Say whether it has not ended."""

    async def open_port(self, port: int, host: str = "127.0.0.1") -> SocketStream:
        """Connect to a port inside; the caller closes the stream."""


@dataclass(frozen=True)
class Route:
    """The two addresses of a server in a sandbox: the client's and the guest's own.

    ``prefix`` is the path under which it appears on our main origin, without a slash at the end;
    it is empty where the server has a host name of its own. ``host`` may carry a port.
    ``guest_host`` is the `Host` that the server is told: by default what it expects which listens
    on its own machine. With ``has_tls`` it is spoken to with TLS.
    """

    sandbox: Reachable
    port: int
    is_main_origin: bool
    scheme: str
    host: str
    prefix: str
    path: bytes
    query: bytes
    guest_host: str
    has_tls: bool = False

    @property
    def guest_origin(self) -> str:
        """The server's address as it knows it."""
        return f"http{'s' if self.has_tls else ''}://{self.guest_host}"

    def rewrite(self, address: str) -> str:
        """Turn what the guest takes for its own address into the client's; others stay."""
        try:
            parts = urlsplit(address)
            is_own = self._is_own(parts.scheme, parts.hostname, parts.port)
        except ValueError:
            return address
        if parts.netloc and not is_own and not self._is_public(parts.netloc):
            return address
        if not parts.netloc and (parts.scheme or not address.startswith("/")):
            return address
        rest = address.partition(parts.netloc)[2] if parts.netloc else address
        rest = rest if rest.startswith("/") else "/" + rest
        if not self.is_main_origin:
            return f"{self.scheme}://{self.host}{rest}" if parts.netloc else address
        if rest == self.prefix or rest.startswith((self.prefix + "/", self.prefix + "?")):
            return rest
        return self.prefix + rest

    def is_same_origin(self, address: str) -> bool:
        """Say whether this is an address on the host by which the client knows the server."""
        try:
            return self._is_public(urlsplit(address).netloc)
        except ValueError:
            return False

    def _is_public(self, netloc: str) -> bool:
        return netloc.lower() == self.host.lower()

    def _is_own(self, scheme: str, host: str | None, port: int | None) -> bool:
        default = _DEFAULT_PORTS.get(scheme or self.scheme)
        return host in _LOCAL_NAMES and (port or default) == self.port


def find_route(scope: Scope) -> Route:
    """Read what the service wrote into the scope about the server that is meant."""
    sandbox: Reachable = scope["headrace.sandbox"]
    port: int = scope["headrace.port"]
    is_main_origin: bool = scope["headrace.is_main_origin"]
    known = urlsplit(origin(scope))
    path = _raw_path(scope)
    host = known.netloc
    if not is_main_origin and not host.startswith(f"{port}-{sandbox.id}."):
        host = _header(scope, b"host") or f"{port}-{sandbox.id}.{host}"
    return Route(
        sandbox=sandbox,
        port=port,
        is_main_origin=is_main_origin,
        scheme=known.scheme,
        host=host,
        prefix=_prefix(scope, path) if is_main_origin else "",
        path=path or b"/",
        query=scope.get("query_string", b""),
        guest_host=scope.get("headrace.port_host") or f"localhost:{port}",
        has_tls=scope.get("headrace.port_has_tls", False),
    )


def _raw_path(scope: Mapping[str, Any]) -> bytes:
    raw: bytes | None = scope.get("headrace.port_raw_path")
    if raw is None:
        raw = quote(scope["headrace.port_path"], safe="/:@!$&'()*+,;=~-._").encode("ascii")
    return raw if raw.startswith(b"/") or not raw else b"/" + raw


def _prefix(scope: Mapping[str, Any], path: bytes) -> str:
    whole: bytes = scope.get("raw_path") or quote(scope["path"]).encode("ascii")
    return whole.removesuffix(path).rstrip(b"/").decode("latin-1")


def _header(scope: Mapping[str, Any], name: bytes) -> str | None:
    for key, value in scope["headers"]:
        if key.lower() == name:
            return str(value, "latin-1")
    return None
