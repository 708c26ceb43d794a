"""Every error of ours has a status and a body, and a defect reveals nothing."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from headrace.adapters.base import set_request
from headrace.adapters.native import errors as native_errors
from headrace.adapters.native.errors import (
    STATUSES,
    MethodNotAllowedError,
    RangeNotSatisfiableError,
    error_response,
    status_of,
    unknown_failure,
)
from headrace.engine.pipes import PipeClosedError
from headrace.model import errors
from headrace.model.errors import (
    HeadraceError,
    InvalidRequestError,
    UnauthenticatedError,
    UnavailableError,
)

DOCUMENT = Path(__file__).parents[4] / "docs" / "errors.md"


def classes_of(module: object) -> list[type[HeadraceError]]:
    found = [each for each in vars(module).values() if isinstance(each, type)]
    return [each for each in found if issubclass(each, HeadraceError)]


def make_scope() -> dict[str, Any]:
    scope: dict[str, Any] = {"type": "http", "headers": []}
    set_request(scope, "request-1", "http://here")
    return scope


def body_of(error: HeadraceError) -> Any:
    return json.loads(error_response(error, make_scope()).body)


def test_every_class_of_errors_has_a_status() -> None:
    known = {*classes_of(errors), *classes_of(native_errors)}

    assert known - STATUSES.keys() == set()


def test_the_document_has_every_code_with_its_status() -> None:
    text = DOCUMENT.read_text()
    missing = [
        (kind.code, status)
        for kind, status in STATUSES.items()
        if not any(
            line.startswith(f"| `{kind.code}` |") and f"| {status} |" in line
            for line in text.splitlines()
        )
    ]

    assert missing == []


def test_a_class_that_nobody_listed_has_the_status_of_its_base() -> None:
    assert status_of(PipeClosedError("closed")) == 409


def test_the_body_has_code_message_details_and_request() -> None:
    assert body_of(InvalidRequestError("no", field="x")) == {
        "error": {
            "code": "invalid_request",
            "message": "no",
            "details": {"field": "x"},
            "request_id": "request-1",
        }
    }


def test_details_that_are_not_json_become_text() -> None:
    assert body_of(InvalidRequestError("no", path=Path("/a")))["error"]["details"] == {"path": "/a"}


@pytest.mark.parametrize("text", ["\ud800", "\0", "ä" * 3])
def test_any_text_in_a_message_can_be_sent(text: str) -> None:
    assert body_of(InvalidRequestError(f"got {text}"))["error"]["message"] == f"got {text}"


@pytest.mark.parametrize(
    ("error", "header"),
    [
        (UnauthenticatedError("who?"), (b"www-authenticate", b"Bearer")),
        (UnavailableError("busy"), (b"retry-after", b"1")),
        (MethodNotAllowedError("PUT", ["GET", "HEAD"]), (b"allow", b"GET, HEAD")),
        (RangeNotSatisfiableError(10), (b"content-range", b"bytes */10")),
    ],
)
def test_some_errors_have_a_header(error: HeadraceError, header: tuple[bytes, bytes]) -> None:
    assert header in error_response(error, make_scope()).headers


def test_a_defect_is_logged_with_its_traceback_and_told_without(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.ERROR):
        told = unknown_failure(ZeroDivisionError("the secret"), make_scope())

    assert "the secret" in caplog.text
    assert status_of(told) == 500
    assert body_of(told)["error"]["code"] == "internal"
    assert "secret" not in json.dumps(body_of(told))
    assert "request-1" in told.message
