"""The users of a sandbox, and what their relative paths mean."""

import base64
import binascii

from headrace.model.errors import InvalidRequestError, UnauthenticatedError
from headrace.model.specs import MAX_PATH, check_text

HOMES = {"user": "/home/user", "root": "/root"}
"""The users of a sandbox, and where a relative path of theirs begins."""

DEFAULT_USER = "user"


def read_user(authorization: str | None) -> str:
    """Give the user of a header ``Authorization``; raises UnauthenticatedError for unknown ones."""
    if authorization is None:
        return DEFAULT_USER
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return DEFAULT_USER
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode()
    except (binascii.Error, ValueError) as error:
        raise UnauthenticatedError("the header Authorization is not Basic's") from error
    return check_username(decoded.partition(":")[0] or DEFAULT_USER)


def check_username(name: str) -> str:
    """Give the name of a user; raises UnauthenticatedError if there is no such user."""
    if name not in HOMES:
        raise UnauthenticatedError(f"invalid username: {name[:100]!r}")
    return name


def expand_path(path: str, user: str) -> str:
    """Give an absolute path: ``~`` and what is relative begin at the user's home.

    It is resolved inside the sandbox, with the rights of the user. Raises InvalidRequestError for
    what is no path.
    """
    text = check_text("path", path, MAX_PATH)
    home = HOMES[user]
    if text in ("", "~"):
        return home
    if text.startswith("~/"):
        text = text[2:]
    elif text.startswith("~"):
        raise InvalidRequestError(f"only ~ and ~/ are expanded, got {text[:100]!r}", path=text)
    return text if text.startswith("/") else f"{home}/{text}"
