"""Where a service is and with which key: from arguments, the environment or a running service."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from headrace.model.errors import InvalidRequestError

URL_VARIABLE = "HEADRACE_URL"
KEY_VARIABLE = "HEADRACE_API_KEY"
LOCAL = "local"
EMBEDDED = "embedded"

_PORTS = {"http": 80, "https": 443}
_KEY = re.compile(r"[\x21-\x7e]{1,256}")
_EXPECTED = "expected http://HOST:PORT, https://HOST:PORT, unix:///PATH, 'local' or 'embedded'"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A service that can be connected to.

    ``socket`` is the path of a unix socket, or None for TCP to ``host`` and ``port``. ``prefix``
    comes before every path.
    """

    host: str
    port: int
    key: str
    is_tls: bool = False
    socket: str | None = None
    prefix: str = ""

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        if self.socket is not None:
            return "localhost"
        host = f"[{self.host}]" if ":" in self.host else self.host
        default = _PORTS["https" if self.is_tls else "http"]
        return host if self.port == default else f"{host}:{self.port}"

    def __str__(self) -> str:
        if self.socket is not None:
            return f"unix://{quote(self.socket)}"
        return f"{'https' if self.is_tls else 'http'}://{self.authority}{self.prefix}"

    def __repr__(self) -> str:
        return f"Endpoint({self})"  # never the key


@dataclass(frozen=True, slots=True)
class Wanted:
    """What was asked for: a URL with its key, a service of this machine, or a private one.

    ``url`` is a URL, ``LOCAL`` or ``EMBEDDED``.
    """

    url: str
    key: str | None


def choose(url: str | None, api_key: str | None, environ: Mapping[str, str]) -> Wanted:
    """Decide between the arguments, the environment and a private server, in this order."""
    chosen = url or environ.get(URL_VARIABLE) or EMBEDDED
    if chosen == EMBEDDED:
        if api_key is not None:
            raise InvalidRequestError(
                f"api_key was given, but neither url nor {URL_VARIABLE}: a private server makes "
                "its own key"
            )
        return Wanted(EMBEDDED, None)
    return Wanted(chosen, api_key or environ.get(KEY_VARIABLE) or None)


def parse(url: str, key: str | None) -> Endpoint:
    """Read a URL; raises InvalidRequestError that says what is wrong with it or with the key."""
    if key is None:
        raise InvalidRequestError(f"no key for {url}: give api_key or set {KEY_VARIABLE}")
    if not _KEY.fullmatch(key):
        raise InvalidRequestError("the API key has characters that no key has, or is too long")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise InvalidRequestError(f"{url!r} is not a URL ({error}); {_EXPECTED}") from error
    if parts.query or parts.fragment or parts.username is not None:
        raise InvalidRequestError(
            f"the URL {url!r:.200} must have no query, fragment or user; {_EXPECTED}"
        )
    if parts.scheme == "unix":
        if parts.netloc or not Path(parts.path).is_absolute():
            raise InvalidRequestError(f"{url!r} names no absolute path; {_EXPECTED}")
        return Endpoint("localhost", 0, key, socket=unquote(parts.path))
    if parts.scheme not in _PORTS or not parts.hostname:
        raise InvalidRequestError(f"{url!r} is no URL of a service; {_EXPECTED}")
    return Endpoint(
        parts.hostname,
        _PORTS[parts.scheme] if port is None else port,
        key,
        is_tls=parts.scheme == "https",
        prefix=parts.path.rstrip("/"),
    )
