"""Our end of the launcher: ask for a sandbox, a kernel, a signal, a socket; hear of their ends.

Requests and answers are JSON datagrams on one SEQPACKET socket, matched by number; descriptors
travel beside them. The launcher ends, and all sandboxes with it, when our end closes.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import anyio

import headrace_guest
from headrace.engine.config import EngineConfig, IsolationReport
from headrace.model.errors import DeadlineError, LaunchError, QuotaError, UnavailableError
from headrace.model.specs import Limits

MAX_MESSAGE = 64 * 1024
MAX_FDS = 8
_END_TIMEOUT = 20.0
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "TMPDIR")


class RefusedError(LaunchError):
    """The launcher did not do what it was asked; ``refusal`` is its short code."""

    def __init__(self, verb: str, refusal: str, detail: str) -> None:
        super().__init__(f"the launcher refused {verb}: {detail}", verb=verb, refusal=refusal)
        self.refusal = refusal


@dataclass(frozen=True, slots=True)
class ExitNotice:
    """A kernel ended or, without a name of a kernel, the whole sandbox."""

    sandbox: str
    kernel: str | None
    exit_code: int | None
    signal: int | None
    oom: bool


@dataclass(frozen=True, slots=True)
class Stats:
    """What a sandbox uses; None where the machine does not tell."""

    memory: int | None
    memory_peak: int | None
    cpu_seconds: float | None
    processes: int | None
    oom_kills: int | None


class LauncherListener(Protocol):
    """Who wants to hear what happens to a sandbox; called from the reader, so be quick."""

    def process_exited(self, notice: ExitNotice) -> None:
        """A kernel, or the agent, has ended."""

    def launcher_gone(self, detail: str) -> None:
        """The launcher ended; the sandbox is dying."""


class LauncherLink(Protocol):
    """A running launcher: our end of its socket, and how to wait for its end."""

    sock: socket.socket

    async def aclose(self) -> None:
        """Close the socket and wait, within a bound, until the launcher is gone."""


class LauncherProcess:
    """The launcher as our child process.

    `start` neither waits nor makes a thread, so that a process may give its privileges up
    between starting the launcher and opening the engine.
    """

    def __init__(self, sock: socket.socket, process: "subprocess.Popen[bytes]") -> None:
        self.sock = sock
        self._process = process

    @classmethod
    def start(cls, config: EngineConfig) -> Self:
        """Start a launcher; `Launcher.await_report` tells whether it came up."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            main = Path(headrace_guest.__file__).resolve().with_name("__main__.py")
            words = [sys.executable, "-I", str(main), "launcher", str(theirs.fileno())]
            try:
                process = subprocess.Popen(  # noqa: S603 - our own program
                    words,
                    env={name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ},
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise LaunchError(f"the launcher cannot be started: {error}") from error
        boot = {
            "mode": config.mode,
            "python_prefix": str(config.python_prefix.absolute()),
            "state_dir": str(config.state_dir.absolute()),
            "runtime_dir": str(config.runtime_dir.absolute()),
            "require": sorted(config.require),
        }
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            ours.send(json.dumps(boot).encode("ascii"))
        return cls(ours, process)

    async def aclose(self) -> None:
        """Close the socket, upon which the launcher ends, and reap it."""
        self.sock.close()
        if self._process.poll() is not None:
            return
        pidfd = os.pidfd_open(self._process.pid)
        try:
            with anyio.move_on_after(_END_TIMEOUT, shield=True) as scope:
                await anyio.wait_readable(pidfd)
            if scope.cancelled_caught:
                # Not allowed once our privileges are gone; nothing else is left to try.
                with contextlib.suppress(PermissionError):
                    self._process.kill()
        finally:
            os.close(pidfd)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await anyio.to_thread.run_sync(lambda: self._process.wait(1.0))


@dataclass(slots=True)
class _Pending:
    """A request that waits for its answer."""

    answered: anyio.Event = field(default_factory=anyio.Event)
    fields: Mapping[str, Any] | None = None
    fds: list[int] = field(default_factory=list)


class Launcher:
    """The verbs, for the engine. `run` reads answers and notices until the launcher is gone."""

    def __init__(self, link: LauncherLink, *, timeout: float) -> None:
        self._link = link
        self._sock = link.sock
        self._sock.setblocking(False)
        self._timeout = timeout
        self._pending: dict[int, _Pending] = {}
        self._listeners: dict[str, LauncherListener] = {}
        self._last_number = 0
        self._sending = anyio.Lock()
        self._gone: str | None = None

    # --- life ---------------------------------------------------------------------------------

    async def await_report(self, timeout: float) -> IsolationReport:  # noqa: ASYNC109 - a setting
        """Wait until the launcher is ready; raises LaunchError with its own words if it fails."""
        with anyio.move_on_after(timeout):
            message, _fds = await self._receive()
            if message is None:
                raise LaunchError("the launcher ended before it was ready")
            if message.get("notice") != "ready":
                raise LaunchError(f"the launcher did not come up: {message.get('detail')}")
            return IsolationReport.read(message.get("report"))
        raise LaunchError(f"the launcher was not ready within {timeout:g} s")

    async def run(self) -> None:
        """Deliver answers and notices until the launcher ends; then tell everybody."""
        detail = "the launcher ended"
        try:
            while True:
                message, fds = await self._receive()
                if message is None:
                    break
                self._deliver(message, fds)
        except LaunchError as error:
            detail = error.message
        self._end(detail)

    @property
    def is_gone(self) -> bool:
        """Say whether the launcher has ended, and every sandbox with it."""
        return self._gone is not None

    def listen(self, sandbox: str, listener: LauncherListener) -> None:
        """Tell ``listener`` of a sandbox's exits, until `forget`."""
        self._listeners[sandbox] = listener

    def forget(self, sandbox: str) -> None:
        """Tell nobody any more; safe to call twice."""
        self._listeners.pop(sandbox, None)

    async def aclose(self) -> None:
        """End the launcher and every sandbox that is left; `run` must have been cancelled."""
        self._end("the engine was closed")
        await self._link.aclose()

    def _end(self, detail: str) -> None:
        if self._gone is not None:
            return
        self._gone = detail
        for pending in self._pending.values():
            pending.answered.set()
        self._pending.clear()
        for listener in list(self._listeners.values()):
            listener.launcher_gone(detail)

    # --- verbs --------------------------------------------------------------------------------

    async def create(self, sandbox: str, limits: Limits, control: int) -> None:
        """Make a sandbox; its agent gets ``control`` as its socket."""
        wanted = {
            "memory": limits.memory,
            "disk": limits.disk,
            "inodes": limits.inodes,
            "processes": limits.processes,
            "open_files": limits.open_files,
            "cpus": limits.cpus,
        }
        await self._ask("create", {"sandbox": sandbox, "limits": wanted}, [control])

    async def start_kernel(
        self, sandbox: str, kernel: str, language: str, fds: Sequence[int]
    ) -> None:
        """Fork a kernel into a sandbox; ``fds`` are its event socket, stdout and stderr."""
        wanted = {"sandbox": sandbox, "kernel": kernel, "language": language}
        await self._ask("kernel", wanted, fds)

    async def signal_kernel(self, sandbox: str, kernel: str, number: int) -> None:
        """Signal a kernel's process group; a kernel that is gone already is no error."""
        await self._ask_the_living("signal", sandbox=sandbox, kernel=kernel, signal=number)

    async def kill_kernel(self, sandbox: str, kernel: str) -> None:
        """Kill a kernel's process group; a kernel that is gone already is no error."""
        await self._ask_the_living("kill_kernel", sandbox=sandbox, kernel=kernel)

    async def freeze(self, sandbox: str) -> None:
        """Stop every process of a sandbox where it stands."""
        await self._ask("freeze", {"sandbox": sandbox})

    async def thaw(self, sandbox: str) -> None:
        """Let the processes of a frozen sandbox go on."""
        await self._ask("thaw", {"sandbox": sandbox})

    async def kill(self, sandbox: str) -> None:
        """Kill a sandbox and wait until nothing of it is left; safe to run twice."""
        await self._ask("kill", {"sandbox": sandbox})

    async def open_socket(self, sandbox: str, family: str) -> socket.socket:
        """Give a TCP socket that lives in a sandbox's network; not connected, non-blocking."""
        _fields, fds = await self._ask("socket", {"sandbox": sandbox, "family": family})
        if len(fds) != 1:
            _close_all(fds)
            raise LaunchError(f"the launcher sent {len(fds)} descriptors for one socket")
        made = socket.socket(fileno=fds[0])
        made.setblocking(False)
        return made

    async def stats(self, sandbox: str) -> Stats:
        """Tell what a sandbox uses."""
        fields, _fds = await self._ask("stats", {"sandbox": sandbox})
        return Stats(**{name: fields.get(name) for name in Stats.__slots__})

    # --- requests -----------------------------------------------------------------------------

    async def _ask_the_living(self, verb: str, **fields: object) -> None:
        try:
            await self._ask(verb, fields)
        except RefusedError as error:
            if error.refusal != "not_found":
                raise

    async def _ask(
        self, verb: str, fields: Mapping[str, object], send_fds: Sequence[int] = ()
    ) -> tuple[Mapping[str, Any], list[int]]:
        self._last_number += 1
        number = self._last_number
        pending = self._pending[number] = _Pending()
        message = json.dumps({"id": number, "verb": verb, **fields}).encode("ascii")
        taken: list[int] = []
        try:
            with anyio.move_on_after(self._timeout) as scope:
                await self._send(message, send_fds)
                await pending.answered.wait()
            answer = pending.fields
            if answer is None:
                if scope.cancelled_caught:
                    raise DeadlineError(f"no answer to {verb} within {self._timeout:g} s")
                raise UnavailableError(f"no answer to {verb}: {self._gone}")
            if not answer.get("ok"):
                raise RefusedError(verb, str(answer.get("error")), str(answer.get("detail")))
            taken, pending.fds = pending.fds, taken
            return answer, taken
        finally:
            self._pending.pop(number, None)
            _close_all(pending.fds)

    async def _send(self, message: bytes, fds: Sequence[int]) -> None:
        async with self._sending:
            while True:
                if self._gone is not None:
                    raise UnavailableError(f"sandboxes cannot be reached: {self._gone}")
                try:
                    socket.send_fds(self._sock, [message], list(fds))
                except BlockingIOError:
                    await anyio.wait_writable(self._sock)
                except (BrokenPipeError, ConnectionResetError) as error:
                    raise UnavailableError("sandboxes cannot be reached: no launcher") from error
                except OSError as error:
                    raise QuotaError(f"the launcher cannot be asked: {error.strerror}") from error
                else:
                    return

    async def _receive(self) -> tuple[dict[str, Any] | None, list[int]]:
        """Read one datagram; None is the launcher's end."""
        while True:
            try:
                data, fds, _flags, _address = socket.recv_fds(self._sock, MAX_MESSAGE, MAX_FDS)
            except BlockingIOError:
                await anyio.wait_readable(self._sock)
                continue
            except ConnectionResetError:
                data, fds = b"", []
            if not data:
                return None, []
            try:
                return dict(json.loads(data)), fds
            except (ValueError, TypeError) as error:
                _close_all(fds)
                raise LaunchError(f"the launcher sent something unreadable: {error}") from error

    def _deliver(self, message: dict[str, Any], fds: list[int]) -> None:
        number = message.get("id")
        pending = self._pending.get(number) if isinstance(number, int) else None
        if pending is not None and pending.fields is None:
            pending.fields, pending.fds = message, fds
            pending.answered.set()
            return
        # Nobody waits for it any more, or it is a notice.
        _close_all(fds)
        if message.get("notice") == "exit":
            notice = _read_exit(message)
            listener = self._listeners.get(notice.sandbox)
            if listener is not None:
                listener.process_exited(notice)


def _read_exit(message: Mapping[str, Any]) -> ExitNotice:
    try:
        return ExitNotice(
            sandbox=str(message["sandbox"]),
            kernel=message["kernel"],
            exit_code=message["exit_code"],
            signal=message["signal"],
            oom=bool(message["oom"]),
        )
    except KeyError as error:
        raise LaunchError(f"an exit notice lacks {error}") from error


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
