"""What passes: towards the guest nothing of ours, towards the client nothing in our name."""

import base64
from dataclasses import replace

import pytest

from headrace.adapters.ports.fields import end_to_end, lower
from headrace.adapters.ports.inward import check_size, framing, request_headers, request_target
from headrace.adapters.ports.outward import response_headers
from headrace.adapters.ports.settings import PortSettings
from headrace.model.errors import InvalidRequestError, LimitExceededError
from tests.support.proxying import KEY, OneKey
from tests.unit.adapters.ports.test_route import HOST, PREFIX, host_route, main_route

Pairs = list[tuple[bytes, bytes]]
is_key = OneKey().is_key


def to_guest(*headers: tuple[bytes, bytes], is_main: bool) -> dict[bytes, bytes]:
    """Give what the guest sees of these headers."""
    route = main_route() if is_main else host_route()
    return dict(request_headers(headers, route, "203.0.113.7", is_key))


def to_client(*headers: tuple[bytes, bytes], is_main: bool, status: int = 200) -> Pairs:
    """Give what the client sees of these headers."""
    return response_headers(headers, main_route() if is_main else host_route(), status)


# --- both ways --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ],
)
def test_what_concerns_one_connection_only_does_not_pass(name: bytes) -> None:
    assert end_to_end([(name, b"x"), (b"a", b"b")]) == [(b"a", b"b")]


def test_what_connection_names_does_not_pass() -> None:
    headers = [(b"connection", b"close, X-One"), (b"connection", b"x-two"), (b"x-one", b"1")]

    assert end_to_end([*headers, (b"x-two", b"2"), (b"x-three", b"3")]) == [(b"x-three", b"3")]


def test_names_are_compared_in_lower_case() -> None:
    assert lower([(b"X-A", b"Value")]) == [(b"x-a", b"Value")]


# --- towards the guest ------------------------------------------------------------------------


@pytest.mark.parametrize("is_main", [True, False])
def test_the_guest_sees_the_host_it_expects_and_where_the_request_came_from(is_main: bool) -> None:
    seen = to_guest((b"host", b"example.com"), is_main=is_main)

    assert seen[b"host"] == b"localhost:3000"
    assert seen[b"x-forwarded-for"] == b"203.0.113.7"
    assert seen[b"x-forwarded-proto"] == b"https"
    assert seen[b"x-forwarded-host"] == (b"example.com" if is_main else HOST.encode())
    assert seen.get(b"x-forwarded-prefix") == (PREFIX.encode() if is_main else None)


@pytest.mark.parametrize(
    "name",
    [
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-real-ip",
    ],
)
def test_what_a_client_says_of_its_way_is_not_believed(name: bytes) -> None:
    seen = request_headers([(name, b"forged")], host_route(), None, is_key)

    assert b"forged" not in dict(seen).values()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", b"Bearer somebody-elses"),
        (b"cookie", b"session=1"),
        (b"x-api-key", b"somebody-elses"),
    ],
)
def test_credentials_pass_on_a_host_name_of_its_own_only(name: bytes, value: bytes) -> None:
    assert name not in to_guest((name, value), is_main=True)
    assert to_guest((name, value), is_main=False)[name] == value


@pytest.mark.parametrize("is_main", [True, False])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"authorization", f"Bearer {KEY}".encode()),
        (b"authorization", f"bearer e2b_{KEY}".encode()),
        (b"authorization", b"Basic " + base64.b64encode(f"api:{KEY}".encode())),
        (b"x-api-key", KEY.encode()),
        (b"x-anything", KEY.encode()),
        (b"cookie", f"a=b; key={KEY}".encode()),
    ],
)
def test_our_keys_never_pass(name: bytes, value: bytes, is_main: bool) -> None:
    assert name not in to_guest((name, value), is_main=is_main)


def test_parameters_with_our_key_never_pass() -> None:
    route = replace(main_route(), query=f"a=1&key={KEY}&b=2".encode())

    assert request_target(route, is_key) == b"/a?a=1&b=2"
    assert request_target(replace(route, query=KEY.encode()), is_key) == b"/a"


@pytest.mark.parametrize("path", [b"/a b", b"/a\r\nx: y", b"/\0", b"http://x/", b"*"])
def test_a_path_that_would_break_the_request_is_refused(path: bytes) -> None:
    with pytest.raises(InvalidRequestError, match="must be escaped"):
        request_target(replace(main_route(), path=path), is_key)


def test_the_clients_origin_becomes_the_guests_own() -> None:
    seen = to_guest(
        (b"origin", f"https://{HOST}".encode()),
        (b"referer", f"https://{HOST}/page?x=1".encode()),
        is_main=False,
    )

    assert seen[b"origin"] == b"http://localhost:3000"
    assert seen[b"referer"] == b"http://localhost:3000/page?x=1"


