"""The engine's side of a real agent, which runs in a forked process without isolation."""

import contextlib
import os
import select
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from headrace_guest import agent, linux, sudo
from headrace_guest.protocol import (
    MAX_AGENT_FRAME,
    AgentExit,
    AgentMessage,
    AgentReady,
    AgentReply,
    FrameReader,
    encode_frame,
    parse_agent_message,
)

DEADLINE = 20.0


class FakeIdentity:
    """Takes no ids; its processes end with the agent, as they do in a sandbox."""

    def __init__(self, before: Callable[[], None] | None = None) -> None:
        self._before = before

    def become(self, user: str, *, is_privileged: bool = False) -> None:
        if user == "root" or is_privileged:
            raise PermissionError("user 'root' needs root mode")
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        if self._before is not None:
            self._before()

    def limit(self) -> None:
        """Keep the limits of the test."""


class AgentHost:
    """The engine's side of a real agent in a forked process."""

    def __init__(
        self,
        before: Callable[[], None] | None = None,
        path_prefix: str = "",
        sudo_path: Path | None = None,
    ) -> None:
        self.socket, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            _be_agent(theirs, FakeIdentity(before), path_prefix, sudo_path)
        theirs.close()
        self.expected_status: int | None = 0
        self._reader = FrameReader(MAX_AGENT_FRAME)
        self._messages: list[AgentMessage] = []
        self._next = 1
        self._status: int | None = None

    @classmethod
    def adopt(cls, control: socket.socket, pid: int) -> Self:
        """Talk to an agent that somebody else started and will wait for."""
        host = cls.__new__(cls)
        host.socket = control
        host.pid = pid
        host.expected_status = None
        host._reader = FrameReader(MAX_AGENT_FRAME)
        host._messages = []
        host._next = 1
        host._status = None
        return host

    def __enter__(self) -> Self:
        self.wait_for(lambda message: isinstance(message, AgentReady))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._kill_children()
        self.socket.close()
        if self.expected_status is None:
            return
        try:
            status = self.wait_end()
        finally:
            if self._status is None:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
        if kind is None:
            assert status == self.expected_status

    def _kill_children(self) -> None:
        """Do what the end of a PID 1 does; orphans become the agent's children, too."""
        deadline = time.monotonic() + DEADLINE
        while self._status is None and (children := self.children()):
            assert time.monotonic() < deadline, f"{children} do not end"
            for pid in children:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    def wait_end(self) -> int:
        """Give the agent's exit status once it has ended."""
        if self._status is None:
            pidfd = os.pidfd_open(self.pid)
            try:
                assert select.select([pidfd], [], [], DEADLINE)[0], "the agent does not end"
            finally:
                os.close(pidfd)
            self._status = os.waitpid(self.pid, 0)[1]
        return self._status

    def ask(self, op: str, fds: Sequence[int] = (), **fields: Any) -> int:
        """Send a request and give its number; the descriptors are closed here afterwards."""
        number, self._next = self._next, self._next + 1
        message = {"type": "request", "request": number, "op": op, "fds": len(fds), **fields}
        frame = encode_frame(message)
        sent = socket.send_fds(self.socket, [frame], list(fds))
        self.socket.sendall(frame[sent:])
        for fd in fds:
            os.close(fd)
        return number

    def file(self, action: str, fds: Sequence[int] = (), **fields: Any) -> int:
        """Send a request for a file operation as the user."""
        fields = {"action": action, "user": "user", **fields}
        return self.ask("file", fds, **fields)

    def answer(self, number: int) -> AgentReply:
        """Wait for the answer to a request."""
        found = self.wait_for(lambda m: isinstance(m, AgentReply) and m.request == number)
        assert isinstance(found, AgentReply)
        return found

    def call(self, op: str, fds: Sequence[int] = (), **fields: Any) -> AgentReply:
        """Send a request and wait for its answer."""
        return self.answer(self.ask(op, fds, **fields))

    def call_file(self, action: str, **fields: Any) -> AgentReply:
        """Do a file operation that needs no pipe."""
        return self.answer(self.file(action, **fields))

    def spawn(self, argv: Sequence[str], **fields: Any) -> tuple[AgentReply, "StandardStreams"]:
        """Start a command with three pipes."""
        streams = StandardStreams()
        defaults: dict[str, object] = {"env": {}, "cwd": "/", "user": "user", "pty": None}
        fields = {**defaults, "argv": list(argv), **fields}
        return self.call("spawn", streams.theirs, **fields), streams

    def exit_of(self, pid: object) -> AgentExit:
        """Wait for the notice that a process ended."""
        found = self.wait_for(lambda m: isinstance(m, AgentExit) and m.pid == pid)
        assert isinstance(found, AgentExit)
        return found

    def wait_for(self, wanted: Callable[[AgentMessage], bool]) -> AgentMessage:
        """Give, and forget, the first message that is wanted; others wait."""
        deadline = time.monotonic() + DEADLINE
        while True:
            for message in self._messages:
                if wanted(message):
                    self._messages.remove(message)
                    return message
            left = deadline - time.monotonic()
            assert left > 0, f"nothing of the kind came, only {self._messages}"
            assert select.select([self.socket], [], [], left)[0], f"only {self._messages} came"
            data = self.socket.recv(1024 * 1024)
            assert data, f"the agent closed the socket after {self._messages}"
            self._messages += map(parse_agent_message, self._reader.feed(data))

    def children(self) -> list[int]:
        """Give the agent's children, dead ones that were not reaped included."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = path.read_text().rpartition(")")[2].split()
                if int(fields[1]) == self.pid:
                    found.append(int(path.parent.name))
        return found


class StandardStreams:
    """Three pipes: the agent's ends in ``theirs``, ours by name."""

    def __init__(self) -> None:
        stdin_read, self.stdin = os.pipe()
        self.stdout, stdout_write = os.pipe()
        self.stderr, stderr_write = os.pipe()
        self.theirs = [stdin_read, stdout_write, stderr_write]

    def read(self) -> tuple[bytes, bytes]:
        """Close the input, and give what was written until the end; closes the pipes."""
        os.close(self.stdin)
        return read_all(self.stdout), read_all(self.stderr)

    def close(self) -> None:
        """Close our ends."""
        for fd in (self.stdin, self.stdout, self.stderr):
            os.close(fd)


