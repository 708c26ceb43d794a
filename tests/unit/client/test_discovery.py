"""Finding the service of this machine by the files that it leaves."""

import json
import socket
from pathlib import Path

import pytest

from headrace.client._discovery import find_local, list_places
from headrace.client.errors import ConnectionFailedError
from headrace.engine import places as engine_places

KEY = "a" * 40


def surroundings(tmp_path: Path) -> dict[str, str]:
    """Give the variables that put a user's places below ``tmp_path``."""
    return {"XDG_STATE_HOME": str(tmp_path / "state"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def announce(tmp_path: Path, text: str, key: str | None = KEY) -> None:
    """Leave the files of a service."""
    (tmp_path / "run" / "headrace").mkdir(parents=True)
    (tmp_path / "state" / "headrace").mkdir(parents=True)
    (tmp_path / "run" / "headrace" / "server.json").write_text(text)
    if key is not None:
        (tmp_path / "state" / "headrace" / "key").write_text(key + "\n")


def test_the_places_are_those_of_the_engine() -> None:
    environ = {"HOME": "/home/ann", "XDG_RUNTIME_DIR": "/run/user/5"}
    own, machine = list_places(environ, 5)
    expected = engine_places.user_places(environ, 5)

    assert (own.state, own.runtime) == (expected.state, expected.runtime)
    assert (machine.state, machine.runtime) == (
        engine_places.ROOT_PLACES.state,
        engine_places.ROOT_PLACES.runtime,
    )
    assert next(list_places({}, 0)) == machine


@pytest.mark.parametrize("environ", [{}, {"HOME": "relative"}, {"XDG_STATE_HOME": "relative"}])
def test_without_directories_of_their_own_users_have_a_temporary_one(
    environ: dict[str, str],
) -> None:
    own = next(list_places(environ, 7))
    expected = engine_places.user_places(environ, 7)

    assert (own.state, own.runtime) == (expected.state, expected.runtime)


def test_a_service_is_found_with_its_key(tmp_path: Path) -> None:
    announce(tmp_path, json.dumps({"url": "http://127.0.0.1:8000", "socket": None, "pid": 1}))
    endpoint = find_local(None, surroundings(tmp_path), uid=5)

    assert str(endpoint) == "http://127.0.0.1:8000"
    assert endpoint.key == KEY
    assert find_local("b" * 16, surroundings(tmp_path), uid=5).key == "b" * 16


def test_a_socket_that_may_be_used_is_preferred(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        announce(tmp_path, json.dumps({"url": "http://h", "socket": str(path), "pid": 1}))

        assert find_local(None, surroundings(tmp_path), uid=5).socket == str(path)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"url": 5}', "null"])
def test_a_file_that_no_service_wrote_is_named(tmp_path: Path, text: str) -> None:
    announce(tmp_path, text)

    with pytest.raises(ConnectionFailedError, match=r"server\.json is not what a service writes"):
        find_local(None, surroundings(tmp_path), uid=5)


def test_a_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    announce(tmp_path, json.dumps({"url": "http://h", "socket": None}), key=None)

    with pytest.raises(ConnectionFailedError, match="state/headrace/key, cannot be read"):
        find_local(None, surroundings(tmp_path), uid=5)


def test_where_no_service_runs_the_places_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    announce(tmp_path, "")  # what a service leaves that has ended
    monkeypatch.setattr(
        "headrace.client._discovery.list_places",
        lambda environ, uid: [next(list_places(environ, uid))],
    )

    with pytest.raises(ConnectionFailedError, match=r"no service runs .*run/headrace/server\.json"):
        find_local(None, surroundings(tmp_path), uid=5)