def test_another_origin_stays() -> None:
    seen = to_guest((b"origin", b"https://other.org"), (b"referer", b"https://other.org/x"),
                    is_main=False)  # fmt: skip

    assert seen[b"origin"] == b"https://other.org"
    assert seen[b"referer"] == b"https://other.org/x"


def test_addresses_of_our_main_origin_are_not_told() -> None:
    assert b"referer" not in to_guest((b"referer", b"https://example.com/secret"), is_main=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        ([(b"content-length", b"5")], (b"content-length", b"5")),
        ([(b"transfer-encoding", b"Chunked")], (b"transfer-encoding", b"chunked")),
    ],
)
def test_the_length_of_a_body_is_known(headers: Pairs, expected: tuple[bytes, bytes]) -> None:
    assert framing(headers) == expected


@pytest.mark.parametrize(
    "headers",
    [
        [(b"content-length", b"5"), (b"content-length", b"5")],
        [(b"content-length", b"+5")],
        [(b"content-length", b"")],
        [(b"content-length", b"9" * 30)],
        [(b"content-length", b"5"), (b"transfer-encoding", b"chunked")],
        [(b"transfer-encoding", b"gzip, chunked")],
        [(b"transfer-encoding", b"identity")],
    ],
)
def test_a_body_of_unclear_length_is_refused(headers: Pairs) -> None:
    with pytest.raises(InvalidRequestError):
        framing(headers)


@pytest.mark.parametrize("headers", [[(b"x", b"y" * 70_000)], [(b"x", b"y")] * 300])
def test_too_many_headers_are_refused(headers: Pairs) -> None:
    with pytest.raises(LimitExceededError, match="at most 256 headers with 65536 bytes"):
        check_size(headers, PortSettings())


# --- towards the client -----------------------------------------------------------------------


def test_a_page_on_our_main_origin_gets_an_origin_of_its_own() -> None:
    seen = to_client(
        (b"content-type", b"text/html"),
        (b"content-security-policy", b"default-src *"),
        (b"content-security-policy-report-only", b"default-src *"),
        (b"x-content-type-options", b"sniff"),
        is_main=True,
    )

    assert seen == [
        (b"content-type", b"text/html"),
        (b"content-security-policy", b"sandbox allow-scripts"),
        (b"x-content-type-options", b"nosniff"),
    ]


@pytest.mark.parametrize(
    "name",
    [
        b"access-control-allow-credentials",
        b"access-control-allow-origin",
        b"access-control-expose-headers",
        b"alt-svc",
        b"clear-site-data",
        b"link",
        b"nel",
        b"refresh",
        b"report-to",
        b"reporting-endpoints",
        b"service-worker-allowed",
        b"set-cookie",
        b"speculation-rules",
        b"strict-transport-security",
        b"use-as-dictionary",
        b"www-authenticate",
    ],
)
def test_what_speaks_for_a_whole_origin_passes_on_a_host_name_of_its_own_only(name: bytes) -> None:
    assert name not in dict(to_client((name, b"x"), is_main=True))
    assert to_client((name, b"x"), is_main=False) == [(name, b"x")]


@pytest.mark.parametrize("is_main", [True, False])
@pytest.mark.parametrize("name", [b"x-accel-redirect", b"x-sendfile", b"date"])
def test_orders_to_the_proxy_in_front_of_us_never_pass(name: bytes, is_main: bool) -> None:
    assert name not in dict(to_client((name, b"/etc/passwd"), is_main=is_main))


@pytest.mark.parametrize("is_main", [True, False])
def test_what_the_application_says_passes(is_main: bool) -> None:
    said = ((b"etag", b'"1"'), (b"mcp-session-id", b"7"), (b"x-accel-buffering", b"no"))

    assert to_client(*said, is_main=is_main)[:3] == list(said)


def test_redirects_are_rewritten() -> None:
    location = (b"location", b"http://localhost:3000/next")

    assert dict(to_client(location, is_main=True))[b"location"] == f"{PREFIX}/next".encode()
    assert dict(to_client(location, is_main=False))[b"location"] == f"https://{HOST}/next".encode()


def test_a_cookie_holds_for_the_host_name_that_set_it() -> None:
    cookie = (b"set-cookie", b"a=b; Path=/; Domain=.example.com; HttpOnly")

    assert to_client(cookie, is_main=False) == [(b"set-cookie", b"a=b; Path=/; HttpOnly")]


@pytest.mark.parametrize(
    ("status", "other", "is_kept"),
    [
        (200, (b"etag", b"1"), True),
        (204, (b"etag", b"1"), False),
        (304, (b"etag", b"1"), False),
        (200, (b"transfer-encoding", b"chunked"), False),
    ],
)
def test_a_length_is_kept_only_where_it_holds(
    status: int, other: tuple[bytes, bytes], is_kept: bool
) -> None:
    seen = to_client((b"content-length", b"5"), other, is_main=False, status=status)

    assert (b"content-length" in dict(seen)) == is_kept
