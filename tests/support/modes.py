"""In which mode the tests run, and which of them cannot run in it (tests/not-run.toml)."""

import functools
import os
import platform
import re
import shutil
import subprocess
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from headrace_guest.languages import SEARCH_PATH

MODE_VARIABLE = "HEADRACE_TEST_MODE"
PREFIX_VARIABLE = "HEADRACE_TEST_PREFIX"
"""Set to the sys.prefix of the environment that was made for this run."""
USER_VARIABLE = "HEADRACE_TEST_USER"
"""Set to the name of the user that this run must have."""


class Mode(StrEnum):
    """The two modes of the engine, both of which the security tests must survive."""

    ROOT = "root"
    ROOTLESS = "rootless"


def current_mode() -> Mode:
    """Give the mode that scripts/test asked for, or the one that fits the user."""
    wanted = os.environ.get(MODE_VARIABLE)
    return Mode(wanted) if wanted else Mode.ROOT if os.geteuid() == 0 else Mode.ROOTLESS


def _is_missing(program: str) -> bool:
    return shutil.which(program, path=SEARCH_PATH) is None


@functools.cache
def _lacks_javac_17() -> bool:
    compiler = shutil.which("javac")
    if compiler is None:
        return True
    asked = subprocess.run([compiler, "-version"], capture_output=True, text=True, check=False)
    return not asked.stdout.startswith("javac 17.")


NODE_NEEDED = (20, 18, 1)
"""The oldest Node that the packages of vendors support."""


@functools.cache
def find_node() -> tuple[int, ...]:
    """Give the version of the machine's Node, or an empty tuple without it or without npm."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        return ()
    asked = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True)
    return tuple(int(part) for part in asked.stdout.strip().removeprefix("v").split("."))


CONDITIONS: Mapping[str, Callable[[], bool]] = {
    "root": lambda: current_mode() is Mode.ROOT,
    "rootless": lambda: current_mode() is Mode.ROOTLESS,
    "ordinary-user": lambda: os.geteuid() != 0,
    "not-x86_64": lambda: platform.machine() != "x86_64",
    "no-r": lambda: _is_missing("R"),
    "no-java": lambda: _is_missing("java"),
    "no-npm": lambda: find_node() < NODE_NEEDED,
    "no-javac-17": _lacks_javac_17,
    "own-environment": lambda: PREFIX_VARIABLE not in os.environ,
}


@dataclass(frozen=True, slots=True)
class NotRun:
    """One entry of tests/not-run.toml: ``pattern`` is a mode or a pattern of test ids."""

    pattern: str
    when: str
    reason: str

    def holds(self) -> bool:
        """Say whether the condition holds here and now."""
        return CONDITIONS[self.when]()

    def covers(self, test_id: str) -> bool:
        """Say whether the test is one of those that the entry names."""
        parts = (re.escape(part) for part in self.pattern.split("*"))
        return re.fullmatch(".*".join(parts), test_id) is not None


@dataclass(frozen=True, slots=True)
class NotRunList:
    """What tests/not-run.toml lists."""

    runs: tuple[NotRun, ...]
    tests: tuple[NotRun, ...]

    def excuse_for_run(self, mode: Mode) -> str | None:
        """Give the reason why a whole run cannot happen here, or None."""
        found = (entry for entry in self.runs if entry.pattern == mode and entry.holds())
        return next((entry.reason for entry in found), None)

    def excuse_for_test(self, test_id: str) -> str | None:
        """Give the reason why a test cannot run here, or None."""
        found = (entry for entry in self.tests if entry.covers(test_id) and entry.holds())
        return next((entry.reason for entry in found), None)


def read_not_run(path: Path) -> NotRunList:
    """Read the list; a missing field or an unknown condition is an error."""
    tables = tomllib.loads(path.read_text())
    unknown = set(tables) - {"run", "test"}
    if unknown:
        raise ValueError(f"{path}: unknown tables {sorted(unknown)}")
    runs = tuple(_read_entry(path, table, "mode") for table in tables.get("run", []))
    tests = tuple(_read_entry(path, table, "id") for table in tables.get("test", []))
    return NotRunList(runs, tests)


def _read_entry(path: Path, table: Mapping[str, str], key: str) -> NotRun:
    if set(table) != {key, "when", "reason"} or not table["reason"].strip():
        raise ValueError(f"{path}: an entry needs {key}, when and reason, got {dict(table)}")
    if table["when"] not in CONDITIONS:
        known = ", ".join(CONDITIONS)
        raise ValueError(f"{path}: unknown condition {table['when']!r}; expected one of {known}")
    return NotRun(table[key], table["when"], table["reason"])
