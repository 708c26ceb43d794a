"""The launcher's end of a fork server: starts it, orders forks, restarts it when it dies."""

import contextlib
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAX_MESSAGE = 64 * 1024
MAX_WAITING = 1024
MAX_RESTARTS = 5
STABLE_AFTER = 60.0

Forked = Callable[[int, int], None]
Failed = Callable[[str], None]
Exited = Callable[[int, int], None]


class ForkServerGoneError(Exception):
    """The fork server died and takes no more orders."""


@dataclass(frozen=True)
class StartPlan:
    """How a fork server is started: which interpreter, and what it is told."""

    python: str
    env: Mapping[str, str]
    boot: Mapping[str, Any]


class ForkServer:
    """A fork server process, as long as the launcher lives.

    Orders that come before it is ready wait. When it dies, open orders fail, a new one is
    started, and what the old one forked goes on: the launcher, a subreaper, becomes its parent.
    """

    def __init__(self, plan: StartPlan) -> None:
        self._plan = plan
        self._orders: dict[int, tuple[Forked, Failed]] = {}
        self._waiting: list[tuple[bytes, list[int]]] = []
        self._next_key = 0
        self._restarts = 0
        self._ready_since: float | None = None
        self.facts: dict[str, Any] = {}
        self.is_ready = False
        self._sock = self._start()

    def fileno(self) -> int:
        """Give the descriptor that becomes readable."""
        return self._sock.fileno()

    def _start(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            main = str(Path(__file__).with_name("__main__.py"))
            words = [self._plan.python, "-I", main, "fork-server", str(theirs.fileno())]
            process = subprocess.Popen(  # noqa: S603 - our own program
                words,
                env=dict(self._plan.env),
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        # The launcher reaps all its children itself.
        process.returncode = 0
        self.pid = process.pid
        ours.send(json.dumps(self._plan.boot).encode())
        return ours

    def fork(
        self, order: Mapping[str, Any], fds: list[int], forked: Forked, failed: Failed
    ) -> None:
        """Order a fork. ``forked`` gets the pid and a pidfd, which it owns; else ``failed``."""
        if len(self._waiting) >= MAX_WAITING:
            raise ForkServerGoneError(f"{MAX_WAITING} orders wait for a fork server already")
        self._next_key += 1
        message = json.dumps({**order, "key": self._next_key}).encode()
        if self.is_ready:
            try:
                socket.send_fds(self._sock, [message], fds)
            except (BrokenPipeError, ConnectionResetError) as error:
                raise ForkServerGoneError("the fork server died; it is being restarted") from error
        else:
            self._waiting.append((message, [os.dup(fd) for fd in fds]))
        self._orders[self._next_key] = (forked, failed)

    def read(self, exited: Exited) -> None:
        """Read one message; ``exited`` hears of each child that ended."""
        try:
            message, fds, _flags, _address = socket.recv_fds(self._sock, MAX_MESSAGE, 1)
        except ConnectionResetError:
            message, fds = b"", []
        if not message:
            self._restart()
            return
        fields = json.loads(message)
        if "exited" in fields:
            exited(fields["exited"], fields["status"])
        elif "ready" in fields:
            self.facts = fields["facts"]
            self._become_ready()
        else:
            forked, failed = self._orders.pop(fields["key"])
            if "error" in fields:
                failed(fields["error"])
            else:
                forked(fields["pid"], fds[0])

    def _become_ready(self) -> None:
        self.is_ready = True
        self._ready_since = time.monotonic()
        waiting, self._waiting = self._waiting, []
        for message, fds in waiting:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                socket.send_fds(self._sock, [message], fds)
            for fd in fds:
                os.close(fd)

    def _restart(self) -> None:
        self._sock.close()
        self.is_ready = False
        orders, self._orders = self._orders, {}
        self._drop_waiting()
        if self._ready_since is None:
            raise ForkServerGoneError(f"the {self._plan.boot['role']} fork server did not start")
        is_stable = time.monotonic() - self._ready_since > STABLE_AFTER
        self._restarts = 1 if is_stable else self._restarts + 1
        if self._restarts > MAX_RESTARTS:
            raise ForkServerGoneError(f"a fork server died {self._restarts} times in a row")
        self._sock = self._start()
        for _forked, failed in orders.values():
            failed("the fork server died")

    def _drop_waiting(self) -> None:
        for _message, fds in self._waiting:
            for fd in fds:
                os.close(fd)
        self._waiting.clear()

    def close(self) -> None:
        """Let it end by closing its socket; children of its own are not waited for."""
        self._drop_waiting()
        self._sock.close()
