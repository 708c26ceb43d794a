"""What every user of the SDKs does first, in the mode that needs no root."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.compat.e2b.faces import SMOKE, Face, cases_of
from tests.compat.e2b.test_sdk import judge
from tests.support.vendor_cases import Case
from tests.support.vendor_runs import Run

pytestmark = [pytest.mark.compat, pytest.mark.sandbox, pytest.mark.timeout(600)]

CASES = [
    pytest.param(face, case, id=f"{face}-{case}")
    for face in (Face.PYTHON, Face.JAVASCRIPT)
    for case in cases_of(face)
    if case.topic in SMOKE
]


@pytest.mark.parametrize(("face", "case"), CASES)
def test_rootless(face: Face, case: Case, runs: Mapping[Path, Run]) -> None:
    judge(runs[case.path.parent], case)
