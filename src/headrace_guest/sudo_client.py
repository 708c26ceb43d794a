"""The ``sudo`` of a sandbox: asks the agent to run a command as root, and looks like its parent.

This file is a program. Its text is put at /usr/bin/sudo of every sandbox, so it imports nothing
but the standard library. It has no privilege of its own: the agent starts the command, with the
descriptors, the directory and the variables that this program sends.
"""

import array
import contextlib
import fcntl
import json
import os
import select
import signal
import socket
import sys
import termios
import tty

TYPE_CHECKING = False
if TYPE_CHECKING:
    # This program starts often; these would make it slower.
    from types import FrameType
    from typing import NoReturn

SOCKET = "/run/sudo/agent"
_PATIENCE = 30.0
_MAX_ANSWER = 64 * 1024
_BUFFER = 64 * 1024
_USERS = {"root": 0, "user": 1000}
_HOMES = {"root": "/root", "user": "/home/user"}
_KEPT = (
    "TERM COLORTERM COLUMNS LINES LANG LANGUAGE LS_COLORS TZ DISPLAY"
    " http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY"
)
_NOT_PRESERVED = ("PATH", "USER", "LOGNAME", "SHELL", "MAIL")
_PASSED_ON = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_FLAGS = {
    "A": "",
    "E": "preserve",
    "H": "set_home",
    "K": "forget",
    "P": "",
    "S": "",
    "V": "version",
    "h": "help",
    "i": "login",
    "k": "forget",
    "l": "list",
    "n": "",
    "s": "shell",
    "v": "validate",
}
_VALUES = {"u": "user", "p": "prompt", "C": "close_from", "D": "chdir"}
_LONG = {
    "askpass": "A",
    "preserve-env": "E",
    "set-home": "H",
    "remove-timestamp": "K",
    "preserve-groups": "P",
    "stdin": "S",
    "version": "V",
    "help": "h",
    "login": "i",
    "reset-timestamp": "k",
    "list": "l",
    "non-interactive": "n",
    "shell": "s",
    "validate": "v",
    "user": "u",
    "prompt": "p",
    "close-from": "C",
    "chdir": "D",
}
_USAGE = """\
usage: sudo [-EHinSs] [-u user] [-D directory] [VAR=value] [command [argument ...]]
       sudo -v | -l | -k | -V | -h

Runs a command as another user of this sandbox, root unless -u says otherwise. No password is
asked for. -E keeps the environment, -i is a login shell, -s a shell.
"""


class UsageError(Exception):
    """The words after ``sudo`` make no sense."""


class Options:
    """What was asked for on the command line."""

    def __init__(self) -> None:
        self.user = "root"
        self.chdir = ""
        self.flags: set[str] = set()
        self.preserved: list[str] = []
        self.variables: dict[str, str] = {}
        self.words: list[str] = []


# --- the command line -----------------------------------------------------------------------


def parse(words: list[str]) -> Options:
    """Read a command line without its first word; raises UsageError."""
    options = Options()
    left = list(words)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        if word.startswith("--"):
            _take_long(options, word[2:], left)
        else:
            _take_short(options, word[1:], left)
    while left and _is_assignment(left[0]):
        name, _, value = left.pop(0).partition("=")
        options.variables[name] = value
    options.words = left
    if options.user not in _USERS:
        raise UsageError(f"unknown user {options.user}; there are {' and '.join(_USERS)}")
    return options


def _is_assignment(word: str) -> bool:
    name, sign, _ = word.partition("=")
    return bool(sign) and name.replace("_", "a").isalnum() and not name[0].isdigit()


def _take_short(options: Options, letters: str, left: list[str]) -> None:
    for index, letter in enumerate(letters):
        if letter in _VALUES:
            value = letters[index + 1 :] or (left.pop(0) if left else None)
            _set_value(options, letter, value)
            return
        if letter not in _FLAGS:
            raise UsageError(f"option -{letter} is not supported here")
        options.flags.add(_FLAGS[letter])


def _take_long(options: Options, word: str, left: list[str]) -> None:
    name, sign, value = word.partition("=")
    letter = _LONG.get(name)
    if letter is None:
        raise UsageError(f"option --{name} is not supported here")
    if letter in _VALUES:
        _set_value(options, letter, value if sign else left.pop(0) if left else None)
    elif letter == "E" and sign:
        options.preserved += value.split(",")
    else:
        options.flags.add(_FLAGS[letter])


def _set_value(options: Options, letter: str, value: str | None) -> None:
    if value is None:
        raise UsageError(f"option -{letter} needs a value")
    if letter == "u":
        by_number = {f"#{number}": name for name, number in _USERS.items()}
        options.user = by_number.get(value, value)
    elif letter == "D":
        options.chdir = value


# --- what is run ----------------------------------------------------------------------------


def choose_command(options: Options, environment: dict[str, str]) -> list[str]:
    """Give the words to run; raises UsageError if there are none."""
    if not options.flags & {"login", "shell"}:
        if not options.words:
            raise UsageError("there is no command")
        return options.words
    shell = "/bin/bash" if "login" in options.flags else environment.get("SHELL", "/bin/bash")
    login = ["-l"] if "login" in options.flags else []
    line = ["-c", " ".join(map(escape, options.words))] if options.words else []
    return [shell, *login, *line]


