"""sudo where there is a root: what people type, in pipes, files and terminals."""

import re

import anyio
import pytest

from headrace.engine.processes import Process
from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason, OutputWritten
from headrace.model.specs import ProcessRequest, PtySize
from tests.support.running import PATIENCE, ProcessOutcome, run_process, run_python


async def shell(sandbox: Sandbox, line: str, *, user: str = "user") -> ProcessOutcome:
    return await run_process(sandbox, "bash", "-c", line, user=user)


async def converse(process: Process, steps: list[tuple[str, str]]) -> str:
    """Type each line once the terminal has shown, since the last one, what it waits for."""
    shown, seen, left = "", 0, list(steps)
    with anyio.fail_after(PATIENCE):
        async for event in process.events():
            if not isinstance(event, OutputWritten):
                continue
            shown += event.data.decode()
            while left and left[0][0] in shown[seen:]:
                seen = shown.index(left[0][0], seen) + len(left[0][0])
                await process.write_stdin(left.pop(0)[1].encode())
    assert not left, (left, shown)
    return shown


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("sudo -n whoami", "root\n"),
        ("sudo -u user whoami", "user\n"),
        ("sudo sudo -u user whoami", "user\n"),
        ("sudo -i pwd", "/root\n"),
        ("cd /tmp; sudo pwd", "/tmp\n"),
        ("sudo -D /var pwd", "/var\n"),
        ("sudo -s -- echo a b", "a b\n"),
        ("sudo -i bash -c 'echo $HOME'", "/root\n"),
        ("sudo su -c whoami", "root\n"),
        ("sudo su user -c whoami", "user\n"),
        ("sudo bash -c 'echo $HOME $USER $SUDO_USER $SUDO_UID'", "/root root user 1000\n"),
        ("A=1 sudo bash -c 'echo $A-'", "-\n"),
        ("A=1 sudo -E bash -c 'echo $A-'", "1-\n"),
        ("sudo A=2 bash -c 'echo $A-'", "2-\n"),
        ("echo hi | sudo tee /root/x >/dev/null; sudo cat /root/x", "hi\n"),
        ("sudo echo x > /tmp/mine; stat -c %U /tmp/mine", "user\n"),
        ("sudo touch /etc/x; stat -c %U /etc/x", "root\n"),
        ("sudo python -c 'import numpy; print(1)'", "1\n"),
        ("/usr/bin/sudo true; echo $?", "0\n"),
        ("sudo false; echo $?", "1\n"),
        ("sudo bash -c 'exit 77'; echo $?", "77\n"),
        ("sudo bash -c 'kill -KILL $$'; echo $?", "137\n"),
        ("sudo id -u <&- ", "0\n"),
        ("sudo -v && sudo -k && sudo -l | tail -1", "    (ALL : ALL) NOPASSWD: ALL\n"),
        ("sudo dpkg --print-architecture >/dev/null && echo ok", "ok\n"),
    ],
)
async def test_what_people_type_works(sandbox: Sandbox, line: str, shown: str) -> None:
    done = await shell(sandbox, line)
    assert (done.stdout, done.stderr) == (shown, "")


@pytest.mark.parametrize("line", ["sudo nosuch", "sudo", "sudo -u nobody id", "sudo -b id"])
async def test_what_cannot_be_done_is_said_in_one_line(sandbox: Sandbox, line: str) -> None:
    done = await shell(sandbox, line)
    assert done.exited.exit_code == 1
    assert re.fullmatch(r"sudo: .+\n", done.stderr)


async def test_code_and_root_may_use_it_as_well(sandbox: Sandbox) -> None:
    assert (await run_python(sandbox, "!sudo whoami")).stdout.split() == ["root"]
    assert (await shell(sandbox, "sudo whoami", user="root")).stdout == "root\n"


async def test_who_root_became_may_not(sandbox: Sandbox) -> None:
    line = "setpriv --reuid 42 --regid 42 --clear-groups sudo id"
    done = await shell(sandbox, line, user="root")
    assert (done.stdout, done.stderr) == ("", "sudo: uid 42 may not use sudo\n")


async def test_a_long_stream_goes_through(sandbox: Sandbox) -> None:
    line = "head -c 20000000 /dev/zero | sudo cat | sudo wc -c"
    assert (await shell(sandbox, line)).stdout == "20000000\n"


