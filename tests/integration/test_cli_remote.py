"""ls, logs, kill and shell against a running service."""

import json
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace import OutputWritten, Sandbox
from tests.support.serving import (
    COMMAND,
    PATIENCE,
    ServiceProcess,
    clean_environment,
    started_service,
)

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with started_service(tmp_path_factory.mktemp("service")) as service:
        yield service


@pytest.fixture
def sandbox(service: ServiceProcess) -> Iterator[Sandbox]:
    metadata = {"job": "7\x1b[31m"}
    with Sandbox.create(url=service.url, api_key=service.key, metadata=metadata) as sandbox:
        yield sandbox


def environment(service: ServiceProcess) -> dict[str, str]:
    return clean_environment(HEADRACE_URL=service.url, HEADRACE_API_KEY=service.key)


def headrace(service: ServiceProcess, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [COMMAND, *words],
        env=environment(service),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def test_ls_shows_sandboxes_and_what_their_makers_wrote_cannot_steer_the_terminal(
    service: ServiceProcess, sandbox: Sandbox
) -> None:
    done = headrace(service, "ls")

    row = next(line for line in done.stdout.splitlines() if sandbox.id in line)
    assert row.split("\t")[1] == "running"
    assert "job=7" in row
    assert "\x1b" not in done.stdout
    assert done.returncode == 0


def test_ls_filters_and_prints_json(service: ServiceProcess, sandbox: Sandbox) -> None:
    found = json.loads(headrace(service, "ls", "--json", "--state", "running").stdout)
    other = json.loads(headrace(service, "ls", "--json", "--metadata", "job=8").stdout)

    assert sandbox.id in [each["id"] for each in found["sandboxes"]]
    assert other == {"sandboxes": []}


def test_logs_show_an_execution_also_when_its_sandbox_is_gone(service: ServiceProcess) -> None:
    with Sandbox.create(url=service.url, api_key=service.key) as sandbox:
        code = "import sys\nprint('out'); print('err', file=sys.stderr); 6 * 7"
        execution = sandbox.run_code(code)

    done = headrace(service, "logs", execution.id)
    lines = headrace(service, "logs", "--json", execution.id).stdout.splitlines()
    rest = headrace(service, "logs", "--json", "--after", "2", execution.id).stdout.splitlines()

    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n42\n", "err\n")
    events = [json.loads(line) for line in lines]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events[-1]["type"] == "finished"
    assert [json.loads(line) for line in rest] == events[2:]


def test_logs_stop_at_what_is_there_and_follow_with_f(
    service: ServiceProcess, sandbox: Sandbox
) -> None:
    command = "echo one; read line; echo two; exit 3"
    process = sandbox.commands.run(command, background=True, stdin=True)
    next(event for event in process if isinstance(event, OutputWritten))
    assert headrace(service, "logs", process.id).stdout == "one\n"

    with subprocess.Popen(
        [COMMAND, "logs", "-f", process.id],
        env=environment(service),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "one\n"
        process.write_stdin("go\n")
        stdout, stderr = following.communicate(timeout=PATIENCE)

    assert (stdout, stderr) == ("two\n", "headrace: error: exit code 3\n")


def test_logs_of_what_never_was_say_so(service: ServiceProcess) -> None:
    done = headrace(service, "logs", "nonsense")

    assert done.returncode == 125
    assert "process_not_found" in done.stderr


def test_kill_ends_processes_and_sandboxes_and_says_what_was_not_there(
    service: ServiceProcess,
) -> None:
    sandbox = Sandbox.create(url=service.url, api_key=service.key)
    process = sandbox.commands.run("sleep 600", background=True)

    assert headrace(service, "kill", process.id).stdout == f"{process.id}: ended\n"
    assert process.wait().signal == 9
    both = headrace(service, "kill", "--json", sandbox.id, "a" * 26)
    assert json.loads(both.stdout) == {"killed": {sandbox.id: True, "a" * 26: False}}
    assert both.returncode == 1
    sandbox.close()


@pytest.mark.parametrize("words", [(), ("--all", "a" * 26), ("nonsense",)])
def test_kill_refuses_what_it_cannot_mean(service: ServiceProcess, words: tuple[str, ...]) -> None:
    done = headrace(service, "kill", *words)

    assert done.returncode == 2
    assert done.stderr.startswith("headrace: ")


def test_a_service_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    url = f"unix://{tmp_path}/none.sock"
    done = subprocess.run(
        [COMMAND, "ls", "--url", url, "--api-key", "k" * 40],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )

    assert done.returncode == 125
    assert done.stderr.startswith("headrace: connection_failed: ")
    assert len(done.stderr.splitlines()) == 1


def test_shell_is_a_terminal_with_the_size_of_ours_and_the_status_of_the_shell(
    service: ServiceProcess, sandbox: Sandbox
) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (33, 121))
    with subprocess.Popen(
        [COMMAND, "shell", sandbox.id],
        env=environment(service) | {"TERM": "xterm"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as shell:
        os.close(theirs)
        _type_when(ours, b"$ ", b"stty size; echo is-$((40 + 2)) $TERM\n")
        shown = _type_when(ours, b"is-42 xterm", b"exit 7\n")
        assert b"33 121" in shown
        assert shell.wait(PATIENCE) == 7
    os.close(ours)


def test_shell_without_a_terminal_says_what_to_use(service: ServiceProcess) -> None:
    done = headrace(service, "shell")

    assert done.returncode == 2
    assert "needs a terminal" in done.stderr


def _type_when(fd: int, expected: bytes, typed: bytes) -> bytes:
    """Wait until something is shown, then type."""
    shown = b""
    deadline = time.monotonic() + PATIENCE
    while expected not in shown:
        left = deadline - time.monotonic()
        assert left > 0, shown
        if select.select([fd], [], [], left)[0]:
            shown += os.read(fd, 4096)
    os.write(fd, typed)
    return shown
