"""One HTTP/1.1 connection to a server in a sandbox; whatever that sends is checked and bounded."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import lru_cache

import anyio
import h11
from anyio.abc import ByteStream
from anyio.streams.tls import TLSStream

from headrace.adapters.ports.route import Route
from headrace.adapters.ports.settings import PortSettings
from headrace.model.errors import DeadlineError, InvalidRequestError, PortUnreachableError

_PIECE = 64 * 1024
_LAST_STATUS = 599
_CONTINUE, _SWITCHING = 100, 101

Head = h11.Response | h11.InformationalResponse
"""The head of an answer; the second kind only where the protocol changes (status 101)."""
Event = Head | h11.Data | h11.EndOfMessage


class GuestConnection:
    """Sends one request and reads its answer. Open it with `connect`, which also closes it.

    What the guest does wrong is a PortUnreachableError.
    """

    def __init__(self, stream: ByteStream, port: int, settings: PortSettings) -> None:
        self.stream = stream
        self._port = port
        self._settings = settings
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=settings.max_head)
        self._informational = 0

    async def send(self, event: h11.Request | h11.Data | h11.EndOfMessage) -> None:
        """Send a piece of the request; raises InvalidRequestError if the client made it wrong."""
        try:
            data = self._h11.send(event)
        except h11.LocalProtocolError as error:
            raise InvalidRequestError(f"the request cannot be passed on: {error}") from error
        try:
            if data:
                await self.stream.send(data)
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise self._broken("closed the connection") from error

    async def receive_head(self, on_continue: Callable[[], None]) -> Head:
        """Give the head of the answer; what comes ahead of it is left out."""
        while True:
            event = await self.receive()
            if isinstance(event, h11.Data | h11.EndOfMessage):
                raise self._broken("sent a body without a head")
            if isinstance(event, h11.Response) or event.status_code == _SWITCHING:
                return event
            if event.status_code == _CONTINUE:
                on_continue()

    async def receive(self) -> Event:
        """Give the next piece of the answer."""
        while (event := self.poll()) is None:
            try:
                data = await self.stream.receive(_PIECE)
            except anyio.EndOfStream:
                data = b""
            except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                raise self._broken("broke the connection off") from error
            try:
                self._h11.receive_data(data)
            except (h11.RemoteProtocolError, RuntimeError) as error:
                raise self._broken(f"sent something that is not HTTP: {error}") from error
        return event

    def poll(self) -> Event | None:
        """Give the next piece if it has arrived completely already."""
        try:
            event = self._h11.next_event()
        except (h11.RemoteProtocolError, ValueError) as error:
            raise self._broken(f"sent something that is not HTTP: {error}") from error
        if event is h11.NEED_DATA:
            return None
        if isinstance(event, Head):
            self._check_head(event)
        elif not isinstance(event, h11.Data | h11.EndOfMessage):
            raise self._broken("closed the connection without an answer")
        return event

    @property
    def surplus(self) -> bytes:
        """What came behind an answer that changed the protocol."""
        return bytes(self._h11.trailing_data[0])

    def _check_head(self, head: Head) -> None:
        if len(head.headers) > self._settings.max_headers:
            raise self._broken(f"sent more than {self._settings.max_headers} headers")
        if head.status_code > _LAST_STATUS:
            raise self._broken(f"sent the status {head.status_code}")
        if isinstance(head, h11.InformationalResponse):
            self._informational += 1
            if self._informational > self._settings.max_informational:
                raise self._broken("sent one preliminary answer after the other")

    def _broken(self, what: str) -> PortUnreachableError:
        return PortUnreachableError(f"the server at port {self._port} {what}", port=self._port)


@asynccontextmanager
async def connect(route: Route, settings: PortSettings) -> AsyncIterator[GuestConnection]:
    """Connect to a server in a sandbox, by IPv4 or else by IPv6; closes at once at the end.

    Raises PortUnreachableError if nothing listens, DeadlineError if it does not answer.
    """
    stream = await _open(route, settings)
    try:
        yield GuestConnection(stream, route.port, settings)
    finally:
        await anyio.aclose_forcefully(stream)


async def _open(route: Route, settings: PortSettings) -> ByteStream:
    try:
        with anyio.fail_after(settings.connect_timeout):
            stream = await _open_either(route)
            return await _wrap(stream, route) if route.has_tls else stream
    except TimeoutError as error:
        raise DeadlineError(
            f"port {route.port} did not answer within {settings.connect_timeout:g} s",
            port=route.port,
        ) from error


async def _open_either(route: Route) -> ByteStream:
    try:
        return await route.sandbox.open_port(route.port)
    except PortUnreachableError as first:
        try:
            return await route.sandbox.open_port(route.port, "::1")
        except PortUnreachableError:
            raise first from None


async def _wrap(stream: ByteStream, route: Route) -> ByteStream:
    """Speak TLS from here on; closes the connection if that fails."""
    try:
        return await TLSStream.wrap(
            stream,
            server_side=False,
            hostname="localhost",
            ssl_context=_make_context(),
            standard_compatible=False,  # servers seldom say that they close
        )
    except BaseException as error:
        await anyio.aclose_forcefully(stream)
        if isinstance(error, ssl.SSLError | anyio.EndOfStream | anyio.BrokenResourceError):
            raise PortUnreachableError(
                f"the server at port {route.port} does not speak TLS", port=route.port
            ) from error
        raise


@lru_cache(maxsize=1)
def _make_context() -> ssl.SSLContext:
    """Give what TLS needs. Servers in sandboxes vouch for themselves, and nobody is in between."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
