"""The agent's side of ``sudo``: a socket inside on which any process may ask for a root command.

The agent itself only accepts. What a client sends, descriptors included, is read by a forked
child, the monitor, which has nothing of the agent's: it starts the command, passes signals on and
tells the end. So nobody can hold the agent up, neither with half a request nor with a descriptor
that is slow to close.

Each message is one datagram of JSON. Client: the request of `spawn`, then ``{"signal": n}``.
Monitor: ``{"started": true}`` (with the terminal, if it wants one), then ``{"exit": n}`` or
``{"signal": n}``; or ``{"error": code, "detail": sentence}``. Whatever runs as root this way is
what `spawn` runs as root: no privilege beyond the sandbox, the filter and no_new_privs stay.
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
from collections.abc import Collection, Mapping
from typing import NoReturn

from headrace_guest.loop import Loop
from headrace_guest.protocol import ProtocolError, decode_body, take
from headrace_guest.skeleton import USER_ID
from headrace_guest.spawn import (
    MAX_STATUS,
    Command,
    Identity,
    OperationError,
    fork_child,
    parse_command,
    read_report,
    receive,
    run_command,
    take_number,
)
from headrace_guest.sudo_client import SOCKET

MAX_REQUEST = 128 * 1024
MAX_MONITORS = 32
"""How many commands may run at the same time; further clients wait until they are accepted."""
CALLERS = {0: "root", USER_ID: "user"}
"""Who may ask: not what root has become, for instance a package manager's download user."""

_BACKLOG = 16
_REQUEST_SECONDS = 5.0
_START_SECONDS = 10.0
_RETRY_SECONDS = 0.1
_MAX_MESSAGE = 1024
_CREDENTIALS = struct.Struct("iII")


def listen(path: str = SOCKET) -> socket.socket:
    """Open the socket that clients find; to be called as root inside, before user code runs."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(path)
        os.chmod(path, 0o666)  # noqa: PTH101, S103 - hot path; everybody inside may ask
        listener.listen(_BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


class SudoServer:
    """Accepts clients and forks a monitor for each, at most `MAX_MONITORS` at a time."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        identity: Identity,
        path_prefix: str | None,
    ) -> None:
        self._loop = loop
        self._listener = listener
        self._identity = identity
        self._path_prefix = path_prefix
        self._waiting: socket.socket | None = None
        self._monitors: set[int] = set()
        self._update()

    def reaped(self, pid: int) -> bool:
        """Take note that a child has ended; False if it is none of ours."""
        if pid not in self._monitors:
            return False
        self._monitors.discard(pid)
        self._update()
        return True

    def _update(self) -> None:
        has_room = len(self._monitors) < MAX_MONITORS and self._waiting is None
        mask = select.EPOLLIN if has_room else 0
        self._loop.watch(self._listener.fileno(), mask, self._accept)

    def _accept(self) -> None:
        if self._waiting is None:
            try:
                self._waiting, _address = self._listener.accept()
            except BlockingIOError:
                self._update()
                return
            except OSError:
                self._retry()
                return
        try:
            pid, status = fork_child(self._monitor, keep=[self._waiting.fileno()])
        except OperationError:
            self._retry()
            return
        status.close()
        # The monitor has it as well. To close the last one may take as long as the client wants,
        # because that closes what the client put into it.
        self._waiting.close()
        self._waiting = None
        self._monitors.add(pid)
        self._update()

    def _retry(self) -> None:
        """Try again when there may be a descriptor, or a process, to be had."""
        self._loop.watch(self._listener.fileno(), 0, self._accept)
        self._loop.after(_RETRY_SECONDS, self, self._accept)

    def _monitor(self, status: socket.socket) -> NoReturn:
        status.close()
        if self._waiting is None:
            raise AssertionError("a monitor has a client")
        _Monitor(self._waiting, self._identity).run(self._path_prefix)
        os._exit(0)


