"""What a service answers, checked and turned into values."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from headrace.client._shared.events import EventKind, read_ending
from headrace.client._shared.failure import CutError
from headrace.client._shared.fields import Fields
from headrace.client._shared.values import (
    Context,
    Ending,
    ExecutionInfo,
    Isolation,
    Limits,
    ProcessInfo,
    SandboxInfo,
    SandboxMetrics,
)
from headrace.client.errors import ConnectionFailedError, make_error, make_foreign_error
from headrace.model.errors import HeadraceError, InvalidRequestError
from headrace.model.files import FileInfo, FileType
from headrace.model.ids import ContextId, ExecutionId, ProcessId, SandboxId, WatchId
from headrace.wire.ndjson import decode_json

T = TypeVar("T")

_GATEWAY = (502, 503, 504)
_DELAY = re.compile(r"[0-9]{1,6}")


@dataclass(frozen=True, slots=True)
class Head:
    """The beginning of an answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]

    @property
    def content_type(self) -> str:
        """The media type without parameters."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    @property
    def is_success(self) -> bool:
        """Whether what was asked for was done."""
        return 200 <= self.status < 300


@dataclass(frozen=True, slots=True)
class Page:
    """Some sandboxes, and where the next ones begin."""

    sandboxes: tuple[SandboxInfo, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events of a log, and the number of its newest one."""

    events: tuple[Any, ...]
    last_seq: int


def read_error(head: Head, body: bytes) -> HeadraceError:
    """Give the exception for an answer that is no success.

    Raises CutError if something between us and the service says that it cannot be reached.
    """
    record = _read_error_record(head, body)
    if record is not None:
        error = make_error(record, head.status)
        if _DELAY.fullmatch(wait := head.headers.get("retry-after", "")):
            error.details = {**error.details, "retry_after": float(wait)}
        return error
    said = (
        f"the answer was {head.status} ({head.content_type or 'no content type'}), which is not "
        f"in the form of a Headrace service: {body[:200].decode('utf-8', 'replace').strip()!r}"
    )
    if head.status in _GATEWAY:
        raise CutError(said)
    return make_foreign_error(head.status, said)


def _read_error_record(head: Head, body: bytes) -> object:
    if head.content_type != "application/json":
        return None
    try:
        answer = decode_json(body)
    except (ValueError, RecursionError):
        return None
    record = answer.get("error") if isinstance(answer, dict) else None
    return record if isinstance(record, dict) else None


def read(body: bytes, reader: Callable[[Fields], T]) -> T:
    """Read an answer; raises ConnectionFailedError if it is not what the API says."""
    try:
        return reader(Fields("the answer", decode_json(body)))
    except (ValueError, RecursionError) as error:
        raise ConnectionFailedError(
            f"the answer is not that of a Headrace service: {error}"
        ) from error


def sandbox(fields: Fields) -> SandboxInfo:
    """Read a sandbox."""
    isolation = fields.inner("isolation")
    return SandboxInfo(
        id=SandboxId(fields.text("id")),
        state=fields.text("state"),
        template=fields.text("template"),
        metadata=fields.mapping("metadata", str),
        created_at=fields.number("created_at"),
        ends_at=fields.maybe("ends_at", fields.number),
        limits=_limits(fields.inner("limits")),
        isolation=Isolation(
            isolation.text("mode"),
            isolation.texts("enforced"),
            isolation.maybe("memory", isolation.text),
        ),
        ports_url=fields.text("ports_url"),
    )


def _limits(fields: Fields) -> Limits:
    return Limits(
        memory=fields.maybe("memory", fields.whole),
        disk=fields.maybe("disk", fields.whole),
        inodes=fields.maybe("inodes", fields.whole),
        processes=fields.maybe("processes", fields.whole),
        open_files=fields.maybe("open_files", fields.whole),
        cpus=fields.maybe("cpus", fields.number),
        output=fields.maybe("output", fields.whole),
    )


def page(fields: Fields) -> Page:
    """Read a page of sandboxes."""
    found = tuple(sandbox(Fields("a sandbox", each)) for each in fields.items("sandboxes"))
    return Page(found, fields.maybe("next", fields.text))


def events(kind: EventKind[Any], fields: Fields) -> EventPage:
    """Read a page of events; those of types that are newer than we are get lost."""
    records = fields.items("events")
    found = [kind.read(each, Fields("an event", each).whole("seq")) for each in records]
    return EventPage(tuple(each for each in found if each is not None), fields.whole("last_seq"))


