"""Requests as data: where they go, what they say, whether they may be repeated."""

import json
import math

import pytest

from headrace.client._shared import calls, file_calls, process_calls
from headrace.client._shared.events import EXECUTION
from headrace.client._shared.process_calls import Command
from headrace.client._shared.values import Limits
from headrace.model.errors import InvalidRequestError
from headrace.model.specs import PtySize


def test_only_what_was_given_is_said() -> None:
    assert json.loads(calls.create_sandbox(None, None, None, None, None).body) == {}
    request = calls.create_sandbox("t", 5.0, {"A": "b"}, {"c": "d"}, Limits(memory=7, cpus=0.5))

    assert json.loads(request.body) == {
        "template": "t",
        "timeout": 5.0,
        "env": {"A": "b"},
        "metadata": {"c": "d"},
        "limits": {"memory": 7, "cpus": 0.5},
    }


def test_the_end_of_the_input_is_said() -> None:
    assert json.loads(calls.send_input("e", None).body) == {"text": None}


@pytest.mark.parametrize("name", ["a/../b", "a?b", "a#b", "a%2fb", "é", " "])
def test_an_id_cannot_lead_elsewhere(name: str) -> None:
    target = calls.get_sandbox(name).target

    assert target.startswith("/v1/sandboxes/")
    assert target.count("/") == 3
    assert not {"?", "#", " "} & set(target)


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_what_is_no_id_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError, match="is no id"):
        calls.get_execution(name)
    with pytest.raises(InvalidRequestError, match="is no id"):
        calls.events(EXECUTION, name, 0)


def test_a_path_is_escaped() -> None:
    target = file_calls.read_file("s", "/a b/&é=?#\n", "root").target

    assert target == "/v1/sandboxes/s/files/content?path=%2Fa+b%2F%26%C3%A9%3D%3F%23%0A&user=root"


def test_a_line_goes_to_a_shell_and_words_do_not() -> None:
    line = process_calls.start_process("s", Command("ls | wc"), background=False)
    words = process_calls.start_process(
        "s", Command(("ls", "-l"), pty=PtySize(10, 20)), background=True
    )

    assert json.loads(line.body) == {"command": "ls | wc"}
    assert json.loads(words.body) == {
        "argv": ["ls", "-l"],
        "pty": {"cols": 10, "rows": 20},
        "background": True,
    }


def test_what_starts_something_may_not_be_repeated() -> None:
    code = calls.Code("1")

    assert not calls.execute("s", code).can_repeat
    assert not calls.create_sandbox(None, None, None, None, None).can_repeat
    assert not process_calls.write_stdin("p", b"x").can_repeat
    assert not file_calls.move_file("s", "a", "b", parents=True, user=None).can_repeat


def test_what_cannot_be_json_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="cannot be written as JSON"):
        calls.set_timeout("s", {1, 2})  # type: ignore[arg-type]  # that is the test
    assert json.loads(calls.set_timeout("s", math.nan).body)["timeout"] is None


def test_a_body_of_unknown_size_is_sent_in_chunks() -> None:
    request = file_calls.write_file("s", "f", user=None, mode=None, parents=True, append=False)

    assert ("transfer-encoding", "chunked") in request.describe(None)
    assert ("content-length", "0") in request.describe(0)
    assert ("content-length", "0") not in calls.get_sandbox("s").describe(0)
