import pytest

from headrace.model.errors import InvalidRequestError
from headrace.server.hosts import HostPolicy, TrustedProxies, check_url, is_loopback, split_host


@pytest.mark.parametrize(
    ("value", "parts"),
    [
        ("localhost", ("localhost", None)),
        ("LocalHost:8000", ("localhost", 8000)),
        ("127.0.0.1:1", ("127.0.0.1", 1)),
        ("[::1]:8000", ("::1", 8000)),
        ("[::1]", ("::1", None)),
        ("example.com.:80", ("example.com", 80)),
        ("", None),
        ("a b", None),
        ("a:b", None),
        ("a:123456", None),
        ("user@host", None),
        ("host/path", None),
        ("::1", None),
        ("ho\u0301st", None),
    ],
)
def test_a_host_header_is_a_name_and_a_port(
    value: str, parts: tuple[str, int | None] | None
) -> None:
    assert split_host(value) == parts


@pytest.mark.parametrize(
    "host", ["localhost", "a.b.localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"]
)
def test_names_of_this_machine_are_always_fine(host: str) -> None:
    assert is_loopback(host)
    assert HostPolicy("127.0.0.1").accepts(host)


@pytest.mark.parametrize(
    "host",
    ["evil.com", "localhost.evil.com", "notlocalhost", "127.0.0.1.evil.com", "10.0.0.1", "::2"],
)
def test_on_loopback_other_names_are_refused(host: str) -> None:
    assert not HostPolicy("127.0.0.1").accepts(host)


def test_the_address_that_is_listened_on_is_a_name() -> None:
    policy = HostPolicy("10.0.0.5")

    assert policy.accepts("10.0.0.5")
    assert not policy.accepts("10.0.0.6")
    assert not policy.accepts("machine")


@pytest.mark.parametrize("bound", ["0.0.0.0", "::"])
def test_on_all_addresses_any_address_is_fine_but_no_name(bound: str) -> None:
    policy = HostPolicy(bound)

    assert policy.accepts("192.168.1.4")
    assert policy.accepts("fe80::1")
    assert not policy.accepts("evil.com")


def test_a_host_name_that_is_listened_on_is_a_name() -> None:
    assert HostPolicy("machine.local").accepts("machine.local")
    assert not HostPolicy("machine.local").accepts("10.0.0.1")


def test_the_public_url_brings_its_host_and_all_below_it() -> None:
    policy = HostPolicy("127.0.0.1", "https://code.example.com:8443")

    assert policy.accepts("code.example.com")
    assert policy.accepts("8080-x.code.example.com")
    assert not policy.accepts("example.com")
    assert not policy.accepts("evilcode.example.com")


def test_further_names_are_exact_unless_they_begin_with_a_star() -> None:
    policy = HostPolicy("127.0.0.1", names=("one.example", "*.two.example", "10.1.2.3"))

    assert policy.accepts("one.example")
    assert not policy.accepts("x.one.example")
    assert policy.accepts("x.two.example")
    assert not policy.accepts("two.example")
    assert policy.accepts("10.1.2.3")


def test_a_further_name_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"server\.host_names: 'https://x' is no host"):
        HostPolicy("127.0.0.1", names=("https://x",))


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://Example.com", "https://example.com"),
        ("http://example.com:8080/", "http://example.com:8080"),
        ("http://[::1]:80", "http://[::1]:80"),
    ],
)
def test_a_public_url_is_scheme_and_host(url: str, origin: str) -> None:
    assert check_url("x", url) == origin


@pytest.mark.parametrize(
    "url",
    [
        "example.com",
        "ftp://example.com",
        "https://example.com/path",
        "https://example.com?x",
        "https://user@example.com",
        "https://",
        "https://[",
    ],
)
def test_what_is_more_or_less_than_that_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"server\.public_url must be like"):
        check_url("server.public_url", url)


def test_only_proxies_that_were_named_are_believed() -> None:
    proxies = TrustedProxies(["10.0.0.0/8", "::1"])

    assert proxies.include(("10.1.2.3", 1), is_unix=False)
    assert proxies.include(("::ffff:10.1.2.3", 1), is_unix=False)
    assert proxies.include(("::1", 1), is_unix=False)
    assert not proxies.include(("11.0.0.1", 1), is_unix=False)
    assert not proxies.include(("garbage", 1), is_unix=False)
    assert not proxies.include(None, is_unix=False)
    assert not proxies.include(None, is_unix=True)
    assert TrustedProxies(["unix"]).include(None, is_unix=True)
    assert not TrustedProxies([])


def test_a_proxy_that_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"got 'proxy\.local'"):
        TrustedProxies(["proxy.local"])
