"""Real Python kernels for tests: forked from one warm process, without any isolation.

`shared_fork_server` starts that process once per test run. A `KernelProcess` plays the host: it
reads both pipes and the event socket as they become readable, and keeps the order of arrival.
Run as a program, this module is the fork server.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from headrace_guest.protocol import (
    MAX_GUEST_FRAME,
    FrameReader,
    KernelDone,
    KernelError,
    KernelInput,
    KernelMessage,
    KernelReady,
    KernelResult,
    encode_frame,
    parse_kernel_message,
)

_ROOT = Path(__file__).parents[2]
DEADLINE = 20.0
"""Seconds after which a kernel that does not answer fails the test."""


@dataclass(frozen=True)
class Item:
    """Something that arrived: bytes of ``stdout`` or ``stderr``, or a message."""

    source: str
    data: bytes = b""
    message: KernelMessage | None = None


@dataclass
class Outcome:
    """All that arrived during one execution, in order of arrival."""

    items: list[Item] = field(default_factory=list)

    def _bytes(self, source: str) -> bytes:
        return b"".join(item.data for item in self.items if item.source == source)

    def _messages(self, kind: type[Any]) -> list[Any]:
        return [item.message for item in self.items if isinstance(item.message, kind)]

    @property
    def stdout(self) -> str:
        return self._bytes("stdout").decode("utf-8", "surrogateescape")

    @property
    def stderr(self) -> str:
        return self._bytes("stderr").decode("utf-8", "surrogateescape")

    @property
    def results(self) -> list[KernelResult]:
        return self._messages(KernelResult)

    @property
    def main(self) -> KernelResult:
        """The one main result."""
        (main,) = [result for result in self.results if result.is_main]
        return main

    @property
    def text(self) -> object:
        """The plain text of the main result."""
        return self.main.bundle["text/plain"]

    @property
    def errors(self) -> list[KernelError]:
        return self._messages(KernelError)

    @property
    def error(self) -> KernelError:
        """The one error."""
        (error,) = self.errors
        return error

    @property
    def inputs(self) -> list[KernelInput]:
        return self._messages(KernelInput)

    @property
    def done(self) -> KernelDone:
        """The one end."""
        (done,) = self._messages(KernelDone)
        return done  # type: ignore[no-any-return]

    @property
    def status(self) -> str:
        return self.done.status


class KernelProcess:
    """One kernel and the host's ends of its socket and pipes; use it as a context manager."""

    def __init__(self, server: "KernelForkServer") -> None:
        self._server = server
        self._events, guest = socket.socketpair()
        self._stdout, stdout = os.pipe()
        self._stderr, stderr = os.pipe()
        try:
            self.pid = server.fork([guest.fileno(), stdout, stderr])
        finally:
            guest.close()
            os.close(stdout)
            os.close(stderr)
        self._sources = {
            self._stdout: "stdout",
            self._stderr: "stderr",
            self._events.fileno(): "events",
        }
        self._poll = select.poll()
        for fd in self._sources:
            self._poll.register(fd, select.POLLIN)
        self._reader = FrameReader(MAX_GUEST_FRAME)
        self._count = 0
        self._exit: int | None = None
        self._last_kind: type[object] | None = None
        self.items: list[Item] = []

    def __enter__(self) -> "KernelProcess":
        self.pump(lambda: self._last_kind is KernelReady)
        self.items.clear()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._events.close()
        if self._exit is None:
            os.kill(self.pid, signal.SIGKILL)
            self.wait_for_exit()
        os.close(self._stdout)
        os.close(self._stderr)

    # --- talking ----------------------------------------------------------------------------

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a frame."""
        self._events.sendall(encode_frame(message))

    def start(
        self,
        code: str,
        *,
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        accepts_input: bool = False,
        **more: object,
    ) -> str:
        """Send code to run and give the execution's id."""
        self._count += 1
        execution = f"e{self._count}"
        self.send(
            {
                "type": "execute",
                "execution": execution,
                "code": code,
                "env": dict(env or {}),
                "cwd": cwd,
                "accepts_input": accepts_input,
                **more,
            }
        )
        return execution

    def finish(self, timeout: float = DEADLINE) -> Outcome:
        """Read until the execution is done and give what arrived since the last time."""
        self.pump(lambda: self._last_kind is KernelDone, timeout)
        self._last_kind = None
        outcome = Outcome(self.items)
        self.items = []
        return outcome

    def run(self, code: str, **options: Any) -> Outcome:
        """Run code to its end."""
        self.start(code, **options)
        return self.finish()

    def configure(self, env: Mapping[str, str], cwd: str) -> None:
        """Send the context's environment and directory."""
        self.send({"type": "configure", "env": dict(env), "cwd": cwd})

    def interrupt(self) -> None:
        """Send SIGINT to the kernel's process group once."""
        os.killpg(self.pid, signal.SIGINT)

    def finish_interrupted(self) -> Outcome:
        """Interrupt as the host does, again if nothing happens, and read to the end."""
        for _ in range(5):
            self.interrupt()
            with contextlib.suppress(TimeoutError):
                return self.finish(timeout=0.2)
        return self.finish()

    def stop(self) -> None:
        """Stop the process, so that what is sent meanwhile arrives all at once."""
        os.kill(self.pid, signal.SIGSTOP)
        self.wait_for_state("T")

    def resume(self) -> None:
        """Let the stopped process go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close_events(self) -> None:
        """Close the host's end of the event socket."""
        self._events.close()

    def wait_for_state(self, letter: str) -> None:
        """Wait until the process is stopped (T) or asleep (S)."""
        deadline = time.monotonic() + DEADLINE
        while self._state() != letter:
            if time.monotonic() > deadline:
                raise TimeoutError(f"the kernel is in state {self._state()}, not {letter}")
            time.sleep(0.001)

    def _state(self) -> str:
        return Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]

    def wait_for_input(self) -> KernelInput:
        """Read until the code asks for input."""
        self.pump(lambda: self._last_kind is KernelInput)
        self._last_kind = None
        return Outcome(self.items).inputs[-1]

    def wait_for_stdout(self, text: str) -> None:
        """Read until ``text`` was printed."""
        self.pump(lambda: text in Outcome(self.items).stdout)

    # --- reading ----------------------------------------------------------------------------

    def pump(self, until: Callable[[], bool], timeout: float = DEADLINE) -> None:
        """Read what arrives until ``until`` holds; fails when the kernel ends before that."""
        deadline = time.monotonic() + timeout
        while not until():
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError(f"the kernel did not answer; it sent {self.items[-20:]}")
            for fd, _event in self._poll.poll(left * 1000):
                if not self._read(fd):
                    raise EOFError(f"the kernel ended; it sent {self.items[-20:]}")

    def pump_to_end(self, timeout: float = DEADLINE) -> Outcome:
        """Read until the kernel has closed all three."""
        deadline = time.monotonic() + timeout
        open_fds = set(self._sources)
        while open_fds:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the kernel did not end")
            for fd, _event in self._poll.poll(left * 1000):
                if not self._read(fd):
                    self._poll.unregister(fd)
                    open_fds.discard(fd)
        return Outcome(self.items)

    def _read(self, fd: int) -> bool:
        source = self._sources[fd]
        try:
            data = os.read(fd, 64 * 1024)
        except ConnectionResetError:
            return False
        if source != "events":
            self.items.append(Item(source, data))
            return bool(data)
        for body in self._reader.feed(data):
            message = parse_kernel_message(body)
            self._last_kind = type(message)
            self.items.append(Item(source, message=message))
        return bool(data)

    def wait_for_exit(self) -> int:
        """Wait until the process has ended; gives its code, negative for a signal."""
        if self._exit is None:
            self._exit = self._server.wait(self.pid)
        return self._exit


