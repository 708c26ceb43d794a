"""Commands: what they start with, how a failed start is told, how they end."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace_guest.protocol import ProtocolError
from headrace_guest.spawn import OperationError, parse_command, read_report, take_path
from tests.support.agent_host import AgentHost, StandardStreams, read_all

REQUEST: dict[str, Any] = {"argv": ["x"], "env": {}, "cwd": "/", "user": "user", "pty": None}

SHOW_PROCESS = """
import json, os, signal
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status") if ":\\t" in line)
print(json.dumps({
    "fds": [n for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n)],
    "ignored": status["SigIgn"].strip(), "blocked": status["SigBlk"].strip(),
    "session": os.getsid(0) == os.getpid(), "group": os.getpgid(0) == os.getpid(),
    "umask": os.umask(0), "oom": open("/proc/self/oom_score_adj").read().strip(),
    "blocking": [os.get_blocking(fd) for fd in (0, 1, 2)],
}))
"""


@pytest.fixture
def host() -> Iterator[AgentHost]:
    with AgentHost() as opened:
        yield opened


def output(host: AgentHost, argv: list[str], **fields: object) -> bytes:
    answer, streams = host.spawn(argv, **fields)
    assert answer.error is None, answer.detail
    stdout, stderr = streams.read()
    assert stderr == b""
    assert host.exit_of(answer.value["pid"]).exit_code == 0
    return stdout


def refusal(host: AgentHost, argv: list[str], **fields: object) -> tuple[str | None, str]:
    answer, streams = host.spawn(argv, **fields)
    assert streams.read() == (b"", b"")
    return answer.error, answer.detail


def test_a_command_has_its_streams_and_its_exit_code(host: AgentHost) -> None:
    answer, streams = host.spawn(["sh", "-c", "cat; echo problem >&2; exit 3"])
    os.write(streams.stdin, b"given")
    assert streams.read() == (b"given", b"problem\n")
    ending = host.exit_of(answer.value["pid"])
    assert (ending.exit_code, ending.signal) == (3, None)


def test_an_end_by_signal_is_told_as_such(host: AgentHost) -> None:
    answer, streams = host.spawn(["sh", "-c", "kill -9 $$"])
    assert streams.read() == (b"", b"")
    ending = host.exit_of(answer.value["pid"])
    assert (ending.exit_code, ending.signal) == (None, signal.SIGKILL)


def test_a_command_inherits_nothing_of_the_agent(host: AgentHost) -> None:
    shown = json.loads(output(host, [sys.executable, "-I", "-S", "-c", SHOW_PROCESS]))
    assert sorted(shown["fds"]) == ["0", "1", "2"]
    # Python itself ignores SIGPIPE and SIGXFSZ when it starts.
    assert int(shown["ignored"], 16) == 1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1
    assert int(shown["blocked"], 16) == 0
    assert shown["session"]
    assert shown["group"]
    assert shown["umask"] == 0o022
    assert shown["oom"] == "500"
    assert shown["blocking"] == [True, True, True]


def test_streams_that_do_not_block_here_block_for_the_command(host: AgentHost) -> None:
    streams = StandardStreams()
    for fd in streams.theirs:
        os.set_blocking(fd, False)
    argv = [sys.executable, "-I", "-S", "-c", SHOW_PROCESS]
    answer = host.call("spawn", streams.theirs, **{**REQUEST, "argv": argv})
    assert json.loads(streams.read()[0])["blocking"] == [True, True, True]
    host.exit_of(answer.value["pid"])


def test_the_environment_is_a_base_and_what_the_request_adds() -> None:
    with AgentHost(path_prefix="/opt/prefix/bin") as host:
        lines = output(host, ["/usr/bin/env"], env={"A": "1 2", "LANG": "de_DE.UTF-8"}).split(b"\n")
    assert sorted(lines) == [
        b"",
        b"A=1 2",
        b"HOME=/home/user",
        b"LANG=de_DE.UTF-8",
        b"LOGNAME=user",
        b"PATH=/opt/prefix/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        b"SHELL=/bin/bash",
        b"TERM=dumb",
        b"USER=user",
    ]


def test_the_request_chooses_the_path_that_its_command_is_searched_in(
    host: AgentHost, tmp_path: Path
) -> None:
    (tmp_path / "hello").write_text("#!/bin/sh\necho mine $0\n")
    (tmp_path / "hello").chmod(0o755)
    assert output(host, ["hello"], env={"PATH": f"/none:{tmp_path}"}) == (
        f"mine {tmp_path}/hello\n".encode()
    )


def test_the_name_of_the_command_is_what_was_given(host: AgentHost) -> None:
    assert output(host, ["sh", "-c", "echo $0"]) == b"sh\n"


def test_bytes_that_are_not_text_pass_through_arguments_and_environment(host: AgentHost) -> None:
    shown = output(host, ["sh", "-c", 'printf %s "$1$X"', "sh", "\udcff"], env={"X": "\udcfe"})
    assert shown == b"\xff\xfe"


def test_the_working_directory_is_the_requests(host: AgentHost, tmp_path: Path) -> None:
    assert output(host, ["pwd"], cwd=str(tmp_path)) == f"{tmp_path}\n".encode()


def test_a_missing_command_is_not_found(host: AgentHost) -> None:
    code, detail = refusal(host, ["no-such-command"])
    assert code == "not_found"
    assert "'no-such-command'" in detail
    assert "PATH" in detail


def test_an_empty_command_is_not_found(host: AgentHost) -> None:
    assert refusal(host, [""])[0] == "not_found"


def test_a_missing_path_is_not_found(host: AgentHost) -> None:
    code, detail = refusal(host, ["/none/such"])
    assert (code, detail) == ("not_found", "command '/none/such' does not exist")


def test_a_missing_interpreter_is_named_as_the_reason(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/none/interpreter\n")
    (tmp_path / "script").chmod(0o755)
    code, detail = refusal(host, [f"{tmp_path}/script"])
    assert code == "not_found"
    assert "interpreter" in detail


def test_what_is_not_executable_is_permission_denied(host: AgentHost) -> None:
    code, detail = refusal(host, ["/etc/passwd"])
    assert (code, detail) == ("permission_denied", "command /etc/passwd: Permission denied")


def test_what_is_no_program_fails(host: AgentHost, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("just text")
    (tmp_path / "text").chmod(0o755)
    code, detail = refusal(host, [f"{tmp_path}/text"])
    assert (code, detail) == ("failed", f"command {tmp_path}/text: Exec format error")


def test_too_long_an_argument_list_is_too_large(host: AgentHost) -> None:
    assert refusal(host, ["true", *["x" * 100_000] * 60])[0] == "too_large"


def test_a_missing_working_directory_is_named(host: AgentHost) -> None:
    code, detail = refusal(host, ["true"], cwd="/none/such")
    assert code == "no_directory"
    assert detail == "working directory /none/such: No such file or directory"


def test_a_file_as_working_directory_is_none(host: AgentHost) -> None:
    assert refusal(host, ["true"], cwd="/etc/passwd")[0] == "no_directory"


def test_a_user_that_the_sandbox_cannot_give_is_permission_denied(host: AgentHost) -> None:
    code, detail = refusal(host, ["true"], user="root")
    assert (code, detail) == ("permission_denied", "user 'root' needs root mode")


def test_a_failed_start_leaves_nothing_to_signal(host: AgentHost) -> None:
    refusal(host, ["no-such-command"])
    answer, streams = host.spawn(["true"])
    streams.close()
    host.exit_of(answer.value["pid"])
    assert host.children() == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("argv", []),
        ("argv", "ls"),
        ("argv", [1]),
        ("argv", ["a\0b"]),
        ("argv", ["\ud800"]),
        ("argv", ["x" * 200_000]),
        ("argv", ["x"] * 70_000),
        ("env", []),
        ("env", {"A": 1}),
        ("env", {"": "x"}),
        ("env", {"A=B": "x"}),
        ("env", {"A": "a\0b"}),
        ("env", {"A\0": "x"}),
        ("cwd", "relative"),
        ("cwd", None),
        ("user", "nobody"),
        ("user", 0),
        ("pty", True),
        ("pty", {"cols": 0, "rows": 5}),
        ("pty", {"cols": 80, "rows": 4097}),
        ("pty", {"cols": 80.0, "rows": 24}),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(field: str, value: object) -> None:
    with pytest.raises(ProtocolError):
        parse_command({**REQUEST, field: value}, None)


def test_a_wrong_number_of_descriptors_is_invalid(host: AgentHost) -> None:
    reading, writing = os.pipe()
    assert host.call("spawn", [writing], **REQUEST).error == "invalid"
    assert read_all(reading) == b""


def test_fifty_commands_at_once_each_get_their_own_streams(host: AgentHost) -> None:
    started = []
    for n in range(50):
        streams = StandardStreams()
        argv = ["sh", "-c", f"cat; echo {n}; exit {n}"]
        number = host.ask("spawn", streams.theirs, **{**REQUEST, "argv": argv})
        started.append((n, number, streams))
    for n, number, streams in started:
        answer = host.answer(number)
        assert streams.read() == (f"{n}\n".encode(), b"")
        assert host.exit_of(answer.value["pid"]).exit_code == n
    assert host.children() == []


def test_the_answer_comes_before_the_exit_notice(host: AgentHost) -> None:
    for _ in range(50):
        streams = StandardStreams()
        number = host.ask("spawn", streams.theirs, **{**REQUEST, "argv": ["true"]})
        first = host.wait_for(lambda _message: True)
        assert getattr(first, "request", None) == number
        host.exit_of(getattr(first, "value", {})["pid"])
        streams.close()


def test_a_signal_reaches_the_whole_group(host: AgentHost) -> None:
    answer, streams = host.spawn(["sh", "-c", "sleep 60 & echo ready; wait"])
    assert os.read(streams.stdout, 100) == b"ready\n"
    pid = answer.value["pid"]
    assert host.call("signal", pid=pid, signal=signal.SIGTERM).error is None
    assert host.exit_of(pid).signal == signal.SIGTERM
    # The output ends only when the background child is gone, too.
    assert streams.read() == (b"", b"")


def test_a_signal_may_go_to_the_process_alone(host: AgentHost) -> None:
    trap = "trap 'kill -TERM $!; wait $!; echo child ended with $?; exit 5' USR1"
    script = f"sleep 60 & {trap}; echo ready; while :; do sleep 0.01; done"
    answer, streams = host.spawn(["sh", "-c", script])
    assert os.read(streams.stdout, 100) == b"ready\n"
    pid = answer.value["pid"]
    assert host.call("signal", pid=pid, signal=signal.SIGUSR1, group=False).error is None
    assert host.exit_of(pid).exit_code == 5
    ended_by_term = 128 + signal.SIGTERM
    assert streams.read()[0] == f"child ended with {ended_by_term}\n".encode()


def test_a_process_that_nobody_spawned_is_not_found(host: AgentHost) -> None:
    answer = host.call("signal", pid=host.pid, signal=signal.SIGKILL)
    assert answer.error == "not_found"


def test_a_process_that_ended_is_not_found(host: AgentHost) -> None:
    answer, streams = host.spawn(["true"])
    streams.close()
    pid = answer.value["pid"]
    host.exit_of(pid)
    assert host.call("signal", pid=pid, signal=signal.SIGKILL).error == "not_found"
    assert host.call("resize", pid=pid, cols=1, rows=1).error == "not_found"


def test_a_command_without_a_terminal_cannot_be_resized(host: AgentHost) -> None:
    answer, streams = host.spawn(["cat"])
    assert host.call("resize", pid=answer.value["pid"], cols=1, rows=1).error == "invalid"
    streams.close()
    host.exit_of(answer.value["pid"])


@pytest.mark.parametrize(
    "report",
    [
        b"",
        b"[]",
        b'{"error":"made_up","detail":"x"}',
        b'{"error":"failed"}',
        b'{"value":[]}',
        b"\0",
    ],
)
def test_a_forged_report_is_a_failure(report: bytes) -> None:
    with pytest.raises(OperationError) as caught:
        read_report(report)
    assert caught.value.code == "failed"


def test_slashes_at_the_end_of_a_path_are_left_out() -> None:
    assert take_path({"path": "/a//"}) == b"/a"
    assert take_path({"path": "//"}) == b"/"
