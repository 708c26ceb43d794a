"""Servers for tests: the whole service on real sockets, in this process or in one of its own."""

import json
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from headrace.engine.engine import Engine
from headrace.server.app import make_front
from headrace.server.auth import KeyAccess, Keyring
from headrace.server.front import Front, Phase
from headrace.server.keys import KeyRecord, hash_key
from headrace.server.listeners import Door, Listener, bind_tcp, bind_unix
from headrace.server.metrics import Metrics
from headrace.server.routing import Listener as ListenerFacts
from headrace.server.settings import Settings
from tests.support.fakes import FakeLauncher, open_fake_engine
from tests.support.modes import current_mode
from tests.support.running import open_engine

KEY = "0123456789abcdef0123456789abcdef01234567"
OTHER_KEY = "fedcba9876543210fedcba9876543210fedcba98"
"""The key of another tenant, ``other``."""


@dataclass
class InProcessServer:
    """A service in this process. ``launcher`` is there if the engine's launcher is fake."""

    engine: Engine
    launcher: FakeLauncher | None
    url: str
    port: int
    socket: Path
    front: Front
    phase: Phase
    listeners: list[Listener]
    key: str = KEY
    other_key: str = OTHER_KEY

    @property
    def headers(self) -> dict[str, str]:
        """The header that a request needs."""
        return {"authorization": f"Bearer {self.key}"}


@asynccontextmanager
async def open_server(
    directory: Path,
    *,
    fake: bool = False,
    engine: Engine | None = None,
    engine_settings: dict[str, Any] | None = None,
    **server: Any,
) -> AsyncIterator[InProcessServer]:
    """Serve on a free loopback port and on a unix socket, for the tenants of both keys.

    With ``fake`` the engine has a fake launcher; ``engine`` is one that is open already, such as
    that of the session. ``engine_settings`` are fields of `EngineConfig`, ``server`` are settings
    of the topic ``server``.
    """
    settings = Settings.model_validate({"server": {"port": 0, **server}})
    metrics = Metrics()
    launcher: FakeLauncher | None = None
    async with AsyncExitStack() as stack:
        if engine is None and fake:
            engine, launcher = await stack.enter_async_context(
                open_fake_engine(directory, meter=metrics, **(engine_settings or {}))
            )
        elif engine is None:
            chosen = {"pool_size": 0, **(engine_settings or {})}
            engine = await stack.enter_async_context(open_engine(directory, **chosen))
        assert engine is not None
        metrics.observe_engine(engine)
        phase = Phase()
        keys = [
            KeyRecord("one", "default", "", hash_key(KEY), 0.0),
            KeyRecord("two", "other", "", hash_key(OTHER_KEY), 0.0),
        ]
        front = make_front(settings, engine, KeyAccess(engine, Keyring(keys)), metrics, phase)
        path = directory / "s.sock"
        doors = [Door(bind_tcp("127.0.0.1", 0)), bind_unix(path)]
        port = doors[0].sock.getsockname()[1]
        listeners = [
            Listener(door, front.door(ListenerFacts(), is_unix=door.is_unix), settings.server)
            for door in doors
        ]
        for listener in listeners:
            await listener.start()
        try:
            yield InProcessServer(
                engine, launcher, f"http://127.0.0.1:{port}", port, path, front, phase, listeners
            )
        finally:
            phase.is_draining = True
            for listener in listeners:
                listener.stop_accepting()
                await listener.abort()


# --- in a process of its own --------------------------------------------------------------------

COMMAND = Path(sys.prefix) / "bin" / "headrace"
PATIENCE = 90.0
"""Seconds for a service to start or to end; on a busy machine that takes some."""


@dataclass
class ServiceProcess:
    """A service that ``headrace serve`` is, with directories of its own."""

    process: "subprocess.Popen[bytes]"
    directory: Path

    @property
    def state(self) -> Path:
        """Its directory for what must last."""
        return self.directory / "state"

    @property
    def runtime(self) -> Path:
        """Its directory for what is gone at the end."""
        return self.directory / "runtime"

    @property
    def record(self) -> dict[str, Any]:
        """What it tells programs of this machine."""
        record: dict[str, Any] = json.loads((self.runtime / "server.json").read_text())
        return record

    @property
    def url(self) -> str:
        """Its URL."""
        return str(self.record["url"])

    @property
    def key(self) -> str:
        """The key that it made."""
        return (self.state / "key").read_text().strip()

    @property
    def output(self) -> str:
        """What it wrote so far."""
        return (self.directory / "output").read_text()

    @property
    def errors(self) -> str:
        """Its log so far."""
        return (self.directory / "errors").read_text()

    def client(self, key: str | None = None, **options: Any) -> httpx.Client:
        """Give a client that has its key."""
        headers = {"authorization": f"Bearer {key or self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=PATIENCE, **options)

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def wait(self) -> int:
        """Wait for its end and give its exit status."""
        return self.process.wait(PATIENCE)


def flags_for(directory: Path) -> list[str]:
    """Give the flags of a service of the tested mode with directories below this one."""
    return [
        *("--mode", current_mode().value),
        *("--state-dir", str(directory / "state")),
        *("--runtime-dir", str(directory / "runtime")),
    ]


def clean_environment(**more: str) -> dict[str, str]:
    """Give this environment without our own variables but those named."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HEADRACE_")}
    return kept | more


@contextmanager
def started_service(
    directory: Path, *flags: str, is_ready: bool = True, **variables: str
) -> Iterator[ServiceProcess]:
    """Run ``headrace serve`` on a free port, ready to take requests; end it at the end."""
    command = [
        str(COMMAND),
        "serve",
        "--port",
        "0",
        "--pool-size",
        "0",
        *flags_for(directory),
        *flags,
    ]
    with (directory / "output").open("wb") as output, (directory / "errors").open("wb") as errors:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=errors,
            env=clean_environment(**variables),
            process_group=0,
        )
    service = ServiceProcess(process, directory)
    try:
        if is_ready:
            _await_ready(service)
        yield service
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()


def _await_ready(service: ServiceProcess) -> None:
    deadline = time.monotonic() + PATIENCE
    while "takes requests" not in service.output:
        assert service.process.poll() is None, service.errors
        assert time.monotonic() < deadline, "the service does not start"
        time.sleep(0.05)


# --- using it ---------------------------------------------------------------------------------


def create_sandbox(client: httpx.Client) -> str:
    """Make a sandbox and give its id."""
    answer = client.post("/v1/sandboxes")
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def execute(client: httpx.Client, sandbox: str, code: str) -> httpx.Response:
    """Run code and give the answer with the outcome."""
    return client.post(
        f"/v1/sandboxes/{sandbox}/executions",
        json={"code": code},
        headers={"accept": "application/json"},
    )


def run_headrace(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a command with none of our variables but those named."""
    return subprocess.run(
        [COMMAND, *arguments],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=clean_environment(**variables),
        stdin=subprocess.DEVNULL,
    )
