"""The I/O of the async face: byte streams, sleeping, local files, callbacks.

`_transport_sync` has the same names without ``async``; the generated code uses those.
"""

import inspect
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from select import POLLIN, poll
from typing import TypeVar

import anyio
from anyio.abc import ByteStream, SocketAttribute
from anyio.streams.tls import TLSStream

from headrace.client._shared.endpoint import Endpoint
from headrace.client._shared.failure import CutError, NotConnectedError, SilentError

T = TypeVar("T")
R = TypeVar("R")

Callback = Callable[[T], object]
"""A function that is told something; it may be a coroutine function."""

Answering = Callable[[T], R | Awaitable[R]]
"""A function that is asked for something; it may be a coroutine function."""

Pieces = Iterable[bytes] | AsyncIterable[bytes]
"""Bytes that come piece by piece."""

_CLOSING = 1.0


class AsyncWire:
    """A connection as a stream of bytes."""

    def __init__(self, stream: ByteStream) -> None:
        self._stream = stream
        self._socket = stream.extra(SocketAttribute.raw_socket)  # noqa: S610 - nothing of Django's

    async def send(self, data: bytes, timeout: float) -> None:  # noqa: ASYNC109 - one wait's bound
        """Send all of ``data``."""
        try:
            with anyio.fail_after(timeout):
                await self._stream.send(data)
        except TimeoutError as error:
            raise SilentError(f"nothing could be sent for {timeout:g} s") from error
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise CutError(f"the connection broke: {error.__cause__ or error!r}") from error

    async def receive(self, size: int, timeout: float) -> bytes:  # noqa: ASYNC109 - one wait's bound
        """Give at most ``size`` bytes, nothing at the end."""
        try:
            with anyio.fail_after(timeout):
                return await self._stream.receive(size)
        except anyio.EndOfStream:
            return b""
        except TimeoutError as error:
            raise SilentError(f"nothing came for {timeout:g} s") from error
        except (OSError, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise CutError(f"the connection broke: {error.__cause__ or error!r}") from error

    def is_readable(self) -> bool:
        """Say whether bytes, or the end, have arrived that nobody waits for."""
        waiting = poll()
        try:
            waiting.register(self._socket.fileno(), POLLIN)
        except ValueError:  # closed meanwhile
            return True
        return bool(waiting.poll(0))

    def has_early_answer(self) -> bool:
        """Say whether an answer, or the end, came before everything was sent.

        Not known with TLS, where other things arrive, too.
        """
        return not isinstance(self._stream, TLSStream) and self.is_readable()

    async def aclose(self) -> None:
        """Close the connection, also when cancelled."""
        with anyio.move_on_after(_CLOSING, shield=True):
            await self._stream.aclose()

    def forget(self) -> None:
        """Leave the connection to the process from which this one was forked.

        It is not closed: this process shares the event loop's interest list with the other.
        """


class AsyncConnector:
    """Makes connections to one service."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._trust: ssl.SSLContext | None = None

    async def connect(self, timeout: float) -> AsyncWire:  # noqa: ASYNC109 - one wait's bound
        """Connect; raises NotConnectedError."""
        endpoint = self._endpoint
        try:
            with anyio.fail_after(timeout):
                return AsyncWire(await self._connect(endpoint))
        except TimeoutError as error:
            raise NotConnectedError(f"no connection to {endpoint} within {timeout:g} s") from error
        except (OSError, anyio.BrokenResourceError, anyio.EndOfStream) as error:
            raise NotConnectedError(
                f"no connection to {endpoint}: {error.__cause__ or error}"
            ) from error

    async def _connect(self, endpoint: Endpoint) -> ByteStream:
        if endpoint.socket is not None:
            return await anyio.connect_unix(endpoint.socket)
        if not endpoint.is_tls:
            return await anyio.connect_tcp(endpoint.host, endpoint.port)
        if self._trust is None:
            # Reading the certificates that the system trusts takes tens of milliseconds.
            self._trust = await anyio.to_thread.run_sync(ssl.create_default_context)
        return await anyio.connect_tcp(
            endpoint.host,
            endpoint.port,
            ssl_context=self._trust,
            tls_hostname=endpoint.host,
            tls_standard_compatible=False,
        )


async def sleep(seconds: float) -> None:
    """Wait."""
    await anyio.sleep(seconds)


def shielded(seconds: float) -> AbstractContextManager[object]:
    """Let what is inside finish in spite of a cancellation, but only for so long."""
    return anyio.move_on_after(seconds, shield=True)


async def tell(callback: Callback[T] | None, value: T) -> None:
    """Call a callback, if there is one, and wait for it if it is a coroutine function."""
    if callback is not None:
        answer = callback(value)
        if inspect.isawaitable(answer):
            await answer


async def ask(callback: Answering[T, R], value: T) -> R:
    """Call a callback and give what it says, waiting for it if it is a coroutine function."""
    answer = callback(value)
    if inspect.isawaitable(answer):
        found: R = await answer
        return found
    return answer


async def run_blocking(function: Callable[[], T]) -> T:
    """Call something that blocks, elsewhere; a cancellation does not wait for it."""
    return await anyio.to_thread.run_sync(function, abandon_on_cancel=True)


async def read_pieces(path: Path, size: int) -> AsyncIterator[bytes]:
    """Give the content of a local file in pieces."""
    async with await anyio.open_file(path, "rb") as file:
        while piece := await file.read(size):
            yield piece


async def each_piece(pieces: Pieces) -> AsyncIterator[bytes]:
    """Give the pieces of any iterable."""
    if isinstance(pieces, AsyncIterable):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


class AsyncLocalFile:
    """A local file that is written as a whole or not at all: it is renamed at the end."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.name}.partial")
        self._file: anyio.AsyncFile[bytes] | None = None

    async def write(self, data: bytes) -> None:
        """Append to what was written."""
        if self._file is None:
            self._file = await anyio.open_file(self._partial, "wb")
        await self._file.write(data)

    async def restart(self) -> None:
        """Forget what was written."""
        if self._file is not None:
            await self._file.seek(0)
            await self._file.truncate()

    async def commit(self) -> None:
        """Give the file its name."""
        await self.write(b"")
        await self.aclose(keep=True)
        await anyio.to_thread.run_sync(partial(self._partial.replace, self._path))

    async def aclose(self, *, keep: bool = False) -> None:
        """Close the file, and remove it unless ``keep``."""
        file, self._file = self._file, None
        if file is None:
            return
        with anyio.CancelScope(shield=True):
            await file.aclose()
            if not keep:
                await anyio.to_thread.run_sync(partial(self._partial.unlink, missing_ok=True))
