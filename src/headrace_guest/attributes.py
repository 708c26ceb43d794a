"""What users note about a file: extended attributes in a part of the ``user.`` namespace.

A caller names the prefix that is its own, for instance ``user.vendor.``, and the names without
it. What others keep with the file, under other prefixes, is never touched.
"""
# pathlib does not take bytes:
# ruff: noqa: PTH116

import contextlib
import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace_guest.protocol import ProtocolError, take
from headrace_guest.spawn import OperationError, operation_error, show, take_bytes

MAX_TOTAL = 4096
"""How many bytes the names (without their prefix) and values of one file have in all."""

_MAX_PREFIX = 64
_MAX_NAME = 255
_NAMESPACE = b"user."
_RESERVED = b"user.overlay."
_UNSUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)
_UNKEPT = (*_UNSUPPORTED, errno.EPERM, errno.EACCES, errno.ENODATA)


@dataclass(frozen=True, slots=True)
class Attributes:
    """All attributes that a file is to have under a prefix; names are without it."""

    prefix: bytes
    values: Mapping[bytes, bytes] = field(default_factory=dict)


def take_prefix(message: Mapping[str, Any], key: str) -> bytes:
    """Give a prefix of attributes; raises ProtocolError if it is none."""
    prefix = take_bytes(message, key, _MAX_PREFIX)
    is_own = prefix.startswith(_NAMESPACE) and prefix.endswith(b".") and prefix.isascii()
    if not is_own or len(prefix) <= len(_NAMESPACE) or prefix.startswith(_RESERVED):
        raise ProtocolError(f"{key} must be 'user.NAME.', got {show(prefix)!r}")
    return prefix


def take_attributes(message: Mapping[str, Any]) -> Attributes | None:
    """Give the attributes that a request sets; None if it leaves them as they are."""
    wanted = message.get("attributes")
    if wanted is None:
        return None
    fields = take(message, "attributes", dict)
    prefix = take_prefix(fields, "prefix")
    told = take(fields, "values", dict)
    values = {_take_name(prefix, name): take_bytes(told, name, MAX_TOTAL) for name in told}
    if _size(values) > MAX_TOTAL:
        raise ProtocolError(f"attributes have {_size(values)} bytes, at most {MAX_TOTAL} may be")
    return Attributes(prefix, values)


def _take_name(prefix: bytes, name: str) -> bytes:
    encoded = take_bytes({"a name of attributes": name}, "a name of attributes", _MAX_NAME)
    if not encoded or len(prefix) + len(encoded) > _MAX_NAME:
        raise ProtocolError(f"a name of attributes must have 1 to {_MAX_NAME - len(prefix)} bytes")
    return encoded


def _size(values: Mapping[bytes, bytes]) -> int:
    return sum(len(name) + len(value) for name, value in values.items())


# --- reading --------------------------------------------------------------------------------


def read(path: bytes, prefix: bytes) -> dict[str, str]:
    """Give what is noted under a prefix, a symbolic link not followed; raises no OSError.

    What is not UTF-8, may not be read or does not fit into the bound is left out: whoever runs in
    the sandbox may have made it.
    """
    found: dict[str, str] = {}
    room = MAX_TOTAL
    for name in sorted(_names(path, follow_symlinks=False)):
        if not name.startswith(prefix) or len(name) == len(prefix):
            continue
        try:
            value = os.getxattr(path, name, follow_symlinks=False)
            key, text = name[len(prefix) :].decode(), value.decode()
        except (OSError, UnicodeDecodeError):
            continue
        size = len(name) - len(prefix) + len(value)
        if size <= room:
            room -= size
            found[key] = text
    return found


def _names(target: bytes | int, *, follow_symlinks: bool = True) -> list[bytes]:
    """Give the names of the attributes of a file; none where it has none to tell."""
    try:
        return list(map(os.fsencode, os.listxattr(target, follow_symlinks=follow_symlinks)))
    except OSError:
        return []


# --- changing -------------------------------------------------------------------------------


def replace(target: bytes | int, wanted: Attributes) -> bool:
    """Have a file carry exactly these under their prefix; False if its file system cannot.

    ``target`` is a descriptor or a path, whose symbolic links are followed.

    Raises OSError, for instance without space, and then they are as they were.
    """
    before = _read_all(target, wanted.prefix)
    after = {wanted.prefix + name: value for name, value in wanted.values.items()}
    try:
        _change(target, before, after)
    except OSError as error:
        with contextlib.suppress(OSError):
            _change(target, _read_all(target, wanted.prefix), before)
        if error.errno in _UNSUPPORTED:
            return False
        raise
    return True


def copy(source: bytes | int, target: bytes | int) -> None:
    """Have a file carry what users noted about the one that it replaces.

    What is not readable or cannot be kept is left behind. Raises OSError without space.
    """
    for name in _names(source):
        if not name.startswith(_NAMESPACE):
            continue
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _UNKEPT:
                raise


def set_attributes(path: bytes, wanted: Attributes) -> None:
    """Set those of a file or directory, symbolic links followed; raises OperationError."""
    try:
        os.stat(path)
        if not replace(path, wanted):
            raise unsupported(path)
    except OSError as error:
        raise operation_error(error, show(path)) from error


def unsupported(path: bytes, *, was_written: bool = False) -> OperationError:
    """Say that a path's file system holds no attributes."""
    written = " was written, but" if was_written else ":"
    detail = f"{show(path)}{written} its file system cannot hold attributes"
    return OperationError("not_supported", detail)


def _read_all(target: bytes | int, prefix: bytes) -> dict[bytes, bytes]:
    found = {}
    for name in _names(target):
        if name.startswith(prefix):
            with contextlib.suppress(OSError):
                found[name] = os.getxattr(target, name)
    return found


def _change(
    target: bytes | int, before: Mapping[bytes, bytes], after: Mapping[bytes, bytes]
) -> None:
    for name in before.keys() - after.keys():
        os.removexattr(target, name)
    for name, value in after.items():
        if before.get(name) != value:
            os.setxattr(target, name, value)
