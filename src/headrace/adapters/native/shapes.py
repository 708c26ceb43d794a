"""The objects in answers, exactly as on the wire; the OpenAPI document is made of them."""

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from headrace.model.events import FileChange, FinishReason, Stream
from headrace.model.files import FileType
from headrace.model.specs import Language


class ErrorShape(TypedDict):
    """What went wrong: a code for programs, a sentence for people."""

    code: str
    message: str
    details: dict[str, Any]
    request_id: str


class ErrorBody(TypedDict):
    """The body of every answer that is no success."""

    error: ErrorShape


# --- sandboxes ------------------------------------------------------------------------------------


class LimitsShape(TypedDict):
    """The bounds of a sandbox."""

    memory: int
    disk: int
    inodes: int
    processes: int
    open_files: int
    cpus: float
    output: int


class IsolationShape(TypedDict):
    """What is really enforced."""

    mode: str
    enforced: list[str]
    memory: str


class SandboxShape(TypedDict):
    """A sandbox. ``ports_url`` is the URL of its ports, with ``{port}`` in it."""

    id: str
    state: Literal["running", "paused", "killing", "killed"]
    template: str
    metadata: dict[str, str]
    created_at: float
    ends_at: float
    limits: LimitsShape
    isolation: IsolationShape
    ports_url: str


class SandboxPage(TypedDict):
    """Some sandboxes, and where the next page begins."""

    sandboxes: list[SandboxShape]
    next: str | None


class MetricsShape(TypedDict):
    """What a sandbox uses; null where that is not known."""

    timestamp: float
    memory: int | None
    memory_peak: int | None
    cpu_seconds: float | None
    processes: int | None
    oom_kills: int | None


# --- contexts and executions ----------------------------------------------------------------------


class ContextShape(TypedDict):
    """A context: one interpreter state."""

    id: str
    language: Language
    cwd: str
    state: Literal["unstarted", "starting", "idle", "busy", "interrupting", "restarting", "dead"]
    is_default: bool


class ContextList(TypedDict):
    """The contexts of a sandbox."""

    contexts: list[ContextShape]


class Interrupted(TypedDict):
    """Whether there was something to interrupt."""

    interrupted: bool


class EndShape(TypedDict):
    """Why something ended, and what that cost."""

    reason: FinishReason
    duration: float
    exit_code: int | None
    signal: int | None
    limit: str | None
    limit_value: float | None
    detail: str | None


class FinishedShape(EndShape):
    """Why an execution ended."""

    state_lost: bool


class ExecutionShape(TypedDict):
    """An execution. ``finished`` is there once it is."""

    id: str
    sandbox_id: str
    state: Literal["queued", "running", "finished"]
    context_id: str | None
    last_seq: int
    finished: NotRequired[FinishedShape]


class ExecutionList(TypedDict):
    """The executions of a sandbox that run, wait, or ended lately."""

    executions: list[ExecutionShape]


class Nothing(TypedDict):
    """An empty object."""


# --- events ---------------------------------------------------------------------------------------


class EventHead(TypedDict):
    """What every event has."""

    seq: int
    timestamp: float


class StartedEvent(EventHead):
    """The kernel was handed the code."""

    type: Literal["started"]
    id: str
    context_id: str
    execution_count: int


class ProcessStartedEvent(EventHead):
    """The command runs."""

    type: Literal["started"]
    id: str
    pid: int


class OutputEvent(EventHead):
    """Bytes were written; ``base64`` is there if they are not UTF-8."""

    type: Stream
    text: str
    base64: NotRequired[str]


class OutputDroppedEvent(EventHead):
    """So many bytes are not in the log."""

    type: Literal["output_dropped"]
    stream: Stream
    dropped: int
    reason: str


class ResultEvent(EventHead):
    """The value of the last expression, or something displayed."""

    type: Literal["result"]
    text: str | None
    is_main: bool
    bundle: dict[str, Any]
    omitted: dict[str, int]
    display_id: str | None
    is_update: bool


class CodeErrorShape(TypedDict):
    """An exception that the code did not catch."""

    name: str
    value: str
    traceback: str
    parts: "list[CodeErrorShape]"


