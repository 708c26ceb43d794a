"""Paths of a user, as this dialect's answers name them."""

import posixpath

from headrace.adapters.e2b.users import expand_path

METADATA_PREFIX = "user.e2b."
"""What the extended attributes begin with in which files keep what clients noted of them."""


def absolute_path(path: str, user: str) -> str:
    """Give an absolute path without ``.``, ``..`` and double slashes, as the vendor names it.

    Raises InvalidRequestError for what is no path.
    """
    return "/" + posixpath.normpath(expand_path(path, user)).lstrip("/")
