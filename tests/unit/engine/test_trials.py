"""The child in which trials run: whatever happens to it, the caller gets an answer."""

import os
import signal

import pytest

from headrace.engine import trials
from headrace.engine.trials import TrialError


def test_the_answer_comes_from_another_process() -> None:
    assert trials.in_child(lambda: str(os.getpid())) != str(os.getpid())


def test_an_errno_becomes_its_text() -> None:
    def refused() -> str:
        raise PermissionError(1, "unshare 0x10000000: Operation not permitted")

    with pytest.raises(TrialError, match=r"^Operation not permitted$"):
        trials.in_child(refused)


def test_a_trial_whose_process_dies_has_failed() -> None:
    def die() -> str:
        os.kill(os.getpid(), signal.SIGKILL)
        return "never"

    with pytest.raises(TrialError, match="died"):
        trials.in_child(die)


def test_a_trial_that_hangs_is_killed() -> None:
    def hang() -> str:
        signal.pause()
        return "never"

    with pytest.raises(TrialError, match="no answer"):
        trials.in_child(hang, timeout_ms=10)


def test_exiting_does_not_leave_the_child_running_our_code() -> None:
    def leave() -> str:
        raise SystemExit(0)

    with pytest.raises(TrialError, match="SystemExit"):
        trials.in_child(leave)


def test_a_filter_that_is_installed_has_an_effect() -> None:
    assert trials.in_child(trials.try_seccomp).startswith("yes")


def test_no_new_privs_stays_in_the_child() -> None:
    assert trials.in_child(trials.try_no_new_privs) == "yes"
