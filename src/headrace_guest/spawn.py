"""How the agent starts children and hears from them: forking, reports, commands.

Every child reports through a status socket of its own and holds no other descriptor of the
agent's. A command's socket closes on exec, which is the report that it runs.
"""

import contextlib
import errno
import fcntl
import json
import os
import posixpath
import select
import signal
import socket
import struct
import termios
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

from headrace_guest import linux
from headrace_guest.loop import Loop
from headrace_guest.protocol import AGENT_ERRORS, Json, ProtocolError, decode_body, take
from headrace_guest.terminal import PtyRelay, set_terminal_size

MAX_STATUS = 64 * 1024
"""The largest report of a child."""
MAX_PATH = 4096
USERS = ("user", "root")

_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_HOMES = {"user": b"/home/user", "root": b"/root"}
_ALL_SIGNALS = frozenset(signal.valid_signals())
_SETTABLE_SIGNALS = sorted(_ALL_SIGNALS - {signal.SIGKILL, signal.SIGSTOP})
_START_SECONDS = 10.0
_MAX_WORDS = 65_536
_INT = struct.Struct("i")

_ERROR_CODES = {
    errno.ENOENT: "not_found",
    errno.EEXIST: "already_exists",
    errno.ENOTDIR: "not_a_directory",
    errno.EISDIR: "is_a_directory",
    errno.ENOTEMPTY: "not_empty",
    errno.EACCES: "permission_denied",
    errno.EPERM: "permission_denied",
    errno.EROFS: "permission_denied",
    errno.ENOSPC: "no_space",
    errno.EDQUOT: "no_space",
    errno.EFBIG: "too_large",
    errno.E2BIG: "too_large",
    errno.EINVAL: "invalid",
    errno.ELOOP: "invalid",
    errno.ENAMETOOLONG: "invalid",
}


