"""How the doctor judges what an engine reports, and how it prints."""

import json

import pytest

from headrace.cli import doctor
from headrace.engine.config import REQUIREMENTS, IsolationReport
from headrace.engine.probe import Check, State
from headrace.model.errors import IsolationError
from headrace.model.events import ExecutionFinished, FinishReason

GOOD = Check("seccomp", State.PASS, "yes, x86_64")
BAD = Check("cgroups", State.WARN, "none", "delegate one")
WORSE = Check("kernel", State.FAIL, "4.19", "boot another")


def report(*enforced: str, memory: str = "cgroup") -> IsolationReport:
    return IsolationReport("rootless", frozenset(enforced), memory, (), {}, {})


def test_every_protection_has_its_line() -> None:
    checks = doctor.judge_report(report(*REQUIREMENTS), frozenset())

    assert [check.name for check in checks] == [f"enforced {name}" for name in REQUIREMENTS]
    assert {check.state for check in checks} == {State.PASS}


def test_what_is_not_enforced_is_a_warning_with_its_remedy() -> None:
    checks = doctor.judge_report(report("cpu", memory="watchdog"), frozenset())

    memory = next(check for check in checks if check.name == "enforced memory")
    assert (memory.state, memory.value) == (State.WARN, "no: watchdog")
    assert memory.remedy is not None


def test_what_is_required_and_not_enforced_fails() -> None:
    checks = doctor.judge_report(report("seccomp"), frozenset({"cpu", "seccomp"}))

    failed = [check.name for check in checks if check.state is State.FAIL]
    assert failed == ["enforced cpu"]


@pytest.mark.parametrize(
    ("reason", "state"), [(FinishReason.OK, State.PASS), (FinishReason.KERNEL_DIED, State.FAIL)]
)
def test_the_first_execution_must_work(reason: FinishReason, state: State) -> None:
    check = doctor.judge_first(ExecutionFinished(3, 1.0, reason, 0.1), 0.0123)

    assert check.state is state


def test_lines_are_aligned_and_a_remedy_follows_its_check() -> None:
    assert doctor.as_lines([GOOD, BAD]) == [
        "pass  seccomp  yes, x86_64",
        "warn  cgroups  none",
        "      to mend it: delegate one",
    ]


def test_nothing_to_say_gives_no_lines() -> None:
    assert doctor.as_lines([]) == []


def test_the_document_has_every_check() -> None:
    assert json.loads(doctor.as_document([GOOD, BAD])) == {
        "ok": True,
        "checks": [
            {"name": "seccomp", "state": "pass", "value": "yes, x86_64", "remedy": None},
            {"name": "cgroups", "state": "warn", "value": "none", "remedy": "delegate one"},
        ],
    }


def test_the_document_of_a_failure_is_not_ok() -> None:
    assert json.loads(doctor.as_document([GOOD, WORSE]))["ok"] is False


def test_a_report_that_is_too_weak_names_what_is_missing() -> None:
    with pytest.raises(IsolationError, match="cannot enforce cpu, memory in rootless mode"):
        report("seccomp").check({"memory", "cpu", "seccomp"})