@pytest.mark.parametrize("words", [2, 10])
async def test_a_command_line_that_is_too_long_is_said_to_be(sandbox: Sandbox, words: int) -> None:
    program = f"import os; os.execvp('sudo', ['sudo', 'true', *['x' * 100_000] * {words}])"
    done = await run_process(sandbox, "python", "-c", program)
    assert done.exited.exit_code == 1
    assert re.fullmatch(r"sudo: .+ bytes\n", done.stderr)


async def test_a_killed_process_takes_what_it_ran_as_root_along(sandbox: Sandbox) -> None:
    request = ProcessRequest(("bash", "-c", "sudo sh -c 'echo; sleep 1000'"), timeout=PATIENCE)
    process = await sandbox.start_process(request)
    with anyio.fail_after(PATIENCE):
        async for event in process.events():
            if isinstance(event, OutputWritten):
                await process.signal(9)
    assert (await process.wait()).reason is FinishReason.KILLED
    left = await run_python(
        sandbox,
        "import subprocess, time\n"
        "while subprocess.run(['pgrep', '-f', 'sleep 1000']).returncode == 0:\n"
        "    time.sleep(0.01)\n",
    )
    assert left.finished.reason is FinishReason.OK


async def test_signals_are_passed_on(sandbox: Sandbox) -> None:
    script = "trap 'echo got; exit 5' INT; echo ready; while :; do sleep 0.05; done"
    request = ProcessRequest(("sudo", "bash", "-c", script), timeout=PATIENCE)
    process = await sandbox.start_process(request)
    output = b""
    with anyio.fail_after(PATIENCE):
        async for event in process.events():
            if isinstance(event, OutputWritten):
                output += event.data
                if output == b"ready\n":
                    await process.signal(2)
    assert output == b"ready\ngot\n"
    assert (await process.wait()).exit_code == 5


async def test_a_shell_in_a_terminal_has_jobs_and_a_size(sandbox: Sandbox) -> None:
    pty = PtySize(cols=91, rows=31)
    request = ProcessRequest(("bash", "--norc"), pty=pty, timeout=PATIENCE)
    process = await sandbox.start_process(request)
    # A key is pressed when the job itself has shown that it has the terminal: before, the shell
    # may have it still, which ignores what stops or interrupts a job and does not echo.
    job = "trap 'echo on' CONT; echo rea''dy; read x; echo got=\\$x; while :; do sleep 0.05; done"
    steps = [
        ("$", "sudo PS1='ro''ot> ' bash --norc\n"),
        ("root> ", "echo id=$(id -u)-$(stty size)-$-\n"),
        ("id=0-31 91-", f'bash -c "{job}"\n'),
        ("ready\r\n", "typed\n"),
        ("typed\r\ngot=typed\r\n", "\x1a"),
        ("Stopped", "fg\n"),
        ("on\r\n", "\x03"),
        ("root> ", "echo status=$?\n"),
        ("status=130", "exit 6\n"),
        ("$ ", "echo left=$? $(stty -a | grep -c ' icanon')\n"),
        ("left=6 1", "exit\n"),
    ]
    shown = await converse(process, steps)
    assert "no job control" not in shown
    assert re.search(r"id=0-31 91-\w*m", shown)


async def test_a_terminal_that_changes_its_size_tells_the_command(sandbox: Sandbox) -> None:
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done"
    request = ProcessRequest(
        ("bash", "-c", f'sudo bash -c "{script}"'), pty=PtySize(80, 24), timeout=PATIENCE
    )
    process = await sandbox.start_process(request)
    shown = b""
    with anyio.fail_after(PATIENCE):
        async for event in process.events():
            if isinstance(event, OutputWritten):
                shown += event.data
                if shown == b"ready\r\n":
                    await process.resize(PtySize(cols=99, rows=33))
    assert shown == b"ready\r\n33 99\r\n"


async def test_git_serves_both_users(sandbox: Sandbox) -> None:
    line = (
        "set -e; git init -q a; cd a; git config user.name U; git config user.email u@a.b;"
        " echo 1 > f; git add f; git commit -qm first; git clone -q . ../b;"
        " git -C ../b log --format=%s; sudo git log --format=%an; sudo git clone -q . /root/c;"
        " sudo git -C /root/c status -sb; sudo chown -R root: .; git log --format=%s"
    )
    done = await shell(sandbox, line)
    assert done.stderr == ""
    assert done.stdout == "first\nU\n## master...origin/master\nfirst\n"
    done = await shell(sandbox, "cd /home/user/b; git log --format=%s", user="root")
    assert (done.stdout, done.stderr) == ("first\n", "")