class KernelForkServer:
    """The warm process; give each test its own kernel with `kernel`."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self._control, child = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        base = Path(self._directory.name)
        environment = {
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
            "HOME": str(base / "missing"),
            "IPYTHONDIR": str(base / "ipython"),
            "MPLCONFIGDIR": str(base / "matplotlib"),
            "OPENBLAS_NUM_THREADS": "1",
            "LANG": "C.UTF-8",
            "PYTHONPATH": os.pathsep.join([str(_ROOT / "src"), str(_ROOT)]),
        }
        with child:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.kernel_process", str(child.fileno())],
                pass_fds=[child.fileno()],
                env=environment,
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
            )
        self.report: dict[str, Any] = self._receive()

    def kernel(self) -> KernelProcess:
        """Fork a kernel."""
        return KernelProcess(self)

    def fork(self, fds: list[int]) -> int:
        """Fork a kernel with these ends of event socket, stdout and stderr; give its pid."""
        socket.send_fds(self._control, [b'{"op": "fork"}'], fds)
        pid: int = self._receive()["pid"]
        return pid

    def wait(self, pid: int) -> int:
        """Reap a kernel, end its group and give its exit code, negative for a signal."""
        self._control.send(json.dumps({"op": "wait", "pid": pid}).encode())
        code: int = self._receive()["code"]
        return code

    def close(self) -> None:
        """End the process."""
        self._control.close()
        self._process.wait(DEADLINE)
        self._directory.cleanup()

    def _receive(self) -> dict[str, Any]:
        readable, _, _ = select.select([self._control], [], [], 3 * DEADLINE)
        if not readable:
            raise TimeoutError("the fork server does not answer")
        answer = self._control.recv(64 * 1024)
        if not answer:
            raise EOFError("the fork server has ended")
        parsed: dict[str, Any] = json.loads(answer)
        return parsed


@functools.cache
def shared_fork_server() -> KernelForkServer:
    """Start the fork server at the first call; it ends with the test run."""
    server = KernelForkServer()
    atexit.register(server.close)
    return server


def _serve_forks(control: socket.socket) -> None:
    from headrace_guest import linux, python_kernel

    kernel = python_kernel.prepare()
    gc.collect()
    gc.freeze()
    report = {"missing": kernel.missing, "threads": linux.count_threads()}
    control.send(json.dumps(report).encode())
    while True:
        request, fds, _flags, _address = socket.recv_fds(control, 4096, 3)
        if not request:
            return
        message = json.loads(request)
        if message["op"] == "wait":
            control.send(json.dumps({"code": _reap(message["pid"])}).encode())
            continue
        pid = os.fork()
        if pid == 0:
            control.close()
            _become_kernel(kernel, fds)
        for fd in fds:
            os.close(fd)
        control.send(json.dumps({"pid": pid}).encode())


def _reap(pid: int) -> int:
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    # The process is still there, dead, so that the group is surely its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
    _pid, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status)


def _become_kernel(kernel: Any, fds: list[int]) -> None:
    os.setsid()
    events, stdout, stderr = fds
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.close(stdout)
    os.close(stderr)
    kernel.serve(socket.socket(fileno=events))


if __name__ == "__main__":
    _serve_forks(socket.socket(fileno=int(sys.argv[1])))
