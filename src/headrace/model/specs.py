"""What callers ask for, checked once at the edge.

Every constructor raises `InvalidRequestError` that names the value and what was expected.
Durations are seconds, sizes are bytes.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Self

from headrace.model.errors import InvalidRequestError
from headrace.model.ids import ContextId

MIB = 1024 * 1024
MAX_CODE = 16 * MIB
MAX_ENV = 256 * 1024
MAX_ARGV = 1 * MIB
MAX_PATH = 4096
MAX_TIMEOUT = 30 * 24 * 3600.0
DEFAULT_TEMPLATE = "code-interpreter"
HOME = "/home/user"
DEFAULT_TENANT = "default"

_ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TENANT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_USERS = ("user", "root")


class Language(StrEnum):
    """The languages that a context may have."""

    PYTHON = "python"
    JAVASCRIPT = "javascript"
    TYPESCRIPT = "typescript"
    BASH = "bash"
    R = "r"
    JAVA = "java"

    @classmethod
    def parse(cls, name: str) -> Self:
        """Read a language's name; raises InvalidRequestError that lists the known ones."""
        try:
            return cls(name)
        except ValueError:
            known = ", ".join(cls)
            raise InvalidRequestError(
                f"unknown language {name!r}; expected one of {known}", language=name
            ) from None


@dataclass(frozen=True, slots=True)
class Limits:
    """The bounds of one sandbox.

    ``memory`` is what processes may use, ``disk`` and ``inodes`` what files may use on top (the
    memory cgroup gets the sum, so that "disk full" always comes before the killer). ``cpus`` is
    cores, ``lifetime`` seconds, ``output`` bytes per execution or process.
    """

    memory: int = 1024 * MIB
    disk: int = 512 * MIB
    inodes: int = 100_000
    processes: int = 256
    open_files: int = 1024
    cpus: float = 1.0
    lifetime: float = 3600.0
    output: int = 1024 * MIB

    def __post_init__(self) -> None:
        floors = {
            "memory": 64 * MIB,
            "disk": 1 * MIB,
            "inodes": 100,
            "processes": 8,
            "open_files": 64,
            "output": 1024,
        }
        for name, floor in floors.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < floor:
                raise InvalidRequestError(
                    f"limit {name} must be a whole number of at least {floor}, got {value!r}",
                    limit=name,
                )
        check_positive("limit cpus", self.cpus, maximum=1024.0)
        check_positive("limit lifetime", self.lifetime)

    def check_within(self, ceiling: "Limits") -> None:
        """Raise InvalidRequestError that names the first bound above that of ``ceiling``."""
        for each in fields(self):
            value, most = getattr(self, each.name), getattr(ceiling, each.name)
            if value > most:
                raise InvalidRequestError(
                    f"limit {each.name} may be at most {most:g} here, got {value:g}",
                    limit=each.name,
                    maximum=most,
                )


class TimeoutAction(StrEnum):
    """What becomes of a sandbox at its deadline."""

    KILL = "kill"
    PAUSE = "pause"


@dataclass(frozen=True, slots=True)
class SandboxSpec:
    """A sandbox that somebody wants. For every tenant but its own it does not exist.

    ``on_timeout`` is what happens at its deadline, ``auto_resume`` whether traffic may wake it.
    """

    template: str = DEFAULT_TEMPLATE
    limits: Limits = field(default_factory=Limits)
    env: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    tenant: str = DEFAULT_TENANT
    on_timeout: TimeoutAction = TimeoutAction.KILL
    auto_resume: bool = False

    def __post_init__(self) -> None:
        check_env(self.env)
        check_mapping("metadata", self.metadata)
        check_tenant(self.tenant)


@dataclass(frozen=True, slots=True)
class ContextSpec:
    """A context that somebody wants: one interpreter state in a sandbox."""

    language: Language = Language.PYTHON
    cwd: str = HOME
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_path("cwd", self.cwd)
        check_env(self.env)


@dataclass(frozen=True, slots=True)
class ExecutionRequest:
    """A piece of code to run.

    Without ``context_id`` the default context of ``language`` is used. ``cwd`` and ``env`` hold
    for this execution only. Without ``timeout`` there is no time limit.
    """

    code: str
    language: Language | None = None
    context_id: ContextId | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str | None = None
    timeout: float | None = None
    accepts_input: bool = False

    def __post_init__(self) -> None:
        check_text("code", self.code, MAX_CODE)
        check_env(self.env)
        if self.cwd is not None:
            check_path("cwd", self.cwd)
        if self.timeout is not None:
            check_positive("timeout", self.timeout)


