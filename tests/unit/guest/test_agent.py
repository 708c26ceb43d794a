"""The agent as the engine meets it: what is sent to it, and what becomes of its children."""

import os
import select
import signal
import socket
import struct
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_guest import agent
from headrace_guest.protocol import (
    MAX_FDS,
    MAX_HOST_FRAME,
    AgentExit,
    AgentFailed,
    AgentReply,
    encode_frame,
)
from tests.support.agent_host import AgentHost, read_all, wait_until

GARBAGE = [
    b"",
    b"null",
    b"[]",
    b"{",
    b"\xff\xfe\x00",
    b"\x00{\x00}",
    b"{\x00\x00\x00}\x00\x00\x00",
    b'{"request":1e999}',
    b'{"request":true,"op":"file"}',
    b'{"request":-1,"op":"file"}',
    b'{"request":"1"}',
    b'{"a":' * 10_000,
    b'{"request":NaN}',
    b'{"request":' + b"9" * 5000 + b"}",
]


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with AgentHost() as opened:
        yield opened


def send_body(host: AgentHost, body: bytes) -> None:
    host.socket.sendall(struct.pack("!I", len(body)) + body)


def test_the_agent_says_ready_and_ends_with_its_socket() -> None:
    with AgentHost() as host:
        host.socket.close()
        assert host.wait_end() == 0


@pytest.mark.parametrize("body", GARBAGE)
def test_garbage_is_answered_as_invalid_and_survived(host: AgentHost, body: bytes) -> None:
    send_body(host, body)
    assert host.answer(0).error == "invalid"
    assert host.call_file("stat", path="/").error is None


@pytest.mark.parametrize(
    ("op", "fields"),
    [
        ("format_disk", {}),
        ("signal", {"pid": "1", "signal": 9}),
        ("signal", {"pid": 1, "signal": 0}),
        ("signal", {"pid": 1, "signal": 65}),
        ("signal", {"pid": 1, "signal": 9, "group": "yes"}),
        ("resize", {"pid": 1, "cols": 0, "rows": 1}),
        ("resize", {"pid": 1, "cols": 80}),
        ("cancel", {"target": None}),
        ("file", {}),
        ("file", {"action": "explode", "user": "user"}),
        ("file", {"action": "stat", "user": "somebody", "path": "/"}),
        ("file", {"action": "stat", "user": "user", "path": "relative"}),
        ("file", {"action": "stat", "user": "user", "path": "/a\0b"}),
        ("file", {"action": "stat", "user": "user", "path": "/" + "a" * 5000}),
        ("file", {"action": "stat", "user": "user", "path": "/\ud800"}),
        ("file", {"action": "stat", "user": "user", "path": "/", "timeout": 0}),
        ("file", {"action": "stat", "user": "user", "path": "/", "timeout": True}),
        ("file", {"action": "set_mode", "user": "user", "path": "/", "mode": 0o10000}),
        ("file", {"action": "read", "user": "user", "path": "/etc/passwd", "offset": 0}),
    ],
)
def test_a_bad_request_is_invalid(host: AgentHost, op: str, fields: dict[str, Any]) -> None:
    answer = host.call(op, **fields)
    assert answer.error == "invalid"
    assert answer.detail


def test_a_name_with_nul_is_refused_by_position(host: AgentHost) -> None:
    answer = host.call_file("stat", path="/a\0b")
    assert answer.detail == "path contains a NUL character at 2"


def test_a_frame_that_is_too_long_ends_the_agent_with_a_word() -> None:
    with AgentHost() as host:
        host.socket.sendall(struct.pack("!I", MAX_HOST_FRAME + 1))
        failed = host.wait_for(lambda message: isinstance(message, AgentFailed))
        assert isinstance(failed, AgentFailed)
        assert str(MAX_HOST_FRAME) in failed.detail
        assert os.waitstatus_to_exitcode(host.wait_end()) == 1
        host.expected_status = host.wait_end()


def test_requests_may_come_in_pieces_and_together(host: AgentHost) -> None:
    frames = b"".join(
        encode_frame({"type": "request", "request": n, "op": "cancel", "target": 99})
        for n in (1, 2, 3)
    )
    for start in range(0, len(frames), 7):
        host.socket.sendall(frames[start : start + 7])
    for number in (1, 2, 3):
        assert host.answer(number).value == {"cancelled": False}


