"""One service for all SDKs, and the runners that work against it, each started once."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.compat.e2b.faces import NODE, PLUGINS, PYTHON, Face
from tests.support.serving import KEY, OTHER_KEY, ServiceProcess, started_service
from tests.support.vendor import provide
from tests.support.vendor_cases import Case
from tests.support.vendor_runs import Job, Run, start_node, start_python

# They import what is not installed here.
collect_ignore_glob = ["python_*", "javascript*", "shared", "with_*"]

NOTES = pytest.StashKey[list[str]]()
"""Lines for the end of the report."""
PATIENCE = 600.0
"""Seconds for all tests of a face; one that hangs is ended long before."""


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service with two tenants and a pool, as one would run it."""
    keys = f"default:{KEY},other:{OTHER_KEY}"
    directory = tmp_path_factory.mktemp("service")
    with started_service(
        directory, "--pool-size", "4", HEADRACE_API_KEYS=keys, HEADRACE_LIMITS__MEMORY="2GiB"
    ) as service:
        yield service


@pytest.fixture(scope="session")
def variables(service: ServiceProcess) -> Mapping[str, str]:
    """What a user of the SDK sets, and the key of another tenant."""
    return {
        "E2B_API_URL": service.url,
        "E2B_SANDBOX_URL": service.url,
        "E2B_API_KEY": f"e2b_{KEY}",
        "HEADRACE_TEST_OTHER_KEY": f"e2b_{OTHER_KEY}",
    }


@pytest.fixture(scope="session")
def runs(
    request: pytest.FixtureRequest,
    variables: Mapping[str, str],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Mapping[Path, Run]]:
    """One runner per directory with a test that was selected; they work side by side."""
    started: dict[Path, Run] = {}
    try:
        for (face, source), cases in _selected(request.session.items).items():
            directory = tmp_path_factory.mktemp(source.name)
            job = Job(cases, directory, variables, PATIENCE, PLUGINS[face])
            started[source] = _start(face, job)
        yield started
    finally:
        for run in started.values():
            run.stop()


def _selected(items: list[pytest.Item]) -> dict[tuple[Face, Path], list[Case]]:
    selected: dict[tuple[Face, Path], list[Case]] = {}
    for item in items:
        parameters: dict[str, object] = getattr(getattr(item, "callspec", None), "params", {})
        match (parameters.get("face"), parameters.get("case")):
            case (Face() as face, Case() as case) if item.get_closest_marker("skip") is None:
                cases = selected.setdefault((face, case.path.parent), [])
                cases += [] if case in cases else [case]
    return selected


def _start(face: Face, job: Job) -> Run:
    if face is Face.JAVASCRIPT:
        place = provide(NODE)
        return start_node(NODE.program(place), place, job)
    return start_python(PYTHON.program(provide(PYTHON)), job)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say what should be known and is no failure."""
    notes = config.stash.get(NOTES, [])
    if notes:
        terminalreporter.section("SDKs of E2B")
    for line in notes:
        terminalreporter.write_line(line)
