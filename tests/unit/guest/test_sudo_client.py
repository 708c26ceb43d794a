"""The command line of sudo: what people type, what is run, which variables go along."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from headrace_guest import sudo_client
from headrace_guest.sudo_client import UsageError, choose_command, choose_environment, parse

ENVIRONMENT = {
    "PATH": "/own/bin",
    "HOME": "/home/user",
    "USER": "user",
    "LC_ALL": "C.UTF-8",
    "TERM": "xterm",
    "SECRET": "x",
    "SHELL": "/bin/sh",
}


@pytest.mark.parametrize(
    ("line", "user", "flags", "words"),
    [
        ("id -u", "root", set(), ["id", "-u"]),
        ("-n id", "root", {""}, ["id"]),
        ("-nE apt-get -y update", "root", {"", "preserve"}, ["apt-get", "-y", "update"]),
        ("-u user id", "user", set(), ["id"]),
        ("-uuser id", "user", set(), ["id"]),
        ("-Eu user id", "user", {"preserve"}, ["id"]),
        ("-u #0 id", "root", set(), ["id"]),
        ("--user=user -- -x", "user", set(), ["-x"]),
        ("--user user --non-interactive id", "user", {""}, ["id"]),
        ("-p prompt -S -H id", "root", {"", "set_home"}, ["id"]),
        ("--preserve-env id", "root", {"preserve"}, ["id"]),
        ("-i", "root", {"login"}, []),
        ("-s -- ls -l", "root", {"shell"}, ["ls", "-l"]),
        ("-", "root", set(), ["-"]),
    ],
)
def test_a_command_line_is_read(line: str, user: str, flags: set[str], words: list[str]) -> None:
    options = parse(line.split())
    assert (options.user, options.flags, options.words) == (user, flags, words)


def test_variables_before_the_command_are_set_for_it() -> None:
    options = parse(["A=1", "B_2=x=y", "env", "C=3"])
    assert (options.variables, options.words) == ({"A": "1", "B_2": "x=y"}, ["env", "C=3"])
    assert choose_environment(options, {"A": "before", "Z": "1"}) == {"A": "1", "B_2": "x=y"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("-b id", "option -b is not supported"),
        ("--edit x", "option --edit is not supported"),
        ("-u", "option -u needs a value"),
        ("--chdir", "option -D needs a value"),
        ("-u nobody id", "unknown user nobody"),
        ("-u #1001 id", "unknown user #1001"),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(line: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(line.split())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("id -u", ["id", "-u"]),
        ("-i", ["/bin/bash", "-l"]),
        ("-i id -u", ["/bin/bash", "-l", "-c", "id -u"]),
        ("-s", ["/bin/sh"]),
        ("-s echo $HOME;x", ["/bin/sh", "-c", r"echo $HOME\;x"]),
    ],
)
def test_a_shell_runs_what_was_written(line: str, words: list[str]) -> None:
    assert choose_command(parse(line.split()), ENVIRONMENT) == words


def test_without_a_command_or_a_shell_nothing_is_run() -> None:
    with pytest.raises(UsageError, match="there is no command"):
        choose_command(parse(["-n"]), ENVIRONMENT)


@pytest.mark.parametrize("word", ["", "a b", "it's", '"', "a\nb", "*", "\\", "häuser", "-x"])
def test_a_word_is_one_word_for_a_shell(word: str) -> None:
    line = f"printf %s {sudo_client.escape(word)}"
    assert (
        subprocess.run(["sh", "-c", line], capture_output=True, check=True).stdout == word.encode()
    )


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("id", {"LC_ALL", "TERM"}),
        ("-E id", {"LC_ALL", "TERM", "HOME", "SECRET"}),
        ("-EH id", {"LC_ALL", "TERM", "SECRET"}),
        ("-Ei id", {"LC_ALL", "TERM"}),
        ("--preserve-env=SECRET,NONE id", {"LC_ALL", "TERM", "SECRET"}),
    ],
)
def test_few_variables_go_along_unless_asked(line: str, names: set[str]) -> None:
    assert choose_environment(parse(line.split()), ENVIRONMENT).keys() == names


def run_program(*words: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-I", "-S", sudo_client.__file__, *words]
    return subprocess.run(program, capture_output=True, text=True, check=False)


def test_without_an_agent_it_says_why() -> None:
    assert not Path(sudo_client.SOCKET).exists()
    for words in (["id"], ["-v"]):
        done = run_program(*words)
        assert done.returncode == 1
        assert done.stdout == ""
        assert done.stderr.startswith("sudo: there is no root in this sandbox")
        assert done.stderr.count("\n") == 1


def test_questions_need_no_agent() -> None:
    assert run_program("-l").stdout.endswith("NOPASSWD: ALL\n")
    assert run_program("-h").stdout.startswith("usage: sudo")
    assert run_program("-k").returncode == 0
    assert run_program("-x").stderr == "sudo: option -x is not supported here\n"


def test_who_is_that_user_already_needs_no_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 1000)
    run: list[object] = []

    def execute(file: str, words: list[str], environment: dict[str, str]) -> None:
        run.append((file, words, environment["HOME"], environment["X"]))

    monkeypatch.setattr(os, "execvpe", execute)
    monkeypatch.setattr(os, "chdir", lambda _path: None)
    monkeypatch.setattr(sudo_client, "run", lambda _options: 99)
    sudo_client.main(["-u", "user", "X=1", "id", "-u"])
    assert run == [("id", ["id", "-u"], "/home/user", "1")]


def test_a_signal_ends_a_wait_that_begins_after_it() -> None:
    # What Python does for a signal that comes at the last moment before a wait, it does after it.
    program = """
import os, select, signal, socket
from headrace_guest import sudo_client
agent, client = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
wakeup = sudo_client._pass_signals_on(client)
os.kill(os.getpid(), signal.SIGUSR1)
poll = select.poll()
poll.register(wakeup, select.POLLIN)
assert sudo_client._wait(poll, wakeup) == {}
assert poll.poll(0) == []
print(agent.recv(100).decode())
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=30
    )
    assert (done.stdout, done.stderr) == ('{"signal": 10}\n', "")
