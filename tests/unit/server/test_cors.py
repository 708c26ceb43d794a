import pytest

from headrace.model.errors import InvalidRequestError
from headrace.server.cors import Cors

PAGE = "https://page.example"


def names(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    return dict(headers)


def test_without_origins_nothing_is_said() -> None:
    assert not Cors([])
    assert Cors([]).headers(PAGE) == []


def test_a_page_of_a_named_origin_is_welcome_and_no_other() -> None:
    cors = Cors([PAGE])

    assert names(cors.headers(PAGE))[b"access-control-allow-origin"] == PAGE.encode()
    for other in ("https://evil.example", "http://page.example", f"{PAGE}:8443", "null", None):
        assert cors.headers(other) == [(b"vary", b"origin")]


def test_a_dialect_may_have_headers_of_its_own() -> None:
    cors = Cors([PAGE], "e2b.cors_origins", any_header=True)

    assert names(list(cors.preflight().headers))[b"access-control-allow-headers"].endswith(b"*")
    with pytest.raises(InvalidRequestError, match=r"e2b\.cors_origins"):
        Cors(["nonsense"], "e2b.cors_origins")


def test_a_star_welcomes_all() -> None:
    assert names(Cors(["*"]).headers("https://any"))[b"access-control-allow-origin"] == b"*"


def test_credentials_are_never_allowed() -> None:
    for cors in (Cors(["*"]), Cors([PAGE])):
        said = names([*cors.headers(PAGE), *cors.preflight().headers])
        assert b"access-control-allow-credentials" not in said


@pytest.mark.parametrize("origins", [["page.example"], ["https://a/path"], ["*", PAGE]])
def test_what_is_no_origin_is_refused(origins: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match=r"server\.cors_origins"):
        Cors(origins)
