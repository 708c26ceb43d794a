"""What today's releases of the SDKs make of the service: a line of the report, never a failure.

A release of tomorrow may ask for what the service does not have. That should be known early, and
should not stop anybody's work; the versions that are tested in earnest are in faces.py.
"""

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.compat.e2b.conftest import NOTES
from tests.compat.e2b.faces import (
    NODE,
    NODE_LATEST,
    PLUGINS,
    PYTHON,
    PYTHON_LATEST,
    SMOKE,
    Face,
    cases_of,
)
from tests.support.vendor import VendorUnavailableError, provide, today
from tests.support.vendor_cases import Case
from tests.support.vendor_runs import Job, Run, start_node, start_python

pytestmark = [pytest.mark.compat, pytest.mark.sandbox, pytest.mark.timeout(600)]

PATIENCE = 180.0


def test_the_latest_python_sdk(
    variables: Mapping[str, str], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    latest = PYTHON_LATEST.of(today())
    try:
        place = provide(latest)
    except VendorUnavailableError as error:
        note(pytestconfig, f"Python: cannot be installed: {error}")
        return
    version = python_version(place)
    if version == python_version(provide(PYTHON)):
        note(pytestconfig, f"Python: {version} is the tested one")
        return
    job = Job(smoke(Face.PYTHON), tmp_path, variables, PATIENCE, PLUGINS[Face.PYTHON])
    note(pytestconfig, f"Python: {version}: {judge(start_python(latest.program(place), job), job)}")


def test_the_latest_javascript_sdk(
    variables: Mapping[str, str], tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    latest = NODE_LATEST.of(today())
    try:
        place = provide(latest)
    except VendorUnavailableError as error:
        note(pytestconfig, f"JavaScript: cannot be installed: {error}")
        return
    version = node_version(place)
    if version == node_version(provide(NODE)):
        note(pytestconfig, f"JavaScript: {version} is the tested one")
        return
    job = Job(smoke(Face.JAVASCRIPT), tmp_path, variables, PATIENCE)
    run = start_node(latest.program(place), place, job)
    note(pytestconfig, f"JavaScript: {version}: {judge(run, job)}")


def smoke(face: Face) -> list[Case]:
    """Give the tests that tell whether an SDK is of any use."""
    return [case for case in cases_of(face) if case.topic in SMOKE]


def judge(run: Run, job: Job) -> str:
    """Give the verdict in words."""
    try:
        failed = [str(case) for case in job.cases if not run.outcome(case).passed]
    finally:
        run.stop()
    verdict = f"{len(job.cases) - len(failed)} of {len(job.cases)} passed"
    return f"{verdict}; failed: {', '.join(failed)}" if failed else verdict


def python_version(place: Path) -> str:
    """Give the versions of the SDK's two packages."""
    names = place.glob("lib/python*/site-packages/e2b*.dist-info")
    return ", ".join(sorted(name.name.removesuffix(".dist-info") for name in names))


def node_version(place: Path) -> str:
    """Give the versions of the SDK's two packages."""
    packages = [place / "node_modules" / name for name in ("e2b", "@e2b/code-interpreter")]
    records = [json.loads((package / "package.json").read_text()) for package in packages]
    return ", ".join(f"{record['name']} {record['version']}" for record in records)


def note(config: pytest.Config, line: str) -> None:
    """Add a line to the report."""
    config.stash.setdefault(NOTES, []).append(f"latest {line}")
