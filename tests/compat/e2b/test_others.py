"""Programs of others that use the SDKs of E2B."""

from collections.abc import Iterator, Mapping

import pytest

from tests.compat.e2b.conftest import PATIENCE
from tests.compat.e2b.faces import COMPUTESDK, HERE, SMOLAGENTS
from tests.compat.e2b.test_sdk import judge
from tests.support.vendor import provide
from tests.support.vendor_cases import Case, find_cases
from tests.support.vendor_runs import Job, Run, start_node, start_python

pytestmark = [pytest.mark.compat, pytest.mark.sandbox, pytest.mark.timeout(600)]

AGENT_CASES = find_cases([HERE / "with_smolagents"])
PROVIDER_CASES = find_cases([HERE / "with_computesdk"])


@pytest.fixture(scope="module")
def agents(variables: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """The tests of smolagents at work."""
    python = SMOLAGENTS.program(provide(SMOLAGENTS))
    job = Job(AGENT_CASES, tmp_path_factory.mktemp("smolagents"), variables, PATIENCE)
    run = start_python(python, job)
    yield run
    run.stop()


@pytest.fixture(scope="module")
def provider(
    variables: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Run]:
    """The tests of ComputeSDK at work."""
    place = provide(COMPUTESDK)
    job = Job(PROVIDER_CASES, tmp_path_factory.mktemp("computesdk"), variables, PATIENCE)
    run = start_node(COMPUTESDK.program(place), place, job)
    yield run
    run.stop()


@pytest.mark.parametrize("case", AGENT_CASES, ids=str)
def test_smolagents(case: Case, agents: Run) -> None:
    judge(agents, case)


@pytest.mark.parametrize("case", PROVIDER_CASES, ids=str)
def test_computesdk(case: Case, provider: Run) -> None:
    judge(provider, case)
