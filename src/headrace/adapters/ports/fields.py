"""Header fields that concern one connection only, and so never go through a proxy."""

from collections.abc import Iterable, Sequence

Headers = Sequence[tuple[bytes, bytes]]
"""Names in lower case, with their values."""

# RFC 9110, section 7.6.1, and the older ones that people still send.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)


def lower(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Give headers with their names in lower case."""
    return [(bytes(name).lower(), bytes(value)) for name, value in headers]


def title(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Give headers with their names as HTTP/1.1 usually has them, such as ``Content-Type``.

    Case has no meaning there, but many a program looks for ``Host:`` in what it was sent.
    """
    return [(b"-".join(map(bytes.capitalize, name.split(b"-"))), value) for name, value in headers]


def find(headers: Headers, name: bytes) -> list[bytes]:
    """Give the values of one header."""
    return [value for key, value in headers if key == name]


def tokens(headers: Headers, name: bytes) -> frozenset[bytes]:
    """Give the members of a comma-separated header, in lower case."""
    return frozenset(
        part.strip().lower() for value in find(headers, name) for part in value.split(b",")
    )


def end_to_end(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Leave out what concerns one connection only, also what `Connection` names."""
    left_out = _HOP_BY_HOP | tokens(headers, b"connection")
    return [(name, value) for name, value in headers if name not in left_out]
