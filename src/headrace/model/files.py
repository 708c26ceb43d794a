"""What is known of a file or directory inside a sandbox."""

from dataclasses import dataclass
from enum import StrEnum


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
    finally leads (None if it is broken) and ``target_type`` what stands there.
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
