"""Where a request goes, and how addresses change between the guest's view and the client's."""

from typing import Any

import pytest

from headrace.adapters.base import set_request
from headrace.adapters.ports.route import Route, find_route
from tests.support.proxying import SANDBOX, FakeSandbox

PREFIX = f"/v1/sandboxes/{SANDBOX}/ports/3000"
HOST = f"3000-{SANDBOX}.example.com"


def make_scope(path: str, **extra: Any) -> dict[str, Any]:
    """Give a scope as the native adapter makes it."""
    scope: dict[str, Any] = {
        "type": "http",
        "path": PREFIX + path,
        "raw_path": (PREFIX + path).encode(),
        "query_string": b"",
        "headers": [(b"host", b"example.com")],
        "headrace.sandbox": FakeSandbox(),
        "headrace.port": 3000,
        "headrace.port_path": path,
        "headrace.is_main_origin": True,
        **extra,
    }
    set_request(scope, "id", "https://example.com")
    return scope


def main_route() -> Route:
    """Give the route of a server on our main origin."""
    return find_route(make_scope("/a"))


def host_route() -> Route:
    """Give the route of a server with a host name of its own."""
    scope = make_scope("/a", **{"headrace.is_main_origin": False})
    scope["headers"] = [(b"host", HOST.encode())]
    return find_route(scope)


def test_the_prefix_is_what_is_ahead_of_the_guests_path() -> None:
    route = main_route()

    assert (route.prefix, route.path, route.host) == (PREFIX, b"/a", "example.com")
    assert route.guest_host == "localhost:3000"


def test_whoever_found_the_server_may_say_which_host_it_is_told() -> None:
    scope = make_scope("/a", **{"headrace.port_host": "custom.example:3000"})

    assert find_route(scope).guest_host == "custom.example:3000"


def test_a_path_is_passed_on_as_it_was_written() -> None:
    raw = (PREFIX + "/a%2Fb%20c").encode()
    scope = make_scope("/a/b c", raw_path=raw, **{"headrace.port_raw_path": b"/a%2Fb%20c"})

    assert find_route(scope).path == b"/a%2Fb%20c"
    assert find_route(scope).prefix == PREFIX


def test_a_path_of_which_only_the_meaning_is_known_is_escaped() -> None:
    assert find_route(make_scope("/a b\N{SNOWMAN}")).path == b"/a%20b%E2%98%83"


@pytest.mark.parametrize("path", ["", "/"])
def test_no_path_is_the_root(path: str) -> None:
    route = find_route(make_scope(path))

    assert (route.path, route.prefix) == (b"/", PREFIX)


def test_a_host_name_of_its_own_has_no_prefix() -> None:
    route = host_route()

    assert (route.prefix, route.host, route.scheme) == ("", HOST, "https")


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/login", PREFIX + "/login"),
        ("/login?next=/a#x", PREFIX + "/login?next=/a#x"),
        ("http://localhost:3000/login", PREFIX + "/login"),
        ("http://localhost:3000", PREFIX + "/"),
        ("http://localhost:3000?a=1", PREFIX + "/?a=1"),
        ("http://127.0.0.1:3000/", PREFIX + "/"),
        ("http://[::1]:3000/x", PREFIX + "/x"),
        ("http://0.0.0.0:3000/x", PREFIX + "/x"),
        ("//localhost:3000/x", PREFIX + "/x"),
        ("https://example.com/x", PREFIX + "/x"),
        ("https://EXAMPLE.com/x", PREFIX + "/x"),
        (f"https://example.com{PREFIX}/x", PREFIX + "/x"),
        (PREFIX + "/x", PREFIX + "/x"),
        (PREFIX, PREFIX),
        (PREFIX + "x", PREFIX + PREFIX + "x"),
        ("/\\evil.org", PREFIX + "/\\evil.org"),
        ("login", "login"),
        ("?a=1", "?a=1"),
        ("", ""),
        ("https://other.org/x", "https://other.org/x"),
        ("//other.org/x", "//other.org/x"),
        ("http://localhost:9/x", "http://localhost:9/x"),
        ("http://localhost/x", "http://localhost/x"),
        ("http://localhost:99999/x", "http://localhost:99999/x"),
        ("http://[bad/x", "http://[bad/x"),
        ("mailto:a@localhost", "mailto:a@localhost"),
    ],
)
def test_the_guests_own_addresses_stay_under_the_prefix(location: str, seen: str) -> None:
    assert main_route().rewrite(location) == seen


@pytest.mark.parametrize(
    ("location", "seen"),
    [
        ("/login", "/login"),
        ("http://localhost:3000/login", f"https://{HOST}/login"),
        (f"http://{HOST}/login", f"https://{HOST}/login"),
        ("https://example.com/", "https://example.com/"),
        ("login", "login"),
    ],
)
def test_the_guests_own_addresses_become_its_host_name(location: str, seen: str) -> None:
    assert host_route().rewrite(location) == seen
