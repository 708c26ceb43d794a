"""The directories of a command's private engine: where they are, who may own them, what is left."""

import fcntl
import os
from pathlib import Path

import pytest

from headrace.engine import places
from headrace.engine.config import EngineConfig
from headrace.engine.places import Places
from headrace.model.errors import InvalidRequestError, IsolationError

NOW = 1_000_000.0


def test_a_users_directories_follow_the_xdg_variables() -> None:
    environ = {"XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/run/user/7", "HOME": "/home/ann"}

    assert places.user_places(environ, 7) == Places(
        Path("/s/headrace"), Path("/run/user/7/headrace")
    )


def test_without_the_variables_the_state_is_in_the_home_directory() -> None:
    found = places.user_places({"HOME": "/home/ann"}, 7)

    assert found.state == Path("/home/ann/.local/state/headrace")
    assert found.runtime.parts[-2:] == ("headrace-7", "runtime")


def test_relative_variables_are_ignored_as_xdg_says() -> None:
    environ = {"XDG_STATE_HOME": "s", "HOME": "", "XDG_RUNTIME_DIR": "r"}

    found = places.user_places(environ, 7)

    assert found.state.parts[-2:] == ("headrace-7", "state")
    assert found.runtime.parts[-2:] == ("headrace-7", "runtime")


def test_root_mode_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    with pytest.raises(InvalidRequestError, match=r"--mode root needs root; .* uid 1000"):
        places.is_root_mode("root")


@pytest.mark.parametrize(
    ("mode", "uid", "expected"),
    [("auto", 0, True), ("root", 0, True), ("rootless", 0, False), ("auto", 7, False)],
)
def test_the_mode_follows_the_user_unless_said(
    monkeypatch: pytest.MonkeyPatch, mode: str, uid: int, expected: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert places.is_root_mode(mode) is expected


def test_templates_are_shared_and_logs_are_not() -> None:
    config = EngineConfig(state_dir=Path("/s"), runtime_dir=Path("/r"), run="run-1")

    assert config.state_dir == Path("/s")
    assert config.log_state_dir == Path("/s/logs/run-1")
    assert config.log_runtime_dir == Path("/r/logs/run-1")


def test_a_new_directory_gets_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        places.make_own_directory(tmp_path / "a" / "b", os.getuid(), 0o755)
    finally:
        os.umask(before)

    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o755


def test_a_directory_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(0o777)

    with pytest.raises(IsolationError, match="mode 0777"):
        places.make_own_directory(place, os.getuid(), 0o700)


def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)

    with pytest.raises(IsolationError, match=f"it has uid {os.getuid()}"):
        places.make_own_directory(tmp_path / "state", os.getuid() + 1, 0o700)


def test_a_link_is_not_taken_for_a_directory(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "state").symlink_to("elsewhere")

    with pytest.raises(IsolationError, match="must be a directory"):
        places.make_own_directory(tmp_path / "state", os.getuid(), 0o700)


def leave(directory: Path, name: str, *, age: float) -> Path:
    path = directory / name
    (path / "log").mkdir(parents=True)
    os.utime(path, (NOW - age, NOW - age))
    return path


def test_what_killed_commands_left_is_removed(tmp_path: Path) -> None:
    left = leave(tmp_path, "run-1", age=3600)

    places.remove_abandoned([tmp_path], NOW)

    assert not left.exists()


def test_the_logs_of_a_running_command_stay(tmp_path: Path) -> None:
    held = leave(tmp_path, "run-1", age=3600)
    lock = os.open(held, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        places.remove_abandoned([tmp_path], NOW)
    finally:
        os.close(lock)

    assert held.exists()


def test_the_logs_of_a_command_that_just_starts_stay(tmp_path: Path) -> None:
    fresh = leave(tmp_path, "run-1", age=5)

    places.remove_abandoned([tmp_path], NOW)

    assert fresh.exists()


def test_other_things_and_links_are_not_removed(tmp_path: Path) -> None:
    other = leave(tmp_path, "other", age=3600)
    (tmp_path / "run-link").symlink_to("other")

    places.remove_abandoned([tmp_path, tmp_path / "missing"], NOW)

    assert other.exists()
