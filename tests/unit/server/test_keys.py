import json
import os
import threading
from pathlib import Path

import pytest

from headrace.engine.privileges import ServiceIds
from headrace.model.errors import InvalidRequestError, NotFoundError
from headrace.server.keys import (
    KEY,
    KeyFile,
    KeyFileError,
    hash_key,
    make_key,
    parse_configured,
    read_or_make_local_key,
    write_private,
)

A = "a" * 16
B = "B-_0" * 32


def test_a_new_key_is_forty_lower_case_hex_digits() -> None:
    key = make_key()

    assert len(key) == 40
    assert set(key) <= set("0123456789abcdef")
    assert KEY.fullmatch(key)


def test_configured_keys_have_a_tenant_or_the_default_one() -> None:
    records = parse_configured([A, f"team:{B}"])

    assert [(record.tenant, record.digest) for record in records] == [
        ("default", hash_key(A)),
        ("team", hash_key(B)),
    ]


@pytest.mark.parametrize("key", ["short", "x" * 129, "with space and more", "ä" * 20, ""])
def test_a_configured_key_of_another_form_is_refused_without_showing_it(key: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_configured([A, f"team:{key}"])

    assert "key 2 must be 16 to 128 characters" in caught.value.message
    assert not key or key not in caught.value.message


def test_what_stands_in_place_of_a_tenant_is_not_shown_either() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        parse_configured([f"p@ssword:{A}"])

    assert "the tenant of key 1" in caught.value.message
    assert "p@ssword" not in caught.value.message


def test_a_key_may_be_there_once() -> None:
    with pytest.raises(InvalidRequestError, match="key 2 is there twice"):
        parse_configured([f"one:{A}", f"two:{A}"])


# --- the file of hashes -----------------------------------------------------------------------


def test_a_key_is_kept_as_a_hash_only(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")

    record, key = file.add("team", "laptop", 12.0)

    assert key not in file.path.read_text()
    assert file.read() == [record]
    assert (record.tenant, record.name, record.created_at) == ("team", "laptop", 12.0)
    assert record.digest == hash_key(key)
    assert file.path.stat().st_mode & 0o7777 == 0o600


def test_without_a_file_there_are_no_keys(tmp_path: Path) -> None:
    assert KeyFile(tmp_path / "keys.json").read() == []


def test_a_revoked_key_is_gone_and_the_others_stay(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    first, _ = file.add("team", "", 0.0)
    second, _ = file.add("team", "", 0.0)

    assert file.revoke(first.id) == first
    assert file.read() == [second]
    with pytest.raises(NotFoundError, match=first.id):
        file.revoke(first.id)


def test_many_who_write_at_once_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    start = threading.Barrier(8)

    def add() -> None:
        start.wait(10)
        for _ in range(5):
            KeyFile(path).add("team", "", 0.0)

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)

    assert len({record.id for record in KeyFile(path).read()}) == 40
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["keys.json", "keys.json.lock"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "garbage",
        "[]",
        "{}",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": {}, "x": 1}{',
        '{"version": 1, "keys": [1]}',
        '{"version": 1, "keys": [{"id": "a", "tenant": "t", "name": "", "digest": "x"}]}',
        json.dumps(
            {
                "version": 1,
                "keys": [
                    {"id": "a", "tenant": "!", "name": "", "digest": "0" * 64, "created_at": 0}
                ],
            }
        ),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.path.write_text(content)
    file.path.chmod(0o600)

    with pytest.raises(KeyFileError, match=r"keys\.json"):
        file.read()


def test_a_file_that_others_could_write_is_refused(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.add("team", "", 0.0)
    file.path.chmod(0o666)

    with pytest.raises(KeyFileError, match="0666"):
        file.read()


def test_a_link_in_place_of_the_file_is_not_followed(tmp_path: Path) -> None:
    file = KeyFile(tmp_path / "keys.json")
    file.path.symlink_to("/etc/passwd")

    with pytest.raises(KeyFileError):
        file.read()


def test_the_group_of_the_service_may_read_what_root_writes(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"

    write_private(path, b"x", ServiceIds(os.getuid(), os.getgid()))

    found = path.stat()
    assert (found.st_mode & 0o7777, found.st_gid) == (0o640, os.getgid())


# --- the key of this machine ------------------------------------------------------------------


def test_the_local_key_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "key"

    key = read_or_make_local_key(path)

    assert KEY.fullmatch(key)
    assert path.read_text() == f"{key}\n"
    assert path.stat().st_mode & 0o7777 == 0o600
    assert read_or_make_local_key(path) == key


def test_a_local_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    read_or_make_local_key(path)
    path.chmod(0o640)

    with pytest.raises(KeyFileError, match="chmod 600"):
        read_or_make_local_key(path)


def test_a_local_key_that_is_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o600)
    path.write_text("my password")

    with pytest.raises(KeyFileError) as caught:
        read_or_make_local_key(path)
    assert "password" not in caught.value.message
