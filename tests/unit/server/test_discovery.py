import json
import os
from pathlib import Path

import pytest

from headrace.model.errors import ConflictError
from headrace.server.discovery import FILE, LOCK, Claim, Discovery


def test_a_second_server_on_the_same_directory_is_refused_and_told_of_the_first(
    tmp_path: Path,
) -> None:
    claim = Claim(tmp_path)

    with pytest.raises(ConflictError, match=rf"process {os.getpid()}.*runtime_dir"):
        Claim(tmp_path)

    claim.close()
    Claim(tmp_path).close()


def test_the_file_says_where_the_service_is_while_it_takes_requests(tmp_path: Path) -> None:
    with Discovery(tmp_path) as discovery:
        assert (tmp_path / FILE).read_text() == ""
        discovery.announce("http://127.0.0.1:8000", Path("/run/s.sock"))
        assert json.loads((tmp_path / FILE).read_text()) == {
            "url": "http://127.0.0.1:8000",
            "socket": "/run/s.sock",
            "pid": os.getpid(),
        }
    assert not (tmp_path / FILE).exists()


def test_what_a_killed_server_left_is_emptied_at_once(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text("x" * 500)

    with Discovery(tmp_path) as discovery:
        assert (tmp_path / FILE).read_text() == ""
        discovery.announce(None, None)
        assert json.loads((tmp_path / FILE).read_text())["url"] is None


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    (tmp_path / FILE).symlink_to(precious)

    with pytest.raises(OSError, match="symbolic links"):
        Discovery(tmp_path)
    assert precious.read_text() == "data"


@pytest.mark.parametrize("kind", ["second name", "pipe"])
def test_another_file_in_its_place_is_not_touched(tmp_path: Path, kind: str) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    for name in (FILE, LOCK):
        if kind == "pipe":
            os.mkfifo(tmp_path / name)
        else:
            (tmp_path / name).hardlink_to(precious)

    for make in (Discovery, Claim):
        with pytest.raises(ConflictError, match="not a file of ours"):
            make(tmp_path)
    assert precious.read_text() == "data"
