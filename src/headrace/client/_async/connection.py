"""Requests to one service: sending, trying again where that is harmless, errors as exceptions."""

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Protocol, TypeVar

import h11

from headrace import __version__
from headrace.client._async.http import AsyncHttpConnection, AsyncPool
from headrace.client._shared.answers import Head, read, read_error
from headrace.client._shared.endpoint import Endpoint
from headrace.client._shared.failure import NotConnectedError, SilentError, TransportError
from headrace.client._shared.fields import Fields
from headrace.client._shared.patience import Patience, Timer
from headrace.client._shared.request import Request
from headrace.client._transport_async import shielded, sleep
from headrace.client.errors import ConnectionFailedError
from headrace.model.errors import DeadlineError, HeadraceError, UnavailableError

T = TypeVar("T")

MAX_ANSWER = 512 * 1024 * 1024
"""Bytes of an answer that is read as a whole."""

_MAX_ERROR = 1024 * 1024
_RELEASING = 1.0


class AsyncBody(Protocol):
    """What is sent with a request, when that is more than a few bytes."""

    @property
    def size(self) -> int | None:
        """The number of bytes, or None if that is not known before."""

    @property
    def can_repeat(self) -> bool:
        """Whether ``open`` may be called again."""

    def open(self) -> AsyncIterable[bytes]:
        """Give the bytes."""


class AsyncAnswer:
    """An answer whose body is still to be read; close it."""

    def __init__(
        self, head: Head, connection: AsyncHttpConnection, pool: AsyncPool, timer: Timer
    ) -> None:
        self.head = head
        self._connection: AsyncHttpConnection | None = connection
        self._pool = pool
        self._timer = timer

    async def receive(self, timer: Timer | None = None) -> bytes:
        """Give the next piece of the body, nothing at its end."""
        if self._connection is None:
            return b""
        data = await self._connection.receive(timer or self._timer)
        if not data:
            await self.finish()
        return data

    async def read(self, maximum: int = MAX_ANSWER) -> bytes:
        """Give the whole body."""
        pieces, size = [], 0
        while data := await self.receive():
            size += len(data)
            if size > maximum:
                raise ConnectionFailedError(f"the answer is longer than {maximum} bytes")
            pieces.append(data)
        return b"".join(pieces)

    async def finish(self) -> None:
        """Keep the connection for another request: nothing more is to come of the body."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await self._pool.release(connection)

    async def aclose(self) -> None:
        """Leave off here: the connection is closed, unless the answer was read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.aclose()


class AsyncConnection:
    """A client of one service."""

    def __init__(self, endpoint: Endpoint, patience: Patience) -> None:
        self.endpoint = endpoint
        self.patience = patience
        self._pool = AsyncPool(endpoint)
        self._headers = [
            ("host", endpoint.authority),
            ("user-agent", f"headrace-python/{__version__}"),
            ("authorization", f"Bearer {endpoint.key}"),
        ]

    async def call(
        self, request: Request, reader: Callable[[Fields], T], body: AsyncBody | None = None
    ) -> T:
        """Make a request and read the answer, which is JSON."""
        return read(await self.fetch(request, body), reader)

    async def fetch(self, request: Request, body: AsyncBody | None = None) -> bytes:
        """Make a request and give the body of the answer."""
        return await self.exchange(request, AsyncAnswer.read, body)

    async def exchange(
        self,
        request: Request,
        receive: Callable[[AsyncAnswer], Awaitable[T]],
        body: AsyncBody | None = None,
    ) -> T:
        """Make a request and give what ``receive`` makes of the answer.

        If the connection breaks and that is harmless, both are done again.
        """

        async def attempt(timer: Timer) -> T:
            answer = await self._begin(request, timer, body)
            try:
                return await receive(answer)
            finally:
                await answer.aclose()

        return await self._repeat(request, attempt, can_repeat=body is None or body.can_repeat)

    async def open(self, request: Request) -> AsyncAnswer:
        """Make a request and give the answer as soon as it begins; the caller closes it."""

        async def attempt(timer: Timer) -> AsyncAnswer:
            return await self._begin(request, timer, None)

        return await self._repeat(request, attempt, can_repeat=True)

    async def open_once(self, request: Request) -> AsyncAnswer:
        """Do as `open`, but only once; raises TransportError as it is."""
        return await self._begin(request, self._make_timer(request), None)

    async def aclose(self) -> None:
        """Close the connections that nobody uses; more requests may follow."""
        with shielded(_RELEASING):
            await self._pool.aclose()

    async def _repeat(
        self, request: Request, attempt: Callable[[Timer], Awaitable[T]], *, can_repeat: bool
    ) -> T:
        timer = self._make_timer(request)
        failures = 0
        while True:
            try:
                return await attempt(timer)
            except (TransportError, UnavailableError) as error:
                failures += 1
                delay = self._delay(request, error, failures) if can_repeat else None
                if delay is None:
                    raise self._explain(request, error) from error
            await sleep(delay)

    async def _begin(self, request: Request, timer: Timer, body: AsyncBody | None) -> AsyncAnswer:
        connection = await self._pool.acquire(timer)
        try:
            head = await self._send(connection, request, timer, body)
        except BaseException:
            await connection.aclose()
            raise
        answer = AsyncAnswer(head, connection, self._pool, timer)
        if head.is_success:
            return answer
        try:
            raise read_error(head, await answer.read(_MAX_ERROR))
        finally:
            await answer.aclose()

    async def _send(
        self,
        connection: AsyncHttpConnection,
        request: Request,
        timer: Timer,
        body: AsyncBody | None,
    ) -> Head:
        size = len(request.body) if body is None else body.size
        head = h11.Request(
            method=request.method,
            target=self.endpoint.prefix + request.target,
            headers=self._headers + request.describe(size),
        )
        try:
            await connection.send(head, request.body if body is None else body.open(), timer)
        except TransportError as error:
            # A service may refuse a body before it has all of it.
            try:
                return await connection.receive_head(Timer(_RELEASING))
            except TransportError:
                raise error from None
        return await connection.receive_head(timer)

    def _make_timer(self, request: Request) -> Timer:
        return Timer(self.patience.request, is_total=not request.is_transfer)

    def _delay(self, request: Request, error: Exception, failures: int) -> float | None:
        """Say how long to wait before a request is made again, or None if it must not be."""
        was_refused = isinstance(error, NotConnectedError | UnavailableError)
        if failures >= self.patience.attempts or isinstance(error, SilentError):
            return None
        if not (request.can_repeat or was_refused):
            return None
        delay = self.patience.delay(failures)
        if isinstance(error, UnavailableError):
            asked = error.details.get("retry_after", delay)
            delay = asked if isinstance(asked, float) else delay
        return min(delay, self.patience.longest_delay)

    def _explain(self, request: Request, error: Exception) -> HeadraceError:
        if isinstance(error, HeadraceError):
            return error
        if isinstance(error, NotConnectedError):
            return ConnectionFailedError(f"{error}; is the service running?")
        said = str(error)
        if isinstance(error, SilentError) and not request.is_transfer:
            said = f"no answer within {self.patience.request:g} s"
        message = f"{request} at {self.endpoint}: {said}"
        if not request.can_repeat:
            message += "; it is unknown whether it was carried out"
        kind = DeadlineError if isinstance(error, SilentError) else ConnectionFailedError
        return kind(message)