def read_all(fd: int) -> bytes:
    """Read a pipe to its end and close it."""
    pieces: list[bytes] = []
    try:
        while True:
            assert select.select([fd], [], [], DEADLINE)[0], f"only {pieces} came"
            piece = os.read(fd, 1024 * 1024)
            if not piece:
                return b"".join(pieces)
            pieces.append(piece)
    finally:
        os.close(fd)


def wait_until(condition: Callable[[], bool]) -> None:
    """Poll until something holds."""
    deadline = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def become_nobody() -> None:
    """Have no rights over what belongs to others, whoever runs the tests."""
    if os.getuid() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)


@contextlib.contextmanager
def public_directory() -> Iterator[Path]:
    """Give a directory that everybody may write, as are those above it, unlike pytest's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        path = Path(name)
        path.chmod(0o777)
        yield path
        for directory in path.glob("**/"):
            directory.chmod(0o700)


def _be_agent(
    control: socket.socket, identity: FakeIdentity, path_prefix: str, sudo_path: Path | None
) -> None:
    try:
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        os.dup2(control.fileno(), 3)
        linux.close_range(4)
        sys.meta_path.clear()
        agent.serve(
            socket.socket(fileno=3),
            identity,
            path_prefix=path_prefix or None,
            sudo_socket=None if sudo_path is None else sudo.listen(str(sudo_path)),
        )
    finally:
        os._exit(99)
