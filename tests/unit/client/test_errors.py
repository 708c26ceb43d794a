"""Every error that a service can answer with becomes the exception of its code."""

import re
from pathlib import Path

import pytest

import headrace
from headrace.client.errors import make_error
from headrace.model.errors import HeadraceError, InvalidRequestError, NotFoundError

TABLE = (Path(__file__).parents[3] / "docs" / "errors.md").read_text()
ROWS = re.findall(r"^\| `(\w+)` \| `(\w+)` \| (\d+)", TABLE, re.MULTILINE)


@pytest.mark.parametrize(("code", "name", "status"), ROWS)
def test_a_documented_code_becomes_the_documented_exception(
    code: str, name: str, status: str
) -> None:
    error = make_error({"code": code, "message": "m"}, int(status))

    assert type(error).__name__ == name
    assert type(error) is getattr(headrace, name)
    assert error.message == "m"


def test_the_table_has_all_of_them() -> None:
    names = {name for _, name, _ in ROWS} | {"ConnectionFailedError", "StreamBrokenError"}
    public = {
        name
        for name in headrace.__all__
        if name[0] != "_"
        and isinstance(value := getattr(headrace, name), type)
        and issubclass(value, HeadraceError)
    }

    assert public == names


def test_an_unknown_code_becomes_the_exception_of_its_status() -> None:
    error = make_error({"code": "brand_new", "message": "m", "details": {"a": 1}}, 404)

    assert type(error) is NotFoundError
    assert error.details == {"a": 1, "code": "brand_new"}


@pytest.mark.parametrize("record", [None, [], "x", {}, {"code": 5, "message": 7, "details": "d"}])
def test_nonsense_becomes_an_exception_too(record: object) -> None:
    assert type(make_error(record, 400)) is InvalidRequestError
    assert type(make_error(record)) is HeadraceError


def test_details_may_have_any_name() -> None:
    details = {"self": 1, "message": 2, "code": 3}

    assert make_error({"code": "quota", "message": "m", "details": details}).details == details
