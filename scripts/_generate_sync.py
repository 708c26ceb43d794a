"""Makes the sync face of the SDK, and its tests, from the async face.

All it does is to remove ``async`` and ``await`` and to rename what RENAMES lists. With ``--check``
nothing is written; it fails if something would be.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PACKAGES: Mapping[str, str] = {
    "src/headrace/client/_async": "src/headrace/client/_sync",
    "tests/integration/client/async_face": "tests/integration/client/sync_face",
    "tests/compat/e2b/python_async": "tests/compat/e2b/python_sync",
}

RENAMES: Mapping[str, str] = {
    "AsyncAnswer": "Answer",
    "AsyncBody": "Body",
    "AsyncCommandHandle": "CommandHandle",
    "AsyncCommandStream": "CommandStream",
    "AsyncCommands": "Commands",
    "AsyncConnection": "Connection",
    "AsyncConnector": "Connector",
    "AsyncContent": "Content",
    "AsyncContexts": "Contexts",
    "AsyncEventStream": "EventStream",
    "AsyncExecutionHandle": "ExecutionHandle",
    "AsyncExecutionStream": "ExecutionStream",
    "AsyncFileReader": "FileReader",
    "AsyncFiles": "Files",
    "AsyncHttpConnection": "HttpConnection",
    "AsyncIterable": "Iterable",
    "AsyncIterator": "Iterator",
    "AsyncListeners": "Listeners",
    "AsyncLocalFile": "LocalFile",
    "AsyncPool": "Pool",
    "AsyncPty": "Pty",
    "AsyncPtyHandle": "PtyHandle",
    "AsyncSandbox": "Sandbox",
    "AsyncWatch": "Watch",
    "AsyncWire": "Wire",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "__aiter__": "__iter__",
    "_async": "_sync",
    "_transport_async": "_transport_sync",
    "aclose": "close",
    "async_face": "sync_face",
    "face_async": "face_sync",
}

NOTICE = "# Made from the async face by scripts/generate-sync; change that one.\n"

_NAME = re.compile(r"\b[A-Za-z_][A-Za-z0-9_]*\b")
_SUBTRACTIONS = (
    (re.compile(r"  # noqa: ASYNC\d+ - .*"), ""),
    (re.compile(r"\basync (?=def|with|for)"), ""),
    (re.compile(r"\bawait "), ""),
    (re.compile(r"\bAwaitable\[(\w+(?:\[\w+\])?)\]"), r"\1"),
    (re.compile(r"\bAwaitable, "), ""),
)


def translate(text: str, used: set[str]) -> str:
    """Give the sync form of a file, unformatted; adds the renames that it needed to ``used``."""
    for pattern, replacement in _SUBTRACTIONS:
        text = pattern.sub(replacement, text)

    def rename(found: re.Match[str]) -> str:
        name = found[0]
        if name in RENAMES:
            used.add(name)
        return RENAMES.get(name, name)

    return _NAME.sub(rename, text)


def tidy(path: Path, text: str) -> str:
    """Sort the imports, write as the linter wants it what is simpler without async, and format."""
    ruff = Path(sys.executable).with_name("ruff")
    name = f"--stdin-filename={path}"
    # Files that do not exist yet would be taken for somebody else's.
    ours = 'lint.isort.known-first-party=["headrace", "tests"]'
    fix = ["check", "--select=I,UP028,C416", "--fix-only", "--unsafe-fixes", "--config", ours]
    for command in (fix, ["format"]):
        line = [ruff, *command, "--quiet", name, "-"]
        text = subprocess.run(  # noqa: S603 - our own tool
            line, input=text, stdout=subprocess.PIPE, text=True, check=True
        ).stdout
    return text


def generate() -> dict[Path, str]:
    """Give every file of the sync face; stops if a rename is used nowhere."""
    made: dict[Path, str] = {}
    used: set[str] = set()
    for source, destination in PACKAGES.items():
        for path in sorted((ROOT / source).glob("*.py")):
            target = ROOT / destination / path.name
            text = translate(path.read_text(), used)
            if text:
                text = NOTICE + text
            made[target] = tidy(target, text)
    unused = sorted(RENAMES.keys() - used)
    if unused:
        sys.exit(f"renames that nothing uses: {', '.join(unused)}")
    return made


def main() -> None:
    """Write the files, or compare them."""
    only_check = sys.argv[1:] == ["--check"]
    if sys.argv[1:] and not only_check:
        sys.exit("usage: generate-sync [--check]")
    made = generate()
    present = {path for name in PACKAGES.values() for path in (ROOT / name).glob("*.py")}
    different = [path for path, text in made.items() if not _is(path, text)]
    surplus = sorted(present - made.keys())
    if only_check:
        names = ", ".join(str(path.relative_to(ROOT)) for path in [*different, *surplus])
        sys.exit(f"not what scripts/generate-sync makes: {names}" if names else 0)
    for path in surplus:
        path.unlink()
    for path in different:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path])


def _is(path: Path, text: str) -> bool:
    return path.exists() and path.read_text() == text


if __name__ == "__main__":
    main()
