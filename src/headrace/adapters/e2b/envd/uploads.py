"""Contents of files on their way into a sandbox: a form with files, or the bytes of one.

Each file is complete or as it was before; nothing is held here but a piece at a time. A form is
followed file by file, so those before the one that failed are there.
"""

from collections.abc import AsyncIterator
from typing import Any

from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.envd.encodings import GZIP, IDENTITY, unpack
from headrace.adapters.e2b.envd.multipart import FORM, FormReader, read_boundary
from headrace.adapters.e2b.envd.paths import METADATA_PREFIX, absolute_path
from headrace.adapters.e2b.exchange import Exchange
from headrace.model.errors import InvalidRequestError, LimitExceededError
from headrace.model.files import MAX_ATTRIBUTES, FileAttributes

_BYTES = b"application/octet-stream"
_FIELD = "file"
_METADATA = b"x-metadata-"
_MAX_KEY = 246

Written = dict[str, Any]


async def upload(call: Call, path: str | None, user: str) -> None:
    """Write what a request brings, and tell what was written.

    ``path`` is that of its query. Raises InvalidRequestError, LimitExceededError, and what writing
    raises.
    """
    exchange = call.exchange
    kind = (exchange.header(b"content-type") or "").partition(";")[0].strip().lower()
    encoded = kind.encode("latin-1", "replace")
    if encoded not in (_BYTES, FORM):
        raise InvalidRequestError(
            f"the body must be multipart/form-data or application/octet-stream, got {kind[:100]!r}"
        )
    target = _Target(call, user, read_metadata(exchange))
    body = _read_body(exchange)
    if encoded == _BYTES:
        if path is None:
            raise InvalidRequestError("the query needs a path for application/octet-stream")
        written = [await target.write(path, body)]
    else:
        boundary = read_boundary(exchange.header(b"content-type") or "")
        written = await _write_form(target, FormReader(boundary, body), path)
    await exchange.answer(written)


async def _write_form(target: "_Target", form: FormReader, path: str | None) -> list[Written]:
    written: list[Written] = []
    taken: set[str] = set()
    while (part := await form.next_part()) is not None:
        if part.name != _FIELD:
            continue
        wanted = part.filename if path is None else path
        if not wanted:
            raise InvalidRequestError("a file needs a path in the query, or a filename in its part")
        where = target.locate(wanted)
        if where in taken:
            raise InvalidRequestError(f"the form has two files for {where[:200]!r}")
        taken.add(where)
        written.append(await target.write(where, form.content()))
    if not written:
        raise InvalidRequestError(f"the form has no part named {_FIELD!r}")
    return written


class _Target:
    """Writes files of one request."""

    def __init__(self, call: Call, user: str, metadata: dict[str, str]) -> None:
        self._files = call.files
        self._maximum = call.exchange.settings.max_upload
        self._user = user
        self._metadata = metadata

    def locate(self, path: str) -> str:
        """Give the absolute path; raises InvalidRequestError for what is none."""
        return absolute_path(path, self._user)

    async def write(self, path: str, content: AsyncIterator[bytes]) -> Written:
        """Write a file, with the directories above it; notes on it replace those before."""
        where = self.locate(path)
        await self._files.write(
            where,
            _bound(content, self._maximum),
            create_parents=True,
            user=self._user,
            attributes=FileAttributes(METADATA_PREFIX, self._metadata),
        )
        written: Written = {"path": where, "name": where.rpartition("/")[2], "type": "file"}
        if self._metadata:
            written["metadata"] = self._metadata
        return written


def _read_body(exchange: Exchange) -> AsyncIterator[bytes]:
    encoding = (exchange.header(b"content-encoding") or IDENTITY).strip().lower()
    if encoding == IDENTITY:
        return exchange.read_bytes()
    if encoding == GZIP:
        return unpack(exchange.read_bytes())
    raise InvalidRequestError(f"the body may be packed with gzip, not with {encoding[:40]!r}")


async def _bound(content: AsyncIterator[bytes], maximum: int | None) -> AsyncIterator[bytes]:
    size = 0
    async for piece in content:
        size += len(piece)
        if maximum is not None and size > maximum:
            raise LimitExceededError(
                f"the file has more than {maximum} bytes, the most accepted", maximum=maximum
            )
        yield piece


def read_metadata(exchange: Exchange) -> dict[str, str]:
    """Give what the headers say of the files that are written, by names in lower case.

    Of several headers of a name the first counts, and one without a name does not.

    Raises InvalidRequestError for what a file cannot keep.
    """
    found: dict[str, str] = {}
    for raw, value in exchange.scope["headers"]:
        if raw.startswith(_METADATA):
            key, text = raw.removeprefix(_METADATA).decode("latin-1"), value.decode("latin-1")
            if key and key not in found:
                _check_metadata(key, text)
                found[key] = text
    total = sum(len(key) + len(text) for key, text in found.items())
    if total > MAX_ATTRIBUTES:
        raise InvalidRequestError(
            f"metadata have {total} bytes; at most {MAX_ATTRIBUTES} are accepted"
        )
    return found


def _check_metadata(key: str, text: str) -> None:
    if len(key) > _MAX_KEY:
        raise InvalidRequestError(f"a key of metadata has {len(key)} bytes, at most {_MAX_KEY} fit")
    if not (key.isascii() and key.isprintable() and text.isascii() and text.isprintable()):
        raise InvalidRequestError(f"metadata {key[:100]!r} must be printable ASCII")
