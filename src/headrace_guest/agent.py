"""PID 1 of a sandbox: reaps, runs commands and file operations, and answers the engine.

One thread, one loop. Nothing is imported after the start, when the file system belongs to
whoever runs in the sandbox. File operations are done by forked children with their caller's
ids; the agent itself opens no path. Whatever user code does to such a child ends as an error
reply.

Requests are numbered from 1; a frame whose number cannot be read is answered as request 0.
"""

import codecs
import contextlib
import gc
import os
import select
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import Any, NoReturn

from headrace_guest.loop import Loop
from headrace_guest.operations import FileOperation, start_file_operation
from headrace_guest.protocol import (
    MAX_AGENT_FRAME,
    MAX_FDS,
    MAX_HOST_FRAME,
    FrameReader,
    Json,
    ProtocolError,
    decode_body,
    encode_frame,
    take,
    take_int,
)
from headrace_guest.spawn import (
    Identity,
    OperationError,
    Process,
    fork_child,
    operation_error,
    parse_command,
    receive,
    run_command,
    take_number,
    take_size,
)
from headrace_guest.sudo import SudoServer

MAX_FILE_OPERATIONS = 64
MAX_PROCESSES = 1024

_READ = 64 * 1024
_MAX_UNSENT = 1024 * 1024
_REAPED_PER_TURN = 1000
_PIECES_PER_TURN = 100
_MAX_DETAIL = 8000
_SEND_FLAGS = socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL

# json guesses an encoding from the first bytes, and a codec is a module that is found on demand.
for _codec in ("ascii", "utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"):
    codecs.lookup(_codec)
for _codec in ("utf-32", "utf-32-le", "utf-32-be"):
    codecs.lookup(_codec)


def serve(
    control: socket.socket,
    identity: Identity,
    *,
    path_prefix: str | None = None,
    sudo_socket: socket.socket | None = None,
) -> None:
    """Serve the engine on ``control`` until it closes, and then end this process.

    ``path_prefix`` is a directory that comes first in the PATH of every command. On
    ``sudo_socket``, if there is one, processes inside ask for commands as root.
    """
    sys.path.clear()
    try:
        _prepare_process()
        Agent(control, identity, path_prefix, sudo_socket).run()
    except BaseException as error:  # noqa: BLE001 - the engine is told before the sandbox ends
        detail = f"the agent failed: {type(error).__name__}: {error}"[:8000]
        with contextlib.suppress(OSError):
            control.sendall(encode_frame({"type": "failed", "detail": detail}))
        os._exit(1)


def _prepare_process() -> None:
    """Ignore what user code could send, and take the numbers that children's streams get."""
    gc.freeze()
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, _note_signal)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while (fd := os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)