class OperationError(Exception):
    """What was asked cannot be done; ``code`` is one of `protocol.AGENT_ERRORS`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def operation_error(error: OSError, what: str) -> OperationError:
    """Translate a refusal of the kernel; ``what`` names the path or the command."""
    number = error.errno
    if not isinstance(number, int):
        return OperationError("failed", f"{what}: {error}")
    return OperationError(_ERROR_CODES.get(number, "failed"), f"{what}: {os.strerror(number)}")


def show(path: bytes) -> str:
    """Give a path for people, who may meet U+FFFD where it is not UTF-8."""
    return path.decode("utf-8", "replace")


def take_bytes(message: Mapping[str, Any], key: str, maximum: int) -> bytes:
    """Give a text field as the bytes that the kernel gets.

    Lone surrogates U+DC80 to U+DCFF stand for single bytes that are not UTF-8, as everywhere in
    Python; that is also how such names are told to the host.
    """
    return _encode(key, take(message, key, str), maximum)


def take_path(message: Mapping[str, Any], key: str = "path") -> bytes:
    """Give an absolute path without the slashes at its end."""
    path = take_bytes(message, key, MAX_PATH)
    if not path.startswith(b"/"):
        raise ProtocolError(f"{key} must be absolute, got {show(path)!r}")
    return path.rstrip(b"/") or b"/"


def take_user(message: Mapping[str, Any]) -> str:
    """Give the name of a user that a sandbox has."""
    user: str = take(message, "user", str)
    if user not in USERS:
        raise ProtocolError(f"unknown user {user[:80]!r}, expected one of {', '.join(USERS)}")
    return user


def take_number(message: Mapping[str, Any], key: str, low: int, high: int) -> int:
    """Give a whole number between two bounds, both included."""
    value: int = take(message, key, int)
    if not low <= value <= high:
        raise ProtocolError(f"{key} must be {low} to {high}")
    return value


def _encode(name: str, text: object, maximum: int) -> bytes:
    if not isinstance(text, str):
        raise ProtocolError(f"{name} must be text, got {type(text).__name__}")
    if "\0" in text:
        raise ProtocolError(f"{name} contains a NUL character at {text.index(chr(0))}")
    try:
        encoded = text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as error:
        raise ProtocolError(f"{name} contains a lone surrogate at {error.start}") from error
    if len(encoded) > maximum:
        raise ProtocolError(f"{name} has {len(encoded)} bytes, at most {maximum} are allowed")
    return encoded


# --- children -------------------------------------------------------------------------------

Work = Callable[[socket.socket], Mapping[str, Json]]


def fork_child(
    work: Work, keep: Collection[int] = (), stdio: Sequence[int] = ()
) -> tuple[int, socket.socket]:
    """Fork a child that does ``work`` and reports what it returns or raises.

    The child keeps the descriptors 0 to 2 (``stdio`` is put there), its status socket and
    ``keep``. Gives its process id and the agent's end of the status socket, which the caller
    closes. Signals are blocked across the fork, so that one sent to the child at once is not
    swallowed by a disposition that it inherited.
    """
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    before = signal.pthread_sigmask(signal.SIG_SETMASK, _ALL_SIGNALS)
    try:
        pid = os.fork()
        if pid == 0:
            _run_child(work, theirs, keep, stdio)
    except OSError as error:
        ours.close()
        raise operation_error(error, "no new process") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()
    return pid, ours


def _run_child(
    work: Work, status: socket.socket, keep: Collection[int], stdio: Sequence[int]
) -> NoReturn:
    code = 1
    try:
        message: dict[str, Any]
        try:
            _settle_child(status, keep, stdio)
            message = {"value": work(status)}
            code = 0
        except OperationError as error:
            message = {"error": error.code, "detail": error.detail[:8000]}
        except BaseException as error:  # noqa: BLE001 - it must never return into the agent's loop
            message = {"error": "failed", "detail": f"{type(error).__name__}: {error}"[:8000]}
        status.sendall(json.dumps(message).encode("ascii"))
    finally:
        os._exit(code)


def _settle_child(status: socket.socket, keep: Collection[int], stdio: Sequence[int]) -> None:
    """Leave behind what belongs to the agent: its session, descriptors and signals."""
    signal.set_wakeup_fd(-1)
    os.setsid()
    for number, fd in enumerate(stdio):
        os.dup2(fd, number)
        os.set_blocking(number, True)
    first = 3
    for fd in sorted({status.fileno(), *keep}):
        if fd > first:
            linux.close_range(first, fd - 1)
        first = fd + 1
    linux.close_range(first)
    status.setblocking(True)
    _offer_to_oom_killer()
    for number in _SETTABLE_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.umask(0o022)


def _offer_to_oom_killer() -> None:
    """Make the kernel prefer this process over the agent when memory runs out.

    A process that is not dumpable has files in /proc that belong to the machine's root, so it
    is dumpable for this one write. It holds nothing of the agent's by then, and still the
    capabilities that keep user code from tracing it.
    """
    with contextlib.suppress(OSError):
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
        try:
            linux.write_file("/proc/self/oom_score_adj", "500")
        finally:
            linux.prctl(linux.PR_SET_DUMPABLE, 0)


def receive(sock: socket.socket, size: int, max_fds: int) -> tuple[bytes, list[int]]:
    """Read what is there, with its descriptors, which are not inherited; never waits.

    `socket.recv_fds` takes flags and does not pass them on.
    """
    flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
    data, ancillary, _, _ = sock.recvmsg(size, socket.CMSG_LEN(max_fds * _INT.size), flags)
    fds: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            whole = len(content) // _INT.size * _INT.size
            fds += [fd for (fd,) in _INT.iter_unpack(content[:whole])]
    return data, fds


def read_report(data: bytes) -> Mapping[str, Json]:
    """Give the value that a child reported; raises the OperationError that it reported.

    User code may own the child by now, so the report is checked like anything hostile.
    """
    try:
        message = decode_body(data)
    except ProtocolError as error:
        raise OperationError("failed", f"the report is not readable: {error}") from error
    value, code, detail = (message.get(key) for key in ("value", "error", "detail"))
    if isinstance(value, dict):
        return value
    if isinstance(code, str) and code in AGENT_ERRORS and isinstance(detail, str):
        raise OperationError(code, detail[:8000])
    raise OperationError("failed", "the report says nothing that is known")


# --- commands -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Command:
    """A command to run; ``size`` is that of its terminal (columns, rows), if it has one."""

    argv: tuple[bytes, ...]
    env: Mapping[bytes, bytes]
    cwd: bytes
    user: str
    size: tuple[int, int] | None


def parse_command(message: Mapping[str, Any], path_prefix: str | None) -> Command:
    """Check and read a request for a command; raises ProtocolError."""
    words = take(message, "argv", list)
    if not 0 < len(words) <= _MAX_WORDS:
        raise ProtocolError(f"argv must have 1 to {_MAX_WORDS} words, got {len(words)}")
    argv = tuple(_encode(f"argv[{n}]", word, 128 * 1024) for n, word in enumerate(words))
    user = take_user(message)
    size = take_size(take(message, "pty", dict)) if message.get("pty") is not None else None
    env = _base_env(user, size is not None, path_prefix)
    for name, value in take(message, "env", dict).items():
        if not name or "=" in name:
            raise ProtocolError(f"env name {name[:80]!r} is not a name")
        env[_encode("a name in env", name, 128 * 1024)] = _encode("env", value, 1024 * 1024)
    return Command(argv, env, take_path(message, "cwd"), user, size)


def take_size(message: Mapping[str, Any]) -> tuple[int, int]:
    """Give a terminal's columns and rows."""
    return take_number(message, "cols", 1, 4096), take_number(message, "rows", 1, 4096)


