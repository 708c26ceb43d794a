"""Every error of ours has an answer in each shape of the dialect, and a defect reveals nothing."""

import json
import logging
from typing import Any

import pytest

from headrace.adapters.base import set_request
from headrace.adapters.e2b import errors as e2b_errors
from headrace.adapters.e2b.answers import Answer
from headrace.adapters.e2b.errors import (
    CONNECT_CODES,
    STATUSES,
    MethodNotAllowedError,
    NotSupportedError,
    RangeNotSatisfiableError,
    connect_answer,
    connect_code_of,
    describe_connect,
    json_error,
    port_closed,
    sandbox_gone,
    status_of,
    text_error,
    traffic_refused,
    unknown_failure,
)
from headrace.engine.pipes import PipeClosedError
from headrace.model import errors
from headrace.model.errors import HeadraceError, InvalidRequestError, QuotaError
from headrace.wire.connect import STATUSES as CONNECT_STATUSES
from headrace.wire.connect import Code

SCOPE: dict[str, Any] = {"type": "http", "headers": []}
set_request(SCOPE, "request-1", "http://here")


def classes_of(module: object) -> set[type[HeadraceError]]:
    found = [each for each in vars(module).values() if isinstance(each, type)]
    return {each for each in found if issubclass(each, HeadraceError)}


def body_of(answer: Answer) -> Any:
    return json.loads(answer.body)


def test_every_class_of_errors_has_a_status() -> None:
    known = classes_of(errors) | classes_of(e2b_errors)

    assert len(known) > 25
    assert known - STATUSES.keys() == set()


def test_every_class_that_the_engine_raises_has_a_code_of_connect() -> None:
    assert classes_of(errors) - CONNECT_CODES.keys() == set()
    assert {*CONNECT_CODES.values()} <= CONNECT_STATUSES.keys()


@pytest.mark.parametrize("kind", STATUSES)
def test_the_body_has_the_status_and_the_message(kind: type[HeadraceError]) -> None:
    error = kind(7) if kind is RangeNotSatisfiableError else kind("what went wrong")

    answer = json_error(error, SCOPE)

    assert 400 <= answer.status < 600
    assert body_of(answer) == {"code": answer.status, "message": error.message}


def test_an_error_of_an_unlisted_class_is_answered_like_its_base() -> None:
    assert PipeClosedError not in STATUSES
    assert status_of(PipeClosedError("x")) == STATUSES[PipeClosedError.__mro__[1]]
    assert connect_code_of(PipeClosedError("x")) == CONNECT_CODES[PipeClosedError.__mro__[1]]


def test_clients_are_told_not_to_try_again_what_will_not_change() -> None:
    assert (b"should-retry", b"false") in json_error(QuotaError("full"), SCOPE).headers
    assert (b"should-retry", b"false") in json_error(errors.DeadlineError("late"), SCOPE).headers
    assert json_error(errors.UnavailableError("wait"), SCOPE).headers == ((b"retry-after", b"1"),)
    # The SDKs try neither of these again.
    assert status_of(NotSupportedError("x is not supported yet")) == 501


def test_a_wrong_method_names_the_right_ones() -> None:
    answer = json_error(MethodNotAllowedError("no", ["GET", "POST"]), SCOPE)

    assert (answer.status, answer.headers) == (405, ((b"allow", b"GET, POST"),))
    assert json_error(MethodNotAllowedError("no"), SCOPE).headers == ()


def test_rpc_answers_the_code_and_the_status_that_belongs_to_it() -> None:
    error = errors.PathNotFoundError("/x: not found")

    answer = connect_answer(error)

    assert describe_connect(error) == {"code": Code.NOT_FOUND, "message": "/x: not found"}
    assert (answer.status, body_of(answer)) == (
        404,
        {"code": "not_found", "message": "/x: not found"},
    )


def test_the_interpreter_answers_plain_text() -> None:
    answer = text_error(errors.ContextNotFoundError("Context \udcff not found"))

    assert (answer.status, answer.body) == (404, b"Context ? not found")
    assert answer.content_type == b"text/plain; charset=utf-8"


def test_a_sandbox_that_is_gone_has_the_words_that_sdks_look_for() -> None:
    assert body_of(sandbox_gone("abc")) == {
        "sandboxId": "abc",
        "message": "The sandbox was not found",
        "code": 502,
    }
    assert body_of(port_closed("abc", 3000)) == {
        "sandboxId": "abc",
        "message": "The sandbox is running but port is not open",
        "port": 3000,
        "code": 502,
    }
    assert {sandbox_gone("abc").status, port_closed("abc", 1).status} == {502}


def test_traffic_that_is_refused_is_403() -> None:
    answer = traffic_refused("abc")

    assert answer.status == 403
    assert {*body_of(answer)} == {"sandboxId", "message", "code"}


def test_a_defect_is_logged_and_told_without_its_details(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        failure = unknown_failure(KeyError("secret"), SCOPE)

    answer = json_error(failure, SCOPE)
    assert answer.status == 500
    assert "request-1" in failure.message
    assert b"secret" not in answer.body
    assert "secret" in caplog.text


def test_an_invalid_request_is_400() -> None:
    assert status_of(InvalidRequestError("x")) == 400
