"""What a client accepts decides the form of the answer."""

import pytest

from headrace.adapters.native.errors import NotAcceptableError
from headrace.adapters.native.forms import JSON, NDJSON, SSE, choose_form

ALL = (SSE, JSON, NDJSON)


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, SSE),
        ("", SSE),
        ("*/*", SSE),
        ("text/event-stream", SSE),
        ("text/*", SSE),
        ("application/json", JSON),
        ("Application/JSON; charset=utf-8", JSON),
        ("application/x-ndjson", NDJSON),
        ("application/*", JSON),
        ("application/json, text/event-stream", SSE),
        ("application/json, text/event-stream;q=0.5", JSON),
        ("text/html, */*;q=0.1", SSE),
        ("*/*, text/event-stream;q=0", JSON),
        ("application/x-ndjson;q=0.9, application/*;q=0.1", NDJSON),
        ("application/json;q=nonsense", JSON),
        ("application/json;q=7, text/event-stream;q=0.9", JSON),
        (", ,application/json,", JSON),
        ("text/html," * 100 + "application/json", JSON),
    ],
)
def test_the_best_liked_form_wins(accept: str | None, form: str) -> None:
    assert choose_form(accept, ALL) == form


@pytest.mark.parametrize("accept", ["text/html", "application/json;q=0", ",", "a/b" * 100])
def test_a_client_that_accepts_none_of_ours_is_told_which_there_are(accept: str) -> None:
    with pytest.raises(NotAcceptableError, match="text/event-stream, application/json") as caught:
        choose_form(accept, ALL)

    assert caught.value.details == {"offered": list(ALL)}
