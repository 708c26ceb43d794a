"""What happens during an execution, a process or a watch, as typed events.

Every stream of events begins with a started event, ends with exactly one terminal event and
numbers its events from 1 without gaps. Sequence numbers and timestamps (Unix seconds, UTC) are
given by the host, never by the guest.
"""

from dataclasses import dataclass
from enum import StrEnum

from headrace.model.ids import ContextId, ExecutionId, ProcessId, WatchId
from headrace.model.results import Result


class Stream(StrEnum):
    """Where bytes were written."""

    STDOUT = "stdout"
    STDERR = "stderr"
    PTY = "pty"


class FinishReason(StrEnum):
    """Why an execution or a process ended."""

    OK = "ok"
    ERROR = "error"
    INTERRUPTED = "interrupted"
    TIMEOUT = "timeout"
    OOM = "oom"
    OUTPUT_LIMIT = "output_limit"
    KERNEL_DIED = "kernel_died"
    KILLED = "killed"
    NODE_LOST = "node_lost"


class FileChange(StrEnum):
    """What happened to a watched path."""

    CREATED = "created"
    WRITTEN = "written"
    REMOVED = "removed"
    RENAMED = "renamed"
    CHMOD = "chmod"


@dataclass(frozen=True, slots=True)
class CodeError:
    """An exception of the user's code.

    ``traceback`` is plain text without colour codes. ``parts`` are the exceptions of an
    exception group, in their order.
    """

    name: str
    value: str
    traceback: str
    parts: tuple["CodeError", ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionStarted:
    """The kernel was handed the code. ``execution_count`` counts from 1 in each context."""

    seq: int
    timestamp: float
    execution_id: ExecutionId
    context_id: ContextId
    execution_count: int


@dataclass(frozen=True, slots=True)
class OutputWritten:
    """Bytes written to a stream, cut only between UTF-8 characters.

    The exception to the cut: bytes that are not UTF-8 at all, and an unfinished character at the
    very end, are passed on as they are.
    """

    seq: int
    timestamp: float
    stream: Stream
    data: bytes

    @property
    def text(self) -> str:
        """The bytes as text; what is not UTF-8 becomes U+FFFD."""
        return self.data.decode("utf-8", "replace")


@dataclass(frozen=True, slots=True)
class OutputDropped:
    """The marker of lost output: ``dropped`` bytes of this stream are not in the log.

    ``reason`` says in a few words why (the output limit, or output written between executions).
    """

    seq: int
    timestamp: float
    stream: Stream
    dropped: int
    reason: str


@dataclass(frozen=True, slots=True)
class ResultDisplayed:
    """A rich value: the last expression (``result.is_main``) or something displayed."""

    seq: int
    timestamp: float
    result: Result


@dataclass(frozen=True, slots=True)
class CodeRaised:
    """The code ended with an exception that it did not catch."""

    seq: int
    timestamp: float
    error: CodeError


@dataclass(frozen=True, slots=True)
class InputRequested:
    """The code waits for a line of input (only if the request accepts input)."""

    seq: int
    timestamp: float
    prompt: str
    is_password: bool


@dataclass(frozen=True, slots=True)
class ExecutionFinished:
    """The terminal event of an execution: why it ended, and what that cost.

    ``exit_code`` and ``signal`` are those of ``sys.exit`` or of the kernel's death.
    ``state_lost`` says that the context goes on with a fresh kernel, or not at all.
    ``limit`` and ``limit_value`` name the bound that was hit (seconds or bytes).
    ``duration`` is in seconds, from started to finished.
    """

    seq: int
    timestamp: float
    reason: FinishReason
    duration: float
    exit_code: int | None = None
    signal: int | None = None
    state_lost: bool = False
    limit: str | None = None
    limit_value: float | None = None
    detail: str | None = None


ExecutionEvent = (
    ExecutionStarted
    | OutputWritten
    | OutputDropped
    | ResultDisplayed
    | CodeRaised
    | InputRequested
    | ExecutionFinished
)


@dataclass(frozen=True, slots=True)
class ProcessStarted:
    """The command runs. ``pid`` is its id inside the sandbox."""

    seq: int
    timestamp: float
    process_id: ProcessId
    pid: int


@dataclass(frozen=True, slots=True)
class ProcessExited:
    """The terminal event of a process; ``exit_code`` or ``signal`` is set, never both."""

    seq: int
    timestamp: float
    reason: FinishReason
    duration: float
    exit_code: int | None = None
    signal: int | None = None
    limit: str | None = None
    limit_value: float | None = None
    detail: str | None = None


ProcessEvent = ProcessStarted | OutputWritten | OutputDropped | ProcessExited


@dataclass(frozen=True, slots=True)
class WatchStarted:
    """From now on changes are reported."""

    seq: int
    timestamp: float
    watch_id: WatchId
    path: str


@dataclass(frozen=True, slots=True)
class FileChanged:
    """Something happened to ``path`` (relative to the watched directory)."""

    seq: int
    timestamp: float
    change: FileChange
    path: str


@dataclass(frozen=True, slots=True)
class ChangesDropped:
    """More changes happened than could be queued; the listing must be read again."""

    seq: int
    timestamp: float
    detail: str


@dataclass(frozen=True, slots=True)
class WatchEnded:
    """The terminal event of a watch."""

    seq: int
    timestamp: float
    reason: FinishReason
    detail: str | None = None


WatchEvent = WatchStarted | FileChanged | ChangesDropped | WatchEnded
