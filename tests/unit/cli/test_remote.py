"""What the commands for a running service show, and which service they mean."""

import pytest

from headrace import Isolation, Limits, SandboxInfo
from headrace.cli import ls
from headrace.cli.remote import age, where
from headrace.model.ids import SandboxId

INFO = SandboxInfo(
    id=SandboxId("a" * 26),
    state="running",
    template="code-interpreter",
    metadata={"job": "7\x1b]0;title\x07\n"},
    created_at=0.0,
    ends_at=None,
    limits=Limits(),
    isolation=Isolation("root", (), None),
    ports_url="",
)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3599, "60 min"), (7200, "2 h"), (200_000, "2 d")],
)
def test_times_are_shown_in_their_largest_unit_in_both_directions(
    seconds: float, shown: str
) -> None:
    assert age(1000.0, 1000.0 + seconds) == shown
    assert age(1000.0 + seconds, 1000.0) == shown


def test_the_service_is_the_one_that_was_said_then_the_environments_then_this_machines() -> None:
    environ = {"HEADRACE_URL": "http://b:1"}

    assert where("http://a:1", "key", environ) == {"url": "http://a:1", "api_key": "key"}
    assert where(None, None, environ)["url"] == "http://b:1"
    assert where(None, None, {})["url"] == "local"


def test_a_row_has_nothing_in_it_that_steers_a_terminal() -> None:
    row = ls.as_row(INFO)

    assert row[0] == "a" * 26
    assert row[5] == "job=7\ufffd]0;title\ufffd\ufffd"


def test_the_table_for_people_shows_all_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    ls.print_table([INFO], width=200)

    shown = capsys.readouterr().out
    assert "a" * 26 in shown
    assert "job=7" in shown
    assert "\x1b]" not in shown
