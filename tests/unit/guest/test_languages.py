"""Which languages can run here, judged from what their programs answer."""

import pytest

from headrace_guest import languages
from headrace_guest.languages import PROGRAMS, Found, Program, find_programs, judge

NODE = Program("node", (20, 12), "nodejs")


@pytest.mark.parametrize(
    ("answer", "version"),
    [("v20.12.0", "20.12.0"), ("v22.1.0\n", "22.1.0"), ("node 20.12 (x)", "20.12")],
)
def test_a_version_that_will_do(answer: str, version: str) -> None:
    assert judge(NODE, "/usr/bin/node", answer) == Found("/usr/bin/node", version, None, "nodejs")


@pytest.mark.parametrize(
    ("path", "answer", "problem"),
    [
        (None, "", "there is no node in /usr/bin:/bin"),
        ("/usr/bin/node", "v20.11.1", "/usr/bin/node is version 20.11.1, at least 20.12 is needed"),
        ("/usr/bin/node", "", "/usr/bin/node does not tell its version"),
        ("/usr/bin/node", "not found", "/usr/bin/node does not tell its version"),
    ],
)
def test_what_will_not_do_has_a_problem_in_words(
    path: str | None, answer: str, problem: str
) -> None:
    found = judge(NODE, path, answer)
    assert (found.path, found.problem, found.package) == (None, problem, "nodejs")


def test_bash_is_found_on_this_machine() -> None:
    found = find_programs()
    assert set(found) == set(PROGRAMS)
    assert found["bash"].problem is None


def test_a_program_that_does_not_start_or_end_is_a_problem_and_no_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    endless = Program("sleep", (1,), "coreutils", asked=("60",))
    absent = Program("no-such-program", (1,), "none")
    monkeypatch.setattr(languages, "PROGRAMS", {"a": endless, "b": absent})
    monkeypatch.setattr(languages, "_VERSION_TIMEOUT", 0.05)
    found = find_programs()
    assert "does not tell its version" in str(found["a"].problem)
    assert "there is no no-such-program" in str(found["b"].problem)
