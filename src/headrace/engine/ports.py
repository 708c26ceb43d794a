"""Reaching a port inside a sandbox: a socket made in its network, connected from here."""

import errno
import ipaddress
import os
import socket

import anyio
from anyio.abc import SocketStream

from headrace.engine.launcher import Launcher
from headrace.model.errors import DeadlineError, InvalidRequestError, PortUnreachableError
from headrace.model.specs import check_whole

CONNECT_TIMEOUT = 10.0
_LAST_PORT = 65535


async def open_port(launcher: Launcher, sandbox: str, port: int, host: str) -> SocketStream:
    """Connect to a port of a sandbox; the caller closes the stream.

    Raises PortUnreachableError if nothing listens there, DeadlineError if it does not answer.
    """
    family = _check(port, host)
    sock = await launcher.open_socket(sandbox, family)
    try:
        with anyio.fail_after(CONNECT_TIMEOUT):
            await _connect(sock, host, port)
        return await SocketStream.from_socket(sock)
    except TimeoutError as error:
        sock.close()
        raise DeadlineError(f"{host}:{port} did not answer within {CONNECT_TIMEOUT:g} s") from error
    except BaseException:
        sock.close()
        raise


async def _connect(sock: socket.socket, host: str, port: int) -> None:
    number = sock.connect_ex((host, port))
    if number == errno.EINPROGRESS:
        await anyio.wait_writable(sock)
        number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    if number != 0:
        raise PortUnreachableError(
            f"no connection to {host}:{port} in the sandbox: {os.strerror(number)}", port=port
        )


def _check(port: int, host: str) -> str:
    """Refuse what is no port or no address; gives the address's family."""
    check_whole("port", port, 1, _LAST_PORT)
    try:
        address = ipaddress.ip_address(host)
    except ValueError as error:
        raise InvalidRequestError(f"host must be an IP address, got {host!r}") from error
    if not address.is_loopback:
        raise InvalidRequestError(f"host must be a loopback address of the sandbox, got {host}")
    return "inet" if address.version == 4 else "inet6"
