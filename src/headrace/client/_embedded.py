"""The private server of this process: started when it is first needed, gone when we are.

The server follows this process by a pidfd, so it ends also when we are killed. A process made by
fork starts a server of its own.
"""

import atexit
import importlib.util
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from headrace.client._shared.endpoint import KEY_VARIABLE, URL_VARIABLE, Endpoint
from headrace.client.errors import ConnectionFailedError

_STARTING = 120.0
"""Seconds for a server to start; it imports what the kernels have ready."""

_STOPPING = 15.0
_MAX_LINE = 4096
_MAX_COMPLAINT = 4000
_NEEDED = ("uvicorn", "pydantic_settings", "structlog")
_INSTALL = "pip install 'headrace[server,kernel]'"


@dataclass
class _Running:
    """A server that was started, and what belongs to it."""

    process: "subprocess.Popen[bytes]"
    directory: Path
    endpoint: Endpoint


class PrivateServer:
    """One server for this process. Threads may share it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: _Running | None = None
        self._is_registered = False

    def running(self) -> Endpoint | None:
        """Give where the server is, if one runs."""
        running = self._running
        if running is None or running.process.poll() is not None:
            return None
        return running.endpoint

    def ensure_started(self) -> Endpoint:
        """Give where the server is, and start one first if none runs. May take seconds.

        Raises ConnectionFailedError that says what the server complained about.
        """
        with self._lock:
            endpoint = self.running()
            if endpoint is not None:
                return endpoint
            self._remove()
            check_installed()
            self._running = _start()
            if not self._is_registered:
                atexit.register(self.stop)
                self._is_registered = True
            return self._running.endpoint

    def stop(self) -> None:
        """End the server and everything in it, and wait for that."""
        with self._lock:
            if self._running is not None:
                _end(self._running.process)
            self._remove()

    def forget(self) -> None:
        """Leave the server to the process from which this one was forked."""
        # The lock may have been held by a thread that does not exist here.
        self._lock = threading.Lock()
        if self._running is not None:
            # Otherwise it would be waited for, and is no child of ours.
            self._running.process.returncode = 0
            self._running = None

    def _remove(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            shutil.rmtree(running.directory, ignore_errors=True)


def check_installed() -> None:
    """Raise ConnectionFailedError that says what to install if no server can be started here."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConnectionFailedError(
            f"no service was named (by url or {URL_VARIABLE}), and a private one cannot be started "
            f"because {', '.join(missing)} is not installed; either name one or run: {_INSTALL}"
        )


def make_environment(key: str, environ: "os._Environ[str] | dict[str, str]") -> dict[str, str]:
    """Give the environment of a private server: that of this process, with a key of its own."""
    private = {KEY_VARIABLE, URL_VARIABLE, "HEADRACE_API_KEYS"}
    kept = {name: value for name, value in environ.items() if name not in private}
    return kept | {"HEADRACE_API_KEYS": key}


def _start() -> _Running:
    directory = Path(tempfile.mkdtemp(prefix="headrace-"))
    try:
        key = secrets.token_hex(20)
        # The server removes the directory if we are killed, so nothing but its socket is there.
        socket = directory / "s.sock"
        with tempfile.TemporaryFile() as complaints:
            process = _start_process(socket, key, complaints)
    except BaseException:
        shutil.rmtree(directory, ignore_errors=True)
        raise
    return _Running(process, directory, Endpoint("localhost", 0, key, socket=str(socket)))


def _start_process(socket: Path, key: str, complaints: BinaryIO) -> "subprocess.Popen[bytes]":
    reading, writing = os.pipe()
    try:
        try:
            process = _spawn(socket, writing, complaints.fileno(), key)
        finally:
            os.close(writing)
        try:
            _wait_until_ready(process, reading, complaints)
        except BaseException:
            _end(process)
            raise
    finally:
        os.close(reading)
    return process


def _spawn(socket: Path, ready: int, stderr: int, key: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "headrace.cli.main", "serve", "--socket", str(socket)]
    command += ["--no-tcp", "--exit-with", str(os.getpid()), "--ready-fd", str(ready)]
    return subprocess.Popen(  # noqa: S603 - our own program
        command,
        stdin=subprocess.DEVNULL,
        stdout=stderr,
        stderr=stderr,
        env=make_environment(key, os.environ),
        pass_fds=(ready,),
        # A Ctrl-C at our terminal is for us; we end the server afterwards.
        start_new_session=True,
    )


def _wait_until_ready(
    process: "subprocess.Popen[bytes]", reading: int, complaints: BinaryIO
) -> None:
    """Wait for the line that says that the server takes requests."""
    deadline = time.monotonic() + _STARTING
    line = b""
    while not line.endswith(b"\n") and len(line) < _MAX_LINE:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([reading], [], [], left)[0]:
            raise _complain(f"did not start within {_STARTING:g} s", complaints)
        piece = os.read(reading, _MAX_LINE)
        if not piece:
            break
        line += piece
    try:
        json.loads(line)["pid"]
    except (ValueError, KeyError, TypeError):
        status = _end(process)
        raise _complain(f"ended with status {status} before it was ready", complaints) from None


def _complain(what: str, complaints: BinaryIO) -> ConnectionFailedError:
    # Read by position: the server writes through the same open file.
    size = os.fstat(complaints.fileno()).st_size
    start = max(0, size - _MAX_COMPLAINT)
    said = os.pread(complaints.fileno(), _MAX_COMPLAINT, start).decode("utf-8", "replace").strip()
    return ConnectionFailedError(
        f"the private server {what}" + (f"; it said:\n{said}" if said else " and said nothing")
    )


def _end(process: "subprocess.Popen[bytes]") -> int:
    """End a server: ask, wait, then kill."""
    if process.poll() is None:
        process.terminate()
        try:
            return process.wait(_STOPPING)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait(_STOPPING)


PRIVATE_SERVER = PrivateServer()
"""The one of this process; module-level state because a process is what it belongs to."""

os.register_at_fork(after_in_child=PRIVATE_SERVER.forget)