def metrics(fields: Fields) -> SandboxMetrics:
    """Read what a sandbox uses."""
    return SandboxMetrics(
        timestamp=fields.number("timestamp"),
        memory=fields.maybe("memory", fields.whole),
        memory_peak=fields.maybe("memory_peak", fields.whole),
        cpu_seconds=fields.maybe("cpu_seconds", fields.number),
        processes=fields.maybe("processes", fields.whole),
        oom_kills=fields.maybe("oom_kills", fields.whole),
    )


def context(fields: Fields) -> Context:
    """Read a context."""
    return Context(
        ContextId(fields.text("id")),
        fields.text("language"),
        fields.text("cwd"),
        fields.text("state"),
        fields.flag("is_default"),
    )


def contexts(fields: Fields) -> tuple[Context, ...]:
    """Read all contexts of a sandbox."""
    return tuple(context(Fields("a context", each)) for each in fields.items("contexts"))


def interrupted(fields: Fields) -> bool:
    """Read whether something was interrupted."""
    return fields.flag("interrupted")


def execution(fields: Fields) -> ExecutionInfo:
    """Read an execution."""
    return ExecutionInfo(
        id=ExecutionId(fields.text("id")),
        sandbox_id=SandboxId(fields.text("sandbox_id")),
        state=fields.text("state"),
        context_id=_maybe_id(fields, "context_id"),
        last_seq=fields.whole("last_seq"),
        ending=_ending(fields, "finished"),
    )


def _maybe_id(fields: Fields, name: str) -> ContextId | None:
    value = fields.maybe(name, fields.text)
    return None if value is None else ContextId(value)


def _ending(fields: Fields, name: str) -> Ending | None:
    return None if fields.any(name) is None else read_ending(fields.inner(name))


def executions(fields: Fields) -> tuple[ExecutionInfo, ...]:
    """Read the executions of a sandbox."""
    return tuple(execution(Fields("an execution", each)) for each in fields.items("executions"))


def process(fields: Fields) -> ProcessInfo:
    """Read a process."""
    return ProcessInfo(
        id=ProcessId(fields.text("id")),
        sandbox_id=SandboxId(fields.text("sandbox_id")),
        pid=fields.maybe("pid", fields.whole),
        argv=fields.texts("argv"),
        cwd=fields.text("cwd"),
        user=fields.text("user"),
        tag=fields.maybe("tag", fields.text),
        has_pty=fields.flag("has_pty"),
        state=fields.text("state"),
        last_seq=fields.whole("last_seq"),
        ending=_ending(fields, "exited"),
    )


def processes(fields: Fields) -> tuple[ProcessInfo, ...]:
    """Read the processes of a sandbox."""
    return tuple(process(Fields("a process", each)) for each in fields.items("processes"))


def entry(fields: Fields) -> FileInfo:
    """Read what is known of a path."""
    target_type = fields.maybe("target_type", fields.text)
    return FileInfo(
        path=fields.text("path"),
        name=fields.text("name"),
        type=FileType(fields.text("type")),
        size=fields.whole("size"),
        mode=fields.whole("mode"),
        owner=fields.text("owner"),
        group=fields.text("group"),
        modified=fields.number("modified"),
        target=fields.maybe("target", fields.text),
        target_type=None if target_type is None else FileType(target_type),
    )


def entries(fields: Fields) -> tuple[FileInfo, ...]:
    """Read the entries of a directory."""
    return tuple(entry(Fields("an entry", each)) for each in fields.items("entries"))


def size(fields: Fields) -> int:
    """Read how large a file is that was written."""
    return fields.whole("size")


def watch_id(fields: Fields) -> WatchId:
    """Read the id of a new watch."""
    return WatchId(fields.text("id"))


def decode_text(path: str, data: bytes, encoding: str) -> str:
    """Give the content of a file as text; the error says where it is none."""
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise InvalidRequestError(
            f"{path} is not {encoding}: {error.reason} 0x{data[error.start]:02x} at byte "
            f"{error.start} of {len(data)}; read it as bytes, or with another encoding",
            path=path,
            position=error.start,
        ) from error
    except LookupError as error:
        raise InvalidRequestError(f"there is no encoding {encoding!r}") from error


def content_length(head: Head) -> int | None:
    """Give the size of a body, or None if it is not said."""
    text = head.headers.get("content-length", "")
    return int(text) if text.isdecimal() else None