@dataclass(frozen=True, slots=True)
class PtySize:
    """A terminal's size in characters."""

    cols: int = 80
    rows: int = 24

    def __post_init__(self) -> None:
        for name in ("cols", "rows"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= 4096:
                raise InvalidRequestError(f"pty {name} must be 1 to 4096, got {value!r}")


@dataclass(frozen=True, slots=True)
class ProcessRequest:
    """A command to run in a sandbox, outside any kernel.

    With ``pty`` the command gets a terminal and writes to the one stream ``pty``. Without
    ``has_stdin`` (and without a terminal) its standard input is empty.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: str = HOME
    user: str = "user"
    timeout: float | None = None
    has_stdin: bool = False
    pty: PtySize | None = None
    tag: str | None = None

    def __post_init__(self) -> None:
        if not self.argv or not isinstance(self.argv, tuple):
            raise InvalidRequestError(f"argv must name a command, got {self.argv!r}")
        for index, word in enumerate(self.argv):
            check_text(f"argv[{index}]", word, 128 * 1024 - 1)
        if sum(len(word.encode()) + 1 for word in self.argv) > MAX_ARGV:
            raise InvalidRequestError(f"argv is longer than {MAX_ARGV} bytes")
        check_env(self.env)
        check_path("cwd", self.cwd)
        check_user(self.user)
        if self.timeout is not None:
            check_positive("timeout", self.timeout)


def check_tenant(name: object) -> str:
    """Give the name of a tenant; refuse what cannot be one."""
    if not isinstance(name, str) or not _TENANT.fullmatch(name):
        raise InvalidRequestError(
            f"a tenant is 1 to 64 letters, digits, '_' and '-', got {name!r}", tenant=name
        )
    return name


def check_user(user: str) -> None:
    """Refuse users that no sandbox has."""
    if user not in _USERS:
        raise InvalidRequestError(f"unknown user {user!r}; expected one of {', '.join(_USERS)}")


def check_text(name: str, value: object, maximum: int) -> str:
    """Give the value as text of at most ``maximum`` bytes, without NUL or lone surrogate."""
    if not isinstance(value, str):
        raise InvalidRequestError(f"{name} must be text, got {type(value).__name__}")
    if "\0" in value:
        raise InvalidRequestError(f"{name} contains a NUL character at {value.index(chr(0))}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidRequestError(
            f"{name} contains a lone surrogate at {error.start}, which is not text"
        ) from error
    if size > maximum:
        raise InvalidRequestError(
            f"{name} has {size} bytes; at most {maximum} are accepted", size=size, maximum=maximum
        )
    return value


def check_path(name: str, value: object) -> None:
    """Refuse what cannot be an absolute path."""
    text = check_text(name, value, MAX_PATH)
    if not text.startswith("/"):
        raise InvalidRequestError(f"{name} must be an absolute path, got {value!r}", path=value)


def resolve_path(name: str, value: object, base: str = HOME) -> str:
    """Give an absolute path inside a sandbox; a relative one is taken from ``base``.

    A relative path may not climb out of ``base``. An absolute one may contain ``..``: it is
    resolved inside the sandbox, by the sandbox's own user, and leads nowhere else.
    """
    text = check_text(name, value, MAX_PATH)
    if text.startswith("/"):
        return text
    if not text:
        raise InvalidRequestError(f"{name} must not be empty")
    depth = 0
    for part in PurePosixPath(text).parts:
        depth += -1 if part == ".." else 1
        if depth < 0:
            raise InvalidRequestError(f"{name} {value!r} climbs out of {base}", path=value)
    return f"{base}/{PurePosixPath(text)}"


def check_mapping(name: str, value: object) -> Mapping[str, str]:
    """Give the value as a mapping of text to text of at most ``MAX_ENV`` bytes in all."""
    if not isinstance(value, Mapping):
        raise InvalidRequestError(f"{name} must be a mapping, got {type(value).__name__}")
    total = 0
    for key, item in value.items():
        check_text(f"a name in {name}", key, MAX_ENV)
        check_text(f"{name}[{key!r}]", item, MAX_ENV)
        total += len(key.encode()) + len(item.encode()) + 2
    if total > MAX_ENV:
        raise InvalidRequestError(f"{name} has {total} bytes; at most {MAX_ENV} are accepted")
    return value


def check_env(env: object) -> None:
    """Refuse environment variables that no process can have."""
    for key in check_mapping("env", env):
        if not _ENV_NAME.fullmatch(key):
            raise InvalidRequestError(
                f"env name {key!r} is not a name; expected letters, digits and '_', no digit first",
                name=key,
            )


def check_whole(name: str, value: object, low: int, high: int) -> None:
    """Refuse what is not a whole number from ``low`` to ``high``."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidRequestError(
            f"{name} must be a whole number from {low} to {high}, got {value!r}"
        )


def check_positive(name: str, value: object, maximum: float = MAX_TIMEOUT) -> None:
    """Refuse what is not a finite number above 0 and at most ``maximum``."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidRequestError(f"{name} must be a number, got {type(value).__name__}")
    if not math.isfinite(value) or not 0 < value <= maximum:
        raise InvalidRequestError(f"{name} must be above 0 and at most {maximum:g}, got {value!r}")
