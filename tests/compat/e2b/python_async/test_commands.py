"""Commands and processes."""

import time

import pytest
from e2b_code_interpreter import (
    AsyncSandbox,
    AuthenticationException,
    CommandExitException,
    InvalidArgumentException,
    NotFoundException,
    SandboxException,
    TimeoutException,
)
from face_async import Started, pause


# covers: commands.run
async def test_both_streams_are_kept_and_called_back_with(sandbox: AsyncSandbox) -> None:
    out: list[str] = []
    err: list[str] = []

    result = await sandbox.commands.run(
        "echo one; echo two >&2; echo three", on_stdout=out.append, on_stderr=err.append
    )

    assert (result.stdout, result.stderr) == ("one\nthree\n", "two\n")
    assert ("".join(out), "".join(err)) == ("one\nthree\n", "two\n")
    assert result.exit_code == 0
    assert result.error is None


# covers: commands.run
async def test_a_command_runs_in_a_login_shell_of_the_user(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run('echo "$USER $HOME $PWD $(id -un)"; shopt -q login_shell')

    assert result.stdout == "user /home/user /home/user user\n"


# covers: commands.run
async def test_variables_directory_and_user_can_be_chosen(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run(
        'echo "$WORD $PWD"', envs={"WORD": 'it\'s "quoted" $HOME'}, cwd="/tmp"
    )

    assert result.stdout == 'it\'s "quoted" $HOME /tmp\n'


# covers: commands.run
async def test_a_relative_directory_is_in_the_home(sandbox: AsyncSandbox) -> None:
    await sandbox.files.make_dir("sub")

    result = await sandbox.commands.run("pwd", cwd="sub")

    assert result.stdout == "/home/user/sub\n"


async def test_a_missing_directory_is_refused(sandbox: AsyncSandbox) -> None:
    with pytest.raises(InvalidArgumentException, match="/no/such"):
        await sandbox.commands.run("true", cwd="/no/such")


async def test_an_unknown_user_is_refused(sandbox: AsyncSandbox) -> None:
    with pytest.raises(AuthenticationException):
        await sandbox.commands.run("true", user="nobody-of-that-name")


async def test_a_missing_program_is_an_exit_code(sandbox: AsyncSandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        await sandbox.commands.run("no-such-program")

    assert caught.value.exit_code == 127
    assert "no-such-program" in caught.value.stderr


async def test_a_command_that_is_killed_by_a_signal_says_so(sandbox: AsyncSandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        await sandbox.commands.run("kill -KILL $$")

    assert caught.value.exit_code == -1
    assert caught.value.error is not None
    assert "killed" in caught.value.error


# covers: commands.run
async def test_a_command_ends_at_its_timeout(sandbox: AsyncSandbox) -> None:
    with pytest.raises(TimeoutException):
        await sandbox.commands.run("echo $$ > pid; sleep 300", timeout=1)

    pid = int(await sandbox.files.read("pid"))
    for _ in range(100):
        if pid not in [process.pid for process in await sandbox.commands.list()]:
            break
        await pause(0.1)
    assert pid not in [process.pid for process in await sandbox.commands.list()]
    result = await sandbox.commands.run("pgrep -x sleep || echo none")
    assert result.stdout == "none\n"


# covers: commands.list
async def test_processes_are_listed(sandbox: AsyncSandbox) -> None:
    command = await sandbox.commands.run(
        "sleep 300", background=True, envs={"LISTED": "yes"}, cwd="/tmp"
    )

    (process,) = [one for one in await sandbox.commands.list() if one.pid == command.pid]

    assert process.cmd == "/bin/bash"
    assert process.args == ["-l", "-c", "sleep 300"]
    assert process.envs["LISTED"] == "yes"
    assert process.cwd == "/tmp"


# covers: commands.kill, handle.kill
async def test_a_command_can_be_killed(sandbox: AsyncSandbox) -> None:
    first = await sandbox.commands.run("sleep 300", background=True)
    second = await sandbox.commands.run("sleep 300", background=True)

    assert await sandbox.commands.kill(first.pid)
    assert await second.kill()

    for command in (first, second):
        with pytest.raises(CommandExitException) as caught:
            await command.wait()
        assert caught.value.exit_code == -1
    assert not await sandbox.commands.kill(first.pid)
    assert not await sandbox.commands.kill(4_000_000)


# covers: commands.connect, handle.disconnect
async def test_a_command_survives_a_disconnect_and_can_be_found_again(
    sandbox: AsyncSandbox,
) -> None:
    command = await sandbox.commands.run(
        "for i in $(seq 200); do echo $i; sleep 0.1; [ -e stop ] && break; done; echo 500; exit 7",
        background=True,
    )
    await command.disconnect()
    await pause(0.5)

    again = await sandbox.commands.connect(command.pid)
    await sandbox.files.write("stop", "")
    with pytest.raises(CommandExitException) as caught:
        await again.wait()

    assert again.pid == command.pid
    assert caught.value.exit_code == 7
    # What was printed before is not told again.
    numbers = [int(line) for line in caught.value.stdout.split()]
    assert numbers[-1] == 500
    assert 1 not in numbers


# covers: commands.connect
async def test_several_can_follow_one_command(sandbox: AsyncSandbox) -> None:
    command = await sandbox.commands.run("read line; echo $line", background=True, stdin=True)
    other = await sandbox.commands.connect(command.pid)

    await sandbox.commands.send_stdin(command.pid, "hello\n")
    first = await command.wait()
    second = await other.wait()

    assert first.stdout == second.stdout == "hello\n"


# covers: commands.connect
async def test_one_who_comes_late_learns_the_end(sandbox: AsyncSandbox) -> None:
    command = await sandbox.commands.run("exit 4", background=True)
    with pytest.raises(CommandExitException):
        await command.wait()

    late = await sandbox.commands.connect(command.pid)
    with pytest.raises(CommandExitException) as caught:
        await late.wait()

    assert caught.value.exit_code == 4


async def test_nobody_can_connect_to_what_never_was(sandbox: AsyncSandbox) -> None:
    with pytest.raises(NotFoundException):
        await sandbox.commands.connect(4_000_000)
    with pytest.raises(NotFoundException):
        await sandbox.commands.send_stdin(4_000_000, "x")


# covers: commands.send_stdin, commands.close_stdin
async def test_input_reaches_a_command_until_it_is_closed(sandbox: AsyncSandbox) -> None:
    command = await sandbox.commands.run("cat; echo end", background=True, stdin=True)

    await sandbox.commands.send_stdin(command.pid, "text ü\n")
    await sandbox.commands.send_stdin(command.pid, b"bytes\n")
    await sandbox.commands.close_stdin(command.pid)
    result = await command.wait()

    assert result.stdout == "text ü\nbytes\nend\n"


# covers: handle.send_stdin, handle.close_stdin
async def test_a_handle_takes_input(sandbox: AsyncSandbox) -> None:
    command = await sandbox.commands.run("wc -l", background=True, stdin=True)

    await command.send_stdin("a\nb\n")
    await command.close_stdin()
    result = await command.wait()

    assert result.stdout.strip() == "2"


async def test_a_command_without_input_takes_none(sandbox: AsyncSandbox) -> None:
    command = await sandbox.commands.run("sleep 300", background=True)

    with pytest.raises(SandboxException):
        await sandbox.commands.send_stdin(command.pid, "x\n")


async def test_a_command_without_input_sees_its_end(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("cat; echo end")

    assert result.stdout == "end\n"


# covers: commands.run
async def test_bytes_that_are_no_text_do_not_stop_a_stream(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run(
        r"printf 'a\xffb'; printf '\xe2\x82'; sleep 0.2; printf '\xac'"
    )

    assert result.stdout == "a�b€"


# covers: commands.run
async def test_large_output_is_whole_and_in_order(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("seq 300000")

    assert result.stdout == "".join(f"{i}\n" for i in range(1, 300_001))


async def test_a_command_of_the_user_is_not_root_and_one_of_root_is(sandbox: AsyncSandbox) -> None:
    mine = await sandbox.commands.run("id -u")
    roots = await sandbox.commands.run("id -u; echo $HOME", user="root")

    assert mine.stdout == "1000\n"
    assert roots.stdout == "0\n/root\n"


async def test_the_user_may_become_root(sandbox: AsyncSandbox) -> None:
    result = await sandbox.commands.run("sudo id -u; sudo -n sh -c 'echo $USER'; sudo -E whoami")

    assert result.stdout == "0\nroot\nroot\n"


async def test_python_is_that_of_the_interpreter(sandbox: AsyncSandbox) -> None:
    code = await sandbox.run_code("import sys, pandas; print(sys.prefix, pandas.__version__)")
    program = "import sys, pandas; print(sys.prefix, pandas.__version__)"

    for name in ("python", "python3"):
        command = await sandbox.commands.run(f"{name} -c '{program}'")
        assert command.stdout == "".join(code.logs.stdout)


async def test_a_sandbox_that_is_killed_ends_its_commands_with_a_timeout() -> None:
    sandbox = await AsyncSandbox.create()
    seen: list[str] = []
    running = Started(
        lambda: sandbox.commands.run("echo begun; sleep 300", on_stdout=seen.append, timeout=0)
    )
    for _ in range(100):
        if seen:
            break
        await pause(0.05)

    await sandbox.kill()
    begun = time.monotonic()
    error = await running.error()

    assert seen == ["begun\n"]
    assert isinstance(error, TimeoutException)
    assert "killed" in str(error)
    assert time.monotonic() - begun < 10
    assert not await sandbox.is_running()


async def test_a_server_in_the_background_answers_inside(sandbox: AsyncSandbox) -> None:
    await sandbox.files.write("site/index.html", "served")
    await sandbox.commands.run(
        "python3 -m http.server 3000 --directory site", background=True, timeout=0
    )

    result = await sandbox.commands.run(
        "for i in $(seq 100); do curl -sf localhost:3000 && exit; sleep 0.1; done; exit 1"
    )

    assert result.stdout == "served"
