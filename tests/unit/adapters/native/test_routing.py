"""Paths lead to routes, and parameters are what was sent."""

import pytest

from headrace.adapters.native.errors import MethodNotAllowedError
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.routing import Route, Router, split_path
from headrace.model.errors import NotFoundError


async def handle(_exchange: Exchange) -> None:
    """Do nothing."""


def make(method: str, path: str) -> Route:
    return Route(method, path, "name", "summary", handle, {})


ROUTER = Router(
    [
        make("GET", "/v1/things"),
        make("GET", "/v1/things/{thing}"),
        make("POST", "/v1/things/{thing}/parts"),
        make("GET", "/v1/things/{thing}/parts/{part}"),
        make("PUT", "/v1/things/{thing}/parts/all"),
    ]
)


@pytest.mark.parametrize(
    ("method", "path", "found", "parameters"),
    [
        ("GET", "/v1/things", "/v1/things", {}),
        ("HEAD", "/v1/things", "/v1/things", {}),
        ("GET", "/v1/things/a", "/v1/things/{thing}", {"thing": "a"}),
        ("GET", "/v1/things/a%2Fb%20c", "/v1/things/{thing}", {"thing": "a/b c"}),
        ("GET", "/v1/%74hings/%C3%A4", "/v1/things/{thing}", {"thing": "ä"}),
        ("GET", "/v1/things/%FF", "/v1/things/{thing}", {"thing": "\ufffd"}),
        (
            "GET",
            "/v1/things/a/parts/b",
            "/v1/things/{thing}/parts/{part}",
            {"thing": "a", "part": "b"},
        ),
        ("PUT", "/v1/things/a/parts/all", "/v1/things/{thing}/parts/all", {"thing": "a"}),
    ],
)
def test_a_path_leads_to_its_route(
    method: str, path: str, found: str, parameters: dict[str, str]
) -> None:
    route, given = ROUTER.find(method, split_path(path.encode()))

    assert route.path == found
    assert given == parameters


@pytest.mark.parametrize(
    "path",
    ["/", "", "/v1", "/v2/things", "/v1/things/", "/v1//a", "/v1/things/a/b", "/v1/things/a/"],
)
def test_what_is_not_in_the_table_is_not_found(path: str) -> None:
    with pytest.raises(NotFoundError):
        ROUTER.find("GET", split_path(path.encode()))


def test_another_method_is_told_which_there_are() -> None:
    with pytest.raises(MethodNotAllowedError) as caught:
        ROUTER.find("DELETE", ["v1", "things"])

    assert caught.value.details["allowed"] == ["GET", "HEAD", "OPTIONS"]


def test_a_route_cannot_be_there_twice() -> None:
    with pytest.raises(ValueError, match="twice"):
        Router([make("GET", "/v1/a/{b}"), make("GET", "/v1/a/{b}")])


def test_a_place_has_one_name() -> None:
    with pytest.raises(ValueError, match="another name"):
        Router([make("GET", "/v1/a/{b}"), make("PUT", "/v1/a/{c}")])
