"""Environments with the unmodified packages of vendors.

Each is installed once, by package name, into a directory below the checkout that git ignores, and
used again as long as its requirements and its interpreter are the same.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from tests.support.modes import find_node

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE_VARIABLE = "HEADRACE_TEST_VENDORS"
"""Set to a directory with environments that another user has built for this run."""
_PATIENCE = 300.0
"""Seconds for one installation."""
_COMPLETE = ".complete"


class VendorUnavailableError(Exception):
    """An environment cannot be built here; the message is the installer's last words."""


class Environment(Protocol):
    """What can be built into a directory of its own."""

    @property
    def name(self) -> str:
        """What its directories are called."""

    @property
    def requirements(self) -> tuple[str, ...]:
        """What is installed."""

    @property
    def basis(self) -> str:
        """What it is built on, besides its requirements."""

    def build(self, place: Path) -> None:
        """Install into the empty directory ``place``."""


@dataclass(frozen=True, slots=True)
class PythonEnvironment:
    """A virtual environment with these requirements of pip."""

    name: str
    requirements: tuple[str, ...]
    edition: str = ""

    def of(self, edition: str) -> "PythonEnvironment":
        """Give the same environment, to be built anew for an edition, such as `today`."""
        return replace(self, edition=edition)

    @property
    def basis(self) -> str:
        """What it is built on, besides its requirements."""
        return f"{_base_interpreter()} {sys.version} {self.edition}"

    def program(self, place: Path) -> Path:
        """Give the interpreter of the environment that was built in ``place``."""
        return place / "bin" / "python"

    def build(self, place: Path) -> None:
        """Install into the empty directory ``place``."""
        _run(place, _base_interpreter(), "-I", "-m", "venv", "--without-pip", place)
        _run(
            place,
            *(sys.executable, "-m", "pip", "--python", self.program(place)),
            *("--disable-pip-version-check", "--no-input", "install", "--quiet"),
            *self.requirements,
        )


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """A project of npm with these requirements; nothing in it but ``node_modules`` matters."""

    name: str
    requirements: tuple[str, ...]
    edition: str = ""

    def of(self, edition: str) -> "NodeEnvironment":
        """Give the same environment, to be built anew for an edition, such as `today`."""
        return replace(self, edition=edition)

    @property
    def basis(self) -> str:
        """What it is built on, besides its requirements."""
        return f"node {find_node()[:1]} {self.edition}"

    def program(self, place: Path) -> Path:
        """Give the interpreter, which is the machine's."""
        found = shutil.which("node")
        if found is None:
            raise VendorUnavailableError("there is no node")
        return Path(found)

    def build(self, place: Path) -> None:
        """Install into the empty directory ``place``."""
        (place / "package.json").write_text(json.dumps({"private": True}))
        quiet = ("--no-audit", "--no-fund", "--no-progress", "--loglevel=error")
        _run(place, "npm", "install", "--no-package-lock", *quiet, *self.requirements)


def provide(environment: Environment) -> Path:
    """Give the directory of the environment; builds it first if nobody has.

    Two callers build it once. Raises `VendorUnavailableError` if that does not work.
    """
    cache = Path(os.environ.get(CACHE_VARIABLE, CHECKOUT / ".cache" / "compat"))
    place = cache / f"{environment.name}-{_digest(environment)}"
    with _locked(cache, environment.name):
        if not (place / _COMPLETE).is_file():
            for outdated in cache.glob(f"{environment.name}-*"):
                shutil.rmtree(outdated)
            place.mkdir(parents=True)
            environment.build(place)
            (place / _COMPLETE).touch()
    return place


def today() -> str:
    """Give the edition of an environment that is built anew each day: the latest of all."""
    return datetime.now(UTC).date().isoformat()


def _digest(environment: Environment) -> str:
    parts = json.dumps([environment.basis, *environment.requirements])
    return hashlib.sha256(parts.encode()).hexdigest()[:12]


@contextmanager
def _locked(cache: Path, name: str) -> Iterator[None]:
    if CACHE_VARIABLE in os.environ:  # it is complete, and may be somebody else's
        yield
        return
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _base_interpreter() -> Path:
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def _run(place: Path, *argv: str | Path) -> None:
    try:
        done = subprocess.run(
            argv,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise VendorUnavailableError(f"{argv[0]}: {error}") from error
    if done.returncode:
        raise VendorUnavailableError(f"{argv[0]} failed:\n{done.stdout[-2000:]}")