def test_descriptors_that_nobody_asked_for_are_closed(host: AgentHost) -> None:
    reading, writing = os.pipe()
    frame = encode_frame({"type": "request", "request": 1, "op": "cancel", "target": 9})
    socket.send_fds(host.socket, [frame], [writing])
    os.close(writing)
    assert host.answer(1).error is None
    assert read_all(reading) == b""


def test_descriptors_of_a_refused_request_are_closed(host: AgentHost) -> None:
    reading, writing = os.pipe()
    answer = host.answer(host.file("read", [writing], path="no", offset=0, length=None))
    assert answer.error == "invalid"
    assert read_all(reading) == b""


def test_descriptors_beyond_the_maximum_are_closed_and_the_next_request_gets_its_own(
    host: AgentHost,
) -> None:
    reading, writing = os.pipe()
    host.ask("cancel", [os.dup(writing) for _ in range(MAX_FDS + 4)], target=1)
    os.close(writing)
    assert host.answer(1).error == "invalid"
    assert read_all(reading) == b""
    reading, writing = os.pipe()
    number = host.file("list", [writing], path="/proc/self", depth=1)
    assert b"cmdline" in read_all(reading)
    assert host.answer(number).error is None


def test_announced_descriptors_that_did_not_come_are_an_error(host: AgentHost) -> None:
    frame = encode_frame({"type": "request", "request": 7, "op": "spawn", "fds": 3})
    host.socket.sendall(frame)
    assert host.answer(7).detail == "3 descriptors announced, 0 came"


def test_orphans_are_reaped(host: AgentHost) -> None:
    answer, streams = host.spawn(["sh", "-c", "(sleep 0.05 & exec sleep 0.05) & exit 0"])
    streams.close()
    assert host.exit_of(answer.value["pid"]).exit_code == 0
    wait_until(lambda: host.children() == [])


def test_more_orphans_than_are_reaped_at_once_are_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "_REAPED_PER_TURN", 1)
    script = "for n in 1 2 3 4 5 6 7 8 9 10; do (true & true &) ; done"
    with AgentHost() as host:
        children = [host.spawn(["sh", "-c", script]) for _ in range(5)]
        for answer, streams in children:
            streams.close()
            assert host.exit_of(answer.value["pid"]).exit_code == 0
        wait_until(lambda: host.children() == [])


def test_signals_do_not_end_the_agent(host: AgentHost) -> None:
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        os.kill(host.pid, number)
    assert host.call_file("stat", path="/").error is None


def test_a_flood_of_child_signals_loses_no_exit(host: AgentHost) -> None:
    answer, streams = host.spawn(["cat"])
    for _ in range(20_000):
        os.kill(host.pid, signal.SIGCHLD)
    streams.close()
    assert host.exit_of(answer.value["pid"]).exit_code == 0


def test_at_most_so_many_processes_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent, "MAX_PROCESSES", 2)
    with AgentHost() as host:
        running = [host.spawn(["cat"])[1] for _ in range(2)]
        refused, unused = host.spawn(["cat"])
        unused.close()
        assert refused.error == "too_large"
        assert refused.detail == "2 processes run already"
        for streams in running:
            streams.close()
        for _ in running:
            host.wait_for(lambda message: isinstance(message, AgentExit))
        answer, streams = host.spawn(["true"])
        streams.close()
        assert answer.error is None


def test_at_most_so_many_file_operations_run(host: AgentHost) -> None:
    pipes = [os.pipe() for _ in range(agent.MAX_FILE_OPERATIONS)]
    watches = [host.file("watch", [w], path="/proc/self", recursive=False) for _, w in pipes]
    for reading, _ in pipes:
        assert os.read(reading, 100) == b'{"started":true}\n'
    assert host.call_file("stat", path="/").error == "too_large"
    for reading, _ in pipes:
        os.close(reading)
    for number in watches:
        assert host.answer(number).value == {"ended": "closed"}
    assert host.call_file("stat", path="/").error is None


