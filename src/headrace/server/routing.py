"""Which part of the service a request is for: one table, the first row that matches wins."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from headrace.model.ids import SandboxId

_PORT_HOST = re.compile(r"([1-9][0-9]{0,4})-([a-z][a-z2-7]{25})\.", re.IGNORECASE)
_AGENT_TOKEN = re.compile(r"bearer\s+hxt_[a-z][a-z2-7]{25}_", re.IGNORECASE)
_E2B_PORTS = (49983, 49999)
_CONTROL_PLANE = ("/sandboxes", "/templates", "/snapshots", "/volumes", "/secrets", "/v2", "/v3")


class Part(StrEnum):
    """The parts of the service; those that do not exist yet answer 404 by name."""

    NATIVE = "native"
    PORT = "ports"
    METRICS = "metrics"
    HEALTH = "health"
    E2B = "e2b"
    HOPX = "hopx"
    CLOUDFLARE = "cloudflare"
    AGB = "agb"
    WEB = "web"
    MCP = "mcp"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Listener:
    """What the address that a request came to says: its own dialect, or names of HopX's."""

    dialect: Part | None = None
    hopx_names: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Request:
    """What the table looks at. ``host`` is without the port, in lower case."""

    listener: Listener
    host: str
    path: str
    query: bytes = b""
    authorization: str = ""
    e2b_sandbox: str | None = None


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request goes; ``port`` and ``sandbox`` are those of a host name."""

    part: Part
    port: int = 0
    sandbox: SandboxId | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: its name, and what it makes of a request (None: it does not match)."""

    name: str
    match: Callable[[Request], Target | None]


def is_below(path: str, prefix: str) -> bool:
    """Say whether ``path`` is ``prefix`` or below it."""
    return path.startswith(prefix) and (len(path) == len(prefix) or path[len(prefix)] == "/")


def _own_dialect(request: Request) -> Target | None:
    dialect = request.listener.dialect
    return Target(dialect) if dialect is not None else None


def _hopx_name(request: Request) -> Target | None:
    return Target(Part.HOPX) if request.host in request.listener.hopx_names else None


def _e2b_header(request: Request) -> Target | None:
    return Target(Part.E2B) if request.e2b_sandbox is not None else None


def _port_host(request: Request) -> Target | None:
    found = _PORT_HOST.match(request.host)
    if found is None or int(found[1]) > 65535:
        return None
    part = Part.E2B if int(found[1]) in _E2B_PORTS else Part.PORT
    return Target(part, int(found[1]), SandboxId(found[2].lower()))


def _agent_token(request: Request) -> Target | None:
    return Target(Part.HOPX) if _AGENT_TOKEN.match(request.authorization) else None


def _prefix(prefix: str, part: Part) -> Row:
    return Row(prefix, lambda request: Target(part) if is_below(request.path, prefix) else None)


def _signed_file(request: Request) -> Target | None:
    if request.path != "/files" or b"signature" not in request.query:
        return None
    names = [pair.partition(b"=")[0] for pair in request.query.split(b"&")]
    return Target(Part.E2B) if b"signature" in names else None


def _exactly(path: str, part: Part) -> Row:
    return Row(path, lambda request: Target(part) if request.path == path else None)


def _control_plane(request: Request) -> Target | None:
    found = any(is_below(request.path, prefix) for prefix in _CONTROL_PLANE)
    return Target(Part.E2B) if found else None


TABLE = (
    Row("the listener's own dialect", _own_dialect),
    Row("a TLS name of HopX", _hopx_name),
    Row("E2b-Sandbox-Id", _e2b_header),
    Row("{port}-{id}.", _port_host),
    Row("Bearer hxt_", _agent_token),
    _prefix("/v1", Part.NATIVE),
    _prefix("/hopx", Part.HOPX),
    _prefix("/cloudflare", Part.CLOUDFLARE),
    _prefix("/bridge", Part.CLOUDFLARE),
    _prefix("/agb", Part.AGB),
    _prefix("/api/stream", Part.WEB),
    Row("/files with a signature", _signed_file),
    _exactly("/metrics", Part.METRICS),
    _exactly("/health", Part.HEALTH),
    _exactly("/", Part.WEB),
    _prefix("/assets", Part.WEB),
    Row("the control plane of E2B", _control_plane),
    _prefix("/mcp", Part.MCP),
)


def find_row(request: Request) -> tuple[str, Target]:
    """Give the name of the first row that matches, and the target; the last resort is nothing."""
    for row in TABLE:
        target = row.match(request)
        if target is not None:
            return row.name, target
    return "nothing", Target(Part.NOTHING)


def find_target(request: Request) -> Target:
    """Give where a request goes."""
    return find_row(request)[1]
