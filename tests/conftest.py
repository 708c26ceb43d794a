"""What every test shares: the mode, real engines and sandboxes, and no silent skips."""

import os
import pwd
import sys
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

import headrace
from tests.support.modes import (
    PREFIX_VARIABLE,
    USER_VARIABLE,
    Mode,
    current_mode,
    read_not_run,
)

if TYPE_CHECKING:  # unit tests must not need an engine that starts
    from headrace.engine.engine import Engine
    from headrace.engine.sandbox import Sandbox

NOT_RUN = read_not_run(Path(__file__).with_name("not-run.toml"))
_LISTED = pytest.StashKey[str]()

# No test times itself: how long an example takes says how busy the machine is.
_LENIENT = {*settings().suppress_health_check, HealthCheck.too_slow}
settings.register_profile("untimed", settings(), deadline=None, suppress_health_check=_LENIENT)
settings.load_profile("untimed")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """The engine's hot readers need an asyncio loop, so the tests run on asyncio."""
    return "asyncio"


@pytest.fixture(scope="session")
def mode() -> Mode:
    """The mode in which engines are opened."""
    return current_mode()


@pytest.fixture(scope="session")
async def engine(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator["Engine"]:
    """One engine for all tests; starting one takes seconds, as it imports pandas."""
    from tests.support.running import open_engine

    async with open_engine(tmp_path_factory.mktemp("engine")) as engine:
        yield engine


@pytest.fixture
async def sandbox(engine: "Engine") -> AsyncIterator["Sandbox"]:
    """A fresh sandbox, killed after the test."""
    from headrace.model.specs import SandboxSpec

    sandbox = await engine.create(SandboxSpec())
    try:
        yield sandbox
    finally:
        await sandbox.kill()


def pytest_configure() -> None:
    """Refuse to run with another interpreter, user or package than the ones meant."""
    prefix = os.environ.get(PREFIX_VARIABLE)
    if prefix is None:
        return
    user = pwd.getpwnam(os.environ[USER_VARIABLE])
    facts = {
        "sys.prefix": (sys.prefix, prefix),
        "the interpreter": (sys.executable, f"{prefix}/bin/python"),
        "the user ids": ({os.getuid(), os.geteuid()}, {user.pw_uid}),
        "the group ids": ({os.getgid(), os.getegid()}, {user.pw_gid}),
        "HOME": (os.environ["HOME"], user.pw_dir),
        "the package": (str(Path(headrace.__file__).parents[1]), _site_packages(prefix)),
    }
    wrong = [f"{name} is {got}, not {want}" for name, (got, want) in facts.items() if got != want]
    if wrong:
        raise pytest.UsageError("this is not the environment meant: " + "; ".join(wrong))


def _site_packages(prefix: str) -> str:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return f"{prefix}/lib/{version}/site-packages"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what tests/not-run.toml lists for this machine and mode."""
    for item in items:
        excuse = NOT_RUN.excuse_for_test(item.nodeid)
        if excuse is not None:
            item.stash[_LISTED] = excuse
            item.add_marker(pytest.mark.skip(reason=f"not-run.toml: {excuse}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a failure of each skip, and of each expected failure, that is not listed."""
    report = yield
    if report.skipped and _LISTED not in item.stash:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, but tests/not-run.toml does not list it"
        if hasattr(report, "wasxfail"):
            del report.wasxfail
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """Make a failure of each file that skips itself."""
    report = yield
    if report.outcome == "skipped":
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid} skips itself; list its tests in tests/not-run.toml"
    return report


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Name what was left out, and why."""
    skipped: dict[str, list[str]] = {}
    for report in terminalreporter.stats.get("skipped", []):
        excuse = NOT_RUN.excuse_for_test(report.nodeid)
        if excuse is not None:
            skipped.setdefault(excuse, []).append(report.nodeid)
    if skipped:
        terminalreporter.section(f"not run in {current_mode()} mode (tests/not-run.toml)")
    for excuse, names in skipped.items():
        terminalreporter.write_line(f"{len(names)}: {excuse}")
        if config.get_verbosity() >= 0:
            for name in names:
                terminalreporter.write_line(f"    {name}")