class _Monitor:
    """The parent of one command, in a process of its own."""

    def __init__(self, client: socket.socket, identity: Identity) -> None:
        self._client = client
        self._identity = identity

    def run(self, path_prefix: str | None) -> None:
        """Read the request, run the command, tell how it ended."""
        try:
            command, fds = self._read_request(path_prefix)
            pid, terminal = self._start(command, fds)
        except ProtocolError as error:
            self._send({"error": "invalid", "detail": str(error)})
            return
        except OperationError as error:
            self._send({"error": error.code, "detail": error.detail})
            return
        for fd in fds:
            os.close(fd)
        self._send({"started": True}, terminal[:1])
        self._attend(pid)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        self._send({"exit": code} if code >= 0 else {"signal": -code})

    def _send(self, message: Mapping[str, object], fds: Collection[int] = ()) -> None:
        """Tell the client; that it has gone is noticed when it is listened to."""
        flags = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))]
        with contextlib.suppress(OSError):
            encoded = json.dumps(message).encode("ascii")
            self._client.sendmsg([encoded], ancillary if fds else [], flags)

    # --- the request --------------------------------------------------------------------

    def _read_request(self, path_prefix: str | None) -> tuple[Command, list[int]]:
        if not _is_readable(self._client, _REQUEST_SECONDS):
            raise OperationError("failed", f"no request came within {_REQUEST_SECONDS:g} s")
        data, fds = receive(self._client, MAX_REQUEST + 1, 3)
        # Read first: an answer is lost when a socket is closed with something unread in it.
        packed = self._client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        _pid, uid, gid = _CREDENTIALS.unpack(packed)
        caller = CALLERS.get(uid)
        if caller is None:
            raise OperationError("permission_denied", f"uid {uid} may not use sudo")
        if len(data) > MAX_REQUEST:
            detail = f"the command and its environment have more than {MAX_REQUEST} bytes"
            raise OperationError("too_large", detail)
        message = dict(decode_body(data))
        named = {"SUDO_USER": caller, "SUDO_UID": str(uid), "SUDO_GID": str(gid)}
        message["env"] = {**take(message, "env", dict), **named}
        command = parse_command(message, path_prefix)
        wanted = 3 if command.size is None else 0
        if len(fds) != wanted:
            raise ProtocolError(f"a command takes {wanted} descriptors here, got {len(fds)}")
        return command, fds

    # --- the command --------------------------------------------------------------------

    def _start(self, command: Command, fds: list[int]) -> tuple[int, list[int]]:
        """Start the command; gives its pid and, if it has one, both ends of its terminal."""
        identity = self._identity

        def work(status: socket.socket) -> NoReturn:
            # A command's streams are as the client has them; their flags are its own affair.
            for number, fd in enumerate(fds):
                os.dup2(fd, number)
            for fd in fds:
                os.close(fd)
            run_command(command, identity, status)
            raise AssertionError("a command that runs does not return")

        pid, status = fork_child(work, keep=fds)
        with status:
            report, terminal = _read_status(status)
        if report is None:
            os.kill(pid, signal.SIGKILL)
            raise OperationError("failed", f"did not start within {_START_SECONDS:g} s")
        if report := report.removeprefix(b"t"):
            read_report(report)
        return pid, terminal

    def _attend(self, pid: int) -> None:
        """Pass signals on until the command ends; a client that is gone takes it along.

        The client's parent killed it, and would have killed the command of a sudo that is in the
        same process group.
        """
        pidfd = os.pidfd_open(pid)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self._client, select.POLLIN)
        while True:
            ready = {fd for fd, _event in poll.poll()}
            if pidfd in ready:
                break
            number = self._read_signal()
            _signal_group(pid, signal.SIGKILL if number is None else number)
            if number is None:
                poll.unregister(self._client)
        os.close(pidfd)

    def _read_signal(self) -> int | None:
        """Give the signal that the client passes on, 0 for nonsense, None if it has gone."""
        try:
            data, _fds = receive(self._client, _MAX_MESSAGE, 0)
            return take_number(decode_body(data), "signal", 1, 64) if data else None
        except (BlockingIOError, ProtocolError):
            return 0
        except OSError:
            return None


def _signal_group(pid: int, number: int) -> None:
    """Signal a command that was not reaped yet, and what it started."""
    with contextlib.suppress(OSError):
        os.killpg(pid, number)


def _is_readable(sock: socket.socket, seconds: float) -> bool:
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _read_status(status: socket.socket) -> tuple[bytes | None, list[int]]:
    """Read a child's report until it executes its program or ends; None if it does neither."""
    report, fds = b"", list[int]()
    while len(report) <= MAX_STATUS:
        if not _is_readable(status, _START_SECONDS):
            return None, fds
        data, more = receive(status, MAX_STATUS, 2)
        report, fds = report + data, fds + more
        if not data:
            break
    return report, fds
