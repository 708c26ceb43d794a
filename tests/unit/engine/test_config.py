"""Settings of the engine, and the report of what is enforced."""

from pathlib import Path
from typing import Any

import pytest

from headrace.engine.config import REQUIREMENTS, EngineConfig, IsolationReport
from headrace.model.errors import InvalidRequestError, IsolationError, LaunchError

RAW = {
    "mode": "rootless",
    "enforced": ["namespaces", "seccomp"],
    "memory": "watchdog",
    "python": {"missing": ["pandas"]},
}


def make(**settings: Any) -> EngineConfig:
    return EngineConfig(state_dir=Path("/state"), runtime_dir=Path("/runtime"), **settings)


def test_logs_are_below_the_two_directories() -> None:
    config = make()
    assert (config.log_state_dir, config.log_runtime_dir) == (
        Path("/state/logs/main"),
        Path("/runtime/logs/main"),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mode", "docker"),
        ("pool_size", -1),
        ("pool_size", True),
        ("max_sandboxes", 0),
        ("max_creating", 0),
        ("interrupt_grace", 0.0),
        ("log_retention", float("inf")),
        ("kernel_start_timeout", -1.0),
        ("node", "1abc"),
        ("node", "toolong"),
    ],
)
def test_a_bad_setting_is_refused_and_named(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=name):
        make(**{name: value})


def test_an_unknown_requirement_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidRequestError, match=r"'magic'.*idmapped_mounts"):
        make(require=frozenset({"magic", "memory"}))


def test_every_known_requirement_may_be_asked_for() -> None:
    assert make(require=frozenset(REQUIREMENTS)).require == set(REQUIREMENTS)


def test_a_report_is_read() -> None:
    report = IsolationReport.read(RAW)
    assert report.mode == "rootless"
    assert report.enforced == {"namespaces", "seccomp"}
    assert report.memory == "watchdog"
    assert report.missing == ("pandas",)
    assert report.raw["memory"] == "watchdog"


@pytest.mark.parametrize("raw", [None, [], {}, {"mode": "root"}, {**RAW, "python": 3}])
def test_what_is_no_report_is_refused(raw: object) -> None:
    with pytest.raises(LaunchError, match="report"):
        IsolationReport.read(raw)


def test_a_requirement_that_is_enforced_is_fine() -> None:
    IsolationReport.read(RAW).check({"seccomp"})


def test_each_missing_requirement_is_named() -> None:
    with pytest.raises(IsolationError, match="cpu, memory in rootless mode") as caught:
        IsolationReport.read(RAW).check({"memory", "seccomp", "cpu"})
    assert caught.value.details["missing"] == ["cpu", "memory"]