def escape(word: str) -> str:
    """Write a word so that a shell reads it as one, except that it expands variables."""
    letters = ("'\n'" if c == "\n" else c if c.isalnum() or c in "_-$" else f"\\{c}" for c in word)
    return "".join(letters) or "''"


def choose_environment(options: Options, environment: dict[str, str]) -> dict[str, str]:
    """Give the variables that go along; the agent adds those that every command has."""
    kept = {*_KEPT.split(), *options.preserved}
    if "preserve" in options.flags and "login" not in options.flags:
        kept = environment.keys() - set(_NOT_PRESERVED)
    if "set_home" in options.flags:
        kept = kept - {"HOME"}
    chosen = {
        name: value for name, value in environment.items() if name in kept or name.startswith("LC_")
    }
    return {**chosen, **options.variables}


def _choose_directory(options: Options) -> str:
    if options.chdir:
        return os.path.abspath(options.chdir)  # noqa: PTH100 - no pathlib in a small program
    if "login" in options.flags:
        return _HOMES[options.user]
    try:
        return os.getcwd()  # noqa: PTH109 - no pathlib in a small program
    except OSError:
        return "/"


# --- talking with the agent -----------------------------------------------------------------


def run(options: Options) -> int:
    """Run what was asked for; gives the exit status."""
    environment = dict(os.environ)
    words = choose_command(options, environment)
    _open_missing_streams()
    has_terminal = all(os.isatty(fd) for fd in (0, 1, 2))
    request = {
        "argv": words,
        "env": choose_environment(options, environment),
        "cwd": _choose_directory(options),
        "user": options.user,
        "pty": terminal_size(0) if has_terminal else None,
    }
    with _connect() as agent:
        # Before the command runs: what comes from now on is passed on to it.
        wakeup = _pass_signals_on(agent)
        _send_request(agent, json.dumps(request).encode("ascii"), has_terminal=has_terminal)
        answer, fds = _receive(agent, wakeup)
        if "started" not in answer:
            return _conclude(answer)
        if fds:
            return _conclude(Relay(agent, wakeup, fds[0]).run())
        return _conclude(_receive(agent, wakeup)[0])


def _connect() -> socket.socket:
    agent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    agent.settimeout(_PATIENCE)
    try:
        agent.connect(SOCKET)
    except (FileNotFoundError, ConnectionRefusedError):
        agent.close()
        raise UsageError(
            "there is no root in this sandbox, because the service that made it does not run as"
            " root (rootless mode)"
        ) from None
    except (OSError, TimeoutError):
        agent.close()
        raise UsageError("the agent of this sandbox takes no more commands now") from None
    agent.settimeout(None)
    return agent


def _send_request(agent: socket.socket, request: bytes, *, has_terminal: bool) -> None:
    fds = array.array("i", () if has_terminal else (0, 1, 2))
    try:
        agent.sendmsg([request], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)] if fds else [])
    except OSError as error:
        detail = f"the command cannot be passed on: {error.strerror}; it has {len(request)} bytes"
        raise UsageError(detail) from None


def _receive(agent: socket.socket, wakeup: int) -> tuple[dict[str, object], list[int]]:
    """Wait for the agent's next message; signals are passed on meanwhile."""
    poll = select.poll()
    poll.register(agent, select.POLLIN)
    poll.register(wakeup, select.POLLIN)
    while agent.fileno() not in _wait(poll, wakeup):
        pass
    data, fds = b"", list[int]()
    with contextlib.suppress(ConnectionResetError):
        data, fds, _flags, _address = socket.recv_fds(agent, _MAX_ANSWER, 1)
    answer = json.loads(data) if data else {"error": "failed", "detail": "the agent went away"}
    return dict(answer), fds


def _conclude(answer: dict[str, object]) -> int:
    """Give the exit status that an answer stands for, and say what went wrong."""
    if "detail" in answer:
        sys.stderr.write(f"sudo: {answer['detail']}\n")
        return 1
    code, number = answer.get("exit"), answer.get("signal")
    return code if isinstance(code, int) else 128 + number if isinstance(number, int) else 1


def _wait(poll: select.poll, wakeup: int) -> dict[int, int]:
    """Wait until something is ready or a signal came."""
    ready = dict(poll.poll())
    if ready.pop(wakeup, 0):
        os.read(wakeup, _BUFFER)
    return ready


def _pass_signals_on(agent: socket.socket) -> int:
    """Handle signals from now on; gives a descriptor that is readable when one came.

    Without it one that comes just before a wait would be passed on only when the wait is over.
    """

    def pass_on(number: int, _frame: "FrameType | None") -> None:
        _tell(agent, number)

    def suspend(_number: int, _frame: "FrameType | None") -> None:
        # The command is in a session of its own, where a stop signal from a terminal has no effect.
        _tell(agent, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        _tell(agent, signal.SIGCONT)

    for number in _PASSED_ON:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, pass_on)
    signal.signal(signal.SIGTSTP, suspend)
    wakeup, written = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    return wakeup


