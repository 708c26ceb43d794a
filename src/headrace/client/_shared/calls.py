"""The requests for sandboxes, contexts and executions, as data."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any
from urllib.parse import quote

from headrace.client._shared.events import EventKind
from headrace.client._shared.request import (
    JSON,
    NDJSON,
    Request,
    as_json,
    delete,
    get,
    path_to,
    segment,
)
from headrace.client._shared.values import Limits
from headrace.wire.ndjson import encode_json

# --- sandboxes --------------------------------------------------------------------------------


def create_sandbox(
    template: str | None,
    timeout: float | None,
    env: Mapping[str, str] | None,
    metadata: Mapping[str, str] | None,
    limits: Limits | None,
) -> Request:
    """Ask for a new sandbox."""
    bounds = None
    if limits is not None:
        bounds = {name: value for name, value in asdict(limits).items() if value is not None}
    body = {
        "template": template,
        "timeout": timeout,
        "env": env and dict(env),
        "metadata": metadata and dict(metadata),
        "limits": bounds,
    }
    return as_json("POST", path_to("sandboxes"), body)


def list_sandboxes(
    metadata: Mapping[str, str] | None, state: str | None, limit: int | None, after: str | None
) -> Request:
    """Ask for a page of sandboxes."""
    query: list[tuple[str, object]] = [
        ("metadata", f"{name}={value}") for name, value in (metadata or {}).items()
    ]
    query += [("state", state), ("limit", limit), ("after", after)]
    return get(path_to("sandboxes", query=query))


def get_sandbox(sandbox_id: str) -> Request:
    """Ask for a sandbox."""
    return get(path_to("sandboxes", sandbox_id))


def set_timeout(sandbox_id: str, timeout: float) -> Request:
    """Ask that a sandbox ends that long from now."""
    target = path_to("sandboxes", sandbox_id)
    return as_json("PATCH", target, {"timeout": timeout}, can_repeat=True)


def change_sandbox(sandbox_id: str, verb: str) -> Request:
    """Ask for ``pause`` or ``resume``."""
    return Request("POST", path_to("sandboxes", sandbox_id, verb))


def get_metrics(sandbox_id: str) -> Request:
    """Ask what a sandbox uses."""
    return get(path_to("sandboxes", sandbox_id, "metrics"))


def kill_sandbox(sandbox_id: str) -> Request:
    """Ask to end a sandbox."""
    return delete(path_to("sandboxes", sandbox_id))


# --- contexts ---------------------------------------------------------------------------------


def create_context(
    sandbox_id: str, language: str | None, cwd: str | None, env: Mapping[str, str] | None
) -> Request:
    """Ask for a new context."""
    body = {"language": language, "cwd": cwd, "env": env and dict(env)}
    return as_json("POST", path_to("sandboxes", sandbox_id, "contexts"), body)


def list_contexts(sandbox_id: str) -> Request:
    """Ask for all contexts."""
    return get(path_to("sandboxes", sandbox_id, "contexts"))


def get_context(sandbox_id: str, context_id: str) -> Request:
    """Ask for a context."""
    return get(path_to("sandboxes", sandbox_id, "contexts", context_id))


def remove_context(sandbox_id: str, context_id: str) -> Request:
    """Ask to end a context."""
    return delete(path_to("sandboxes", sandbox_id, "contexts", context_id))


def change_context(sandbox_id: str, context_id: str, verb: str) -> Request:
    """Ask for ``restart`` or ``interrupt``."""
    return Request("POST", path_to("sandboxes", sandbox_id, "contexts", context_id, verb))


# --- executions -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Code:
    """A piece of code and how it is to be run; None is the service's default."""

    code: str
    language: str | None = None
    context_id: str | None = None
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    timeout: float | None = None
    accepts_input: bool = False


def execute(sandbox_id: str, code: Code, *, background: bool = False) -> Request:
    """Ask to run code; the answer is its events, or with ``background`` the execution."""
    body = {
        "code": code.code,
        "language": code.language,
        "context_id": code.context_id,
        "env": code.env and dict(code.env),
        "cwd": code.cwd,
        "timeout": code.timeout,
        "accepts_input": code.accepts_input or None,
        "background": background or None,
    }
    accept = JSON if background else NDJSON
    return as_json("POST", path_to("sandboxes", sandbox_id, "executions"), body, accept=accept)


def list_executions(sandbox_id: str) -> Request:
    """Ask for the executions of a sandbox."""
    return get(path_to("sandboxes", sandbox_id, "executions"))


def get_execution(execution_id: str) -> Request:
    """Ask for an execution."""
    return get(path_to("executions", execution_id))


def interrupt(execution_id: str) -> Request:
    """Ask to interrupt an execution."""
    return Request("POST", path_to("executions", execution_id, "interrupt"), can_repeat=True)


def send_input(execution_id: str, text: str | None) -> Request:
    """Answer a request for input."""
    # None is said, not left out, so this is not as_json.
    body = encode_json({"text": text})
    return Request(
        "POST", path_to("executions", execution_id, "input"), body=body, content_type=JSON
    )


def events(kind: EventKind[Any], log_id: str, after: int) -> Request:
    """Ask for the events of an execution, process or watch behind the number ``after``."""
    target = f"{kind.path}/{quote(segment(log_id), safe='')}/events?after={after}"
    return Request("GET", target, accept=NDJSON, can_repeat=True)


def event_page(kind: EventKind[Any], log_id: str, after: int) -> Request:
    """Ask for those events behind the number ``after`` that are there now, or for some of them."""
    return get(path_to(kind.path.removeprefix("/v1/"), log_id, "events", query=[("after", after)]))
