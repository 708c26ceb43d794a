"""The life of one service: what is opened in which order, and how all of it ends.

As root: sockets are bound, certificates read and files of keys prepared first; then the launcher
comes up and this process gives root up for good; only then are requests taken.
"""

import json
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio
import structlog

from headrace.engine.engine import Engine
from headrace.engine.opening import open_engine
from headrace.engine.places import Places
from headrace.server.app import make_front, make_rules
from headrace.server.auth import KeyAccess
from headrace.server.banner import Start, describe_start
from headrace.server.directories import make_root_directories
from headrace.server.ends import Ends, Owner, watch_ends
from headrace.server.front import Front, Phase
from headrace.server.listeners import Door, Listener
from headrace.server.metrics import Metrics
from headrace.server.preparation import Preparation
from headrace.server.routing import Listener as ListenerFacts
from headrace.server.settings import Settings, engine_settings

_TICK = 1.0
_LAST_WORDS = 0.5
"""Seconds for what streams still have to say after their sandboxes have ended."""

_log = structlog.stdlib.get_logger("headrace.service")


@dataclass(frozen=True, slots=True)
class Plan:
    """What one service was asked to be.

    ``say`` gets what is to be told to people. With ``owner`` it is the private server of one
    process: it shares the directories, is not announced, and ends with that process. ``ready`` is
    a descriptor that gets the line for programs.
    """

    settings: Settings
    places: Places
    say: Callable[[str], None]
    owner: Owner | None = None
    ready: int | None = None

    @property
    def is_private(self) -> bool:
        """Say whether it belongs to one process."""
        return self.owner is not None


def run(plan: Plan) -> int:
    """Be a service until something ends it; gives the exit status.

    Raises HeadraceError if it cannot come up.
    """
    make_rules(plan.settings)  # refuses what is wrong before anything is made
    return anyio.run(_live, plan, backend_options={"use_uvloop": True})


async def _live(plan: Plan) -> int:
    status = 0
    async with watch_ends(plan.owner) as ends:
        # A start that nobody wants any more is broken off.
        with anyio.CancelScope() as ends.scope:
            async with open_service(plan, ends) as service:
                ends.scope = None
                service.announce()
                await ends.asked.wait()
                _log.info("service stops", reason=ends.reason)
                await service.stop(ends)
                status = 1 if service.is_lost else 0
    _log.info("service stopped")
    return status


class Service:
    """A service that is up. Made by `open_service`, which also takes it down."""

    def __init__(
        self, plan: Plan, engine: Engine, prepared: Preparation, access: KeyAccess, metrics: Metrics
    ) -> None:
        self.engine = engine
        self.is_lost = False
        self._plan = plan
        self._prepared = prepared
        metrics.observe_engine(engine)
        self._phase = Phase()
        front = make_front(plan.settings, engine, access, metrics, self._phase)
        self._listeners = [_listen(front, door, plan.settings) for door in prepared.doors]

    @property
    def url(self) -> str | None:
        """How programs of this machine reach it over TCP."""
        return next((local_url(door) for door in self._prepared.doors if not door.is_unix), None)

    @property
    def socket(self) -> Path | None:
        """Its unix socket."""
        return next((door.path for door in self._prepared.doors if door.is_unix), None)

    async def start(self) -> None:
        """Take requests."""
        for listener in self._listeners:
            await listener.start()

    async def tick(self, ends: Ends) -> None:
        """Keep the time in answers right, and notice when there is nothing left to serve."""
        while not self.engine.is_lost:
            await anyio.sleep(_TICK)
            for listener in self._listeners:
                listener.refresh(time.time())
        self.is_lost = True
        ends.ask("the launcher has ended")

    def announce(self) -> None:
        """Tell programs, and people, that requests are taken."""
        url = self._plan.settings.server.public_url or self.url
        if self._prepared.discovery is not None:
            self._prepared.discovery.announce(url, self.socket)
        if self._plan.ready is not None:
            _write_ready(self._plan.ready, self.url, self.socket)
        elif self._plan.is_private:
            self._plan.say(ready_line(self.url, self.socket))
        if not self._plan.is_private:
            report = self.engine.report
            notes = self._prepared.notes
            self._plan.say(
                describe_start(Start(url, self.socket, self._prepared.key_place, report, notes))
            )
        _log.info("service started", url=url or "", socket=str(self.socket or ""), pid=os.getpid())

    async def stop(self, ends: Ends) -> None:
        """Take no more requests; end all sandboxes, and all streams with their last event."""
        self._phase.is_draining = True
        for listener in self._listeners:
            listener.stop_accepting()
        async with anyio.create_task_group() as tasks:
            with anyio.move_on_after(self._plan.settings.server.graceful_shutdown) as waiting:
                tasks.start_soon(_cancel_when, ends.hurried, waiting)
                await self.engine.drain("the service is shutting down")
                if any(listener.has_websockets for listener in self._listeners):
                    await anyio.sleep(_LAST_WORDS)
                for listener in self._listeners:
                    await listener.finish()
            tasks.cancel_scope.cancel()
        for listener in self._listeners:
            await listener.abort()


async def _cancel_when(event: anyio.Event, scope: anyio.CancelScope) -> None:
    await event.wait()
    scope.cancel()


@asynccontextmanager
async def open_service(plan: Plan, ends: Ends) -> AsyncIterator[Service]:
    """Bring a service up, and take down what is left of it; must be entered with one thread."""
    settings, places = plan.settings, plan.places
    mode = settings.engine.mode
    prepared = Preparation(settings.server, places, is_private=plan.is_private)
    make_root_directories(settings, places)
    metrics = Metrics()
    chosen = engine_settings(settings)
    if not plan.is_private:
        chosen["run"] = "server"
    async with AsyncExitStack() as stack:
        stack.callback(prepared.close)
        engine = await stack.enter_async_context(
            open_engine(
                mode,
                frozenset(settings.engine.require),
                places,
                prepare=prepared.prepare,
                meter=metrics,
                **chosen,
            )
        )
        access = KeyAccess(engine, prepared.open_keyring())
        service = Service(plan, engine, prepared, access, metrics)
        tasks = await stack.enter_async_context(anyio.create_task_group())
        stack.callback(tasks.cancel_scope.cancel)
        await service.start()
        tasks.start_soon(service.tick, ends)
        yield service


def _listen(front: Front, door: Door, settings: Settings) -> Listener:
    app = front.door(ListenerFacts(), is_unix=door.is_unix)
    return Listener(door, app, settings.server)


def local_url(door: Door) -> str:
    """Give the URL of a TCP socket for programs of this machine."""
    host, port = door.sock.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - read, not bound
    scheme = "https" if door.tls is not None else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def ready_line(url: str | None, socket: Path | None) -> str:
    """Give the line that tells a program where the server is."""
    path = None if socket is None else str(socket)
    return json.dumps({"url": url, "socket": path, "pid": os.getpid()})


def _write_ready(fd: int, url: str | None, socket: Path | None) -> None:
    try:
        os.write(fd, ready_line(url, socket).encode() + b"\n")
    except OSError as error:
        _log.warning("nobody to tell that requests are taken", detail=str(error))
    finally:
        os.close(fd)
