"""The languages besides Python: which program runs each, and whether it is there for sandboxes.

Looked for once, in the driver fork server, whose root shows what sandboxes will see.
"""

import re
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PYTHON = "python"
SEARCH_PATH = "/usr/bin:/bin"
"""Where sandboxes have the host's programs; /usr/local of the host is not shown to them."""
_VERSION_TIMEOUT = 20.0
_NUMBER = re.compile(r"\d+(?:\.\d+)*")


@dataclass(frozen=True)
class Program:
    """What a language needs: a program, at least in that version, and who brings it.

    ``asked`` is the command that tells the version, without the program's path in front.
    """

    name: str
    least: tuple[int, ...]
    package: str
    asked: tuple[str, ...] = ("--version",)


_NODE = Program("node", (20, 12), "nodejs")
_JSHELL_AND_VERSION = ("--add-modules", "jdk.jshell", "--version")
PROGRAMS: Mapping[str, Program] = {
    "bash": Program("bash", (5,), "bash"),
    "javascript": _NODE,
    "typescript": _NODE,
    "r": Program("R", (4,), "r-base-core"),
    "java": Program("java", (17,), "default-jdk-headless", _JSHELL_AND_VERSION),
}
"""The languages that have a driver, and what each needs."""
LANGUAGES = (PYTHON, *PROGRAMS)


@dataclass(frozen=True)
class Found:
    """A language on this machine: the program's path, or the problem in words."""

    path: str | None
    version: str
    problem: str | None
    package: str


def find_programs() -> dict[str, Found]:
    """Look for everything at once; asking for versions takes as long as the slowest answer."""
    programs = set(PROGRAMS.values())
    answers = _ask(programs)
    found = {program: judge(program, *answers[program]) for program in programs}
    return {language: found[program] for language, program in PROGRAMS.items()}


def _ask(programs: Iterable[Program]) -> dict[Program, tuple[str | None, str]]:
    running = {}
    answers: dict[Program, tuple[str | None, str]] = {}
    for program in programs:
        path = shutil.which(program.name, path=SEARCH_PATH)
        answers[program] = (path, "")
        if path is not None:
            running[program] = _start([path, *program.asked])
    for program, process in running.items():
        if process is not None:
            answers[program] = (answers[program][0], _read_answer(process))
    return answers


def _start(words: list[str]) -> "subprocess.Popen[bytes] | None":
    try:
        return subprocess.Popen(  # noqa: S603 - a program of the system, no input of anybody
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",
        )
    except OSError:
        return None


def _read_answer(process: "subprocess.Popen[bytes]") -> str:
    try:
        answer, _nothing = process.communicate(timeout=_VERSION_TIMEOUT)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return ""
    return answer.decode("utf-8", "replace")


def judge(program: Program, path: str | None, answer: str) -> Found:
    """Say whether what was found will do."""
    wanted = ".".join(map(str, program.least))
    match = _NUMBER.search(answer)
    version = match.group() if match is not None else ""
    problem = None
    if path is None:
        problem = f"there is no {program.name} in {SEARCH_PATH}"
    elif not version:
        problem = f"{path} does not tell its version"
    elif tuple(map(int, version.split("."))) < program.least:
        problem = f"{path} is version {version}, at least {wanted} is needed"
    return Found(path if problem is None else None, version, problem, program.package)
