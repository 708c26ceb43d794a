"""What of a guest's answer reaches the client; on our main origin nothing that speaks for it."""

import re

from headrace.adapters.ports.fields import Headers, end_to_end
from headrace.adapters.ports.route import Route

SANDBOXED = b"sandbox allow-scripts"
"""The policy that gives a page an origin of its own, whatever address it came from."""

_NO_BODY = frozenset({204, 304})
_ADDRESSES = frozenset({b"location", b"content-location"})
_COOKIE_DOMAIN = re.compile(rb";\s*domain\s*=[^;]*", re.IGNORECASE)

# Orders to a reverse proxy in front of us: it would serve the operator's files on them.
# The service dates its answers itself.
_NEVER = frozenset(
    {
        b"date",
        b"x-accel-charset",
        b"x-accel-expires",
        b"x-accel-limit-rate",
        b"x-accel-redirect",
        b"x-lighttpd-send-file",
        b"x-lighttpd-send-tempfile",
        b"x-reproxy-file",
        b"x-reproxy-url",
        b"x-sendfile",
        b"x-sendfile2",
    }
)
# These hold for an origin or a host, not for one answer; or ask for credentials in its name.
_ORIGIN_WIDE = frozenset(
    {
        b"accept-ch",
        b"accept-ch-lifetime",
        b"activate-storage-access",
        b"alt-svc",
        b"authentication-info",
        b"clear-site-data",
        b"critical-ch",
        b"expect-ct",
        b"link",
        b"nel",
        b"origin-agent-cluster",
        b"origin-trial",
        b"refresh",
        b"report-to",
        b"reporting-endpoints",
        b"service-worker-allowed",
        b"service-worker-navigation-preload",
        b"set-cookie",
        b"set-cookie2",
        b"set-login",
        b"speculation-rules",
        b"strict-transport-security",
        b"supports-loading-mode",
        b"timing-allow-origin",
        b"use-as-dictionary",
        b"www-authenticate",
        b"x-content-type-options",
    }
)
_ORIGIN_WIDE_FAMILIES = (
    b"access-control-",
    b"attribution-reporting-",
    b"content-security-policy",
    b"public-key-pins",
)


def response_headers(headers: Headers, route: Route, status: int) -> list[tuple[bytes, bytes]]:
    """Give the headers for the client. `Content-Length` is kept where a body follows it."""
    has_length = not (
        status in _NO_BODY or any(name == b"transfer-encoding" for name, _value in headers)
    )
    written = [
        (name, _translate(name, value, route))
        for name, value in end_to_end(headers)
        if (name != b"content-length" or has_length) and not _is_left_out(name, route)
    ]
    if route.is_main_origin:
        written.append((b"content-security-policy", SANDBOXED))
        written.append((b"x-content-type-options", b"nosniff"))
    return written


def _is_left_out(name: bytes, route: Route) -> bool:
    if name in _NEVER:
        return True
    return route.is_main_origin and (name in _ORIGIN_WIDE or name.startswith(_ORIGIN_WIDE_FAMILIES))


def _translate(name: bytes, value: bytes, route: Route) -> bytes:
    if name in _ADDRESSES:
        return route.rewrite(value.decode("latin-1")).encode("latin-1")
    if name == b"set-cookie":
        # Else it would reach other sandboxes, whose host names end alike.
        return _COOKIE_DOMAIN.sub(b"", value)
    return value
