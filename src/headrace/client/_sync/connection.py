# Made from the async face by scripts/generate-sync; change that one.
"""Requests to one service: sending, trying again where that is harmless, errors as exceptions."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

import h11

from headrace import __version__
from headrace.client._shared.answers import Head, read, read_error
from headrace.client._shared.endpoint import Endpoint
from headrace.client._shared.failure import NotConnectedError, SilentError, TransportError
from headrace.client._shared.fields import Fields
from headrace.client._shared.patience import Patience, Timer
from headrace.client._shared.request import Request
from headrace.client._sync.http import HttpConnection, Pool
from headrace.client._transport_sync import shielded, sleep
from headrace.client.errors import ConnectionFailedError
from headrace.model.errors import DeadlineError, HeadraceError, UnavailableError

T = TypeVar("T")

MAX_ANSWER = 512 * 1024 * 1024
"""Bytes of an answer that is read as a whole."""

_MAX_ERROR = 1024 * 1024
_RELEASING = 1.0


class Body(Protocol):
    """What is sent with a request, when that is more than a few bytes."""

    @property
    def size(self) -> int | None:
        """The number of bytes, or None if that is not known before."""

    @property
    def can_repeat(self) -> bool:
        """Whether ``open`` may be called again."""

    def open(self) -> Iterable[bytes]:
        """Give the bytes."""


class Answer:
    """An answer whose body is still to be read; close it."""

    def __init__(self, head: Head, connection: HttpConnection, pool: Pool, timer: Timer) -> None:
        self.head = head
        self._connection: HttpConnection | None = connection
        self._pool = pool
        self._timer = timer

    def receive(self, timer: Timer | None = None) -> bytes:
        """Give the next piece of the body, nothing at its end."""
        if self._connection is None:
            return b""
        data = self._connection.receive(timer or self._timer)
        if not data:
            self.finish()
        return data

    def read(self, maximum: int = MAX_ANSWER) -> bytes:
        """Give the whole body."""
        pieces, size = [], 0
        while data := self.receive():
            size += len(data)
            if size > maximum:
                raise ConnectionFailedError(f"the answer is longer than {maximum} bytes")
            pieces.append(data)
        return b"".join(pieces)

    def finish(self) -> None:
        """Keep the connection for another request: nothing more is to come of the body."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._pool.release(connection)

    def close(self) -> None:
        """Leave off here: the connection is closed, unless the answer was read to its end."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


class Connection:
    """A client of one service."""

    def __init__(self, endpoint: Endpoint, patience: Patience) -> None:
        self.endpoint = endpoint
        self.patience = patience
        self._pool = Pool(endpoint)
        self._headers = [
            ("host", endpoint.authority),
            ("user-agent", f"headrace-python/{__version__}"),
            ("authorization", f"Bearer {endpoint.key}"),
        ]

    def call(self, request: Request, reader: Callable[[Fields], T], body: Body | None = None) -> T:
        """Make a request and read the answer, which is JSON."""
        return read(self.fetch(request, body), reader)

    def fetch(self, request: Request, body: Body | None = None) -> bytes:
        """Make a request and give the body of the answer."""
        return self.exchange(request, Answer.read, body)

    def exchange(
        self,
        request: Request,
        receive: Callable[[Answer], T],
        body: Body | None = None,
    ) -> T:
        """Make a request and give what ``receive`` makes of the answer.

        If the connection breaks and that is harmless, both are done again.
        """

        def attempt(timer: Timer) -> T:
            answer = self._begin(request, timer, body)
            try:
                return receive(answer)
            finally:
                answer.close()

        return self._repeat(request, attempt, can_repeat=body is None or body.can_repeat)

    def open(self, request: Request) -> Answer:
        """Make a request and give the answer as soon as it begins; the caller closes it."""

        def attempt(timer: Timer) -> Answer:
            return self._begin(request, timer, None)

        return self._repeat(request, attempt, can_repeat=True)

    def open_once(self, request: Request) -> Answer:
        """Do as `open`, but only once; raises TransportError as it is."""
        return self._begin(request, self._make_timer(request), None)

    def close(self) -> None:
        """Close the connections that nobody uses; more requests may follow."""
        with shielded(_RELEASING):
            self._pool.close()

    def _repeat(self, request: Request, attempt: Callable[[Timer], T], *, can_repeat: bool) -> T:
        timer = self._make_timer(request)
        failures = 0
        while True:
            try:
                return attempt(timer)
            except (TransportError, UnavailableError) as error:
                failures += 1
                delay = self._delay(request, error, failures) if can_repeat else None
                if delay is None:
                    raise self._explain(request, error) from error
            sleep(delay)

    def _begin(self, request: Request, timer: Timer, body: Body | None) -> Answer:
        connection = self._pool.acquire(timer)
        try:
            head = self._send(connection, request, timer, body)
        except BaseException:
            connection.close()
            raise
        answer = Answer(head, connection, self._pool, timer)
        if head.is_success:
            return answer
        try:
            raise read_error(head, answer.read(_MAX_ERROR))
        finally:
            answer.close()

    def _send(
        self,
        connection: HttpConnection,
        request: Request,
        timer: Timer,
        body: Body | None,
    ) -> Head:
        size = len(request.body) if body is None else body.size
        head = h11.Request(
            method=request.method,
            target=self.endpoint.prefix + request.target,
            headers=self._headers + request.describe(size),
        )
        try:
            connection.send(head, request.body if body is None else body.open(), timer)
        except TransportError as error:
            # A service may refuse a body before it has all of it.
            try:
                return connection.receive_head(Timer(_RELEASING))
            except TransportError:
                raise error from None
        return connection.receive_head(timer)

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
