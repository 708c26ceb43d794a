"""The I/O of the sync face: byte streams, sleeping, local files, callbacks.

`_transport_async` has the same names with ``async``; see there.
"""

import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from select import POLLIN, poll
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from headrace.client._shared.endpoint import Endpoint
from headrace.client._shared.failure import CutError, NotConnectedError, SilentError

if TYPE_CHECKING:
    from ssl import SSLContext

T = TypeVar("T")
R = TypeVar("R")

Callback = Callable[[T], object]
"""A function that is told something."""

Answering = Callable[[T], R]
"""A function that is asked for something."""

Pieces = Iterable[bytes]
"""Bytes that come piece by piece."""


class Wire:
    """A connection as a stream of bytes."""

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def send(self, data: bytes, timeout: float) -> None:
        """Send all of ``data``."""
        try:
            self._stream.settimeout(timeout)
            self._stream.sendall(data)
        except TimeoutError as error:
            raise SilentError(f"nothing could be sent for {timeout:g} s") from error
        except OSError as error:
            raise CutError(f"the connection broke: {error!r}") from error

    def receive(self, size: int, timeout: float) -> bytes:
        """Give at most ``size`` bytes, nothing at the end."""
        try:
            self._stream.settimeout(timeout)
            return self._stream.recv(size)
        except TimeoutError as error:
            raise SilentError(f"nothing came for {timeout:g} s") from error
        except OSError as error:
            raise CutError(f"the connection broke: {error!r}") from error

    def is_readable(self) -> bool:
        """Say whether bytes, or the end, have arrived that nobody waits for."""
        waiting = poll()
        try:
            waiting.register(self._stream.fileno(), POLLIN)
        except ValueError:  # closed meanwhile
            return True
        return bool(waiting.poll(0))

    def has_early_answer(self) -> bool:
        """Say whether an answer, or the end, came before everything was sent.

        Not known with TLS, where other things arrive, too.
        """
        return type(self._stream) is socket.socket and self.is_readable()

    def close(self) -> None:
        """Close the connection, also under the feet of a thread that waits for it."""
        with suppress(OSError):
            self._stream.close()

    def forget(self) -> None:
        """Leave the connection to the process from which this one was forked."""
        self.close()  # this process's copy only; TLS says nothing on close


class Connector:
    """Makes connections to one service."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._trust: SSLContext | None = None

    def connect(self, timeout: float) -> Wire:
        """Connect; raises NotConnectedError."""
        endpoint = self._endpoint
        try:
            return Wire(self._connect(endpoint, timeout))
        except TimeoutError as error:
            raise NotConnectedError(f"no connection to {endpoint} within {timeout:g} s") from error
        except OSError as error:
            raise NotConnectedError(f"no connection to {endpoint}: {error}") from error

    def _connect(self, endpoint: Endpoint, timeout: float) -> socket.socket:
        if endpoint.socket is not None:
            return _connect_unix(endpoint.socket, timeout)
        stream = socket.create_connection((endpoint.host, endpoint.port), timeout)
        try:
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return self._secure(stream, endpoint.host) if endpoint.is_tls else stream
        except BaseException:
            stream.close()
            raise

    def _secure(self, stream: socket.socket, host: str) -> socket.socket:
        import ssl  # most programs do without

        if self._trust is None:
            # Reading the certificates that the system trusts takes tens of milliseconds.
            self._trust = ssl.create_default_context()
        return self._trust.wrap_socket(stream, server_hostname=host)


def _connect_unix(path: str, timeout: float) -> socket.socket:
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        stream.settimeout(timeout)
        stream.connect(path)
    except BaseException:
        stream.close()
        raise
    return stream


def sleep(seconds: float) -> None:
    """Wait."""
    time.sleep(seconds)


def shielded(seconds: float) -> AbstractContextManager[object]:
    """Do nothing: there is no cancellation here."""
    return nullcontext()


def tell(callback: Callback[T] | None, value: T) -> None:
    """Call a callback, if there is one."""
    if callback is not None:
        callback(value)


def ask(callback: Answering[T, R], value: T) -> R:
    """Call a callback and give what it says."""
    return callback(value)


def run_blocking(function: Callable[[], T]) -> T:
    """Call something that blocks."""
    return function()


def read_pieces(path: Path, size: int) -> Iterator[bytes]:
    """Give the content of a local file in pieces."""
    with path.open("rb") as file:
        while piece := file.read(size):
            yield piece


def each_piece(pieces: Pieces) -> Iterator[bytes]:
    """Give the pieces of any iterable."""
    yield from pieces


class LocalFile:
    """A local file that is written as a whole or not at all: it is renamed at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._file: BinaryIO | None = None

    def write(self, data: bytes) -> None:
        """Append to what was written."""
        if self._file is None:
            self._file = self._partial.open("wb")
        self._file.write(data)

    def restart(self) -> None:
        """Forget what was written."""
        if self._file is not None:
            self._file.seek(0)
            self._file.truncate()

    def commit(self) -> None:
        """Give the file its name."""
        self.write(b"")
        self.close(keep=True)
        self._partial.replace(self._path)

    def close(self, *, keep: bool = False) -> None:
        """Close the file, and remove it unless ``keep``."""
        file, self._file = self._file, None
        if file is None:
            return
        file.close()
        if not keep:
            self._partial.unlink(missing_ok=True)
