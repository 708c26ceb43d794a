"""The documents name nothing that does not exist."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.cli.group import COMMANDS
from headrace.engine.config import REQUIREMENTS
from headrace.model.events import ExecutionEvent, FinishReason, ProcessEvent, WatchEvent

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NAMES = [str(path.relative_to(ROOT)) for path in DOCUMENTS]
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
_MODULE = re.compile(r"`((?:headrace_guest|engine|cli|model)/[a-z_]+\.py)`")


def links(document: str) -> Iterator[str]:
    for target in _LINK.findall((ROOT / document).read_text()):
        if not target.startswith("https://"):
            yield target


@pytest.mark.parametrize("name", NAMES)
def test_every_link_leads_somewhere(name: str) -> None:
    place = (ROOT / name).parent

    assert [target for target in links(name) if not (place / target).exists()] == []


@pytest.mark.parametrize("name", NAMES)
def test_every_module_that_is_named_exists(name: str) -> None:
    named = _MODULE.findall((ROOT / name).read_text())
    sources = ROOT / "src"

    assert [
        module
        for module in named
        if not (sources / module).exists() and not (sources / "headrace" / module).exists()
    ] == []


def test_every_requirement_is_explained() -> None:
    text = (ROOT / "docs" / "isolation.md").read_text()

    assert [name for name in REQUIREMENTS if f"| `{name}` |" not in text] == []


def test_every_reason_is_explained() -> None:
    text = (ROOT / "docs" / "events.md").read_text()

    assert [reason for reason in FinishReason if f"| `{reason}` |" not in text] == []


def test_every_event_is_explained() -> None:
    text = (ROOT / "docs" / "events.md").read_text()
    unions = (ExecutionEvent, ProcessEvent, WatchEvent)
    events = {event.__name__ for union in unions for event in union.__args__}

    assert sorted(name for name in events if f"`{name}`" not in text) == []


def test_every_command_is_explained() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()

    assert [name for name in COMMANDS if f"## headrace {name}" not in text] == []
