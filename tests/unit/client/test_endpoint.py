"""Where the SDK connects to: arguments, environment, URLs."""

import pytest

from headrace.client._shared.endpoint import Endpoint, Wanted, choose, parse
from headrace.model.errors import InvalidRequestError

KEY = "k" * 40


@pytest.mark.parametrize(
    ("url", "key", "environ", "expected"),
    [
        (None, None, {}, Wanted("embedded", None)),
        (None, None, {"HEADRACE_API_KEY": "b"}, Wanted("embedded", None)),
        (None, None, {"HEADRACE_URL": "http://e"}, Wanted("http://e", None)),
        (
            None,
            None,
            {"HEADRACE_URL": "http://e", "HEADRACE_API_KEY": "b"},
            Wanted("http://e", "b"),
        ),
        ("http://a", None, {"HEADRACE_API_KEY": "b"}, Wanted("http://a", "b")),
        ("http://a", "c", {"HEADRACE_URL": "e", "HEADRACE_API_KEY": "b"}, Wanted("http://a", "c")),
        (None, "c", {"HEADRACE_URL": "http://e"}, Wanted("http://e", "c")),
        ("local", None, {}, Wanted("local", None)),
        ("embedded", None, {"HEADRACE_URL": "http://e"}, Wanted("embedded", None)),
        ("", None, {"HEADRACE_URL": ""}, Wanted("embedded", None)),
    ],
)
def test_arguments_come_before_the_environment_and_that_before_a_private_server(
    url: str | None, key: str | None, environ: dict[str, str], expected: Wanted
) -> None:
    assert choose(url, key, environ) == expected


def test_a_key_without_a_service_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="neither url nor HEADRACE_URL"):
        choose(None, "k", {})


@pytest.mark.parametrize(
    ("url", "expected", "authority"),
    [
        ("http://h", Endpoint("h", 80, KEY), "h"),
        ("http://h:8000/", Endpoint("h", 8000, KEY), "h:8000"),
        ("https://h", Endpoint("h", 443, KEY, is_tls=True), "h"),
        ("https://h:80/p/q/", Endpoint("h", 80, KEY, is_tls=True, prefix="/p/q"), "h:80"),
        ("http://[::1]:8000", Endpoint("::1", 8000, KEY), "[::1]:8000"),
        (
            "unix:///run/a%20b.sock",
            Endpoint("localhost", 0, KEY, socket="/run/a b.sock"),
            "localhost",
        ),
    ],
)
def test_a_url_is_read(url: str, expected: Endpoint, authority: str) -> None:
    endpoint = parse(url, KEY)

    assert endpoint == expected
    assert endpoint.authority == authority
    assert parse(str(endpoint), KEY) == endpoint


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("localhost:8000", "no URL of a service"),
        ("ftp://h", "no URL of a service"),
        ("http://", "no URL of a service"),
        ("http://h:many", "is not a URL"),
        ("http://h:99999", "is not a URL"),
        ("http://[::1", "is not a URL"),
        ("http://user:secret@h", "must have no query, fragment or user"),
        ("http://h/?a=b", "must have no query"),
        ("unix://relative/path", "names no absolute path"),
        ("unix:", "names no absolute path"),
    ],
)
def test_a_url_that_is_none_is_refused_with_what_was_expected(url: str, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"{message}.*expected http://HOST:PORT"):
        parse(url, KEY)


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX-Evil: 1", "é", "x" * 300])
def test_a_key_that_cannot_be_one_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse("http://h", key)

    assert not key or key not in str(caught.value)


def test_a_missing_key_is_asked_for() -> None:
    with pytest.raises(InvalidRequestError, match="give api_key or set HEADRACE_API_KEY"):
        parse("http://h", None)


def test_an_endpoint_does_not_show_its_key() -> None:
    assert KEY not in repr(parse("http://h", KEY)) + str(parse("http://h", KEY))