def _base_env(user: str, has_terminal: bool, path_prefix: str | None) -> dict[bytes, bytes]:
    name = user.encode("ascii")
    prefix = path_prefix.encode("utf-8", "surrogateescape") + b":" if path_prefix else b""
    return {
        b"PATH": prefix + _PATH,
        b"HOME": _HOMES[user],
        b"USER": name,
        b"LOGNAME": name,
        b"LANG": b"C.UTF-8",
        b"TERM": b"xterm" if has_terminal else b"dumb",
        b"SHELL": b"/bin/bash",
    }


class Identity(Protocol):
    """Who the agent's children may become."""

    def become(self, user: str, *, is_privileged: bool = False) -> None:
        """Take a user's ids and capabilities for good; see `isolate.Identity.become`."""

    def limit(self) -> None:
        """Take the resource limits of a sandbox's processes."""


def run_command(command: Command, identity: Identity, status: socket.socket) -> Mapping[str, Json]:
    """Turn this child into the command; returns never, raises OperationError if it cannot."""
    become_user(identity, command.user)
    if command.size is not None:
        _open_terminal(command.size, status)
    # Only now: whether descriptors may be sent depends on the limit of open files; unix(7).
    identity.limit()
    _enter(command.cwd)
    _exec(command)


def _enter(directory: bytes) -> None:
    """Make it the working directory; one that is not there is told from a missing command."""
    what = f"working directory {show(directory)}"
    try:
        os.chdir(directory)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise OperationError("no_directory", f"{what}: {error.strerror}") from error
    except OSError as error:
        raise operation_error(error, what) from error


def become_user(identity: Identity, user: str, *, is_privileged: bool = False) -> None:
    """Take a user's ids for good; raises OperationError if that is refused."""
    try:
        identity.become(user, is_privileged=is_privileged)
    except PermissionError as error:
        raise OperationError("permission_denied", str(error)) from error
    except OSError as error:
        raise operation_error(error, f"taking the ids of {user}") from error


def _open_terminal(size: tuple[int, int], status: socket.socket) -> None:
    """Make a terminal that belongs to the user and hand its two ends to the agent."""
    try:
        master, slave = os.openpty()
        set_terminal_size(slave, size)
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
    except OSError as error:
        raise operation_error(error, "a terminal for the command") from error
    socket.send_fds(status, [b"t"], [master, slave])
    for number in (0, 1, 2):
        os.dup2(slave, number)


