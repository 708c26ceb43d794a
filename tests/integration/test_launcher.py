"""The launcher does what its verbs say, refuses the rest, and leaves nothing behind."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headrace_guest
from headrace_guest.protocol import FrameReader, decode_body
from tests.support.modes import current_mode

LIMITS = {
    "memory": 256 * 2**20,
    "disk": 16 * 2**20,
    "inodes": 1000,
    "processes": 64,
    "open_files": 256,
    "cpus": 1.0,
}


class RawEngine:
    """The engine's end of a launcher, without an engine."""

    def __init__(self, directory: Path, **changes: Any) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(60)
        main = Path(headrace_guest.__file__).with_name("__main__.py")
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", str(main), "launcher", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        config = {
            "mode": current_mode().value,
            "python_prefix": sys.prefix,
            "state_dir": str(directory / "state"),
            "runtime_dir": str(directory / "runtime"),
            **changes,
        }
        self.socket.send(json.dumps(config).encode())
        self.number = 0
        self.notices: list[dict[str, Any]] = []
        self.guests: list[socket.socket] = []

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        message, fds, _flags, _address = socket.recv_fds(self.socket, 65536, 8)
        return json.loads(message), fds

    def ask(self, verb: str, fds: tuple[int, ...] = (), **fields: Any) -> dict[str, Any]:
        self.number += 1
        request = {"id": self.number, "verb": verb, **fields}
        socket.send_fds(self.socket, [json.dumps(request).encode()], list(fds))
        while True:
            answer, passed = self.receive()
            for fd in passed:
                os.close(fd)
            if answer.get("id") == self.number:
                return answer
            self.notices.append(answer)

    def create(self, name: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        with theirs:
            answer = self.ask("create", (theirs.fileno(),), sandbox=name, limits=LIMITS)
        assert answer["ok"], answer
        assert first_frame(ours)["type"] == "ready"
        # A guest whose socket is closed ends.
        self.guests.append(ours)
        return ours

    def start_kernel(self, name: str, kernel: str, language: str = "python") -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.settimeout(20)
        read, write = os.pipe()
        os.close(read)
        with theirs:
            fds = (theirs.fileno(), write, write)
            answer = self.ask("kernel", fds, sandbox=name, kernel=kernel, language=language)
        os.close(write)
        assert answer["ok"], answer
        assert first_frame(ours)["type"] == "ready"
        self.guests.append(ours)
        return ours

    def close(self) -> int:
        self.socket.close()
        for guest in self.guests:
            guest.close()
        return self.process.wait(30)


def first_frame(sock: socket.socket) -> dict[str, Any]:
    reader = FrameReader(2**20)
    while True:
        data = sock.recv(65536)
        assert data, "the guest closed its socket"
        for body in reader.feed(data):
            return decode_body(body)


def children_of(pid: int) -> list[int]:
    """Give all living descendants of a process."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(path.parent.name)] = int(fields[1])
    found = [pid]
    for parent in found:
        found += [child for child, of in parents.items() if of == parent]
    return found[1:]


@pytest.fixture
def raw(tmp_path: Path) -> Iterator[RawEngine]:
    engine = RawEngine(tmp_path)
    notice, _fds = engine.receive()
    assert notice["notice"] == "ready", notice
    yield engine
    if engine.process.poll() is None:
        assert engine.close() == 0
    engine.socket.close()


@pytest.mark.parametrize(
    "datagram",
    [
        b"{",
        b"[]",
        b"1",
        b'{"id":1}',
        b'{"id":1,"verb":"reboot"}',
        b'{"id":1,"verb":["kill"]}',
        b"\xff",
    ],
)
def test_what_is_no_request_is_refused_and_harms_nothing(raw: RawEngine, datagram: bytes) -> None:
    raw.socket.send(datagram)
    notice, _fds = raw.receive()
    assert notice["notice"] == "refused"
    raw.create("s")


@pytest.mark.parametrize(
    ("verb", "fields"),
    [
        ("create", {"sandbox": "../x", "limits": LIMITS}),
        ("create", {"sandbox": "s", "limits": {}}),
        ("create", {"sandbox": "s", "limits": LIMITS}),  # without its socket
        ("kernel", {"sandbox": "nobody", "kernel": "k"}),
        ("signal", {"sandbox": "nobody", "kernel": "k", "signal": 2}),
        ("signal", {"sandbox": "nobody", "kernel": "k", "signal": 19}),
        ("socket", {"sandbox": "nobody", "family": "inet"}),
        ("stats", {"sandbox": "nobody"}),
        ("freeze", {"sandbox": 5}),
    ],
)
def test_a_request_that_cannot_be_is_refused(
    raw: RawEngine, verb: str, fields: dict[str, Any]
) -> None:
    answer = raw.ask(verb, **fields)
    assert answer["ok"] is False
    assert answer["detail"]


def test_a_bad_mode_or_prefix_is_named(tmp_path: Path) -> None:
    for change, word in (({"mode": "magic"}, "magic"), ({"python_prefix": "/nowhere"}, "/nowhere")):
        engine = RawEngine(tmp_path, **change)
        notice, _fds = engine.receive()
        assert notice["notice"] == "failed"
        assert word in notice["detail"]
        engine.close()


def test_a_kernel_can_be_signalled_and_its_end_is_told(raw: RawEngine) -> None:
    raw.create("s")
    raw.start_kernel("s", "k").close()
    raw.start_kernel("s", "k2")
    assert raw.ask("kill_kernel", sandbox="s", kernel="k2")["ok"]
    deadline = time.monotonic() + 20
    while len(raw.notices) < 2 and time.monotonic() < deadline:
        raw.ask("stats", sandbox="s")
    ends = {notice["kernel"]: notice for notice in raw.notices}
    assert ends["k"]["exit_code"] == 0
    assert (ends["k2"]["signal"], ends["k2"]["oom"]) == (9, False)


@pytest.mark.parametrize("language", ["cobol", "", 5, None, ["bash"], {}])
def test_a_kernel_of_an_unknown_language_is_refused(raw: RawEngine, language: Any) -> None:
    raw.create("s")
    with Path("/dev/null").open("r+") as null:
        fds = (null.fileno(),) * 3
        answer = raw.ask("kernel", fds, sandbox="s", kernel="k", language=language)
    assert (answer["ok"], answer["error"]) == (False, "invalid")
    assert repr(language) in answer["detail"]
    raw.start_kernel("s", "k")


def test_killing_twice_is_safe_and_the_name_is_free_again(raw: RawEngine) -> None:
    raw.create("s")
    assert raw.ask("kill", sandbox="s")["ok"]
    assert raw.ask("kill", sandbox="s")["ok"]
    raw.create("s")


def test_frozen_sandboxes_can_be_killed(raw: RawEngine) -> None:
    raw.create("s")
    raw.start_kernel("s", "k")
    assert raw.ask("freeze", sandbox="s")["ok"]
    assert raw.ask("kill", sandbox="s")["ok"]


def test_a_fork_server_that_dies_is_replaced_and_its_sandboxes_live_on(raw: RawEngine) -> None:
    agent = raw.create("s")
    kernel = raw.start_kernel("s", "k")
    (launcher, *_rest) = (
        [raw.process.pid] if current_mode().value == "root" else children_of(raw.process.pid)
    )
    servers = [pid for pid in children_of(launcher) if parent_of(pid) == launcher]
    assert len(servers) == 3
    for pid in servers:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while any(map(is_running, servers)) and time.monotonic() < deadline:
        time.sleep(0.01)
    raw.create("t")
    raw.start_kernel("t", "k")
    raw.start_kernel("s", "k2")
    raw.start_kernel("s", "k3", "bash")
    for sock in (agent, kernel):
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
    assert raw.ask("kill", sandbox="s")["ok"]


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_nothing_is_left_when_the_engine_goes(raw: RawEngine) -> None:
    raw.create("s")
    raw.start_kernel("s", "k")
    family = children_of(raw.process.pid)
    assert len(family) >= 5
    assert raw.close() == 0
    assert [pid for pid in family if Path(f"/proc/{pid}").exists()] == []


def test_nothing_is_left_when_the_launcher_is_killed(raw: RawEngine) -> None:
    agent = raw.create("s")
    kernel = raw.start_kernel("s", "k")
    family = children_of(raw.process.pid)
    raw.process.kill()
    raw.process.wait(10)
    # The engine notices the end of the launcher and closes its ends.
    for sock in (agent, kernel, raw.socket):
        sock.close()
    deadline = time.monotonic() + 20
    left = family
    while left and time.monotonic() < deadline:
        time.sleep(0.02)
        left = [pid for pid in family if is_running(pid)]
    assert left == []


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.timeout(120)
def test_many_sandboxes_come_and_go(raw: RawEngine) -> None:
    for round_ in range(3):
        names = [f"s{round_}-{number}" for number in range(40)]
        for name in names:
            raw.create(name)
        for name in names:
            assert raw.ask("kill", sandbox=name)["ok"]
