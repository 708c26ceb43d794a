"""API keys: what one looks like, which are configured, and the file with the hashes of others.

The file is replaced as a whole, under a lock, so that a reader never sees half of it. It holds no
key, only SHA-256 hashes: keys are long and random, so nothing slower is needed.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from headrace.engine.privileges import ServiceIds
from headrace.model.errors import HeadraceError, InvalidRequestError, NotFoundError, QuotaError
from headrace.model.specs import DEFAULT_TENANT, check_tenant, check_text

KEY = re.compile(r"[A-Za-z0-9_-]{16,128}")
MAX_PRESENTED = 256
_MAX_FILE = 4 * 1024 * 1024
_MAX_KEYS = 10_000
_MAX_NAME = 200
_VERSION = 1
_DIGEST = re.compile(r"[0-9a-f]{64}")


class KeyFileError(HeadraceError):
    """A file with keys cannot be used as it is."""


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """What is kept of a key: whose it is, and its SHA-256 in hex."""

    id: str
    tenant: str
    name: str
    digest: str
    created_at: float


def make_key() -> str:
    """Make a new key."""
    return secrets.token_hex(20)


def hash_key(key: str) -> str:
    """Give what is stored and compared in place of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def parse_configured(entries: Iterable[str]) -> list[KeyRecord]:
    """Read keys from the settings, each ``key`` or ``tenant:key``; errors never show a key."""
    records: dict[str, KeyRecord] = {}
    for number, entry in enumerate(entries, start=1):
        tenant, colon, key = entry.rpartition(":")
        if not KEY.fullmatch(key):
            raise InvalidRequestError(
                f"server.api_keys: key {number} must be 16 to 128 characters of letters, digits, "
                f"'_' and '-', got {len(key)} characters"
            )
        try:
            check_tenant(tenant if colon else DEFAULT_TENANT)
        except InvalidRequestError:
            raise InvalidRequestError(
                f"server.api_keys: the tenant of key {number} must be 1 to 64 letters, digits, "
                "'_' and '-'; expected 'tenant:key' or 'key'"
            ) from None
        record = KeyRecord(
            f"settings-{number}", tenant or DEFAULT_TENANT, "", hash_key(key), created_at=0.0
        )
        if record.digest in records:
            raise InvalidRequestError(f"server.api_keys: key {number} is there twice")
        records[record.digest] = record
    return list(records.values())


class KeyFile:
    """The keys that ``headrace keys`` keeps in one file.

    ``owner`` are the ids of the service where root makes the file and the service reads it.
    """

    def __init__(self, path: Path, owner: ServiceIds | None = None) -> None:
        self.path = path
        self._owner = owner

    def read(self) -> list[KeyRecord]:
        """Give all keys; none where there is no file. Raises KeyFileError."""
        raw = _read(self.path)
        if raw is None:
            return []
        try:
            document = json.loads(raw)
            if document["version"] != _VERSION:
                raise KeyFileError(
                    f"{self.path} has version {document['version']!r}, this is for {_VERSION}"
                )
            return [_read_record(each) for each in document["keys"]]
        except (ValueError, TypeError, KeyError, InvalidRequestError) as error:
            raise KeyFileError(f"{self.path} is no file of keys: {error}") from error

    def share(self) -> None:
        """Let the service read a file that root made before it knew the service's ids."""
        if self._owner is not None and self.path.exists():
            with self._locked():
                self._write(self.read())

    def add(self, tenant: str, name: str, now: float) -> tuple[KeyRecord, str]:
        """Make a key and keep its hash; the key itself is given once and kept nowhere."""
        check_tenant(tenant)
        check_text("name", name, _MAX_NAME)
        key = make_key()
        with self._locked():
            records = self.read()
            if len(records) >= _MAX_KEYS:
                raise QuotaError(f"there are {_MAX_KEYS} keys, the most allowed; revoke some")
            taken = {record.id for record in records}
            number = next(each for each in iter(_make_id, "") if each not in taken)
            record = KeyRecord(number, tenant, name, hash_key(key), now)
            self._write([*records, record])
        return record, key

    def revoke(self, key_id: str) -> KeyRecord:
        """Forget a key; raises NotFoundError that names it."""
        with self._locked():
            records = self.read()
            found = next((record for record in records if record.id == key_id), None)
            if found is None:
                raise NotFoundError(f"there is no key {key_id!r}; see: headrace keys list")
            self._write([record for record in records if record is not found])
        return found

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = self.path.with_name(self.path.name + ".lock")
        fd = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _write(self, records: list[KeyRecord]) -> None:
        document = {"version": _VERSION, "keys": [asdict(record) for record in records]}
        data = json.dumps(document, indent=1).encode()
        write_private(self.path, data, self._owner)


def _make_id() -> str:
    return secrets.token_hex(4)


def _read_record(fields: dict[str, object]) -> KeyRecord:
    digest, tenant = fields["digest"], check_tenant(fields["tenant"])
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise ValueError("a hash is no SHA-256 in hex")
    created = fields["created_at"]
    if not isinstance(created, int | float):
        raise TypeError("created_at is no number")
    return KeyRecord(str(fields["id"]), tenant, str(fields["name"]), digest, float(created))


def read_or_make_local_key(path: Path) -> str:
    """Give the key of this machine, made at the first start; nobody else may read its file.

    Raises KeyFileError if it holds no key or others can read it.
    """
    raw = _read(path, is_secret=True)
    if raw is None:
        key = make_key()
        write_private(path, f"{key}\n".encode(), None)
        return key
    key = raw.decode("ascii", "replace").strip()
    if not KEY.fullmatch(key):
        raise KeyFileError(f"{path} holds no key; remove it, and a new one is made")
    return key


def _read(path: Path, *, is_secret: bool = False) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyFileError(f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(fd, "rb") as file:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (0, os.geteuid()):
            raise KeyFileError(f"{path} must be a file of ours; it has uid {found.st_uid}")
        forbidden = 0o077 if is_secret else 0o022
        if found.st_mode & forbidden:
            raise KeyFileError(
                f"{path} has mode {found.st_mode & 0o7777:04o}; mend it: chmod 600 {path}"
            )
        raw = file.read(_MAX_FILE + 1)
    if len(raw) > _MAX_FILE:
        raise KeyFileError(f"{path} has more than {_MAX_FILE} bytes")
    return raw


def write_private(path: Path, data: bytes, owner: ServiceIds | None) -> None:
    """Put a file in place, whole and safe on disk; only we, and the group of ``owner``, read it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            if owner is not None:
                os.fchown(fd, -1, owner.gid)
                os.fchmod(fd, 0o640)
            file.write(data)
            file.flush()
            os.fsync(fd)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
