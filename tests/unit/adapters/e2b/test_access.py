"""Tokens belong to one sandbox and one purpose; signatures are those that the SDKs make."""

from dataclasses import replace

import pytest

from headrace.adapters.e2b.access import Purpose, SignedUrl, Tokens
from headrace.model.errors import UnauthenticatedError
from tests.support.e2b import TOKENS

ID = "abcdefghijklmnopqrstuvwxyz"
OTHER = "zyxwvutsrqponmlkjihgfedcba"

READ = SignedUrl("a/b.txt", "read", "", "v1_Q1IuxlXRIk78DcFpAvnsFtFHDunMssj/m7kfMvVJwDI", None)
WRITE = SignedUrl(
    "a/b.txt", "write", "root", "v1_Ea25yGF5c5WkY2eYtbTMq5hXO5O7fzOaShuK49A6sK0", "1800000000"
)


def test_a_token_is_always_the_same_and_names_its_sandbox() -> None:
    token = TOKENS.make(Purpose.AGENT, ID)

    assert token == TOKENS.make(Purpose.AGENT, ID)
    assert token.startswith(f"{ID}_")
    assert len(token) == len(ID) + 41
    assert TOKENS.is_good(Purpose.AGENT, ID, token)


@pytest.mark.parametrize(
    "presented",
    [
        None,
        "",
        ID,
        f"{ID}_",
        TOKENS.make(Purpose.TRAFFIC, ID),
        TOKENS.make(Purpose.AGENT, OTHER),
        TOKENS.make(Purpose.AGENT, ID)[:-1],
        TOKENS.make(Purpose.AGENT, ID) + "0",
        TOKENS.make(Purpose.AGENT, ID).upper(),
        Tokens(b"x" * 32).make(Purpose.AGENT, ID),
        "\udcff\x00\u2028",
    ],
)
def test_no_other_token_is_good(presented: str | None) -> None:
    assert not TOKENS.is_good(Purpose.AGENT, ID, presented)


@pytest.mark.parametrize("url", [READ, WRITE])
def test_a_signature_of_the_sdks_is_good(url: SignedUrl) -> None:
    assert url.is_signed_with("tok")
    assert replace(url, signature=url.signature + "=").is_signed_with("tok")
    assert not url.is_signed_with("tok2")


@pytest.mark.parametrize(
    "change",
    [
        {"path": "a/c.txt"},
        {"operation": "read"},
        {"username": ""},
        {"expiration": "1800000001"},
        {"expiration": None},
        {"signature": ""},
        {"signature": "v1_"},
        {"signature": WRITE.signature.removeprefix("v1_")},
        {"signature": WRITE.signature.lower()},
        {"signature": "v1_\udcff"},
    ],
)
def test_a_signature_is_for_all_that_was_signed(change: dict[str, str | None]) -> None:
    assert not replace(WRITE, **change).is_signed_with("tok")  # type: ignore[arg-type]  # text or None


def test_a_path_that_is_no_unicode_can_be_checked() -> None:
    assert not replace(READ, path="\udcff").is_signed_with("tok")


def test_a_signature_ends_when_it_says() -> None:
    WRITE.check_time(1_800_000_000)
    READ.check_time(10**12)
    with pytest.raises(UnauthenticatedError) as caught:
        WRITE.check_time(1_800_000_001)
    assert caught.value.message == "signature is already expired"


@pytest.mark.parametrize("expiration", ["", "-1", "1.5", "1e3", " 1", "x", "9" * 5000, "\uff11"])
def test_an_expiration_that_is_no_time_is_refused(expiration: str) -> None:
    with pytest.raises(UnauthenticatedError, match="Unix seconds"):
        replace(WRITE, expiration=expiration).check_time(0)