class ErrorEvent(EventHead):
    """The code ended with an exception."""

    type: Literal["error"]
    name: str
    value: str
    traceback: str
    parts: list[CodeErrorShape]


class InputRequestedEvent(EventHead):
    """The code waits for a line."""

    type: Literal["input_requested"]
    prompt: str
    is_password: bool


class FinishedEvent(EventHead, FinishedShape):
    """The execution is over; always the last."""

    type: Literal["finished"]


class ExitedEvent(EventHead, EndShape):
    """The process is over; always the last."""

    type: Literal["exited"]


class WatchStartedEvent(EventHead):
    """From now on changes are reported."""

    type: Literal["started"]
    id: str
    path: str


class ChangedEvent(EventHead):
    """Something happened to a path below the watched one."""

    type: Literal["changed"]
    change: FileChange
    path: str


class ChangesDroppedEvent(EventHead):
    """More happened than could be queued."""

    type: Literal["changes_dropped"]
    detail: str


class EndedEvent(EventHead):
    """The watch is over; always the last."""

    type: Literal["ended"]
    reason: FinishReason
    detail: str | None


ExecutionEventShape = (
    StartedEvent
    | OutputEvent
    | OutputDroppedEvent
    | ResultEvent
    | ErrorEvent
    | InputRequestedEvent
    | FinishedEvent
)
ProcessEventShape = ProcessStartedEvent | OutputEvent | OutputDroppedEvent | ExitedEvent
WatchEventShape = WatchStartedEvent | ChangedEvent | ChangesDroppedEvent | EndedEvent


class EventPageHead(TypedDict):
    """How far a log goes now."""

    last_seq: int
    is_finished: bool


class ExecutionEventPage(EventPageHead):
    """Some events of an execution."""

    events: list[ExecutionEventShape]


class ProcessEventPage(EventPageHead):
    """Some events of a process."""

    events: list[ProcessEventShape]


class WatchEventPage(EventPageHead):
    """Some events of a watch."""

    events: list[WatchEventShape]


class ExecutionOutcome(FinishedShape):
    """Everything that an execution did. ``…_base64`` are there for output that is not UTF-8."""

    id: str
    context_id: str
    execution_count: int
    stdout: str
    stdout_base64: NotRequired[str]
    stderr: str
    stderr_base64: NotRequired[str]
    results: list[ResultEvent]
    error: ErrorEvent | None
    dropped: list[OutputDroppedEvent]
    last_seq: int


# --- processes ------------------------------------------------------------------------------------


class ProcessShape(TypedDict):
    """A process. ``exited`` is there once it has."""

    id: str
    sandbox_id: str
    pid: int
    argv: list[str]
    cwd: str
    user: str
    tag: str | None
    has_pty: bool
    state: Literal["running", "finished"]
    last_seq: int
    exited: NotRequired[EndShape]


class ProcessList(TypedDict):
    """The processes of a sandbox that run."""

    processes: list[ProcessShape]


class ProcessOutcome(EndShape):
    """Everything that a process did; with a terminal ``pty`` is in place of the other two."""

    id: str
    pid: int
    stdout: NotRequired[str]
    stdout_base64: NotRequired[str]
    stderr: NotRequired[str]
    stderr_base64: NotRequired[str]
    pty: NotRequired[str]
    pty_base64: NotRequired[str]
    dropped: list[OutputDroppedEvent]
    last_seq: int


# --- files ----------------------------------------------------------------------------------------


class EntryShape(TypedDict):
    """What is known of a file or directory."""

    path: str
    name: str
    type: FileType
    size: int
    mode: int
    owner: str
    group: str
    modified: float
    target: str | None
    target_type: FileType | None


class EntryList(TypedDict):
    """What is below a directory."""

    entries: list[EntryShape]


class Written(TypedDict):
    """A file that was written."""

    path: str
    size: int


class Removed(TypedDict):
    """Whether there was something to remove."""

    removed: bool


class Created(TypedDict):
    """Whether the directory is new."""

    created: bool


class WatchShape(TypedDict):
    """A watch on a directory."""

    id: str
    path: str
