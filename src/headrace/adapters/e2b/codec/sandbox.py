"""Sandboxes, what they used and what happened to them, as the control plane tells of them; pure."""

import base64
import binascii
import ipaddress
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from headrace.model.errors import InvalidRequestError
from headrace.model.life import HistoryEntry, Level, Usage
from headrace.model.specs import MIB, Limits, SandboxSpec, TimeoutAction

ENVD_VERSION = "0.6.13"
"""The version that the agent claims: SDKs choose by it what they ask for."""

_MAX_PAIRS = 100
_LEVELS = tuple(Level)


@dataclass(frozen=True)
class Facts:
    """All that is told of a sandbox. Times are Unix seconds, ``state`` is running or paused."""

    sandbox_id: str
    spec: SandboxSpec
    state: str
    started_at: float
    ends_at: float
    agent_token: str
    traffic_token: str
    domain: str
    network: Mapping[str, Any] | None


def describe_sandbox(facts: Facts) -> dict[str, Any]:
    """Give what is answered when a sandbox was made or woken, with what opens it."""
    return {
        **_identify(facts),
        "envdAccessToken": facts.agent_token,
        "trafficAccessToken": facts.traffic_token,
        "domain": facts.domain,
    }


def describe_listed(facts: Facts) -> dict[str, Any]:
    """Give a sandbox as one of a list."""
    return {
        **_identify(facts),
        **_describe_size(facts.spec.limits),
        "startedAt": format_time(facts.started_at),
        "endAt": format_time(facts.ends_at),
        "state": facts.state,
        "metadata": dict(facts.spec.metadata),
    }


def describe_detail(facts: Facts) -> dict[str, Any]:
    """Give a sandbox with all that its owner may know.

    There is no internet in a sandbox, whatever was asked for, and that is what is told.
    """
    detail = {
        **describe_listed(facts),
        "envdAccessToken": facts.agent_token,
        "domain": facts.domain,
        "allowInternetAccess": False,
        "lifecycle": {
            "onTimeout": "pause" if facts.spec.on_timeout is TimeoutAction.PAUSE else "kill",
            "autoResume": facts.spec.auto_resume,
        },
    }
    if facts.network is not None:
        detail["network"] = dict(facts.network)
    if facts.state == "paused":
        detail["pauseMode"] = "full"
    return detail


def describe_usage(usage: Usage, limits: Limits) -> dict[str, Any]:
    """Give a measurement; processors are per cent of all that the sandbox has."""
    cpus = count_cpus(limits)
    return {
        "timestamp": format_time(usage.timestamp),
        "timestampUnix": int(usage.timestamp),
        "cpuCount": cpus,
        "cpuUsedPct": min(round(100 * usage.cpus / cpus, 2), 100.0),
        "memUsed": usage.memory,
        "memTotal": limits.memory,
        "memCache": usage.cache,
        "diskUsed": usage.disk,
        "diskTotal": limits.disk,
    }


def describe_template(
    name: str, names: Iterable[str], limits: Limits, since: float
) -> dict[str, Any]:
    """Give a template that everybody has: as such ones do it tells nothing of who uses it.

    Nobody has built it, so its build has a number that no build has.
    """
    time = format_time(since)
    return {
        "templateID": name,
        "buildID": "00000000-0000-0000-0000-000000000000",
        **_describe_size(limits),
        "public": True,
        "isDefault": True,
        "aliases": list(names),
        "names": list(names),
        "createdAt": time,
        "updatedAt": time,
        "createdBy": None,
        "lastSpawnedAt": None,
        "spawnCount": 0,
        "buildCount": 0,
        "envdVersion": ENVD_VERSION,
        "buildStatus": "ready",
    }


# --- histories ------------------------------------------------------------------------------------


def describe_entry(entry: HistoryEntry) -> dict[str, Any]:
    """Give an entry of a history as a structured one of a log."""
    return {
        "timestamp": format_time(entry.timestamp),
        "level": entry.level,
        "message": entry.message,
        "fields": dict(entry.fields),
    }


