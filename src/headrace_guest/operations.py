"""File operations as the agent sees them: requests checked, children started and heard.

What is a path, a mode or a flag is settled here, in the agent; the child only gets what was
checked. Whatever user code does to the child ends as an error of that one operation.
"""

import contextlib
import math
import os
import select
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from headrace_guest import attributes, contents, files, trees, watch
from headrace_guest.loop import Loop
from headrace_guest.protocol import Json, ProtocolError, take, take_int, take_optional_int
from headrace_guest.spawn import (
    MAX_STATUS,
    Identity,
    OperationError,
    become_user,
    fork_child,
    read_report,
    take_number,
    take_path,
    take_user,
)

_DEFAULT_TIMEOUT = 60.0
_MAX_TIMEOUT = 30 * 24 * 3600.0
_GRACE = 1.0

Work = Callable[[int, Callable[[], None]], Mapping[str, Json]]
"""What a child does, given the data pipe and what to call before a change becomes final."""


@dataclass(frozen=True, slots=True)
class Action:
    """One kind of file operation; ``timeout`` holds where the request says none."""

    prepare: Callable[[Mapping[str, Any]], Work]
    has_data: bool = False
    timeout: float | None = _DEFAULT_TIMEOUT


def _plain(operation: Callable[[], Mapping[str, Json]]) -> Work:
    return lambda _data, _may_commit: operation()


def _prepare_read(message: Mapping[str, Any]) -> Work:
    path, offset = take_path(message), take_int(message, "offset")
    length = take_optional_int(message, "length")
    return lambda data, _: contents.read_file(path, offset, length, data)


def _prepare_write(message: Mapping[str, Any]) -> Work:
    request = contents.WriteRequest(
        take_path(message),
        mode=_take_mode(message),
        create_parents=take(message, "create_parents", bool),
        append=take(message, "append", bool),
        attributes=attributes.take_attributes(message),
        keeps_owner=not _take_privilege(message),
    )
    return lambda data, may_commit: contents.write_file(request, data, may_commit)


def _prepare_list(message: Mapping[str, Any]) -> Work:
    path, depth = take_path(message), take_number(message, "depth", 1, 2**31)
    prefix = _take_prefix(message)
    return lambda data, _: files.list_directory(path, depth, data, prefix)


def _prepare_stat(message: Mapping[str, Any]) -> Work:
    path, prefix = take_path(message), _take_prefix(message)
    return _plain(lambda: {"entry": files.stat_path(path, prefix)})


def _prepare_make_dir(message: Mapping[str, Any]) -> Work:
    make = partial(
        files.make_directory,
        take_path(message),
        mode=_take_mode(message),
        parents=take(message, "parents", bool),
        exist_ok=take(message, "exist_ok", bool),
    )
    return _plain(make)


def _prepare_move(message: Mapping[str, Any]) -> Work:
    source, destination = take_path(message, "source"), take_path(message, "destination")
    parents: bool = take(message, "create_parents", bool)
    return _plain(lambda: {"entry": trees.move(source, destination, create_parents=parents)})


def _prepare_remove(message: Mapping[str, Any]) -> Work:
    recursive: bool = take(message, "recursive", bool)
    missing_ok: bool = take(message, "missing_ok", bool)
    path = take_path(message)
    return _plain(partial(trees.remove, path, recursive=recursive, missing_ok=missing_ok))


def _prepare_set_mode(message: Mapping[str, Any]) -> Work:
    path, mode = take_path(message), take_number(message, "mode", 0, 0o7777)
    return _plain(lambda: files.set_mode(path, mode))


def _prepare_set_attributes(message: Mapping[str, Any]) -> Work:
    path, wanted = take_path(message), attributes.take_attributes(message)
    if wanted is None:
        raise ProtocolError("attributes must be given")
    prefix = wanted.prefix

    def change() -> Mapping[str, Json]:
        attributes.set_attributes(path, wanted)
        return {"entry": files.stat_path(path, prefix)}

    return _plain(change)


def _prepare_disk_usage(_message: Mapping[str, Any]) -> Work:
    return _plain(files.disk_usage)


def _prepare_watch(message: Mapping[str, Any]) -> Work:
    path, recursive = take_path(message), take(message, "recursive", bool)
    tells_modes: bool = "tells_modes" in message and take(message, "tells_modes", bool)
    return lambda data, _: watch.watch(
        path, recursive=recursive, data=data, tells_modes=tells_modes
    )


def _take_prefix(message: Mapping[str, Any]) -> bytes | None:
    key = "attributes_prefix"
    return None if message.get(key) is None else attributes.take_prefix(message, key)


def _take_privilege(message: Mapping[str, Any]) -> bool:
    return "privileged" in message and bool(take(message, "privileged", bool))


def _take_mode(message: Mapping[str, Any]) -> int | None:
    return None if message.get("mode") is None else take_number(message, "mode", 0, 0o7777)


