"""Files in a sandbox: listed, read, written, moved, removed. Contents stream both ways."""

import re
from dataclasses import dataclass
from urllib.parse import quote

from headrace.adapters.native import failures, sandboxes
from headrace.adapters.native.answers import HeaderList
from headrace.adapters.native.codec import describe_time
from headrace.adapters.native.errors import RangeNotSatisfiableError
from headrace.adapters.native.exchange import Exchange, too_large
from headrace.adapters.native.forms import BYTES, JSON
from headrace.adapters.native.routing import Reply, Route
from headrace.adapters.native.schemas import (
    AtPath,
    ListFiles,
    MakeDirectory,
    Move,
    RemoveFile,
    SetMode,
    WriteFile,
)
from headrace.adapters.native.shapes import Created, EntryList, EntryShape, Removed, Written
from headrace.adapters.native.streams import unless_gone
from headrace.engine.files import FileReader, Files
from headrace.model.errors import (
    AlreadyExistsError,
    ConflictError,
    PathNotFoundError,
)
from headrace.model.files import FileInfo
from headrace.model.specs import resolve_path

_RANGE = re.compile(
    r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE
)
_PLAIN_NAME = re.compile(r"[^A-Za-z0-9._ ()+-]")

GUEST_HEADERS: HeaderList = (
    (b"content-security-policy", b"sandbox allow-scripts"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-type", BYTES.encode()),
    (b"accept-ranges", b"bytes"),
)
"""What keeps a body that a guest made from being anything but bytes to a browser."""


async def list_some(exchange: Exchange) -> None:
    """Answer ``GET /v1/sandboxes/{sandbox_id}/files``."""
    query = exchange.read_query(ListFiles)
    found = await _files(exchange).list(query.path, depth=query.depth, user=query.user)
    answer: EntryList = {"entries": [describe(each) for each in found]}
    await exchange.answer(answer)


async def show(exchange: Exchange) -> None:
    """Answer ``GET …/files/info``."""
    query = exchange.read_query(AtPath)
    await exchange.answer(describe(await _files(exchange).stat(query.path, user=query.user)))


async def read(exchange: Exchange) -> None:
    """Answer ``GET …/files/content``, the whole of it or one range."""
    query = exchange.read_query(AtPath)
    files = _files(exchange)
    wanted = parse_range(exchange.header(b"range"))
    offset, length = 0, None
    if wanted is not None:
        async with files.read(query.path, length=0, user=query.user) as probe:
            size = probe.size
        offset, length = wanted.place(size)
    async with files.read(query.path, offset=offset, length=length, user=query.user) as reader:
        headers = [*GUEST_HEADERS, _name_file(query.path)]
        if wanted is not None and length is not None:
            last = offset + length - 1
            headers.append((b"content-range", b"bytes %d-%d/%d" % (offset, last, reader.size)))
            await _send(exchange, reader, 206, headers, length)
        else:
            # Files that the kernel makes up, as in /proc, say that they are empty.
            await _send(exchange, reader, 200, headers, reader.size or None)


async def _send(
    exchange: Exchange,
    reader: FileReader,
    status: int,
    headers: list[tuple[bytes, bytes]],
    length: int | None,
) -> None:
    if length is not None:
        headers.append((b"content-length", b"%d" % length))
    await exchange.start(status, tuple(headers))

    async def send() -> None:
        sent = 0
        async for chunk in reader:
            # A file may grow while it is read; what was promised is what is sent.
            piece = chunk if length is None else chunk[: length - sent]
            sent += len(piece)
            await exchange.write(piece)
            if sent == length:
                break
        if length in (None, sent):
            await exchange.end()

    await unless_gone(exchange, send)


@dataclass(frozen=True)
class ByteRange:
    """A part of a file: from ``first`` to ``last``, or its last ``suffix`` bytes."""

    first: int
    last: int | None
    suffix: int | None = None

    def place(self, size: int) -> tuple[int, int]:
        """Give offset and length in a file of that size; raises RangeNotSatisfiableError."""
        first, last = self.first, self.last
        if self.suffix is not None:
            first, last = max(0, size - self.suffix), None
        end = size if last is None else min(last + 1, size)
        if first >= end:
            raise RangeNotSatisfiableError(size)
        return first, end - first


def parse_range(header: str | None) -> ByteRange | None:
    """Read a Range header; None if there is none, or one that is to be ignored (RFC 9110, 14.2)."""
    found = _RANGE.fullmatch(header) if header else None
    if found is None:
        return None
    first, last = found.groups()
    if not first:
        return ByteRange(0, None, int(last)) if last else None
    if last and int(last) < int(first):
        return None
    return ByteRange(int(first), int(last) if last else None)


async def write(exchange: Exchange) -> None:
    """Answer ``PUT …/files/content``."""
    query = exchange.read_query(WriteFile)
    files = _files(exchange)
    maximum = exchange.settings.max_upload
    declared = exchange.declared_length()
    if maximum is not None and declared is not None and declared > maximum:
        raise too_large(maximum)
    size = await files.write(
        query.path,
        exchange.read_bytes(maximum),
        mode=query.mode_bits(),
        create_parents=query.parents,
        append=query.append,
        user=query.user,
    )
    answer: Written = {"path": resolve_path("path", query.path), "size": size}
    await exchange.answer(answer)


async def set_mode(exchange: Exchange) -> None:
    """Answer ``PATCH /v1/sandboxes/{sandbox_id}/files``."""
    files = _files(exchange)
    body = await exchange.read_body(SetMode)
    await files.set_mode(body.path, body.mode, user=body.user)
    await exchange.answer_nothing()


async def remove(exchange: Exchange) -> None:
    """Answer ``DELETE /v1/sandboxes/{sandbox_id}/files``."""
    query = exchange.read_query(RemoveFile)
    removed = await _files(exchange).remove(
        query.path, recursive=query.recursive, missing_ok=query.missing_ok, user=query.user
    )
    answer: Removed = {"removed": removed}
    await exchange.answer(answer)


async def make_directory(exchange: Exchange) -> None:
    """Answer ``POST …/files/directories``."""
    files = _files(exchange)
    body = await exchange.read_body(MakeDirectory)
    created = await files.make_dir(
        body.path, parents=body.parents, exist_ok=body.exist_ok, mode=body.mode, user=body.user
    )
    answer: Created = {"created": created}
    await exchange.answer(answer)


async def move(exchange: Exchange) -> None:
    """Answer ``POST …/files/move``."""
    files = _files(exchange)
    body = await exchange.read_body(Move)
    moved = await files.move(
        body.source, body.destination, create_parents=body.parents, user=body.user
    )
    await exchange.answer(describe(moved))


def describe(entry: FileInfo) -> EntryShape:
    """Give an entry as clients see it."""
    return {
        "path": entry.path,
        "name": entry.name,
        "type": entry.type,
        "size": entry.size,
        "mode": entry.mode,
        "owner": entry.owner,
        "group": entry.group,
        "modified": describe_time(entry.modified),
        "target": entry.target,
        "target_type": entry.target_type,
    }


def _files(exchange: Exchange) -> Files:
    return sandboxes.find(exchange).files


def _name_file(path: str) -> tuple[bytes, bytes]:
    """Give the header that makes a browser save it, under a harmless name (RFC 6266)."""
    name = path.rstrip("/").rpartition("/")[2]
    plain = _PLAIN_NAME.sub("_", name)[:200] or "file"
    exact = quote(name.encode("utf-8", "replace"), safe="")
    value = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"
    return b"content-disposition", value.encode("ascii")


_ALL = "/v1/sandboxes/{sandbox_id}/files"
_AT_PATH = (*failures.BY_AGENT, PathNotFoundError)
_CONTENT_HEADERS = ("Content-Disposition", "Content-Security-Policy")

ROUTES = (
    Route(
        "GET",
        _ALL,
        "listFiles",
        "List what is below a directory",
        list_some,
        {200: Reply("The entries, each directory before its own.", {JSON: EntryList})},
        failures=_AT_PATH,
        query=ListFiles,
    ),
    Route(
        "GET",
        f"{_ALL}/info",
        "getFileInfo",
        "Show what is known of a path",
        show,
        {200: Reply("The entry; a symbolic link is not followed.", {JSON: EntryShape})},
        failures=_AT_PATH,
        query=AtPath,
    ),
    Route(
        "GET",
        f"{_ALL}/content",
        "readFile",
        "Read a file",
        read,
        {
            200: Reply("The bytes.", {BYTES: bytes}, headers=_CONTENT_HEADERS),
            206: Reply(
                "The bytes of the range.",
                {BYTES: bytes},
                headers=(*_CONTENT_HEADERS, "Content-Range"),
            ),
        },
        failures=(*_AT_PATH, RangeNotSatisfiableError),
        query=AtPath,
        request_headers=("Range",),
    ),
    Route(
        "PUT",
        f"{_ALL}/content",
        "writeFile",
        "Write a file; it is complete, or as it was before",
        write,
        {200: Reply("Its size.", {JSON: Written})},
        failures=_AT_PATH,
        raw_body=True,
        query=WriteFile,
    ),
    Route(
        "PATCH",
        _ALL,
        "setFileMode",
        "Set the permission bits of a path",
        set_mode,
        {204: Reply("They are set.")},
        failures=_AT_PATH,
        body=SetMode,
    ),
    Route(
        "DELETE",
        _ALL,
        "removeFile",
        "Remove a file or directory",
        remove,
        {200: Reply("Whether there was one.", {JSON: Removed})},
        failures=(*_AT_PATH, ConflictError),
        query=RemoveFile,
    ),
    Route(
        "POST",
        f"{_ALL}/directories",
        "makeDirectory",
        "Make a directory",
        make_directory,
        {200: Reply("Whether it is new.", {JSON: Created})},
        failures=(*_AT_PATH, AlreadyExistsError),
        body=MakeDirectory,
    ),
    Route(
        "POST",
        f"{_ALL}/move",
        "moveFile",
        "Move or rename a file or directory",
        move,
        {200: Reply("What is at the destination now.", {JSON: EntryShape})},
        failures=(*_AT_PATH, AlreadyExistsError),
        body=Move,
    ),
)
