"""The bodies and queries of the API, exactly as on the wire, and what the engine is asked then."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from headrace.model.errors import InvalidRequestError
from headrace.model.ids import ContextId
from headrace.model.specs import (
    DEFAULT_TEMPLATE,
    HOME,
    MAX_CODE,
    MAX_PATH,
    MAX_TIMEOUT,
    MIB,
    ContextSpec,
    ExecutionRequest,
    Language,
    Limits,
    ProcessRequest,
    PtySize,
    SandboxSpec,
    resolve_path,
)

MAX_SEQ = 2**53

Timeout = Annotated[float, Field(gt=0, le=MAX_TIMEOUT, description="Seconds.", examples=[60])]
Path = Annotated[
    str,
    Field(
        min_length=1,
        max_length=MAX_PATH,
        description=f"Absolute, or relative to {HOME}.",
        examples=["notes/a.txt"],
    ),
]
User = Annotated[
    Literal["user", "root"], Field(description="Whose rights count inside the sandbox.")
]
Env = Annotated[dict[str, str], Field(max_length=10_000, description="Environment variables.")]
Mode = Annotated[int, Field(ge=0, le=0o7777, description="Permission bits.", examples=[0o644])]


class Body(BaseModel):
    """The base of all bodies: nothing is guessed, nothing unknown is passed over."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False, frozen=True)


class Query(BaseModel):
    """The base of all queries, in which everything is text at first."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


# --- sandboxes ------------------------------------------------------------------------------------


class LimitsBody(Body):
    """The bounds of a sandbox; those that are left out are the service's."""

    memory: int | None = Field(default=None, ge=64 * MIB, description="Bytes.")
    disk: int | None = Field(default=None, ge=MIB, description="Bytes.")
    inodes: int | None = Field(default=None, ge=100)
    processes: int | None = Field(default=None, ge=8)
    open_files: int | None = Field(default=None, ge=64)
    cpus: float | None = Field(default=None, gt=0, le=1024, description="Cores.")
    output: int | None = Field(default=None, ge=1024, description="Bytes per execution or process.")


class CreateSandbox(Body):
    """What a new sandbox shall be."""

    template: str = Field(DEFAULT_TEMPLATE, min_length=1, max_length=256)
    timeout: Timeout | None = None
    env: Env = {}
    metadata: Annotated[dict[str, str], Field(max_length=10_000)] = {}
    limits: LimitsBody = LimitsBody()

    def to_spec(self, defaults: Limits) -> SandboxSpec:
        """Give what the engine is asked for."""
        given = {
            name: getattr(self.limits, name)
            for name in self.limits.model_fields_set
            if getattr(self.limits, name) is not None
        }
        if self.timeout is not None:
            given["lifetime"] = self.timeout
        limits = replace(defaults, **given) if given else defaults
        return SandboxSpec(self.template, limits, self.env, self.metadata)


class ListSandboxes(Query):
    """Which sandboxes, and which page of them."""

    metadata: tuple[str, ...] = Field((), max_length=32, description="NAME=VALUE; all must match.")
    state: Literal["running", "paused"] | None = None
    limit: int = Field(100, ge=1, le=1000)
    after: str | None = Field(None, max_length=128, description="`next` of the page before.")

    def wanted_metadata(self) -> Mapping[str, str]:
        """Give the names and values that must match."""
        wanted = {}
        for item in self.metadata:
            name, separator, value = item.partition("=")
            if not separator or not name:
                raise InvalidRequestError(f"metadata must be NAME=VALUE, got {item[:200]!r}")
            wanted[name] = value
        return wanted


class ExtendSandbox(Body):
    """When a sandbox shall end by itself."""

    timeout: Timeout


# --- contexts and executions ----------------------------------------------------------------------


class CreateContext(Body):
    """What a new context shall be."""

    language: Language = Language.PYTHON
    cwd: Path = HOME
    env: Env = {}

    def to_spec(self) -> ContextSpec:
        """Give what the engine is asked for."""
        return ContextSpec(self.language, resolve_path("cwd", self.cwd), self.env)