def _exec(command: Command) -> NoReturn:
    name = command.argv[0]
    path = command.env.get(b"PATH", _PATH)
    search = path.split(b":")
    candidates = [name] if b"/" in name else [posixpath.join(part, name) for part in search]
    refusal: OperationError | None = None
    for candidate in candidates if name else ():
        try:
            os.execve(candidate, command.argv, command.env)  # noqa: S606 - no shell is wanted
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR) and not posixpath.exists(candidate):
                continue
            if error.errno == errno.ENOENT:
                detail = f"command {show(candidate)}: the interpreter that it names does not exist"
                raise OperationError("not_found", detail) from error
            refusal = operation_error(error, f"command {show(candidate)}")
            if error.errno != errno.EACCES:
                raise refusal from error
    where = "does not exist" if b"/" in name else f"is in no directory of PATH {show(path)}"
    raise refusal or OperationError("not_found", f"command {show(name)!r} {where}")


# --- the agent's side of a command ----------------------------------------------------------


class ProcessEvents(Protocol):
    """Who wants to know what became of a command."""

    def started(self, number: int, pid: int) -> None:
        """Say that the command of request ``number`` runs."""

    def refused(self, number: int, error: OperationError) -> None:
        """Say that the command of request ``number`` never ran."""

    def exited(self, pid: int, wait_status: int) -> None:
        """Say that a command ended and everything it wrote was passed on."""


class Process:
    """A spawned command as the agent sees it: its start, its terminal and its end.

    ``pipes`` are the input's read end and the output's write end of a command with a terminal;
    this class closes them.
    """

    def __init__(
        self,
        loop: Loop,
        number: int,
        child: tuple[int, socket.socket],
        pipes: tuple[int, int] | None,
        events: ProcessEvents,
    ) -> None:
        self.pid, self._status = child
        self._loop = loop
        self._number = number
        self._pipes = pipes
        self._events = events
        self._report = bytearray()
        self._terminal: list[int] = []
        self._relay: PtyRelay | None = None
        self._is_reaped = False
        self._has_failed = False
        self._is_late = False
        loop.watch(self._status.fileno(), select.EPOLLIN, self._read_status)
        loop.after(_START_SECONDS, self, self._give_up)

    def resize(self, size: tuple[int, int]) -> None:
        """Change the terminal's size; raises OperationError if there is none."""
        if self._relay is None:
            raise OperationError("invalid", f"process {self.pid} has no terminal")
        self._relay.resize(size)

    def reaped(self, wait_status: int) -> bool:
        """Take note that the process is gone; False if it never ran.

        Its end is told, perhaps at once, when everything that it wrote was passed on.
        """
        self._is_reaped = True
        self._read_status()
        if self._status.fileno() >= 0:
            self._settle()  # a copy of the socket lives on somewhere; its owner does not
        if self._has_failed:
            return False
        if self._relay is None:
            self._events.exited(self.pid, wait_status)
        else:
            self._relay.finish(lambda: self._events.exited(self.pid, wait_status))
        return True

    def _give_up(self) -> None:
        self._is_late = True
        self._kill()

    def _kill(self) -> None:
        if not self._is_reaped:
            with contextlib.suppress(OSError):
                os.kill(self.pid, signal.SIGKILL)

    def _read_status(self) -> None:
        while self._status.fileno() >= 0:
            try:
                data, fds = receive(self._status, MAX_STATUS, 2)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            self._terminal += fds
            self._report += data
            if not data or len(self._report) > MAX_STATUS:
                self._settle()

    def _settle(self) -> None:
        """Answer the request: the status socket was closed by exec, or by a failed child."""
        self._loop.cancel(self)
        self._loop.forget(self._status.fileno())
        self._status.close()
        try:
            self._check_start()
            self._start_relay()
        except OperationError as error:
            self._has_failed = True
            self._close_terminal()
            self._kill()
            self._events.refused(self._number, error)
        else:
            self._events.started(self._number, self.pid)

    def _check_start(self) -> None:
        if self._is_late:
            raise OperationError("failed", f"did not start within {_START_SECONDS:g} s")
        report = bytes(self._report.removeprefix(b"t"))
        if report:
            read_report(report)

    def _start_relay(self) -> None:
        if self._pipes is None:
            return
        if len(self._terminal) != 2:
            raise OperationError("failed", "the terminal did not arrive")
        self._relay = PtyRelay(self._loop, self._terminal, self._pipes)
        self._pipes = None
        self._terminal = []

    def _close_terminal(self) -> None:
        for fd in (*self._terminal, *(self._pipes or ())):
            os.close(fd)
        self._pipes = None
        self._terminal = []
