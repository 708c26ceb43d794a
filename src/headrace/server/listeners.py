"""The sockets that the service listens on, from binding them to closing them."""

import asyncio
import contextlib
import email.utils
import errno
import os
import socket
import ssl
import stat
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from uvicorn.server import ServerState

from headrace.engine.privileges import ServiceIds
from headrace.model.errors import ConflictError, InvalidRequestError
from headrace.server.http_protocol import BoundedHttpProtocol
from headrace.server.settings import ServerTopic

_BACKLOG = 1024
_MAX_SOCKET_PATH = 107
_POLL = 0.05


@dataclass(frozen=True, slots=True)
class Door:
    """A bound socket. ``path`` is that of a unix socket, ``tls`` is what TCP may speak.

    ``places`` are descriptors of the directories above ``path``, the nearest first: as long as
    they are open the file can be removed, whatever this process may see by then.
    """

    sock: socket.socket
    path: Path | None = None
    tls: ssl.SSLContext | None = None
    places: list[int] = field(default_factory=list)

    @property
    def is_unix(self) -> bool:
        """Say whether this is a unix socket."""
        return self.path is not None

    def close(self) -> None:
        """Close the socket and remove its file, where we may; safe to call twice."""
        self.sock.close()
        names = [] if self.path is None else [self.path.name, self.path.parent.name]
        for name, place, remove in zip(names, self.places, (os.unlink, os.rmdir), strict=False):
            with contextlib.suppress(OSError):
                remove(name, dir_fd=place)
        while self.places:
            os.close(self.places.pop())


def bind_tcp(host: str, port: int) -> socket.socket:
    """Listen on an address; raises ConflictError if somebody else does."""
    try:
        found = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE | socket.AI_NUMERICSERV
        )
    except (OSError, UnicodeError) as error:
        raise InvalidRequestError(f"server.host: {host!r} is no address here: {error}") from error
    # A name may have addresses of both kinds; where it is this machine's, clients expect IPv4.
    family, kind, protocol, _, address = min(found, key=lambda each: each[0] != socket.AF_INET)
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(address)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ConflictError(
                f"{host} port {port} is in use; name another one with --port or server.port"
            ) from error
        raise InvalidRequestError(
            f"{host} port {port} cannot be listened on: {error.strerror}"
        ) from error
    sock.setblocking(False)
    return sock


def bind_unix(path: Path, owner: ServiceIds | None = None, *, is_private: bool = False) -> Door:
    """Listen on a socket file that only its owner may use.

    A directory that is missing is made, for its owner only, and given to ``owner``, so that the
    service may remove the file at its end. The socket of a private server has a directory of its
    own, which is given away and removed, too. A file that a dead server left is replaced; raises
    ConflictError if the server lives.
    """
    path = path.absolute()
    if len(os.fsencode(path)) > _MAX_SOCKET_PATH:
        raise InvalidRequestError(
            f"server.socket: {path} is longer than {_MAX_SOCKET_PATH} bytes, the most for a socket"
        )
    try:
        _make_directory(path.parent, owner, is_private=is_private)
        _remove_dead(path)
        places = _open_places(path, 2 if is_private else 1)
    except OSError as error:
        raise InvalidRequestError(f"server.socket: {path}: {error.strerror}") from error
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
        if owner is not None:
            os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise InvalidRequestError(f"server.socket: {path}: {error.strerror}") from error
    finally:
        os.umask(before)
    sock.setblocking(False)
    return Door(sock, path, places=places)


def _make_directory(path: Path, owner: ServiceIds | None, *, is_private: bool) -> None:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
    elif not is_private or path.stat().st_mode & 0o077 or path.stat().st_uid != os.geteuid():
        return
    if owner is not None:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)


def _open_places(path: Path, count: int) -> list[int]:
    flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
    return [os.open(place, flags) for place in list(path.parents)[:count]]


def _remove_dead(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(found.st_mode):
        raise ConflictError(f"server.socket: {path} is there already and no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):
            pass
    raise ConflictError(f"server.socket: another server listens on {path}")


def load_tls(certificate: Path, key: Path) -> ssl.SSLContext:
    """Read certificate and key; raises InvalidRequestError that names the file."""
    for path in (certificate, key):
        try:
            path.open("rb").close()
        except OSError as error:
            raise InvalidRequestError(f"{path} cannot be read: {error.strerror}") from error
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (ssl.SSLError, OSError, ValueError) as error:
        raise InvalidRequestError(
            f"{certificate} and {key} are no certificate with its key as PEM: {error}"
        ) from error
    return context


def _no_password() -> str:
    raise ValueError("the key is encrypted; give one without a password")


def protocol_for(topic: ServerTopic) -> type[BoundedHttpProtocol]:
    """Give the protocol with the bounds of the settings."""
    bounds = {
        "max_header": int(topic.max_header),
        "header_timeout": topic.header_timeout,
        "max_connections": topic.max_connections,
    }
    return type("HttpProtocol", (BoundedHttpProtocol,), bounds)


@dataclass
class Listener:
    """Serves one application on one door; closed in steps, so that streams may end first."""

    door: Door
    app: Any
    topic: ServerTopic
    _state: ServerState = field(default_factory=ServerState)
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        """Take connections."""
        config = uvicorn.Config(
            self.app,
            http=protocol_for(self.topic),
            ws="websockets-sansio",
            ws_max_size=int(self.topic.max_body),
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=self.topic.keep_alive,  # type: ignore[arg-type]  # a float does
        )
        config.load()
        loop = asyncio.get_running_loop()
        self.refresh(time.time())

        def make_protocol() -> asyncio.Protocol:
            made: asyncio.Protocol = config.http_protocol_class(  # type: ignore[call-arg]  # as uvicorn does
                config=config, server_state=self._state, app_state={}, _loop=loop
            )
            return made

        self._server = await loop.create_server(
            make_protocol, sock=self.door.sock, ssl=self.door.tls, backlog=_BACKLOG
        )

    def refresh(self, now: float) -> None:
        """Put the time into the header of answers; call it every second."""
        date = email.utils.formatdate(now, usegmt=True).encode()
        self._state.default_headers = [(b"date", date)]

    @property
    def has_websockets(self) -> bool:
        """Say whether one is open."""
        return any(not isinstance(each, BoundedHttpProtocol) for each in self._state.connections)

    def stop_accepting(self) -> None:
        """Take no more connections, and no more requests on those that wait for one."""
        if self._server is not None:
            self._server.close()
        self.door.close()
        for connection in list(self._state.connections):
            if isinstance(connection, BoundedHttpProtocol):
                connection.shutdown()

    async def finish(self) -> None:
        """Wait until all answers have gone out; tell WebSockets that we go."""
        for connection in list(self._state.connections):
            connection.shutdown()
        # uvicorn keeps sets, without an event to wait for.
        while self._state.connections or self._state.tasks:  # noqa: ASYNC110
            await anyio.sleep(_POLL)

    async def abort(self) -> None:
        """Cut what is still open."""
        for task in list(self._state.tasks):
            task.cancel()
        for connection in list(self._state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        with anyio.move_on_after(1.0, shield=True):
            while self._state.tasks:  # noqa: ASYNC110 - as above
                await anyio.sleep(_POLL)