def _tell(agent: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):
        agent.send(json.dumps({"signal": int(number)}).encode("ascii"), socket.MSG_DONTWAIT)


def _open_missing_streams() -> None:
    """Take the numbers 0 to 2, so that nothing else gets them."""
    while (fd := os.open("/dev/null", os.O_RDWR)) < 3:
        os.set_inheritable(fd, True)
    os.close(fd)


# --- terminals ------------------------------------------------------------------------------


def terminal_size(fd: int) -> dict[str, int]:
    """Give a terminal's size as the agent wants it."""
    size = os.get_terminal_size(fd)
    return {"cols": min(max(1, size.columns), 4096), "rows": min(max(1, size.lines), 4096)}


class Relay:
    """Passes bytes between the caller's terminal and that of the command, until it has ended.

    The command has a terminal of its own, so that it can have a session and jobs of its own.
    """

    def __init__(self, agent: socket.socket, wakeup: int, master: int) -> None:
        self._agent = agent
        self._wakeup = wakeup
        self._master = master
        self._typed = b""
        self._answer: dict[str, object] = {}
        os.set_blocking(master, False)

    def run(self) -> dict[str, object]:
        """Relay; gives the agent's last message. The terminal is as it was afterwards."""
        before = termios.tcgetattr(0)
        signal.signal(signal.SIGWINCH, lambda _number, _frame: self._resize())
        tty.setraw(0, termios.TCSADRAIN)
        try:
            while not self._answer:
                self._turn()
            while self._show():
                pass
        finally:
            termios.tcsetattr(0, termios.TCSADRAIN, before)
        return self._answer

    def _resize(self) -> None:
        with contextlib.suppress(OSError):
            fcntl.ioctl(
                self._master, termios.TIOCSWINSZ, fcntl.ioctl(0, termios.TIOCGWINSZ, b"8" * 8)
            )

    def _turn(self) -> None:
        poll = select.poll()
        poll.register(self._agent, select.POLLIN)
        poll.register(self._wakeup, select.POLLIN)
        poll.register(self._master, select.POLLIN | (select.POLLOUT if self._typed else 0))
        if not self._typed:
            poll.register(0, select.POLLIN)
        ready = _wait(poll, self._wakeup)
        if ready.get(self._master, 0) & select.POLLIN:
            self._show()
        if self._typed:
            self._pass_typed()
        elif 0 in ready:
            self._read_typed()
        if self._agent.fileno() in ready:
            self._answer = _receive(self._agent, self._wakeup)[0]

    def _show(self) -> bool:
        """Show what the command wrote; False if there is nothing now."""
        try:
            data = os.read(self._master, _BUFFER)
        except OSError:
            return False
        while data:
            data = data[os.write(1, data) :]
        return True

    def _read_typed(self) -> None:
        try:
            self._typed = os.read(0, _BUFFER)
        except OSError:
            self._typed = b""
        if self._typed:
            self._pass_typed()
            return
        # The terminal is gone; so is whoever could type into it.
        _tell(self._agent, signal.SIGHUP)
        self._answer = _receive(self._agent, self._wakeup)[0]

    def _pass_typed(self) -> None:
        try:
            self._typed = self._typed[os.write(self._master, self._typed) :]
        except BlockingIOError:
            return
        except OSError:
            self._typed = b""


# --- the program ----------------------------------------------------------------------------


def _answer_question(options: Options) -> str | None:
    """Give the answer to what needs no command; None if there is one to run."""
    if "help" in options.flags:
        return _USAGE
    if "version" in options.flags:
        return "sudo of this sandbox; it asks for no password\n"
    if "list" in options.flags:
        return (
            "User user may run the following commands on sandbox:\n    (ALL : ALL) NOPASSWD: ALL\n"
        )
    if "forget" in options.flags and not options.words:
        return ""
    return None


def main(words: list[str]) -> int:
    """Do what a command line asks for; gives the exit status."""
    try:
        options = parse(words)
        answer = _answer_question(options)
        if answer is not None:
            sys.stdout.write(answer)
            return 0
        if "validate" in options.flags:
            _connect().close()
            return 0
        if _USERS[options.user] == os.getuid() and options.user == "user":
            _become(options)
        return run(options)
    except UsageError as error:
        sys.stderr.write(f"sudo: {error}\n")
        return 1


def _become(options: Options) -> "NoReturn":
    """Run a command as the user that this program has already."""
    environment = dict(os.environ)
    words = choose_command(options, environment)
    chosen = {
        **{name: environment[name] for name in ("PATH", *_NOT_PRESERVED) if name in environment},
        "HOME": _HOMES[options.user],
        **choose_environment(options, environment),
    }
    try:
        os.chdir(_choose_directory(options))
        os.execvpe(words[0], words, chosen)  # noqa: S606 - no shell is wanted
    except OSError as error:
        raise UsageError(f"{words[0]}: {error.strerror}") from None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
