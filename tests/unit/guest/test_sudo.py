"""The agent's side of sudo: it only accepts, and nobody can hold it up."""

import contextlib
import errno
import json
import os
import signal
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar, Self

import pytest

from headrace_guest import spawn, sudo
from headrace_guest.loop import Loop
from headrace_guest.spawn import OperationError
from tests.support.agent_host import DEADLINE, AgentHost, FakeIdentity, wait_until

REQUEST: dict[str, Any] = {"argv": ["true"], "env": {}, "cwd": "/", "user": "user", "pty": None}


class Client:
    """A client of a test's own, which need not keep to the rules."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(DEADLINE)
        self.socket.connect(str(path))
        self.fds: list[int] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, message: Mapping[str, object] | bytes, fds: Sequence[int] = ()) -> None:
        data = message if isinstance(message, bytes) else json.dumps(message).encode()
        socket.send_fds(self.socket, [data], list(fds))

    def receive(self) -> dict[str, Any]:
        """Give the next answer; {} when the other end closed."""
        data, fds, _flags, _address = socket.recv_fds(self.socket, 65536, 2)
        self.fds += fds
        return dict(json.loads(data)) if data else {}

    def run(self, argv: Sequence[str], fds: Sequence[int] | None = None) -> dict[str, Any]:
        """Start a command; gives the first answer."""
        self.send({**REQUEST, "argv": list(argv)}, (0, 1, 2) if fds is None else fds)
        return self.receive()


@pytest.fixture(autouse=True)
def callers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sudo, "CALLERS", {os.getuid(): "tester"})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "sudo"


@pytest.fixture
def host(path: Path) -> Iterator[AgentHost]:
    with AgentHost(sudo_path=path) as opened:
        yield opened


def is_alive(host: AgentHost) -> bool:
    return host.call_file("stat", path="/").error is None


def test_a_command_runs_with_its_clients_streams(host: AgentHost, path: Path) -> None:
    reading, writing = os.pipe()
    with Client(path) as client:
        script = 'echo "$SUDO_USER $SUDO_UID $USER"; pwd; exit 3'
        assert client.run(["sh", "-c", script], (0, writing, 2)) == {"started": True}
        assert client.receive() == {"exit": 3}
    os.close(writing)
    assert os.read(reading, 100).decode() == f"tester {os.getuid()} user\n/\n"
    os.close(reading)


def test_the_end_by_a_signal_is_told(host: AgentHost, path: Path) -> None:
    with Client(path) as client:
        client.run(["sleep", "100"])
        client.send({"signal": signal.SIGTERM})
        assert client.receive() == {"signal": signal.SIGTERM}


def test_a_signal_reaches_what_the_command_started(host: AgentHost, path: Path) -> None:
    reading, writing = os.pipe()
    with Client(path) as client:
        client.run(["sh", "-c", "sleep 100 & echo; wait"], (0, writing, 2))
        os.close(writing)
        assert os.read(reading, 10) == b"\n"
        client.send({"signal": signal.SIGTERM})
        assert client.receive()["signal"] == signal.SIGTERM
        assert os.read(reading, 10) == b""
    os.close(reading)


def test_a_client_that_is_killed_takes_its_command_along(host: AgentHost, path: Path) -> None:
    reading, writing = os.pipe()
    with Client(path) as client:
        client.run(["sh", "-c", "sleep 100 & wait"], (0, writing, 2))
        os.close(writing)
    assert os.read(reading, 1) == b""
    os.close(reading)
    wait_until(lambda: host.children() == [])


def test_a_command_with_a_terminal_gets_one_of_its_own(host: AgentHost, path: Path) -> None:
    with Client(path) as client:
        script = "tty; stty size; sleep 0; ps -o tty= -p $$ >/dev/tty"
        client.send({**REQUEST, "argv": ["sh", "-c", script], "pty": {"cols": 90, "rows": 30}})
        assert client.receive() == {"started": True}
        (master,) = client.fds
        assert client.receive() == {"exit": 0}
        shown = b""
        while shown.count(b"\n") < 3:
            shown += os.read(master, 1000)
        os.close(master)
    assert shown.decode().split("\r\n")[1] == "30 90"


def test_a_command_that_is_not_there_is_named(host: AgentHost, path: Path) -> None:
    with Client(path) as client:
        answer = client.run(["no-such-program"])
        assert answer["error"] == "not_found"
        assert "no-such-program" in answer["detail"]
        assert client.receive() == {}


def test_root_is_refused_where_there_is_none(host: AgentHost, path: Path) -> None:
    with Client(path) as client:
        client.send({**REQUEST, "user": "root"}, (0, 1, 2))
        assert client.receive()["error"] == "permission_denied"


def test_who_is_not_on_the_list_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sudo, "CALLERS", {os.getuid() + 1: "other"})
    with AgentHost(sudo_path=path), Client(path) as client:
        client.send(REQUEST, (0, 1, 2))
        answer = client.receive()
        assert answer["detail"] == f"uid {os.getuid()} may not use sudo"


@pytest.mark.parametrize(
    ("message", "fds"),
    [
        (b"\xff\xfe", 3),
        (b"[]", 3),
        (b"{}", 3),
        (b"{" * 10000, 3),
        ({**REQUEST, "argv": []}, 3),
        ({**REQUEST, "argv": "true"}, 3),
        ({**REQUEST, "argv": ["a\0b"]}, 3),
        ({**REQUEST, "env": []}, 3),
        ({**REQUEST, "env": {"a=b": "c"}}, 3),
        ({**REQUEST, "env": {"a": 1}}, 3),
        ({**REQUEST, "cwd": "relative"}, 3),
        ({**REQUEST, "user": "daemon"}, 3),
        ({**REQUEST, "user": 0}, 3),
        ({**REQUEST, "pty": {"cols": 0, "rows": 1}}, 0),
        ({**REQUEST, "pty": {"cols": 80, "rows": 24}}, 3),
        (REQUEST, 0),
        (REQUEST, 2),
    ],
)
def test_what_is_no_request_is_refused(host: AgentHost, path: Path, message: Any, fds: int) -> None:
    with Client(path) as client:
        client.send(message, (0, 1, 2)[:fds])
        assert client.receive()["error"] == "invalid"
        assert client.receive() == {}
    assert is_alive(host)


def test_more_descriptors_than_wanted_are_dropped(host: AgentHost, path: Path) -> None:
    with Client(path) as client:
        assert client.run(["true"], [0, 1, 2] + [0] * 200) == {"started": True}
        assert client.receive() == {"exit": 0}


def test_a_request_that_is_too_large_is_refused(host: AgentHost, path: Path) -> None:
    with Client(path) as client:
        client.send({**REQUEST, "argv": ["echo", "x" * sudo.MAX_REQUEST]}, (0, 1, 2))
        assert client.receive()["error"] == "too_large"


def test_nonsense_during_a_command_changes_nothing(host: AgentHost, path: Path) -> None:
    with Client(path) as client:
        client.run(["sleep", "100"])
        for message in (b"?", {"signal": 65}, {"signal": -9}, {"signal": 10**30}, b"x" * 10000):
            client.send(message, (0, 1, 2))
        client.send({"signal": signal.SIGKILL})
        assert client.receive() == {"signal": signal.SIGKILL}


def test_a_client_that_asks_for_nothing_is_given_up(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sudo, "_REQUEST_SECONDS", 0.05)
    with AgentHost(sudo_path=path) as host, Client(path) as client:
        assert client.receive()["detail"] == "no request came within 0.05 s"
        wait_until(lambda: host.children() == [])


def test_clients_beyond_the_bound_wait_for_their_turn(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sudo, "MAX_MONITORS", 2)
    with AgentHost(sudo_path=path) as host:
        silent = [Client(path) for _ in range(6)]
        wait_until(lambda: len(host.children()) == 2)
        assert is_alive(host)
        assert len(host.children()) == 2
        with Client(path) as client:
            client.send({**REQUEST}, (0, 1, 2))
            for each in silent:
                each.socket.close()
            assert client.receive() == {"started": True}


def test_many_commands_one_after_the_other_are_all_reaped(host: AgentHost, path: Path) -> None:
    for _ in range(sudo.MAX_MONITORS + 8):
        with Client(path) as client:
            assert client.run(["true"]) == {"started": True}
            assert client.receive() == {"exit": 0}
    wait_until(lambda: host.children() == [])


def test_a_client_for_whom_no_process_is_left_is_served_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really, refusals = spawn.fork_child, [1, 2, 3]

    def fork(*arguments: Any, **options: Any) -> Any:
        if refusals:
            refusals.pop()
            raise OperationError("failed", "no new process")
        return really(*arguments, **options)

    monkeypatch.setattr(sudo, "fork_child", fork)
    monkeypatch.setattr(sudo, "_RETRY_SECONDS", 0.01)
    with AgentHost(sudo_path=path), Client(path) as client:
        assert client.run(["true"]) == {"started": True}
        assert client.receive() == {"exit": 0}


class FullListener(socket.socket):
    """Has no descriptor for the first client, and by the second try no client any more."""

    refusals: ClassVar[list[OSError]] = []

    def accept(self) -> Any:
        if self.refusals:
            raise self.refusals.pop()
        return super().accept()


def test_without_a_descriptor_clients_are_accepted_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sudo, "_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(FullListener, "refusals", [BlockingIOError(), OSError(errno.EMFILE, "")])
    accepted: list[int] = []

    def fork(_work: object, keep: Sequence[int]) -> tuple[int, socket.socket]:
        accepted.extend(keep)
        return 1, socket.socket()

    monkeypatch.setattr(sudo, "fork_child", fork)
    loop, identity = Loop(), FakeIdentity()
    with sudo.listen(str(path)) as opened:
        listener = FullListener(fileno=opened.detach())
    with listener, Client(path):
        sudo.SudoServer(loop, listener, identity, None)
        while not accepted:
            loop.turn()
    assert FullListener.refusals == []


def send_lingering_socket(address: tuple[str, int], path: Path) -> None:
    """Ask with a connection that, closed by its last owner, waits for a reader; and end."""
    sending = socket.create_connection(address)
    sending.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    sending.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        while True:
            sending.send(b"x" * 65536)
    client = Client(path)
    client.send(b"?", [sending.fileno()] * 3)
    os._exit(0)  # the end of a process, unlike close(2), waits for nobody


def test_a_descriptor_that_is_slow_to_close_holds_nobody_up(host: AgentHost, path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        pid = os.fork()
        if pid == 0:
            try:
                send_lingering_socket(server.getsockname(), path)
            finally:
                os._exit(1)
        receiving = server.accept()[0]
        with receiving:
            assert os.waitpid(pid, 0)[1] == 0
            wait_until(lambda: host.children() == [])
            assert is_alive(host)
