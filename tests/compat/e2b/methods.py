"""The table of methods: what the SDKs offer, and which of it a test has run.

The names are those of Python; JavaScript's are written in its own manner. ``methods.json`` keeps
what the SDKs offer, so that the table can be made without them. To write it anew after a change of
versions: ``python -m tests.compat.e2b.methods``.
"""

import json
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tests.compat.e2b.faces import HERE, NODE, PYTHON, Face, cases_of
from tests.support.vendor import provide
from tests.support.vendor_cases import covered

RECORD = HERE / "methods.json"
BEGIN = "<!-- begin: methods -->"
END = "<!-- end: methods -->"

NOT_OFFERED: Mapping[str, str] = {
    "Sandbox.create_snapshot": "snapshots are not offered",
    "Sandbox.delete_snapshot": "snapshots are not offered",
    "Sandbox.list_snapshots": "snapshots are not offered",
    "Sandbox.fork": "sandboxes cannot be forked",
    "Sandbox.get_mcp_token": "there is no gateway for MCP",
    "Sandbox.get_mcp_url": "there is no gateway for MCP",
}
"""What no test covers, and why."""

_CLASSES = {
    "Sandbox": ("Sandbox", "SandboxApi"),
    "paginator": ("Paginator", "SandboxPaginator"),
    "commands": ("Commands",),
    "handle": ("CommandHandle",),
    "pty": ("Pty",),
    "files": ("Filesystem",),
    "watch": ("WatchHandle",),
    "git": ("Git",),
}
"""The classes of the JavaScript SDK by the names that the table has for them."""
_MEMBER = re.compile(r"^  (?:static |abstract )*(\w+)(?:<[^(]*>)?\(", re.MULTILINE)
_RENAMED = {"pty.send_input": "pty.send_stdin"}
_TITLES = {Face.PYTHON: "Python", Face.PYTHON_ASYNC: "Python, async", Face.JAVASCRIPT: "JavaScript"}


def offered() -> Mapping[Face, list[str]]:
    """Give the public methods of each face, from the record."""
    record = json.loads(RECORD.read_text())
    return {face: record[face] for face in Face}


def ask_sdks() -> Mapping[Face, list[str]]:
    """Give the public methods of each face, from the SDKs themselves."""
    python = PYTHON.program(provide(PYTHON))
    answer = subprocess.run(
        [python, HERE / "shared" / "list_methods.py"], capture_output=True, text=True, check=True
    )
    told = json.loads(answer.stdout)
    modules = provide(NODE) / "node_modules"
    declarations = [modules / "e2b", modules / "@e2b" / "code-interpreter"]
    texts = [(path / "dist" / "index.d.ts").read_text() for path in declarations]
    return {
        Face.PYTHON: sorted(told["python"]),
        Face.PYTHON_ASYNC: sorted(told["python_async"]),
        Face.JAVASCRIPT: sorted(_declared(texts)),
    }


def _declared(texts: Iterable[str]) -> set[str]:
    return {
        _RENAMED.get(name, name)
        for text in texts
        for kind, classes in _CLASSES.items()
        for body in _bodies(text, classes)
        for name in (f"{kind}.{_snake(member)}" for member in _MEMBER.findall(body))
        if not name.endswith(".constructor")
    }


def _bodies(text: str, classes: Iterable[str]) -> Iterator[str]:
    for name in classes:
        start = rf"^declare (?:abstract )?class {name}\b[^\n]*\{{\n"
        yield from re.findall(start + r"(.*?)^\}", text, re.MULTILINE | re.DOTALL)


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: f"_{letter[0].lower()}", name)


def render_table() -> str:
    """Give the table in Markdown, with the marks around it."""
    methods = offered()
    tested = {face: covered(cases_of(face)) for face in Face}
    names = list(dict.fromkeys(name for face in Face for name in methods[face]))
    lines = [
        "| Method | " + " | ".join(_TITLES[face] for face in Face) + " |",
        "|---|" + "---|" * len(Face),
    ]
    for name in sorted(names, key=_place):
        cells = [
            "" if name not in methods[face] else "yes" if name in tested[face] else "no"
            for face in Face
        ]
        note = f" ({NOT_OFFERED[name]})" if name in NOT_OFFERED else ""
        lines.append(f"| `{name}`{note} | " + " | ".join(cells) + " |")
    return "\n".join([BEGIN, *lines, END])


def _place(name: str) -> tuple[int, str]:
    kind, _, method = name.partition(".")
    return list(_CLASSES).index(kind), method


def table_in(document: Path) -> str | None:
    """Give the table that a document has, with its marks, or None."""
    found = re.search(f"{re.escape(BEGIN)}.*?{re.escape(END)}", document.read_text(), re.DOTALL)
    return found[0] if found else None


def _write() -> None:
    RECORD.write_text(json.dumps(ask_sdks(), indent=1) + "\n")
    for document in (HERE.parents[2] / "docs").glob("*.md"):
        table = table_in(document)
        if table is not None:
            document.write_text(document.read_text().replace(table, render_table()))


if __name__ == "__main__":
    _write()
