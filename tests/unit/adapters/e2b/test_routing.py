"""The table of routes, and finding one."""

import pytest

from headrace.adapters.e2b.call import ControlCall
from headrace.adapters.e2b.control.routes import ROUTES
from headrace.adapters.e2b.errors import MethodNotAllowedError
from headrace.adapters.e2b.routing import Route, Router, split_path
from headrace.model.errors import NotFoundError

ID = "abcdefghijklmnopqrstuvwxyz"


async def nothing(call: ControlCall) -> None:
    del call


def make_router(*paths: str) -> Router[ControlCall]:
    return Router([Route("GET", path, nothing) for path in paths])


def test_a_parameter_is_handed_over_decoded() -> None:
    router = make_router("/things/{thing_id}/parts/{part}")

    _, parameters = router.find("GET", b"/things/a%2Fb/parts/%C3%A4")

    assert parameters == {"thing_id": "a/b", "part": "ä"}


def test_a_name_goes_before_a_parameter() -> None:
    router = make_router("/things/{thing_id}", "/things/special")

    route, parameters = router.find("GET", b"/things/special")

    assert (route.path, parameters) == ("/things/special", {})
    assert router.find("GET", b"/things/other")[1] == {"thing_id": "other"}


@pytest.mark.parametrize(
    "path", [b"/", b"/thing", b"/things", b"/things/", b"/things/a/b", b"//things/a", b"/THINGS/a"]
)
def test_another_path_is_not_found(path: bytes) -> None:
    with pytest.raises(NotFoundError, match="nothing at this path"):
        make_router("/things/{thing_id}").find("GET", path)


def test_another_method_is_refused_with_those_there_are() -> None:
    router = Router([Route("GET", "/a", nothing), Route("POST", "/a", nothing)])

    with pytest.raises(MethodNotAllowedError, match="BREW is not possible") as caught:
        router.find("BREW", b"/a")

    assert caught.value.allowed == ("GET", "POST")


def test_a_path_is_split_before_it_is_decoded() -> None:
    assert split_path(b"/a%2Fb/c%") == ["a/b", "c%"]
    assert split_path(b"/\xff%ff/%00") == ["\ufffd\ufffd", "\0"]


def test_the_same_operation_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="there twice"):
        make_router("/a/{x}", "/a/{x}")
    with pytest.raises(ValueError, match="another name"):
        make_router("/a/{x}", "/a/{y}/b")


def test_every_operation_of_the_control_plane_is_found_at_its_path() -> None:
    router = Router(ROUTES)

    for route in ROUTES:
        path = route.path.replace("{sandbox_id}", ID).replace("{", "").replace("}", "")
        assert router.find(route.method, path.encode())[0] is route