def describe_line(entry: HistoryEntry) -> dict[str, Any]:
    """Give an entry of a history as a line of a log, which is JSON once more."""
    line = {**entry.fields, "level": entry.level, "logger": "sandbox", "message": entry.message}
    return {"timestamp": format_time(entry.timestamp), "line": json.dumps(line)}


def select_entries(
    entries: Iterable[HistoryEntry],
    *,
    cursor: int | None = None,
    is_backward: bool = False,
    level: Level = Level.DEBUG,
    search: str = "",
) -> list[HistoryEntry]:
    """Give the entries from ``cursor`` (Unix milliseconds) on, or those before it, newest first."""
    levels = _LEVELS[_LEVELS.index(level) :]
    found = [each for each in entries if each.level in levels and search in each.message]
    if not is_backward:
        return [each for each in found if cursor is None or each.timestamp * 1000 >= cursor]
    found.reverse()
    return [each for each in found if cursor is None or each.timestamp * 1000 < cursor]


# --- lists ----------------------------------------------------------------------------------------


def read_filter(text: str | None) -> Mapping[str, str]:
    """Read which metadata is wanted: a form whose names and values are escaped once more.

    Raises InvalidRequestError for what cannot be read.
    """
    try:
        pairs = parse_qsl(
            text or "",
            keep_blank_values=True,
            strict_parsing=bool(text),
            errors="strict",
            max_num_fields=_MAX_PAIRS,
        )
        return {
            unquote(name, errors="strict"): unquote(value, errors="strict") for name, value in pairs
        }
    except ValueError as error:
        raise InvalidRequestError(f"metadata must be NAME=VALUE&...: {error}") from error


def make_place(started_at: float, sandbox_id: str) -> str:
    """Give the place of a sandbox in lists: by its start, and by id if that is the same."""
    return f"{started_at:020.6f}-{sandbox_id}"


def make_token(place: str) -> str:
    """Give what a client sends to get what follows a place."""
    return base64.urlsafe_b64encode(place.encode()).decode()


def read_token(token: str) -> str:
    """Give the place that a client goes on from; raises InvalidRequestError."""
    try:
        return base64.b64decode(token, altchars=b"-_", validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise InvalidRequestError(f"nextToken is none of ours: {token[:100]!r}") from error


# --- parts ----------------------------------------------------------------------------------------


def choose_domain(configured: str | None, origin: str) -> str:
    """Give the name below which the ports of sandboxes have host names.

    Without one in the settings it is the host that the client called. Below an address there are
    no names, but of loopback ones there are.
    """
    if configured is not None:
        return configured
    parts = urlsplit(origin)
    host = parts.hostname or "localhost"
    try:
        is_local = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_local = host.endswith(".localhost")
    if is_local:
        host = "localhost"
    elif ":" in host:
        host = f"[{host}]"
    return host if parts.port is None else f"{host}:{parts.port}"


def split_template(text: str) -> tuple[str, str]:
    """Give the name of a template and its tag, which is empty if there is none."""
    name, _, tag = text.partition(":")
    return name, tag


def count_cpus(limits: Limits) -> int:
    """Give a whole number of processors, at least one."""
    return max(1, math.ceil(limits.cpus))


def format_time(timestamp: float) -> str:
    """Give Unix seconds as RFC 3339 has them."""
    time = datetime.fromtimestamp(timestamp, UTC).isoformat(timespec="milliseconds")
    return time.replace("+00:00", "Z")


def _identify(facts: Facts) -> dict[str, Any]:
    return {
        "sandboxID": facts.sandbox_id,
        "templateID": facts.spec.template,
        "alias": facts.spec.template,
        # What names the node; nobody needs it any more, but it must be there.
        "clientID": facts.sandbox_id[:4],
        "envdVersion": ENVD_VERSION,
    }


def _describe_size(limits: Limits) -> dict[str, int]:
    return {
        "cpuCount": count_cpus(limits),
        "memoryMB": limits.memory // MIB,
        "diskSizeMB": limits.disk // MIB,
    }
