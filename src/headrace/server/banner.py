"""What the service says when it takes requests."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace.engine.config import REQUIREMENTS, IsolationReport
from headrace.server.version import VERSION


@dataclass(frozen=True, slots=True)
class Start:
    """What there is to say. ``key`` says where the key is, never what it is."""

    url: str | None
    socket: Path | None
    key: str
    report: IsolationReport
    notes: Sequence[str] = ()


def describe_start(start: Start) -> str:
    """Give the lines."""
    report = start.report
    enforced = [name for name in REQUIREMENTS if name in report.enforced]
    weaker = [_weakness(name, report) for name in REQUIREMENTS if name not in report.enforced]
    rows = [
        ("url", start.url),
        ("socket", start.socket),
        ("key", start.key),
        ("isolation", f"{report.mode} mode, enforced: {', '.join(enforced)}"),
        ("not enforced", ", ".join(weaker)),
        ("not installed", ", ".join(report.missing)),
        *(("note", note) for note in start.notes),
    ]
    lines = [f"  {name:14} {text}" for name, text in rows if text]
    return "\n".join([f"Headrace {VERSION} takes requests", *lines])


def _weakness(name: str, report: IsolationReport) -> str:
    return f"memory (by {report.memory})" if name == "memory" else name
