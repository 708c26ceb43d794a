"""Bounds of the proxy: how much a guest may send ahead of its body, and how long it may take."""

from dataclasses import dataclass

KIB = 1024


@dataclass(frozen=True)
class PortSettings:
    """Sizes are bytes, times are seconds. Bodies have neither a bound nor a deadline."""

    connect_timeout: float = 10.0
    """For a server in a sandbox to take the connection."""
    head_timeout: float = 300.0
    """For the head of its answer, once it has the whole request."""
    stall_timeout: float = 60.0
    """For it to take the next piece of a request's body or of a client's message."""
    continue_timeout: float = 1.0
    """For it to answer `Expect: 100-continue`; then the body is sent all the same."""
    close_timeout: float = 1.0
    """For its half of a WebSocket's closing handshake."""
    max_head: int = 64 * KIB
    """The status line and headers of an answer, or the headers of a request."""
    max_headers: int = 256
    """The number of headers, either way."""
    max_informational: int = 16
    """The answers with a status of 1xx ahead of the real one."""
    max_message: int = 16 * KIB * KIB
    """One WebSocket message from a guest."""
