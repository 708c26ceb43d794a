"""The tests that run inside the environments of vendors: which there are and what they cover.

Such a test is found by reading its file, as the packages that it imports are not ours. A comment
above it, ``covers: files.read, files.write``, names the vendor's methods that it tests.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PYTHON_TEST = re.compile(
    r"^(?:# covers: (?P<covers>.*(?:\n# +\S.*)*)\n)?(?:@.*\n)*(?:async )?def (?P<name>test_\w+)\(",
    re.MULTILINE,
)
_JAVASCRIPT_TEST = re.compile(
    r"^(?:// covers: (?P<covers>.*(?:\n// +\S.*)*)\n)?test\('(?P<name>[^']+)'", re.MULTILINE
)
_COMMENT = re.compile(r"\n(?:#|//)")


@dataclass(frozen=True, slots=True)
class Case:
    """One test of a vendor-side file; ``covers`` has names of methods, as Python writes them."""

    path: Path
    name: str
    covers: tuple[str, ...] = ()

    @property
    def topic(self) -> str:
        """The file's name without what marks it as a test."""
        return self.path.name.partition(".")[0].removeprefix("test_")

    def __str__(self) -> str:
        return f"{self.topic}::{self.name}"


def find_cases(directories: Iterable[Path]) -> Sequence[Case]:
    """Give the tests in these directories, in the order of files and lines."""
    return [case for directory in directories for case in _in_directory(directory)]


def _in_directory(directory: Path) -> Iterator[Case]:
    for path in sorted([*directory.glob("test_*.py"), *directory.glob("*.test.mjs")]):
        pattern = _PYTHON_TEST if path.suffix == ".py" else _JAVASCRIPT_TEST
        for found in pattern.finditer(path.read_text()):
            yield Case(path, found["name"], _names(found["covers"] or ""))


def _names(comment: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in _COMMENT.sub("", comment).split(",") if name.strip())


def covered(cases: Iterable[Case]) -> Mapping[str, list[Case]]:
    """Give for each method that is named the tests that cover it."""
    found: dict[str, list[Case]] = {}
    for case in cases:
        for name in case.covers:
            found.setdefault(name, []).append(case)
    return found
