"""What of a client's request goes on to the guest: everything but what is ours."""

import base64
import binascii
import re
from collections.abc import Callable

from headrace.adapters.ports.fields import Headers, end_to_end, find, tokens
from headrace.adapters.ports.route import Route
from headrace.adapters.ports.settings import PortSettings
from headrace.model.errors import InvalidRequestError, LimitExceededError

IsKey = Callable[[str], bool]
"""Says whether a text is one of our keys."""

# A key has at least 16 of these characters, whatever surrounds it.
_WORD = re.compile(rb"[A-Za-z0-9_-]{16,}")
_TARGET = re.compile(rb"/[\x21-\x7e\x80-\xff]*")
_LENGTH = re.compile(rb"[0-9]{1,19}")

_WRITTEN_BY_US = frozenset(
    {
        b"content-length",
        b"expect",
        b"forwarded",
        b"host",
        b"origin",
        b"referer",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-scheme",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-original-url",
        b"x-real-ip",
        b"x-rewrite-url",
    }
)
_CREDENTIALS = frozenset({b"authorization", b"cookie", b"x-api-key"})


def request_target(route: Route, is_key: IsKey) -> bytes:
    """Give the path and query for the guest; parameters with one of our keys are left out."""
    query = b"&".join(part for part in route.query.split(b"&") if not holds_key(part, is_key))
    target = route.path + b"?" + query if query else route.path
    if not _TARGET.fullmatch(target):
        raise InvalidRequestError(f"the path {target!r} has characters that must be escaped")
    return target


def request_headers(
    headers: Headers, route: Route, client: str | None, is_key: IsKey
) -> list[tuple[bytes, bytes]]:
    """Give the headers for the guest, without those that frame the body."""
    kept = [
        (name, value)
        for name, value in end_to_end(headers)
        if name not in _WRITTEN_BY_US
        and not (route.is_main_origin and name in _CREDENTIALS)
        and not _presents_key(value, is_key)
    ]
    forwarded = {
        b"x-forwarded-for": client,
        b"x-forwarded-host": route.host,
        b"x-forwarded-proto": route.scheme,
        b"x-forwarded-prefix": route.prefix,
    }
    ours = [(name, value.encode("latin-1")) for name, value in forwarded.items() if value]
    return [(b"host", route.guest_host.encode()), *kept, *_whence(headers, route), *ours]


def check_size(headers: Headers, settings: PortSettings) -> None:
    """Refuse a request with more headers than are passed on; raises LimitExceededError."""
    size = sum(len(name) + len(value) + 4 for name, value in headers)
    if size > settings.max_head or len(headers) > settings.max_headers:
        raise LimitExceededError(
            f"{len(headers)} headers with {size} bytes; at most {settings.max_headers} headers "
            f"with {settings.max_head} bytes are passed on",
            limit="headers",
        )


def framing(headers: Headers) -> tuple[bytes, bytes] | None:
    """Give the header that says how long a request's body is, or None if it has none.

    Raises InvalidRequestError where that is not certain, as the guest might see it otherwise.
    """
    encodings, lengths = tokens(headers, b"transfer-encoding"), find(headers, b"content-length")
    if encodings:
        if encodings != {b"chunked"} or lengths:
            raise InvalidRequestError("the length of the body is not clear")
        return (b"transfer-encoding", b"chunked")
    if not lengths:
        return None
    if len(lengths) > 1 or not _LENGTH.fullmatch(lengths[0]):
        raise InvalidRequestError(f"Content-Length is {lengths!r}, expected one number")
    return (b"content-length", lengths[0])


def holds_key(value: bytes, is_key: IsKey) -> bool:
    """Say whether one of our keys is a word of this text."""
    return any(is_key(word.decode("ascii")) for word in _WORD.findall(value))


def _presents_key(value: bytes, is_key: IsKey) -> bool:
    scheme, _, rest = value.partition(b" ")
    if scheme.lower() == b"basic":
        try:
            value = base64.b64decode(rest, validate=True)
        except binascii.Error:
            return False
    return holds_key(value, is_key)


def _whence(headers: Headers, route: Route) -> list[tuple[bytes, bytes]]:
    """Say where a request came from in the guest's terms, as servers compare it with `Host`.

    An address on our main origin is none of the guest's business.
    """
    guest = route.guest_origin
    written = []
    for value in find(headers, b"origin"):
        is_same = route.is_same_origin(value.decode("latin-1"))
        written.append((b"origin", guest.encode() if is_same else value))
    for value in find(headers, b"referer"):
        address = value.decode("latin-1")
        if route.is_main_origin:
            continue
        if route.is_same_origin(address):
            address = guest + address.partition(route.host)[2]
        written.append((b"referer", address.encode("latin-1")))
    return written
