"""Contents of files on their way to a client: whole, packed with gzip, or a part of them."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from urllib.parse import quote

from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.envd.encodings import GZIP, choose_encoding, pack, takes_identity
from headrace.adapters.e2b.errors import NotAcceptableError, RangeNotSatisfiableError
from headrace.adapters.e2b.exchange import Exchange
from headrace.engine.files import FileReader

_RANGE = re.compile(
    r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.ASCII | re.IGNORECASE
)
_PLAIN_NAME = re.compile(r"[^A-Za-z0-9._ ()+-]")

VARY = (b"vary", b"accept-encoding")
_GUEST_HEADERS = (
    (b"content-security-policy", b"sandbox allow-scripts"),
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-type", b"application/octet-stream"),
    (b"accept-ranges", b"bytes"),
    VARY,
)
"""What keeps a body that a guest made from being anything but bytes to a browser."""

_Headers = list[tuple[bytes, bytes]]


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


async def download(call: Call, path: str, user: str) -> None:
    """Answer with the contents of a file.

    Raises NotAcceptableError, RangeNotSatisfiableError, and what reading the file raises.
    """
    exchange, files = call.exchange, call.files
    accepted = exchange.header(b"accept-encoding")
    encoding = choose_encoding(accepted)
    if encoding is None:
        raise NotAcceptableError("contents are sent as they are, or with gzip")
    headers = [*_GUEST_HEADERS, _name_file(path)]
    wanted = _read_range(exchange)
    if wanted is not None and takes_identity(accepted):
        async with files.read(path, length=0, user=user) as probe:
            size = probe.size
        offset, length = wanted.place(size)
        async with files.read(path, offset=offset, length=length, user=user) as reader:
            headers.append(
                (b"content-range", b"bytes %d-%d/%d" % (offset, offset + length - 1, size))
            )
            await _send_part(exchange, reader, 206, headers, length)
        return
    async with files.read(path, user=user) as reader:
        await _send_whole(exchange, reader, headers, is_packed=encoding == GZIP)


async def _send_whole(
    exchange: Exchange, reader: FileReader, headers: _Headers, *, is_packed: bool
) -> None:
    if reader.size and not is_packed:
        await _send_part(exchange, reader, 200, headers, reader.size)
        return
    pieces = aiter(reader)
    first = await anext(pieces, b"")
    if not first:
        # Clients for JavaScript tell by this header that a file is empty.
        await exchange.start(200, (*headers, (b"content-length", b"0")))
        await exchange.end()
        return
    # Files that the kernel makes up, as in /proc, say that they are empty and are not.
    body = _prepend(first, pieces)
    if is_packed:
        headers.append((b"content-encoding", GZIP.encode()))
        body = pack(body)
    await exchange.start(200, tuple(headers))

    async def send() -> None:
        async for piece in body:
            await exchange.write(piece)
        await exchange.end()

    await exchange.unless_gone(send)


async def _send_part(
    exchange: Exchange, reader: FileReader, status: int, headers: _Headers, length: int
) -> None:
    """Send exactly so many bytes, as was promised; a file may grow while it is read."""
    await exchange.start(status, (*headers, (b"content-length", b"%d" % length)))

    async def send() -> None:
        sent = 0
        async for piece in reader:
            part = piece[: length - sent]
            sent += len(part)
            await exchange.write(part)
            if sent == length:
                # If it has become shorter the answer is left without an end: clients see that.
                await exchange.end()
                return

    await exchange.unless_gone(send)


async def _prepend(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for piece in rest:
        yield piece


def _read_range(exchange: Exchange) -> ByteRange | None:
    # Nothing that we send could stand in If-Range, so whoever sends it has another file.
    if exchange.header(b"if-range") is not None:
        return None
    return parse_range(exchange.header(b"range"))


def _name_file(path: str) -> tuple[bytes, bytes]:
    """Give the header that makes a browser save it, under a harmless name (RFC 6266)."""
    name = path.rpartition("/")[2]
    plain = _PLAIN_NAME.sub("_", name)[:200] or "file"
    exact = quote(name.encode("utf-8", "replace"), safe="")
    value = f"attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}"
    return b"content-disposition", value.encode("ascii")
