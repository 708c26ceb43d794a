"""What commands find around them: the sandbox's Python, their user's home, their own variables."""

import sys

import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import PathNotFoundError
from headrace.model.specs import ProcessRequest
from tests.support.modes import Mode
from tests.support.running import PATIENCE, ProcessOutcome, run_process, run_python
from tests.support.wheels import SOURCE

PROGRAMS = f"{sys.prefix}/bin"


async def login(
    sandbox: Sandbox, line: str, *, user: str = "user", env: dict[str, str] | None = None
) -> ProcessOutcome:
    """Run a line as clients of other services do: by a login shell."""
    return await run_process(sandbox, "/bin/bash", "-l", "-c", line, user=user, env=env)


async def test_a_login_shell_finds_the_sandboxes_python_first(sandbox: Sandbox) -> None:
    done = await login(sandbox, "command -v python pip; echo $PATH")
    assert done.stdout.splitlines()[:2] == [f"{PROGRAMS}/python", f"{PROGRAMS}/pip"]
    assert done.stdout.splitlines()[2].split(":")[0] == PROGRAMS
    assert done.stderr == ""


@pytest.mark.parametrize("shell", [("bash", "-l", "-c"), ("bash", "-c"), ("sh", "-c")])
async def test_a_command_knows_its_user(sandbox: Sandbox, shell: tuple[str, ...]) -> None:
    line = 'echo "$HOME $USER $LOGNAME $SHELL $PWD $(id -un)"'
    done = await run_process(sandbox, *shell, line)
    assert done.stdout == "/home/user user user /bin/bash /home/user user\n"


async def test_a_login_shell_of_root_knows_its_user(sandbox: Sandbox, mode: Mode) -> None:
    if mode is Mode.ROOTLESS:
        done = await login(sandbox, "cd ~root && pwd")
        assert done.stdout == "/root\n"
        return
    done = await login(sandbox, 'cd; echo "$HOME $USER $LOGNAME $PWD"; echo $PATH', user="root")
    assert done.stdout.splitlines()[0] == "/root root root /root"
    assert done.stdout.splitlines()[1].startswith(f"{PROGRAMS}:")
    done = await login(sandbox, "stat -c '%a %U' /root; echo x > ~/x && cat ~/x", user="root")
    assert done.stdout == "700 root\nx\n"


async def test_the_requests_variables_hold_in_a_login_shell(sandbox: Sandbox) -> None:
    env = {"A": "häuser", "HOME": "/tmp", "LANG": "C", "PATH": "/opt/own:/usr/bin", "PS1": "x"}
    done = await login(sandbox, 'echo "$A $HOME $LANG $PATH"', env=env)
    assert done.stdout == "häuser /tmp C /opt/own:/usr/bin\n"


async def test_a_profile_of_the_user_is_read(sandbox: Sandbox) -> None:
    await sandbox.files.write(".profile", b"export MINE=1 PATH=$HOME/bin:$PATH\n")
    done = await login(sandbox, "echo $MINE $PATH")
    assert done.stdout.startswith(f"1 /home/user/bin:{PROGRAMS}:")


@pytest.mark.parametrize("shell", [("bash", "-l", "-c"), ("bash", "-c")])
async def test_python_has_its_packages(sandbox: Sandbox, shell: tuple[str, ...]) -> None:
    line = "python -c 'import pandas, sys; print(sys.prefix)'; python3 -c 'import numpy'"
    done = await run_process(sandbox, *shell, line)
    assert (done.stdout, done.stderr) == (f"{sys.prefix}\n", "")


@pytest.mark.timeout(120)
async def test_the_user_installs_a_wheel_with_its_program(sandbox: Sandbox) -> None:
    await run_python(
        sandbox,
        f"{SOURCE}\nmake_wheel('.', 'example', '1.0', {{'example.py': 'def main(): print(42)',"
        "'example-1.0.dist-info/entry_points.txt': '[console_scripts]\\nexample=example:main'})",
    )
    line = "pip install -q --no-index --disable-pip-version-check ./example-1.0-py3-none-any.whl"
    done = await run_process(sandbox, "bash", "-lc", f"{line} && example", timeout=2 * PATIENCE)
    assert (done.stdout, done.exited.exit_code) == ("42\n", 0), done.stderr


async def test_without_root_sudo_says_so_in_one_line(sandbox: Sandbox, mode: Mode) -> None:
    done = await run_process(sandbox, "sudo", "id")
    if mode is Mode.ROOT:
        assert done.stdout == "uid=0(root) gid=0(root) groups=0(root)\n"
        return
    assert done.exited.exit_code == 1
    assert done.stdout == ""
    assert done.stderr == (
        "sudo: there is no root in this sandbox, because the service that made it does not run"
        " as root (rootless mode)\n"
    )
    assert (await run_process(sandbox, "sudo", "-u", "user", "id", "-un")).stdout == "user\n"


async def test_a_command_that_is_missing_is_told_from_its_directory(sandbox: Sandbox) -> None:
    with pytest.raises(PathNotFoundError, match="nosuch") as caught:
        await sandbox.start_process(ProcessRequest(("nosuch",)))
    assert caught.value.details == {"reason": "not_found"}
