"""Tokens of a sandbox, and signatures of URLs to its files.

Tokens are derived from a secret of this process, so they need no memory and end with the sandboxes.
Each contains the id of its sandbox, and thereby the node that knows it.
"""

import base64
import hashlib
import hmac
import re
from dataclasses import dataclass
from enum import StrEnum

from headrace.model.errors import UnauthenticatedError

_EXPIRATION = re.compile(r"[0-9]{1,15}", re.ASCII)


class Purpose(StrEnum):
    """What a token opens: the agent of a sandbox, or its other ports."""

    AGENT = "agent"
    TRAFFIC = "traffic"


class Tokens:
    """Makes and checks tokens; ``secret`` is at least 32 random bytes."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def make(self, purpose: Purpose, sandbox_id: str) -> str:
        """Give the token of a sandbox; always the same."""
        digest = hmac.digest(self._secret, f"{purpose}:{sandbox_id}".encode(), "sha256")
        return f"{sandbox_id}_{digest.hex()[:40]}"

    def is_good(self, purpose: Purpose, sandbox_id: str, presented: str | None) -> bool:
        """Say whether this is the token, in constant time."""
        expected = self.make(purpose, sandbox_id)
        return hmac.compare_digest(expected.encode(), (presented or "").encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True)
class SignedUrl:
    """What a signed URL says of itself.

    ``operation`` is ``read`` or ``write``, ``expiration`` the text of Unix seconds or None. An
    absent ``username`` is the empty text.
    """

    path: str
    operation: str
    username: str
    signature: str
    expiration: str | None

    def is_signed_with(self, token: str) -> bool:
        """Say whether the holder of this token has signed it, in constant time."""
        parts = [self.path, self.operation, self.username, token]
        if self.expiration is not None:
            parts.append(self.expiration)
        digest = hashlib.sha256(":".join(parts).encode("utf-8", "surrogateescape")).digest()
        expected = "v1_" + base64.b64encode(digest).decode("ascii").rstrip("=")
        given = self.signature.rstrip("=")
        return hmac.compare_digest(expected.encode(), given.encode("utf-8", "replace"))

    def check_time(self, now: float) -> None:
        """Raise UnauthenticatedError if its time is over; ``now`` is Unix seconds."""
        if self.expiration is None:
            return
        if not _EXPIRATION.fullmatch(self.expiration):
            raise UnauthenticatedError("signature_expiration must be Unix seconds")
        if int(self.expiration) < now:
            raise UnauthenticatedError("signature is already expired")
