"""What an engine is told at its start, and what the launcher reports to be enforced."""

import re
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from headrace.model.errors import InvalidRequestError, IsolationError, LaunchError
from headrace.model.specs import MAX_TIMEOUT, MIB, Limits, check_positive, check_whole

MODES = ("auto", "root", "rootless")
REQUIREMENTS = (
    "namespaces",
    "seccomp",
    "memory",
    "processes",
    "cpu",
    "id_ranges",
    "idmapped_mounts",
)
"""The protections that a caller may insist on."""

_NODE = re.compile(r"[a-z][a-z2-7]{3}")
_RUN = re.compile(r"[a-z0-9-]{1,64}")

GENEROUS = Limits(
    memory=64 * 1024 * MIB,
    disk=64 * 1024 * MIB,
    inodes=10_000_000,
    processes=8192,
    open_files=65_536,
    cpus=64.0,
    lifetime=MAX_TIMEOUT,
    output=64 * 1024 * MIB,
)
"""The ceiling where the operator sets none: what no machine of today minds being asked for."""


@dataclass(frozen=True)
class EngineConfig:
    """The settings of one engine; every constructor call checks them.

    ``state_dir`` holds what may be large (templates, long logs), ``runtime_dir`` should be in
    memory. ``pool_size`` ready sandboxes are kept, 0 for none, within ``max_sandboxes``; at most
    ``max_creating`` are made at once. Logs are kept for ``log_retention`` seconds after their end
    and within ``log_bytes`` bytes. ``interrupt_grace`` is how many seconds code may take to answer
    an interrupt before its kernel is replaced. ``require`` names protections without which the
    engine refuses to open. ``template_aliases`` maps other names of templates to ours.
    ``default_limits`` are those of a sandbox that asks for none, and of the pool; ``max_limits``
    is the most that may be asked for. One tenant may have ``max_tenant_sandboxes``. ``run`` names
    this engine's logs among those of others with the same directories. The
    fields with ``timeout`` are deadlines in seconds. ``on_launched`` is called once the launcher
    runs and before any thread exists: the moment to give privileges up.
    """

    state_dir: Path
    runtime_dir: Path
    mode: str = "auto"
    python_prefix: Path = field(default_factory=lambda: Path(sys.prefix))
    pool_size: int = 4
    max_sandboxes: int = 500
    max_tenant_sandboxes: int | None = None
    max_creating: int = 16
    default_limits: Limits = field(default_factory=Limits)
    max_limits: Limits = GENEROUS
    log_retention: float = 3600.0
    log_bytes: int = 4096 * MIB
    interrupt_grace: float = 2.0
    require: frozenset[str] = frozenset()
    template_aliases: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    node: str | None = None
    run: str = "main"
    on_launched: Callable[[], None] | None = None
    launcher_start_timeout: float = 150.0
    sandbox_start_timeout: float = 30.0
    kernel_start_timeout: float = 30.0
    verb_timeout: float = 15.0
    pause_timeout: float = 5.0
    agent_timeout: float = 30.0

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise InvalidRequestError(
                f"mode must be one of {', '.join(MODES)}, got {self.mode!r}", mode=self.mode
            )
        for name, least in (("pool_size", 0), ("max_sandboxes", 1), ("max_creating", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise InvalidRequestError(f"{name} must be at least {least}, got {value!r}")
        for name in (
            "log_retention",
            "interrupt_grace",
            "launcher_start_timeout",
            "sandbox_start_timeout",
            "kernel_start_timeout",
            "verb_timeout",
            "pause_timeout",
            "agent_timeout",
        ):
            check_positive(name, getattr(self, name))
        if self.node is not None and not _NODE.fullmatch(self.node):
            raise InvalidRequestError(
                f"node must be four characters of [a-z2-7], a letter first, got {self.node!r}"
            )
        check_requirements(self.require)
        if not _RUN.fullmatch(self.run):
            raise InvalidRequestError(f"run must be letters, digits and '-', got {self.run!r}")
        if self.max_tenant_sandboxes is not None:
            check_whole("max_tenant_sandboxes", self.max_tenant_sandboxes, 1, self.max_sandboxes)
        self.default_limits.check_within(self.max_limits)

    @property
    def log_runtime_dir(self) -> Path:
        """Where small logs and the newest parts of long ones are."""
        return self.runtime_dir / "logs" / self.run

    @property
    def log_state_dir(self) -> Path:
        """Where long logs are."""
        return self.state_dir / "logs" / self.run


def check_requirements(names: Iterable[str]) -> None:
    """Refuse names of protections that nobody knows."""
    unknown = sorted(set(names) - set(REQUIREMENTS))
    if unknown:
        raise InvalidRequestError(
            f"unknown requirement {', '.join(map(repr, unknown))}; "
            f"expected some of {', '.join(REQUIREMENTS)}",
            unknown=unknown,
        )


@dataclass(frozen=True, slots=True)
class LanguageReport:
    """Whether a language besides Python can run here: ``problem`` says why not.

    ``package`` is the Debian package that brings its interpreter.
    """

    version: str
    problem: str | None
    package: str

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Self:
        """Read what the driver fork server found."""
        problem = raw["problem"]
        text = None if problem is None else str(problem)
        return cls(str(raw["version"]), text, str(raw["package"]))


@dataclass(frozen=True)
class IsolationReport:
    """What is really enforced, as the launcher found it; the same for all its sandboxes.

    ``memory`` is ``cgroup`` or ``watchdog``. ``missing`` names the Python packages of the kernel
    that are not installed. ``languages`` are those besides Python that this version knows.
    ``raw`` is everything that the launcher said.
    """

    mode: str
    enforced: frozenset[str]
    memory: str
    missing: tuple[str, ...]
    languages: Mapping[str, LanguageReport]
    raw: Mapping[str, Any]

    @classmethod
    def read(cls, raw: object) -> Self:
        """Read the launcher's report; raises LaunchError if it is not one."""
        if not isinstance(raw, dict):
            raise LaunchError(f"the launcher's report is {type(raw).__name__}, not an object")
        try:
            python = raw.get("python") or {}
            return cls(
                mode=str(raw["mode"]),
                enforced=frozenset(str(name) for name in raw["enforced"]),
                memory=str(raw.get("memory", "none")),
                missing=tuple(str(name) for name in python.get("missing", ())),
                languages={
                    str(name): LanguageReport.read(found)
                    for name, found in raw.get("languages", {}).items()
                },
                raw=MappingProxyType(raw),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise LaunchError(f"the launcher's report cannot be read: {error!r}") from error

    def check(self, required: Iterable[str]) -> None:
        """Raise IsolationError that names everything that was asked for and is not there."""
        weaker = sorted(set(required) - self.enforced)
        if weaker:
            raise IsolationError(
                f"this machine cannot enforce {', '.join(weaker)} in {self.mode} mode; "
                f"it enforces {', '.join(sorted(self.enforced))}",
                missing=weaker,
                mode=self.mode,
            )
