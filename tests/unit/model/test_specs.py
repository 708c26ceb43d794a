"""Bad input gets an error that names the value, before anything happens."""

from typing import Any

import pytest

from headrace.model.errors import InvalidRequestError
from headrace.model.ids import ContextId
from headrace.model.specs import (
    MAX_CODE,
    ContextSpec,
    ExecutionRequest,
    Language,
    Limits,
    ProcessRequest,
    PtySize,
    SandboxSpec,
    resolve_path,
)


def test_an_unknown_language_is_named_beside_the_known_ones() -> None:
    with pytest.raises(InvalidRequestError, match=r"unknown language 'cobol'.*python"):
        Language.parse("cobol")


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf"), 1e12, True, "5"])
def test_a_bad_timeout_is_refused(timeout: Any) -> None:
    with pytest.raises(InvalidRequestError, match="timeout"):
        ExecutionRequest("1", timeout=timeout)


@pytest.mark.parametrize("code", [b"1", None, 5, "a\0b", "\ud800"])
def test_code_that_is_not_text_is_refused(code: Any) -> None:
    with pytest.raises(InvalidRequestError, match="code"):
        ExecutionRequest(code)


def test_too_much_code_is_refused_with_its_size() -> None:
    with pytest.raises(InvalidRequestError, match=str(MAX_CODE + 1)):
        ExecutionRequest("x" * (MAX_CODE + 1))
    ExecutionRequest("x" * MAX_CODE)


@pytest.mark.parametrize(
    "env", [{"1A": ""}, {"A=B": ""}, {"": ""}, {"A": 1}, {"A": "\0"}, [], "A=1"]
)
def test_environment_variables_that_cannot_be_are_refused(env: Any) -> None:
    for build in (
        lambda: SandboxSpec(env=env),
        lambda: ContextSpec(env=env),
        lambda: ExecutionRequest("1", env=env),
        lambda: ProcessRequest(("true",), env=env),
    ):
        with pytest.raises(InvalidRequestError, match="env"):
            build()


@pytest.mark.parametrize("cwd", ["", "relative", "a\0b", 5, "/" + "x" * 5000])
def test_a_working_directory_must_be_an_absolute_path(cwd: Any) -> None:
    with pytest.raises(InvalidRequestError, match="cwd"):
        ContextSpec(cwd=cwd)


@pytest.mark.parametrize("path", ["..", "../x", "a/../../x", "./../x"])
def test_a_relative_path_that_climbs_out_is_refused(path: str) -> None:
    with pytest.raises(InvalidRequestError, match="climbs out of /home/user"):
        resolve_path("path", path)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("x", "/home/user/x"), ("a/../b", "/home/user/a/../b"), ("/etc/../x", "/etc/../x")],
)
def test_other_paths_are_taken_from_home(path: str, expected: str) -> None:
    assert resolve_path("path", path) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("memory", 1),
        ("disk", 0),
        ("processes", True),
        ("open_files", 3.5),
        ("cpus", 0),
        ("lifetime", -1),
    ],
)
def test_a_limit_that_makes_no_sense_is_named(name: str, value: Any) -> None:
    with pytest.raises(InvalidRequestError, match=f"limit {name}"):
        Limits(**{name: value})


@pytest.mark.parametrize("argv", [(), ["ls"], ("a\0",), ("x" * 200_000,), (5,)])
def test_a_command_that_cannot_be_is_refused(argv: Any) -> None:
    with pytest.raises(InvalidRequestError, match="argv"):
        ProcessRequest(argv)


def test_an_unknown_user_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="unknown user 'admin'"):
        ProcessRequest(("true",), user="admin")


@pytest.mark.parametrize("cols", [0, -1, 5000, True, "80"])
def test_a_terminal_has_a_sensible_size(cols: Any) -> None:
    with pytest.raises(InvalidRequestError, match="pty cols"):
        PtySize(cols=cols)


def test_good_values_are_kept() -> None:
    request = ExecutionRequest("1", context_id=ContextId("c"), env={"A_1": "x"}, timeout=0.5)
    assert request.env == {"A_1": "x"}
