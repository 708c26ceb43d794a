"""A plugin for the pytest of a vendor's environment: one line of JSON per test that has ended.

A test with parameters has ended when it has for all of them.
"""

import json
import os
from collections import Counter
from pathlib import Path

import pytest

_variants: Counter[str] = Counter()
_parts: dict[str, list[pytest.TestReport]] = {}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Learn how often each test will run."""
    _variants.update(_base(item.nodeid) for item in session.items)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Collect the parts of a test, and write the line after the last one."""
    test = _base(report.nodeid)
    parts = _parts.setdefault(test, [])
    parts.append(report)
    if sum(part.when == "teardown" for part in parts) < _variants[test]:
        return
    path, _, name = test.partition("::")
    # A test that skips itself has not passed.
    passed = all(part.outcome == "passed" for part in parts)
    text = "" if passed else "\n".join(_describe(part) for part in parts)
    line = {"file": Path(path).name, "name": name, "passed": passed, "text": text}
    with Path(os.environ["HEADRACE_TEST_REPORT"]).open("a") as report_file:
        report_file.write(json.dumps(line) + "\n")


def _base(nodeid: str) -> str:
    return nodeid.partition("[")[0]


def _describe(part: pytest.TestReport) -> str:
    if part.outcome == "passed":
        return ""
    sections = [f"-- {title} --\n{content}" for title, content in part.sections]
    return "\n".join([f"{part.when}: {part.nodeid}", part.longreprtext, *sections])