def _note_signal(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the byte that Python writes to the wake-up descriptor is what counts."""


class Agent:
    """The state of PID 1: the engine's socket, the children, what runs for which request."""

    def __init__(
        self,
        control: socket.socket,
        identity: Identity,
        path_prefix: str | None,
        sudo_socket: socket.socket | None,
    ) -> None:
        self._control = control
        self._identity = identity
        self._path_prefix = path_prefix
        self._loop = Loop()
        self._reader = FrameReader(MAX_HOST_FRAME)
        self._unclaimed: list[int] = []
        self._unsent = bytearray()
        self._processes: dict[int, Process] = {}
        self._ending = 0
        self._operations: dict[int, FileOperation] = {}
        self._sudo: SudoServer | None = None
        if sudo_socket is not None:
            self._sudo = SudoServer(self._loop, sudo_socket, identity, path_prefix)
        self._wake_read, self._wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._requests: dict[str, Callable[..., Mapping[str, Json] | None]] = {
            "spawn": self._spawn,
            "signal": self._signal,
            "resize": self._resize,
            "file": self._file,
            "cancel": self._cancel,
        }

    def run(self) -> NoReturn:
        """Serve until the control socket closes."""
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        self._loop.watch(self._wake_read, select.EPOLLIN, self._reap)
        self._send({"type": "ready"})
        while True:
            self._loop.turn()
            self._let_commit()

    # --- the engine's socket ------------------------------------------------------------

    def _serve_control(self) -> None:
        self._read_control()
        self._write_control()

    def _read_control(self) -> bool:
        """Read and handle one piece of what the engine sent; False if there is none."""
        try:
            data, fds = receive(self._control, _READ, MAX_FDS)
        except BlockingIOError:
            return False
        except OSError:
            os._exit(0)
        if not data:
            os._exit(0)
        self._unclaimed += fds
        for body in self._reader.feed(data):
            self._handle(body)
        if self._reader.is_empty:
            _close_all(self._unclaimed)
        return True

    def _write_control(self) -> None:
        try:
            if self._unsent:
                del self._unsent[: self._control.send(self._unsent, _SEND_FLAGS)]
        except BlockingIOError:
            pass
        except OSError:
            os._exit(0)
        # An engine that does not read its answers gets no more of them to read.
        mask = select.EPOLLIN if len(self._unsent) < _MAX_UNSENT else 0
        mask |= select.EPOLLOUT if self._unsent else 0
        self._loop.watch(self._control.fileno(), mask, self._serve_control)

    def _send(self, message: Mapping[str, Any]) -> None:
        self._unsent += encode_frame(message, MAX_AGENT_FRAME)
        self._write_control()

    def _reply(self, number: int, value: Mapping[str, Json]) -> None:
        try:
            self._send(_make_reply(number, value, None, ""))
        except (ProtocolError, ValueError, RecursionError) as error:
            self.refused(number, OperationError("failed", f"the result cannot be sent: {error}"))

    # --- requests -----------------------------------------------------------------------

    def _handle(self, body: bytes) -> None:
        number = 0
        fds: list[int] = []
        try:
            message = decode_body(body)
            number = take_int(message, "request")
            fds = self._take_fds(message)
            value = self._dispatch(number, message, fds)
            if value is not None:
                self._reply(number, value)
        except ProtocolError as error:
            self.refused(number, OperationError("invalid", str(error)))
        except OperationError as error:
            self.refused(number, error)
        except OSError as error:
            self.refused(number, operation_error(error, "the agent"))
        except Exception as error:  # noqa: BLE001 - PID 1 outlives a mistake in one request
            detail = f"the agent failed: {type(error).__name__}: {error}"
            self.refused(number, OperationError("failed", detail))
        finally:
            _close_all(fds)

    def _take_fds(self, message: Mapping[str, Any]) -> list[int]:
        count = take_number(message, "fds", 0, MAX_FDS) if "fds" in message else 0
        if count > len(self._unclaimed):
            raise ProtocolError(f"{count} descriptors announced, {len(self._unclaimed)} came")
        fds = self._unclaimed[:count]
        del self._unclaimed[:count]
        return fds

    def _dispatch(
        self, number: int, message: Mapping[str, Any], fds: list[int]
    ) -> Mapping[str, Json] | None:
        """Carry a request out; None if it is answered later."""
        name: str = take(message, "op", str)
        request = self._requests.get(name)
        if message.get("type") != "request" or request is None:
            known = ", ".join(self._requests)
            raise ProtocolError(f"unknown request {name[:80]!r}, expected one of {known}")
        return request(number, message, fds)

    def _spawn(self, number: int, message: Mapping[str, Any], fds: list[int]) -> None:
        command = parse_command(message, self._path_prefix)
        wanted = 3 if command.size is None else 2
        if len(fds) != wanted:
            raise ProtocolError(f"spawn takes {wanted} descriptors here, got {len(fds)}")
        if len(self._processes) + self._ending >= MAX_PROCESSES:
            raise OperationError("too_large", f"{MAX_PROCESSES} processes run already")
        identity = self._identity
        child = fork_child(
            lambda status: run_command(command, identity, status),
            stdio=fds if command.size is None else (),
        )
        pipes = None
        if command.size is not None:
            pipes = (fds[0], fds[1])
            fds.clear()
        self._processes[child[0]] = Process(self._loop, number, child, pipes, self)

    def _signal(
        self, _number: int, message: Mapping[str, Any], _fds: list[int]
    ) -> Mapping[str, Json]:
        pid, number = take_int(message, "pid"), take_number(message, "signal", 1, 64)
        has_group = "group" not in message or take(message, "group", bool)
        self._find(pid)
        try:
            (os.killpg if has_group else os.kill)(pid, number)
        except OSError as error:
            raise operation_error(error, f"signal {number} to process {pid}") from error
        return {}

    def _resize(
        self, _number: int, message: Mapping[str, Any], _fds: list[int]
    ) -> Mapping[str, Json]:
        pid, size = take_int(message, "pid"), take_size(message)
        self._find(pid).resize(size)
        return {}

    def _find(self, pid: int) -> Process:
        """Give a command that was not reaped yet, so that its number is nobody else's."""
        process = self._processes.get(pid)
        if process is None:
            raise OperationError("not_found", f"no process {pid} was started here and runs")
        return process

    def _file(self, number: int, message: Mapping[str, Any], fds: list[int]) -> None:
        if number in self._operations:
            raise ProtocolError(f"request {number} is running already")
        if len(self._operations) >= MAX_FILE_OPERATIONS:
            raise OperationError("too_large", f"{MAX_FILE_OPERATIONS} file operations run already")
        started = start_file_operation(self._loop, message, fds, self._identity)
        self._operations[number] = started

    def _cancel(
        self, _number: int, message: Mapping[str, Any], _fds: list[int]
    ) -> Mapping[str, Json]:
        operation = self._operations.get(take_int(message, "target"))
        reason = "the file operation was cancelled"
        return {"cancelled": operation is not None and operation.stop(reason)}

    def _let_commit(self) -> None:
        """Answer children that ask to commit, once everything the engine sent is known.

        The engine cancels on one socket and closes a pipe afterwards, which a child may notice
        first.
        """
        asking = [operation for operation in self._operations.values() if operation.is_asking]
        if not asking:
            return
        for _ in range(_PIECES_PER_TURN):
            if not self._read_control():
                break
        else:
            return
        if self._reader.is_empty:
            for operation in asking:
                if operation.is_asking:
                    operation.let_commit()

    # --- children -----------------------------------------------------------------------

    def _reap(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake_read, 4096)
        for _ in range(_REAPED_PER_TURN):
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            self._bury(pid, status)
        with contextlib.suppress(BlockingIOError):
            os.write(self._wake_write, b"\0")

    def _bury(self, pid: int, status: int) -> None:
        """Tell what a child's end means; orphans mean nothing."""
        process = self._processes.get(pid)
        if process is not None:
            del self._processes[pid]
            told = process.reaped(status)  # which may call `exited` at once
            self._ending += told
            return
        if self._sudo is not None and self._sudo.reaped(pid):
            return
        for number, operation in list(self._operations.items()):
            if operation.pid == pid:
                del self._operations[number]
                try:
                    self._reply(number, operation.reaped(status))
                except OperationError as error:
                    self.refused(number, error)

    def started(self, number: int, pid: int) -> None:
        """Answer a request for a command that runs."""
        self._reply(number, {"pid": pid})

    def refused(self, number: int, error: OperationError) -> None:
        """Answer a request that failed."""
        self._send(_make_reply(number, {}, error.code, error.detail[:_MAX_DETAIL]))

    def exited(self, pid: int, wait_status: int) -> None:
        """Tell that a command ended, after everything it wrote."""
        self._ending -= 1
        code = os.waitstatus_to_exitcode(wait_status)
        ending = {"exit_code": code, "signal": None}
        if code < 0:
            ending = {"exit_code": None, "signal": -code}
        self._send({"type": "exit", "pid": pid, **ending})


def _make_reply(
    number: int, value: Mapping[str, Json], error: str | None, detail: str
) -> Mapping[str, Json]:
    return {
        "type": "reply",
        "request": number,
        "value": dict(value),
        "error": error,
        "detail": detail,
    }


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())
