"""Every test that runs inside the environment of an SDK is one test here."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.compat.e2b.faces import Face, cases_of
from tests.support.vendor_cases import Case
from tests.support.vendor_runs import Run

# The first one waits for packages that are installed, and for all tests before it.
pytestmark = [pytest.mark.compat, pytest.mark.sandbox, pytest.mark.timeout(900)]


def parameters(face: Face) -> list[object]:
    """Give one set of parameters per test of a face."""
    return [pytest.param(face, case, id=str(case)) for case in cases_of(face)]


def judge(run: Run, case: Case) -> None:
    """Fail with what the runner said if the test has failed there."""
    outcome = run.outcome(case)
    if not outcome.passed:
        pytest.fail(f"{case}\n{outcome.text}", pytrace=False)


@pytest.mark.parametrize(("face", "case"), parameters(Face.PYTHON))
def test_python(face: Face, case: Case, runs: Mapping[Path, Run]) -> None:
    judge(runs[case.path.parent], case)


@pytest.mark.parametrize(("face", "case"), parameters(Face.PYTHON_ASYNC))
def test_python_async(face: Face, case: Case, runs: Mapping[Path, Run]) -> None:
    judge(runs[case.path.parent], case)


@pytest.mark.parametrize(("face", "case"), parameters(Face.JAVASCRIPT))
def test_javascript(face: Face, case: Case, runs: Mapping[Path, Run]) -> None:
    judge(runs[case.path.parent], case)
