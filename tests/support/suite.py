"""All tests, in every mode that this machine and user can have; scripts/test runs it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from tests.compat.e2b.faces import NODE, PYTHON
from tests.support import environment
from tests.support.modes import (
    MODE_VARIABLE,
    PREFIX_VARIABLE,
    USER_VARIABLE,
    Mode,
    read_not_run,
)
from tests.support.vendor import CACHE_VARIABLE, VendorUnavailableError, provide

CHECKOUT = Path(__file__).resolve().parents[2]
ROOTLESS_TESTS = (
    "tests/security",
    "tests/integration",
    "tests/unit/guest",
    "tests/compat/e2b/test_rootless.py",
)
"""What runs a second time, as an ordinary user: all that depends on who runs it."""
_NOTHING_COLLECTED = 5
_USAGE = "usage: scripts/test [--mode root|rootless] [-- ARGUMENTS OF PYTEST]"


def main(argv: Sequence[str]) -> int:
    """Run the tests in each mode and give the exit status: 0 if all passed."""
    modes, arguments = parse(argv)
    # Whoever starts it in the background or by nohup has these ignored, and so would all programs
    # that the tests start and interrupt.
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    not_run = read_not_run(CHECKOUT / "tests" / "not-run.toml")
    outcomes: dict[Mode, str] = {}
    statuses: list[int] = []
    for mode in modes:
        excuse = not_run.excuse_for_run(mode)
        if excuse is not None:
            outcomes[mode] = f"not run: {excuse}"
            continue
        _say(f"== tests in {mode} mode")
        status = run(mode, arguments)
        statuses.append(status)
        outcomes[mode] = describe(status)
    for mode, outcome in outcomes.items():
        _say(f"== {mode} mode: {outcome}")
    return judge(statuses)


def parse(argv: Sequence[str]) -> tuple[list[Mode], list[str]]:
    """Give the modes to run and pytest's arguments; ends the program on bad usage."""
    words = list(argv)
    modes = list(Mode)
    if words[:1] == ["--mode"] and len(words) > 1 and words[1] in modes:
        modes, words = [Mode(words[1])], words[2:]
    if words and words[0] != "--":
        raise SystemExit(_USAGE)
    return modes, words[1:]


def run(mode: Mode, arguments: list[str]) -> int:
    """Run the tests once and give pytest's exit status."""
    steps: dict[tuple[Mode, bool], Callable[[list[str]], int]] = {
        (Mode.ROOT, True): _run_here,
        (Mode.ROOTLESS, True): _run_as_ordinary_user,
        (Mode.ROOTLESS, False): _run_here,
    }
    return steps[mode, os.geteuid() == 0](arguments)


def judge(statuses: Sequence[int]) -> int:
    """Give 0 only if something ran and nothing failed.

    A selection may match nothing in one mode (it names a test of the other one), not in all.
    """
    failed = [status for status in statuses if status not in (0, _NOTHING_COLLECTED)]
    if failed:
        return failed[0]
    return 0 if 0 in statuses else _NOTHING_COLLECTED


def describe(status: int) -> str:
    """Say in words what an exit status of pytest means."""
    words = {0: "passed", _NOTHING_COLLECTED: "nothing matched the selection"}
    return words.get(status, f"FAILED (exit status {status})")


def _run_here(arguments: list[str]) -> int:
    mode = Mode.ROOT if os.geteuid() == 0 else Mode.ROOTLESS
    env = {**os.environ, MODE_VARIABLE: mode}
    for name in (PREFIX_VARIABLE, USER_VARIABLE):
        env.pop(name, None)
    command = [sys.executable, "-m", "pytest", *arguments]
    return subprocess.run(
        command, cwd=CHECKOUT, env=env, stdin=subprocess.DEVNULL, check=False
    ).returncode


def _run_as_ordinary_user(arguments: list[str]) -> int:
    user = environment.ensure_user()
    _say(f"setting up the environment of user {user.name}")
    prefix = environment.build(user, CHECKOUT)
    suite = environment.copy_suite(user, CHECKOUT)
    env = {
        MODE_VARIABLE: Mode.ROOTLESS,
        PREFIX_VARIABLE: str(prefix),
        USER_VARIABLE: user.name,
    }
    paths = () if names_paths(arguments, suite) else existing(ROOTLESS_TESTS, suite)
    if needs_vendors([*arguments, *paths]):
        env[CACHE_VARIABLE] = str(hand_over_vendors(user))
    command = [str(prefix / "bin" / "python"), "-m", "pytest", *arguments, *paths]
    return user.run(command, cwd=suite, env=env)


def needs_vendors(arguments: Sequence[str]) -> bool:
    """Say whether pytest's arguments select tests that need packages of vendors."""
    return any(word.rstrip("/") == "tests" or "tests/compat" in word for word in arguments)


def hand_over_vendors(user: environment.OrdinaryUser) -> Path:
    """Give the user copies of the environments of vendors, which only root may install."""
    built = [provide(PYTHON)]
    with suppress(VendorUnavailableError):  # tests/not-run.toml knows machines without npm
        built.append(provide(NODE))
    place = user.home / "vendors"
    user.receive(place, built)
    return place


def names_paths(arguments: Sequence[str], suite: Path) -> bool:
    """Say whether pytest's arguments already choose files or directories."""
    words = (word.partition("::")[0] for word in arguments if not word.startswith("-"))
    return any((suite / word).exists() for word in words)


def existing(paths: Sequence[str], suite: Path) -> tuple[str, ...]:
    """Give those paths that the suite has."""
    return tuple(path for path in paths if (suite / path).exists())


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
