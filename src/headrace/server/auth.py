"""Tells whose request it is, by the key that it presents."""

import hashlib
import hmac
import logging
import secrets
import time
from collections.abc import Callable, Iterable

from headrace.engine.engine import Engine
from headrace.engine.tenancy import TenantEngine
from headrace.model.errors import UnauthenticatedError
from headrace.server.keys import MAX_PRESENTED, KeyFile, KeyFileError, KeyRecord

_LOOK_AGAIN = 1.0

_logger = logging.getLogger(__name__)


class Keyring:
    """All keys that are good now: those of the settings, and those of a file that may change.

    The file is looked at once a second at most, when a key is presented.
    """

    def __init__(
        self,
        fixed: Iterable[KeyRecord],
        file: KeyFile | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._fixed = tuple(fixed)
        self._file = file
        self._monotonic = monotonic
        self._secret = secrets.token_bytes(32)
        self._records: dict[bytes, KeyRecord] = {}
        self._seen: tuple[int, ...] | None = None
        self._looked_at = monotonic()
        self._index(())
        self._look()

    def find(self, presented: str) -> KeyRecord | None:
        """Give the record of a key, compared whole and then without all up to its last ``_``."""
        if len(presented) > MAX_PRESENTED:
            return None
        now = self._monotonic()
        if now - self._looked_at >= _LOOK_AGAIN:
            self._looked_at = now
            self._look()
        record = self._find(presented)
        if record is None and "_" in presented:
            record = self._find(presented.rpartition("_")[2])
        return record

    def _find(self, key: str) -> KeyRecord | None:
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        # The index is by a keyed hash, so the time of a look-up tells nothing about its digests.
        record = self._records.get(self._blind(digest))
        if record is None or not hmac.compare_digest(bytes.fromhex(record.digest), digest):
            return None
        return record

    def _blind(self, digest: bytes) -> bytes:
        return hmac.digest(self._secret, digest, "sha256")

    def _look(self) -> None:
        if self._file is None:
            return
        seen: tuple[int, ...] | None
        try:
            found = self._file.path.stat()
            seen = (found.st_ino, found.st_ctime_ns, found.st_mtime_ns, found.st_size)
        except OSError:
            seen = None
        if seen == self._seen:
            return
        try:
            self._index(self._file.read())
            self._seen = seen
        except KeyFileError as error:
            # The keys that were good before stay good: the tools never leave half a file.
            _logger.error("file of keys not read: %s", error.message)  # noqa: TRY400 - no traceback

    def _index(self, records: Iterable[KeyRecord]) -> None:
        every = (*records, *self._fixed)
        self._records = {self._blind(bytes.fromhex(each.digest)): each for each in every}


class KeyAccess:
    """Implements `headrace.adapters.base.Access` for one engine."""

    def __init__(self, engine: Engine, keys: Keyring) -> None:
        self._engine = engine
        self._keys = keys
        self._tenants: dict[str, TenantEngine] = {}

    def authenticate(self, presented: str | None) -> TenantEngine:
        """Give the engine as the owner of a key sees it; raises UnauthenticatedError."""
        if not presented:
            raise UnauthenticatedError("a key is needed: send the header Authorization: Bearer KEY")
        record = self._keys.find(presented)
        if record is None:
            raise UnauthenticatedError("this key is not known here, or was revoked")
        view = self._tenants.get(record.tenant)
        if view is None:
            view = self._tenants[record.tenant] = TenantEngine(self._engine, record.tenant)
        return view

    def is_key(self, presented: str) -> bool:
        """Say whether this is one of our keys."""
        return self._keys.find(presented) is not None
