"""What the SDK gives to its users: plain frozen values without a connection."""

from collections.abc import Mapping
from dataclasses import dataclass

from headrace.model.events import CodeError, FinishReason, OutputDropped
from headrace.model.ids import ContextId, ExecutionId, ProcessId, SandboxId
from headrace.model.results import Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The bounds of a sandbox: sizes in bytes, ``cpus`` in cores, the others are counts.

    ``memory`` is what processes may use, ``disk`` and ``inodes`` what files may, ``output`` what
    one execution or process may write. When a sandbox is created, None is the service's default.
    """

    memory: int | None = None
    disk: int | None = None
    inodes: int | None = None
    processes: int | None = None
    open_files: int | None = None
    cpus: float | None = None
    output: int | None = None


@dataclass(frozen=True, slots=True)
class Isolation:
    """What really keeps a sandbox in: the mode, what is enforced, and how memory is limited."""

    mode: str
    enforced: tuple[str, ...]
    memory: str | None


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox as it was when the service was asked. ``ends_at`` is in Unix seconds."""

    id: SandboxId
    state: str
    template: str
    metadata: Mapping[str, str]
    created_at: float
    ends_at: float | None
    limits: Limits
    isolation: Isolation
    ports_url: str


@dataclass(frozen=True, slots=True)
class SandboxMetrics:
    """What a sandbox uses, in bytes and seconds; None is what this machine cannot tell."""

    timestamp: float
    memory: int | None
    memory_peak: int | None
    cpu_seconds: float | None
    processes: int | None
    oom_kills: int | None


@dataclass(frozen=True, slots=True)
class Context:
    """One interpreter state of a sandbox, as it was when the service was asked."""

    id: ContextId
    language: str
    cwd: str
    state: str
    is_default: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """Why something ended, and what that cost; see `headrace.model.events.ExecutionFinished`.

    ``limit`` and ``limit_value`` (seconds or bytes) name the bound that was hit. ``duration`` is
    in seconds.
    """

    reason: FinishReason
    duration: float
    exit_code: int | None = None
    signal: int | None = None
    state_lost: bool = False
    limit: str | None = None
    limit_value: float | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class ExecutionInfo:
    """An execution as it was when the service was asked.

    ``state`` is ``queued``, ``running`` or ``finished``; ``ending`` is there when it is finished.
    """

    id: ExecutionId
    sandbox_id: SandboxId
    state: str
    context_id: ContextId | None
    last_seq: int
    ending: Ending | None


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process of a sandbox as it was when the service was asked.

    ``state`` is ``running`` or ``finished``; ``pid`` is the one inside the sandbox.
    """

    id: ProcessId
    sandbox_id: SandboxId
    pid: int | None
    argv: tuple[str, ...]
    cwd: str
    user: str
    tag: str | None
    has_pty: bool
    state: str
    last_seq: int
    ending: Ending | None


@dataclass(frozen=True, slots=True)
class Execution:
    """The outcome of a piece of code.

    ``error`` is the exception that the code did not catch: data, never raised by the SDK.
    ``reason`` says how it ended in any case. ``results`` are the values that it displayed;
    ``text`` is that of its last expression. ``dropped`` marks output that the service left out,
    ``not_kept`` counts bytes that arrived but were too many to be kept here.
    ``context_id`` and ``execution_count`` are None if the code never began to run.
    """

    id: ExecutionId
    context_id: ContextId | None
    execution_count: int | None
    reason: FinishReason
    duration: float
    exit_code: int | None
    signal: int | None
    state_lost: bool
    limit: str | None
    limit_value: float | None
    detail: str | None
    stdout: str
    stderr: str
    results: tuple[Result, ...]
    error: CodeError | None
    dropped: tuple[OutputDropped, ...]
    not_kept: int
    last_seq: int

    @property
    def is_ok(self) -> bool:
        """Whether the code ran to its end."""
        return self.reason is FinishReason.OK

    @property
    def text(self) -> str | None:
        """The plain text of the last expression's value, or None if there is none."""
        return next((each.text for each in self.results if each.is_main), None)


@dataclass(frozen=True, slots=True)
class CommandResult:
    """The outcome of a command. A status other than 0 is data and is not raised.

    ``exit_code`` is None if a signal ended it, which ``signal`` names then. ``dropped`` and
    ``not_kept`` are those of `Execution`.
    """

    id: ProcessId
    pid: int | None
    reason: FinishReason
    duration: float
    exit_code: int | None
    signal: int | None
    limit: str | None
    limit_value: float | None
    detail: str | None
    stdout: str
    stderr: str
    dropped: tuple[OutputDropped, ...]
    not_kept: int

    @property
    def is_ok(self) -> bool:
        """Whether it ended by itself with status 0."""
        return self.reason is FinishReason.OK and self.exit_code == 0
