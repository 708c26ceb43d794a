"""What may be noted about a file."""

import pytest

from headrace.model.errors import InvalidRequestError
from headrace.model.files import DiskUsage, FileAttributes


def test_attributes_within_the_bounds_are_taken() -> None:
    FileAttributes("user.vendor.", {"a" * 243: "é" * 100, "b": ""})
    FileAttributes("user.overlays.", {"a": "x" * 4095})


@pytest.mark.parametrize(
    "prefix",
    ["", "user.", "user..", "user.a", "trusted.a.", "user.overlay.", "user.overlay.a.", "user.é."],
)
def test_a_prefix_that_is_none_is_refused(prefix: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"user\.NAME\."):
        FileAttributes(prefix)


@pytest.mark.parametrize(
    "values",
    [
        {"": "x"},
        {"a" * 250: "x"},
        {"a\0": "x"},
        {"a": "x\0"},
        {"a": "\ud800"},
        {"a": "é" * 2048},
        {"a": "x" * 2048, "b": "x" * 2048},
    ],
)
def test_values_that_cannot_be_kept_are_refused(values: dict[str, str]) -> None:
    with pytest.raises(InvalidRequestError):
        FileAttributes("user.v.", values)


def test_what_is_used_follows_from_what_is_free() -> None:
    assert DiskUsage(total=100, free=30, inodes=10, inodes_free=5).used == 70