class Execute(Body):
    """Code, and how it is to be run."""

    code: str = Field(max_length=MAX_CODE, examples=["print(6 * 7)"])
    language: Language | None = None
    context_id: str | None = Field(None, max_length=128)
    env: Env = {}
    cwd: Path | None = None
    timeout: Timeout | None = None
    accepts_input: bool = False
    on_disconnect: Literal["continue", "interrupt"] = "continue"
    background: bool = False

    def to_request(self) -> ExecutionRequest:
        """Give what the engine is asked for."""
        return ExecutionRequest(
            self.code,
            self.language,
            ContextId(self.context_id) if self.context_id is not None else None,
            self.env,
            resolve_path("cwd", self.cwd) if self.cwd is not None else None,
            self.timeout,
            self.accepts_input,
        )


class SendInput(Body):
    """A line for code that waits for one; null is the end of the input."""

    text: str | None


# --- processes ------------------------------------------------------------------------------------


class Size(Body):
    """A terminal's size in characters."""

    cols: int = Field(80, ge=1, le=4096)
    rows: int = Field(24, ge=1, le=4096)

    def to_size(self) -> PtySize:
        """Give the size."""
        return PtySize(self.cols, self.rows)


class Resize(Body):
    """A terminal's new size in characters."""

    cols: int = Field(ge=1, le=4096)
    rows: int = Field(ge=1, le=4096)

    def to_size(self) -> PtySize:
        """Give the size."""
        return PtySize(self.cols, self.rows)


def _exactly_one(schema: dict[str, Any]) -> None:
    schema["oneOf"] = [{"required": ["command"]}, {"required": ["argv"]}]
    for name in ("command", "argv"):
        # Null would be the same as nothing; who means nothing leaves it out.
        schema["properties"][name] = schema["properties"][name]["anyOf"][0]


class StartProcess(Body):
    """A command, and how it is to be run."""

    model_config = ConfigDict(json_schema_extra=_exactly_one)

    command: str | None = Field(None, max_length=128 * 1024 - 1, description="For a shell.")
    argv: list[str] | None = Field(None, min_length=1, max_length=4096, fail_fast=True)
    env: Env = {}
    cwd: Path = HOME
    user: User = "user"
    timeout: Timeout | None = None
    stdin: bool = Field(default=False, description="It can be written to.")
    pty: Size | None = None
    tag: str | None = Field(None, max_length=1024)
    on_disconnect: Literal["continue", "kill"] = "continue"
    background: bool = False

    def to_request(self) -> ProcessRequest:
        """Give what the engine is asked for."""
        if (self.command is None) == (self.argv is None):
            raise InvalidRequestError("the body: there must be either command or argv")
        argv = ("/bin/bash", "-c", self.command) if self.command is not None else self.argv
        return ProcessRequest(
            argv=tuple(argv or ()),
            env=self.env,
            cwd=resolve_path("cwd", self.cwd),
            user=self.user,
            timeout=self.timeout,
            has_stdin=self.stdin,
            pty=self.pty.to_size() if self.pty is not None else None,
            tag=self.tag,
        )


class SendSignal(Body):
    """A signal, by number or by name."""

    signal: Annotated[int, Field(ge=1, le=64)] | Annotated[str, Field(pattern="^SIG[A-Z0-9+-]+$")]


# --- events ---------------------------------------------------------------------------------------


class ReadEvents(Query):
    """From where on."""

    after: int | None = Field(
        None, ge=0, le=MAX_SEQ, description="The number of the last event that is known."
    )


# --- files ----------------------------------------------------------------------------------------


class AtPath(Query):
    """A path and whose rights count."""

    path: Path
    user: User = "user"


class ListFiles(AtPath):
    """A directory, and how deep to look."""

    depth: int = Field(1, ge=1, le=2**31)


class WriteFile(AtPath):
    """Where to write, and how."""

    mode: str | None = Field(None, pattern="^[0-7]{1,5}$", description="Octal.", examples=["644"])
    parents: bool = True
    append: bool = False

    def mode_bits(self) -> int | None:
        """Give the mode as a number."""
        return None if self.mode is None else int(self.mode, 8)


class RemoveFile(AtPath):
    """What to remove."""

    recursive: bool = False
    missing_ok: bool = False


class SetMode(Body):
    """The permission bits of a path."""

    path: Path
    mode: Mode
    user: User = "user"


class MakeDirectory(Body):
    """Where to make a directory."""

    path: Path
    parents: bool = True
    exist_ok: bool = True
    mode: Mode | None = None
    user: User = "user"


class Move(Body):
    """What to move, and where to."""

    source: Path
    destination: Path
    parents: bool = False
    user: User = "user"


class StartWatch(Body):
    """What to watch."""

    path: Path
    recursive: bool = False
    user: User = "user"
