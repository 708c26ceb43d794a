"""What is known of a file or directory inside a sandbox."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from headrace.model.errors import InvalidRequestError
from headrace.model.specs import check_text

MAX_ATTRIBUTES = 4096
"""How many bytes the names and values of one file's attributes may have in all."""

_MAX_NAME = 255
_PREFIX = re.compile(r"user\.(?!overlay\.)[A-Za-z0-9_-][A-Za-z0-9_.-]{0,56}\.")


class FileType(StrEnum):
    """The kinds of directory entries that callers tell apart."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One directory entry, as ``lstat`` saw it inside the sandbox.

    ``mode`` is the permission bits, ``modified`` Unix seconds, ``target`` where a symbolic link
    finally leads (None if it is broken), ``target_type`` and ``target_mode`` what stands there.
    ``attributes`` are those that were asked for, by their names without the prefix. The last two
    are None where nobody asked, as in the SDK.
    """

    path: str
    name: str
    type: FileType
    size: int
    mode: int
    owner: str
    group: str
    modified: float
    target: str | None = None
    target_type: FileType | None = None
    target_mode: int | None = None
    attributes: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class FileAttributes:
    """All that a file is to have noted under a prefix of its own: what was there before goes.

    They are extended attributes of the file, ``prefix`` (``user.NAME.``) and name together. Names
    and values have at most 4,096 bytes in all.
    """

    prefix: str
    values: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_attributes_prefix(self.prefix)
        total = 0
        for name, value in self.values.items():
            check_text("a name of attributes", name, _MAX_NAME - len(self.prefix))
            check_text(f"the attribute {name!r}", value, MAX_ATTRIBUTES)
            if not name:
                raise InvalidRequestError("a name of attributes must not be empty")
            total += len(name.encode()) + len(value.encode())
        if total > MAX_ATTRIBUTES:
            raise InvalidRequestError(
                f"attributes have {total} bytes; at most {MAX_ATTRIBUTES} are accepted",
                size=total,
                maximum=MAX_ATTRIBUTES,
            )


def check_attributes_prefix(prefix: str) -> None:
    """Refuse what no caller's attributes can begin with."""
    if not _PREFIX.fullmatch(prefix):
        raise InvalidRequestError(
            f"attributes begin with 'user.NAME.', got {prefix[:80]!r}", prefix=prefix[:80]
        )


@dataclass(frozen=True, slots=True)
class DiskUsage:
    """What the sandbox's own copy of all files holds: bytes, and files (``inodes``)."""

    total: int
    free: int
    inodes: int
    inodes_free: int

    @property
    def used(self) -> int:
        """How many bytes are taken."""
        return self.total - self.free
