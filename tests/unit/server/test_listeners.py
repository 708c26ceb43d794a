import os
import socket
from pathlib import Path

import pytest

from headrace.engine.privileges import ServiceIds
from headrace.model.errors import ConflictError, InvalidRequestError
from headrace.server.listeners import bind_tcp, bind_unix, load_tls


def test_port_zero_is_a_free_one() -> None:
    with bind_tcp("127.0.0.1", 0) as sock:
        assert sock.getsockname()[1] > 0


def test_a_name_of_this_machine_is_its_address_of_version_4() -> None:
    with bind_tcp("localhost", 0) as sock:
        assert sock.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_is_named() -> None:
    with bind_tcp("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        with pytest.raises(ConflictError, match=rf"127\.0\.0\.1 port {port} is in use"):
            bind_tcp("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no such host", "256.1.1.1", "192.0.2.1", "x" * 300])
def test_an_address_that_is_none_of_ours_is_named(host: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"server\.host|cannot be listened on"):
        bind_tcp(host, 0)


# --- unix sockets -----------------------------------------------------------------------------


def test_only_the_owner_may_use_a_socket_and_a_directory_made_for_it(tmp_path: Path) -> None:
    path = tmp_path / "new" / "s.sock"

    door = bind_unix(path, ServiceIds(os.getuid(), os.getgid()))

    assert path.stat().st_mode & 0o7777 == 0o600
    assert path.parent.stat().st_mode & 0o7777 == 0o700
    door.close()
    assert path.parent.is_dir()


def test_the_directory_of_a_private_socket_goes_with_it(tmp_path: Path) -> None:
    directory = tmp_path / "own"
    directory.mkdir(mode=0o700)

    bind_unix(directory / "s.sock", is_private=True).close()

    assert not directory.exists()


def test_a_directory_with_something_else_in_it_stays(tmp_path: Path) -> None:
    directory = tmp_path / "own"
    directory.mkdir(mode=0o700)
    (directory / "precious").touch()

    bind_unix(directory / "s.sock", is_private=True).close()

    assert [path.name for path in directory.iterdir()] == ["precious"]


def test_the_file_of_a_server_that_is_gone_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    bind_unix(path).sock.close()
    assert path.exists()

    door = bind_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
    door.close()


def test_a_server_that_lives_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"

    door = bind_unix(path)
    with socket.socket(socket.AF_UNIX) as client:
        with pytest.raises(ConflictError, match="another server listens on"):
            bind_unix(path)
        client.connect(str(path))
    door.close()


def test_what_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")

    with pytest.raises(ConflictError, match="no socket"):
        bind_unix(path)
    assert path.read_text() == "data"


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="longer than 107 bytes"):
        bind_unix(tmp_path / ("x" * 120))


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(InvalidRequestError, match="Not a directory"):
        bind_unix(tmp_path / "file" / "s.sock")


def test_a_door_that_closes_takes_its_file_along(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    door = bind_unix(path)

    door.close()
    door.close()

    assert not path.exists()


# --- TLS --------------------------------------------------------------------------------------


def test_a_certificate_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match=r"cert\.pem cannot be read"):
        load_tls(tmp_path / "cert.pem", tmp_path / "key.pem")


def test_what_is_no_certificate_is_named(tmp_path: Path) -> None:
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("garbage")

    with pytest.raises(InvalidRequestError, match=r"cert\.pem and .*key\.pem are no certificate"):
        load_tls(tmp_path / "cert.pem", tmp_path / "key.pem")