def test_an_engine_that_reads_no_answers_is_not_read_either(host: AgentHost) -> None:
    requests = range(1, 40_001)
    frames = b"".join(
        encode_frame({"type": "request", "request": n, "op": "cancel", "target": 0})
        for n in requests
    )
    host.socket.setblocking(False)
    sent = 0
    while sent < len(frames) and select.select([], [host.socket], [], 0.2)[1]:
        sent += host.socket.send(frames[sent : sent + 65_536])
    assert 0 < sent < len(frames)
    host.socket.setblocking(True)
    assert host.answer(1).error is None


def test_a_request_number_in_use_is_refused(host: AgentHost, tmp_path: Path) -> None:
    reading, writing = os.pipe()
    number = host.file("watch", [writing], path=str(tmp_path), recursive=False)
    os.read(reading, 100)
    again = {"type": "request", "request": number, "op": "file", "action": "stat"}
    host.socket.sendall(encode_frame({**again, "user": "user", "path": "/"}))
    assert host.answer(number).detail == f"request {number} is running already"
    os.close(reading)
    assert host.answer(number).value == {"ended": "closed"}


def test_nothing_is_imported_after_the_start() -> None:
    """In a fresh interpreter, where nothing else has imported what the agent forgot."""
    source = str(Path(agent.__file__).parent.parent)
    program = f"import sys; sys.path.append({source!r})\n" + textwrap.dedent(
        """
        import builtins, os, socket, sys
        from headrace_guest import agent
        class Identity:
            def become(self, user, *, is_privileged): pass
            def limit(self): pass
        real = builtins.__import__
        def refuse(name, *rest):
            if name not in sys.modules:
                os.write(2, f"imported {name}".encode())
            return real(name, *rest)
        builtins.__import__ = refuse
        sys.meta_path.clear()
        agent.serve(socket.socket(fileno=int(sys.argv[1])), Identity())
        """
    )
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", program, str(theirs.fileno())],
        pass_fds=[theirs.fileno()],
        stderr=subprocess.PIPE,
    )
    theirs.close()
    with AgentHost.adopt(ours, process.pid) as host:
        for body in GARBAGE:
            send_body(host, body)
            assert host.answer(0).error == "invalid"
        use_everything(host)
        host.socket.close()
        assert process.wait() == 0
    assert process.communicate()[1] == b""


def use_everything(host: AgentHost) -> None:
    """Go through every operation, also where it fails."""
    answer, streams = host.spawn(["/nowhere/\udcff"])
    streams.close()
    assert answer.error == "not_found"
    answer, streams = host.spawn(["echo", "ä"])
    assert streams.read() == ("ä\n".encode(), b"")
    host.exit_of(answer.value["pid"])
    source, sink = os.pipe(), os.pipe()
    fields = {"argv": ["true"], "env": {}, "cwd": "/", "user": "user"}
    pty = {"cols": 80, "rows": 24}
    answer = host.call("spawn", [source[0], sink[1]], **fields, pty=pty)
    os.close(source[1])
    assert read_all(sink[0]) == b""
    host.exit_of(answer.value["pid"])
    directory = "/tmp/headrace-agent-test-" + str(os.getpid())
    make = {"mode": 0o700, "parents": True, "exist_ok": True}
    assert host.call_file("make_dir", path=directory, **make).value == {"created": True}
    reading, writing = os.pipe()
    watching = host.file("watch", [writing], path=directory, recursive=True)
    assert os.read(reading, 100) == b'{"started":true}\n'
    data, rest = os.pipe()
    os.close(rest)
    write = {"mode": None, "create_parents": True, "append": False}
    wrote = host.answer(host.file("write", [data], path=directory + "/a/\udcff", **write))
    assert wrote.value == {"size": 0}
    move = {"source": directory + "/a", "destination": directory + "/b", "create_parents": False}
    assert host.call_file("move", **move).error is None
    assert host.call_file("set_mode", path=directory + "/b", mode=0o755).error is None
    remove = {"recursive": True, "missing_ok": False}
    assert host.call_file("remove", path=directory, **remove).value == {"removed": True}
    assert host.answer(watching).value == {"ended": "removed"}
    assert b"created" in read_all(reading)


def test_the_answer_says_which_request_it_is_for(host: AgentHost) -> None:
    numbers = [host.file("stat", path=f"/proc/{n}/none") for n in range(20)]
    for number in reversed(numbers):
        assert host.answer(number) == AgentReply(
            request=number,
            value={},
            error="not_found",
            detail=f"/proc/{number - 1}/none: No such file or directory",
        )
