import logging
import os
from pathlib import Path
from typing import cast

import pytest

from headrace.engine.engine import Engine
from headrace.model.errors import UnauthenticatedError
from headrace.server.auth import KeyAccess, Keyring
from headrace.server.keys import KeyFile, parse_configured

KEY = "0123456789abcdef0123456789abcdef01234567"
WITH_UNDERLINE = "my_own_key_of_today"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def make_ring(file: KeyFile | None = None, clock: Clock | None = None) -> Keyring:
    keys = parse_configured([f"team:{KEY}", WITH_UNDERLINE])
    return Keyring(keys, file, clock or Clock())


@pytest.mark.parametrize("presented", [KEY, f"e2b_{KEY}", f"a_b_{KEY}"])
def test_a_key_is_known_whole_and_behind_its_last_underline(presented: str) -> None:
    record = make_ring().find(presented)

    assert record is not None
    assert record.tenant == "team"


def test_a_key_with_underlines_is_known_whole() -> None:
    record = make_ring().find(WITH_UNDERLINE)

    assert record is not None
    assert record.tenant == "default"


@pytest.mark.parametrize(
    "presented",
    [
        "",
        "_",
        KEY[:-1],
        KEY + "0",
        KEY.upper(),
        f"{KEY}_",
        f" {KEY}",
        f"x_{WITH_UNDERLINE}",
        "today",
        "x" * 100_000 + "_" + KEY,
        "\udcff",
        "ключ",
    ],
)
def test_everything_else_is_unknown(presented: str) -> None:
    assert make_ring().find(presented) is None


def test_a_change_of_the_file_is_noticed_within_a_second(tmp_path: Path) -> None:
    file, clock = KeyFile(tmp_path / "keys.json"), Clock()
    ring = make_ring(file, clock)
    record, key = file.add("late", "", 0.0)

    assert ring.find(key) is None
    clock.now = 1.0
    assert ring.find(key) == record
    file.revoke(record.id)
    clock.now = 1.5
    assert ring.find(key) == record
    clock.now = 2.0
    assert ring.find(key) is None
    assert ring.find(KEY) is not None


def test_keys_of_a_file_that_is_removed_are_unknown(tmp_path: Path) -> None:
    file, clock = KeyFile(tmp_path / "keys.json"), Clock()
    _, key = file.add("late", "", 0.0)
    ring = make_ring(file, clock)
    assert ring.find(key) is not None

    file.path.unlink()
    clock.now = 1.0

    assert ring.find(key) is None


def test_a_file_that_breaks_changes_nothing_and_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, clock = KeyFile(tmp_path / "keys.json"), Clock()
    _, key = file.add("late", "", 0.0)
    ring = make_ring(file, clock)

    file.path.write_text("garbage")
    clock.now = 1.0

    with caplog.at_level(logging.ERROR):
        assert ring.find(key) is not None
    assert "keys.json" in caplog.text
    assert "garbage" not in caplog.text


def test_a_file_whose_time_was_set_back_is_noticed_all_the_same(tmp_path: Path) -> None:
    file, clock = KeyFile(tmp_path / "keys.json"), Clock()
    first, old = file.add("late", "", 0.0)
    ring = make_ring(file, clock)
    found = file.path.stat()

    file.revoke(first.id)
    _, new = file.add("late", "", 0.0)
    os.utime(file.path, ns=(found.st_atime_ns, found.st_mtime_ns))
    clock.now = 1.0

    assert ring.find(old) is None
    assert ring.find(new) is not None


# --- access -----------------------------------------------------------------------------------


def make_access() -> KeyAccess:
    return KeyAccess(cast("Engine", object()), make_ring())


def test_a_key_gives_the_engine_as_its_tenant_sees_it() -> None:
    access = make_access()

    assert access.authenticate(KEY).tenant == "team"
    assert access.authenticate(WITH_UNDERLINE).tenant == "default"
    assert access.is_key(f"e2b_{KEY}")
    assert not access.is_key("something else")


@pytest.mark.parametrize(("presented", "said"), [(None, "needed"), ("", "needed"), ("x", "known")])
def test_no_key_and_a_wrong_one_are_refused_in_different_words(
    presented: str | None, said: str
) -> None:
    with pytest.raises(UnauthenticatedError, match=said):
        make_access().authenticate(presented)


def test_a_refusal_does_not_repeat_what_was_presented() -> None:
    with pytest.raises(UnauthenticatedError) as caught:
        make_access().authenticate("a-secret-of-somebody-else")

    assert "secret" not in str(caught.value)
    assert not caught.value.details
