"""What users note about files: bounded, under one prefix, all of it or what was there before."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from headrace_guest import attributes
from headrace_guest.attributes import Attributes
from headrace_guest.protocol import ProtocolError
from headrace_guest.spawn import OperationError

PREFIX = b"user.vendor."


def noted(path: Path) -> dict[str, bytes]:
    return {name: os.getxattr(path, name) for name in os.listxattr(path)}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch()
    return path


def request(**values: Any) -> dict[str, Any]:
    return {"attributes": {"prefix": "user.vendor.", "values": values}}


def test_what_was_there_under_the_prefix_goes_and_the_rest_stays(file: Path) -> None:
    os.setxattr(file, "user.vendor.old", b"1")
    os.setxattr(file, "user.vendor.kept", b"2")
    os.setxattr(file, "user.other.old", b"3")
    assert attributes.replace(os.fsencode(file), Attributes(PREFIX, {b"kept": b"4", b"new": b"5"}))
    assert noted(file) == {
        "user.vendor.kept": b"4",
        "user.vendor.new": b"5",
        "user.other.old": b"3",
    }


def test_a_failure_puts_back_what_was_there(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.setxattr(file, "user.vendor.old", b"1")
    really = os.setxattr

    def fail_late(target: int | bytes, name: bytes, value: bytes) -> None:
        if name.endswith(b".b"):
            raise OSError(errno.ENOSPC, "full")
        really(target, name, value)

    monkeypatch.setattr(os, "setxattr", fail_late)
    with pytest.raises(OSError, match="full"):
        attributes.replace(os.fsencode(file), Attributes(PREFIX, {b"a": b"2", b"b": b"3"}))
    assert noted(file) == {"user.vendor.old": b"1"}


def test_a_file_system_without_attributes_is_told_from_one_that_is_full() -> None:
    # Everybody may write to this one of their own.
    assert not attributes.replace(b"/proc/self/comm", Attributes(PREFIX, {b"a": b"1"}))
    with pytest.raises(OperationError) as caught:
        attributes.set_attributes(b"/proc/self/comm", Attributes(PREFIX, {b"a": b"1"}))
    assert caught.value.code == "not_supported"
    assert "/proc/self/comm" in caught.value.detail


def test_attributes_of_what_is_not_there_are_not_found(tmp_path: Path) -> None:
    with pytest.raises(OperationError) as caught:
        attributes.set_attributes(os.fsencode(tmp_path / "none"), Attributes(PREFIX))
    assert caught.value.code == "not_found"


def test_only_text_under_the_prefix_is_told(file: Path) -> None:
    for name, value in (("a", b"\xc3\xa9"), ("binary", b"\xff"), ("", b"no name")):
        if name:
            os.setxattr(file, f"user.vendor.{name}", value)
    os.setxattr(file, "user.vendored", b"another prefix")
    os.setxattr(file, b"user.vendor.\xff", b"a name that is not text")
    assert attributes.read(os.fsencode(file), PREFIX) == {"a": "é"}


def test_what_a_guest_made_too_large_is_left_out(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attributes, "MAX_TOTAL", 10)
    for name, value in (("a", b"x" * 10), ("b", b"y" * 9), ("c", b"z")):
        os.setxattr(file, f"user.vendor.{name}", value)
    assert attributes.read(os.fsencode(file), PREFIX) == {"b": "y" * 9}


def test_a_link_has_none_of_its_own(tmp_path: Path, file: Path) -> None:
    os.setxattr(file, "user.vendor.a", b"1")
    (tmp_path / "link").symlink_to("file")
    assert attributes.read(os.fsencode(tmp_path / "link"), PREFIX) == {}


def test_what_users_noted_is_copied_and_nothing_else(tmp_path: Path, file: Path) -> None:
    os.setxattr(file, "user.vendor.a", b"1")
    (tmp_path / "copy").touch()
    attributes.copy(os.fsencode(file), os.fsencode(tmp_path / "copy"))
    assert noted(tmp_path / "copy") == {"user.vendor.a": b"1"}


def test_a_request_is_read() -> None:
    assert attributes.take_attributes({}) is None
    assert attributes.take_attributes({"attributes": None}) is None
    assert attributes.take_attributes(request(a="é")) == Attributes(PREFIX, {b"a": "é".encode()})


@pytest.mark.parametrize(
    "wanted",
    [
        [],
        {"prefix": "user.vendor."},
        {"prefix": 1, "values": {}},
        {"prefix": "trusted.vendor.", "values": {}},
        {"prefix": "security.", "values": {}},
        {"prefix": "user.", "values": {}},
        {"prefix": "user.vendor", "values": {}},
        {"prefix": "user.overlay.", "values": {}},
        {"prefix": "user.overlay.origin.", "values": {}},
        {"prefix": "user.é.", "values": {}},
        {"prefix": "user." + "x" * 64 + ".", "values": {}},
        {"prefix": "user.v.", "values": {"": "x"}},
        {"prefix": "user.v.", "values": {"a\0b": "x"}},
        {"prefix": "user.v.", "values": {"a": "x\0"}},
        {"prefix": "user.v.", "values": {"a": 1}},
        {"prefix": "user.v.", "values": {"a": "\ud800"}},
        {"prefix": "user.v.", "values": {"a" * 249: "x"}},
        {"prefix": "user.v.", "values": {"a": "x" * 4096}},
        {"prefix": "user.v.", "values": {"a": "x" * 2048, "b": "x" * 2048}},
    ],
)
def test_what_are_no_attributes_is_refused(wanted: Any) -> None:
    with pytest.raises(ProtocolError):
        attributes.take_attributes({"attributes": wanted})


def test_the_largest_attributes_are_taken() -> None:
    values = {"a" * (255 - len(PREFIX)): "x" * (4096 - 255 + len(PREFIX))}
    taken = attributes.take_attributes(request(**values))
    assert taken is not None
    assert len(taken.values) == 1
