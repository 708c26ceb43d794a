"""By which names the service may be called, and how its clients see it.

A web page can make a browser send requests here under the page's own host name, by changing what
that name resolves to (DNS rebinding). So only names that are ours are accepted.
"""

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from headrace.model.errors import InvalidRequestError

_HOST = re.compile(
    r"(?P<name>\[[0-9a-f:.]{2,45}\]|[a-z0-9_.-]{1,253}?)\.?(?::(?P<port>[0-9]{1,5}))?",
    re.IGNORECASE,
)
_REMEMBERED = 1024

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def split_host(value: str) -> tuple[str, int | None] | None:
    """Give name (in lower case, without brackets) and port of a Host header; None if it is none."""
    found = _HOST.fullmatch(value)
    if found is None:
        return None
    port = int(found["port"]) if found["port"] else None
    return found["name"].lower().strip("[]"), port


def parse_address(text: str) -> Address | None:
    """Give the address that a text is, or None; one of IPv4 inside IPv6 counts as IPv4."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped if isinstance(mapped, ipaddress.IPv4Address) else address


def is_loopback(host: str) -> bool:
    """Say whether a host name or address can only be this machine."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    address = parse_address(host)
    return address is not None and address.is_loopback


def check_url(name: str, url: str) -> str:
    """Give a URL without a slash at its end; refuse what is not just scheme and host."""
    try:
        parts = urlsplit(url)
        is_origin = parts.scheme in ("http", "https") and split_host(parts.netloc) is not None
        is_origin = is_origin and parts.path in ("", "/") and not parts.query and not parts.fragment
    except ValueError:
        parts, is_origin = urlsplit(""), False
    if not is_origin:
        raise InvalidRequestError(f"{name} must be like https://example.com, got {url!r}")
    return f"{parts.scheme}://{parts.netloc.lower()}"


@dataclass(frozen=True)
class HostPolicy:
    """The host names that requests may name.

    ``bound`` is the address that the service listens on, ``names`` are those of the settings,
    ``public_url`` brings its host and everything below it.
    """

    bound: str
    public_url: str | None = None
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.names:
            if split_host(name.removeprefix("*.")) is None:
                raise InvalidRequestError(f"server.host_names: {name!r} is no host name")
        object.__setattr__(self, "accepts", lru_cache(_REMEMBERED)(self._accepts))

    def accepts(self, host: str) -> bool:
        """Say whether ``host`` (in lower case, without port) is one of our names."""
        raise NotImplementedError  # replaced by a remembering form of _accepts

    def _accepts(self, host: str) -> bool:
        if is_loopback(host):
            return True
        address = parse_address(host)
        if address is not None:
            return self._is_bound_to(address)
        return any(_matches(host, pattern) for pattern in self._patterns())

    def _is_bound_to(self, address: Address) -> bool:
        bound = parse_address(self.bound)
        if bound is None:
            return str(address) in self.names
        # No name was resolved to get here, so an address cannot be rebound: all of this machine's
        # are fine where it listens on all of them.
        return bound.is_unspecified or address == bound or str(address) in self.names

    def _patterns(self) -> Iterable[str]:
        yield from (name.lower() for name in self.names)
        if parse_address(self.bound) is None:
            yield self.bound.lower()
        if self.public_url is not None:
            split = split_host(urlsplit(self.public_url).netloc)
            if split is not None:
                yield split[0]
                yield f"*.{split[0]}"


def _matches(host: str, pattern: str) -> bool:
    if pattern.startswith("*."):
        return host.endswith(pattern[1:]) and len(host) > len(pattern) - 1
    return host == pattern


class TrustedProxies:
    """Whose ``X-Forwarded-*`` are believed; ``unix`` stands for whoever uses the unix socket."""

    def __init__(self, names: Iterable[str]) -> None:
        self._networks: list[Network] = []
        self._has_unix = False
        for name in names:
            if name == "unix":
                self._has_unix = True
                continue
            try:
                self._networks.append(ipaddress.ip_network(name))
            except ValueError:
                raise InvalidRequestError(
                    "server.trusted_proxies: expected an address, a network such as 10.0.0.0/8 "
                    f"or 'unix', got {name!r}"
                ) from None
        self._remembered = lru_cache(_REMEMBERED)(self._includes)

    def __bool__(self) -> bool:
        return self._has_unix or bool(self._networks)

    def include(self, client: tuple[str, int] | None, *, is_unix: bool) -> bool:
        """Say whether this peer is believed."""
        if is_unix:
            return self._has_unix
        return bool(self._networks) and client is not None and self._remembered(client[0])

    def _includes(self, text: str) -> bool:
        address = parse_address(text)
        return address is not None and any(address in network for network in self._networks)
