"""The requests for the processes of a sandbox, as data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace.client._shared.request import (
    BYTES,
    JSON,
    NDJSON,
    Request,
    as_json,
    delete,
    get,
    path_to,
)
from headrace.model.specs import PtySize


@dataclass(frozen=True, slots=True)
class Command:
    """A command and how it is to be run; None is the service's default."""

    command: str | Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: str | None = None
    user: str | None = None
    timeout: float | None = None
    has_stdin: bool = False
    pty: PtySize | None = None
    tag: str | None = None


def start_process(sandbox_id: str, command: Command, *, background: bool) -> Request:
    """Ask to run a command; the answer is its events, or with ``background`` the process."""
    is_line = isinstance(command.command, str)
    size = command.pty
    body = {
        "command": command.command if is_line else None,
        "argv": None if is_line else list(command.command),
        "env": command.env and dict(command.env),
        "cwd": command.cwd,
        "user": command.user,
        "timeout": command.timeout,
        "stdin": command.has_stdin or None,
        "pty": {"cols": size.cols, "rows": size.rows} if size else None,
        "tag": command.tag,
        "background": background or None,
    }
    accept = JSON if background else NDJSON
    return as_json("POST", path_to("sandboxes", sandbox_id, "processes"), body, accept=accept)


def list_processes(sandbox_id: str) -> Request:
    """Ask for the processes that run."""
    return get(path_to("sandboxes", sandbox_id, "processes"))


def get_process(process_id: str) -> Request:
    """Ask for a process."""
    return get(path_to("processes", process_id))


def write_stdin(process_id: str, data: bytes) -> Request:
    """Send bytes to the standard input of a process."""
    target = path_to("processes", process_id, "stdin")
    return Request("POST", target, body=data, content_type=BYTES, is_transfer=True)


def close_stdin(process_id: str) -> Request:
    """Ask to end the standard input of a process."""
    return Request("POST", path_to("processes", process_id, "stdin", "close"), can_repeat=True)


def send_signal(process_id: str, signal: int | str) -> Request:
    """Ask to send a signal."""
    return as_json("POST", path_to("processes", process_id, "signal"), {"signal": signal})


def resize(process_id: str, size: PtySize) -> Request:
    """Ask to give a terminal another size."""
    body = {"cols": size.cols, "rows": size.rows}
    return as_json("POST", path_to("processes", process_id, "resize"), body, can_repeat=True)


def kill_process(process_id: str) -> Request:
    """Ask to kill a process."""
    return delete(path_to("processes", process_id))
