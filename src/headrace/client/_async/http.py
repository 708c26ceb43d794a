"""HTTP/1.1 over one connection, and the connections that wait to be used again."""

import os
import time
from collections.abc import AsyncIterable

import h11

from headrace.client._shared.answers import Head
from headrace.client._shared.endpoint import Endpoint
from headrace.client._shared.failure import CutError, NotConnectedError, SilentError, TransportError
from headrace.client._shared.patience import Timer, TimeUpError
from headrace.client._transport_async import AsyncConnector, AsyncWire

READ_SIZE = 64 * 1024
MAX_HEAD = 64 * 1024
MAX_IDLE = 16
IDLE_SECONDS = 30.0
"""Servers and proxies close idle connections; one that may just be closing is not used."""

_FINISHING = 1.0


class AsyncHttpConnection:
    """One connection, used for one exchange after the other."""

    def __init__(self, wire: AsyncWire) -> None:
        self._wire = wire
        self._protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD)
        self._idle_since = 0.0

    async def send(
        self, head: h11.Request, body: bytes | AsyncIterable[bytes], timer: Timer
    ) -> None:
        """Send a request."""
        try:
            data = self._protocol.send(head) or b""
            if isinstance(body, bytes):
                data += self._protocol.send(h11.Data(data=body)) or b""
            else:
                await self._send(data, timer)
                async for piece in body:
                    if self._wire.has_early_answer():
                        raise CutError("the answer began before everything was sent")
                    await self._send(self._protocol.send(h11.Data(data=piece)) or b"", timer)
                data = b""
            data += self._protocol.send(h11.EndOfMessage()) or b""
            if data:
                await self._send(data, timer)
        except h11.LocalProtocolError as error:
            raise CutError(f"this cannot be sent: {error}") from error

    async def receive_head(self, timer: Timer) -> Head:
        """Give the beginning of the answer."""
        while True:
            event = await self._next_event(timer)
            if isinstance(event, h11.Response):
                return Head(
                    event.status_code,
                    {k.decode("ascii"): v.decode("latin-1") for k, v in event.headers},
                )
            if not isinstance(event, h11.InformationalResponse):
                raise CutError("the connection ended without an answer")

    async def receive(self, timer: Timer) -> bytes:
        """Give the next piece of the body, nothing at its end."""
        while True:
            event = await self._next_event(timer)
            if not isinstance(event, h11.Data):
                return b""
            if event.data:
                return bytes(event.data)

    async def _next_event(self, timer: Timer) -> object:
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                data = await self._wire.receive(READ_SIZE, _left(timer))
                self._protocol.receive_data(data)
        except h11.RemoteProtocolError as error:
            raise CutError(f"the answer broke off or is no HTTP: {error}") from error
        return event

    async def _send(self, data: bytes, timer: Timer) -> None:
        await self._wire.send(data, _left(timer))

    def pause(self) -> bool:
        """Put the connection aside after an exchange; false if it cannot be used again.

        The end of the answer itself need not have been read yet: nobody has to wait for it now.
        """
        self._idle_since = time.monotonic()
        if self._protocol.our_state is not h11.DONE:
            return False
        return self._protocol.their_state in (h11.DONE, h11.SEND_BODY)

    async def wake(self) -> bool:
        """Make the connection ready for another exchange; false if that is not possible."""
        if time.monotonic() > self._idle_since + IDLE_SECONDS:
            return False
        try:
            if self._protocol.their_state is h11.SEND_BODY and await self.receive(
                Timer(_FINISHING)
            ):
                return False
            self._protocol.start_next_cycle()
        except (TransportError, h11.LocalProtocolError):
            return False
        return not self._wire.is_readable()

    async def aclose(self) -> None:
        """Close the connection."""
        await self._wire.aclose()

    def forget(self) -> None:
        """Leave the connection to the process from which this one was forked."""
        self._wire.forget()


class AsyncPool:
    """The connections to one service. Threads may share it; a process made by fork has its own."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._connector = AsyncConnector(endpoint)
        self._idle: list[AsyncHttpConnection] = []
        self._pid = os.getpid()

    async def acquire(self, timer: Timer) -> AsyncHttpConnection:
        """Give a connection; the caller releases or closes it. Raises NotConnectedError."""
        if self._pid != os.getpid():
            for inherited in self._idle:
                inherited.forget()
            self._idle, self._pid = [], os.getpid()
        while (connection := self._take_idle()) is not None:
            is_ready = False
            try:
                is_ready = await connection.wake()
            finally:
                if not is_ready:
                    await connection.aclose()
            if is_ready:
                return connection
        try:
            wire = await self._connector.connect(_left(timer))
        except SilentError as error:
            raise NotConnectedError(str(error)) from error
        return AsyncHttpConnection(wire)

    async def release(self, connection: AsyncHttpConnection) -> None:
        """Take a connection back after an exchange, finished or not."""
        if connection.pause() and len(self._idle) < MAX_IDLE:
            self._idle.append(connection)
        else:
            await connection.aclose()

    def _take_idle(self) -> AsyncHttpConnection | None:
        try:  # and not a look at the length first: another thread may be faster
            return self._idle.pop()
        except IndexError:
            return None

    async def aclose(self) -> None:
        """Close the connections that nobody uses."""
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.aclose()


def _left(timer: Timer) -> float:
    try:
        return timer.left()
    except TimeUpError:
        raise SilentError(f"it took longer than {timer.seconds:g} s") from None