ACTIONS = {
    "read": Action(_prepare_read, has_data=True, timeout=None),
    "write": Action(_prepare_write, has_data=True, timeout=None),
    "list": Action(_prepare_list, has_data=True),
    "stat": Action(_prepare_stat),
    "make_dir": Action(_prepare_make_dir),
    "move": Action(_prepare_move),
    "remove": Action(_prepare_remove),
    "set_mode": Action(_prepare_set_mode),
    "set_attributes": Action(_prepare_set_attributes),
    "disk_usage": Action(_prepare_disk_usage),
    "watch": Action(_prepare_watch, has_data=True, timeout=None),
}


def _take_timeout(message: Mapping[str, Any], default: float | None) -> float | None:
    value = message.get("timeout")
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ProtocolError("timeout must be a number")
    if not math.isfinite(value) or not 0 < value <= _MAX_TIMEOUT:
        raise ProtocolError(f"timeout must be above 0 and at most {_MAX_TIMEOUT:g}")
    return float(value)


def start_file_operation(
    loop: Loop, message: Mapping[str, Any], fds: Sequence[int], identity: Identity
) -> "FileOperation":
    """Start what a request asks for; raises ProtocolError or OperationError."""
    name: str = take(message, "action", str)
    action = ACTIONS.get(name)
    if action is None:
        raise ProtocolError(f"unknown action {name[:80]!r}, expected one of {', '.join(ACTIONS)}")
    work, user = action.prepare(message), take_user(message)
    is_privileged = _take_privilege(message)
    timeout = _take_timeout(message, action.timeout)
    if len(fds) != int(action.has_data):
        raise ProtocolError(f"{name} takes {int(action.has_data)} descriptors, got {len(fds)}")
    data = fds[0] if fds else -1

    def run(status: socket.socket) -> Mapping[str, Json]:
        become_user(identity, user, is_privileged=is_privileged)
        identity.limit()
        files.accept_stop()
        if data >= 0:
            os.set_blocking(data, True)
        return work(data, partial(_ask, status))

    operation = FileOperation(loop, name, fork_child(run, keep=fds))
    if timeout is not None:
        operation.stop_after(timeout)
    return operation


class FileOperation:
    """A child that does a file operation, as the agent sees it.

    A child that wants to commit asks with one byte and waits for one byte. That is how a
    cancellation that the host sent before it closed the data pipe is seen before the end of the
    pipe is believed.
    """

    def __init__(self, loop: Loop, action: str, child: tuple[int, socket.socket]) -> None:
        self.pid, self._status = child
        self.is_asking = False
        self._loop = loop
        self._action = action
        self._report = bytearray()
        self._stop_reason: str | None = None
        self._is_final = False
        loop.watch(self._status.fileno(), select.EPOLLIN, self._read_status)

    def stop(self, reason: str) -> bool:
        """Make the child undo and end; False if it is too late for that."""
        if self._is_final or self._stop_reason is not None:
            return False
        self._stop_reason = reason
        self.is_asking = False
        self._kill(signal.SIGTERM)
        self._loop.after(_GRACE, self, lambda: self._kill(signal.SIGKILL))
        return True

    def stop_after(self, seconds: float) -> None:
        """Stop the child if it takes longer than that."""
        self._loop.after(seconds, self, lambda: self._run_out(seconds))

    def let_commit(self) -> None:
        """Answer the child's question; from here on it is not stopped any more."""
        self.is_asking = False
        self._is_final = True
        self._loop.cancel(self)
        with contextlib.suppress(OSError):
            self._status.send(b"!")

    def reaped(self, wait_status: int) -> Mapping[str, Json]:
        """Give what the operation reported; raises OperationError if it failed."""
        self._read_status()
        self._loop.cancel(self)
        self._loop.forget(self._status.fileno())
        self._status.close()
        try:
            return self._outcome(wait_status)
        except OperationError:
            if self._stop_reason is None:
                raise
            if self._action == "watch":
                return {"ended": "cancelled"}
            raise OperationError("failed", self._stop_reason) from None

    def _outcome(self, wait_status: int) -> Mapping[str, Json]:
        if self._report:
            return read_report(bytes(self._report))
        code = os.waitstatus_to_exitcode(wait_status)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        raise OperationError("failed", f"the process of the file operation {how}")

    def _run_out(self, seconds: float) -> None:
        self.stop(f"the file operation took longer than {seconds:g} s")

    def _kill(self, number: int) -> None:
        with contextlib.suppress(OSError):
            os.kill(self.pid, number)

    def _read_status(self) -> None:
        while True:
            try:
                data = self._status.recv(MAX_STATUS)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if data == b"?" and not self._report and not self._is_final:
                self.is_asking = self._stop_reason is None
                continue
            self._report += data
            if not data or len(self._report) > MAX_STATUS:
                self._loop.forget(self._status.fileno())
                if data:
                    self._kill(signal.SIGKILL)
                return


def _ask(status: socket.socket) -> None:
    """Wait until the agent lets the change become final."""
    status.sendall(b"?")
    if status.recv(1) != b"!":
        raise OperationError("failed", "the agent has ended")
