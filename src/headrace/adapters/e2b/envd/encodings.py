"""Compressed contents: what a client accepts, and packing and unpacking them in pieces."""

import re
import zlib
from collections.abc import AsyncIterator, Iterator, Mapping

import anyio.to_thread

from headrace.model.errors import InvalidRequestError

GZIP = "gzip"
IDENTITY = "identity"

PIECE = 64 * 1024
_GZIP_FORM = 16 + zlib.MAX_WBITS
_FAST = 1
_INLINE = 4 * 1024
_QUALITY = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.ASCII)
_MAX_CHOICES = 50
_UNNAMED = 0.0001


def choose_encoding(accepted: str | None) -> str | None:
    """Give the encoding for a client that accepts these (RFC 9110, 12.5.3); None if none fits.

    Plain bytes are accepted by everybody who does not refuse them, but what is named is preferred.
    """
    if not (accepted or "").strip():
        return IDENTITY
    qualities = _read_qualities(accepted or "")
    identity = _identity_of(qualities)
    gzip = qualities.get(GZIP, 0.0)
    if gzip > 0 and gzip >= identity:
        return GZIP
    if identity > 0:
        return IDENTITY
    is_left = GZIP not in qualities and qualities.get("*", 0.0) > 0
    return GZIP if gzip > 0 or is_left else None


def takes_identity(accepted: str | None) -> bool:
    """Say whether a client accepts bytes as they are, be it that it likes others better."""
    return _identity_of(_read_qualities(accepted or "")) > 0


def _identity_of(qualities: Mapping[str, float]) -> float:
    return qualities.get(IDENTITY, qualities.get("*", _UNNAMED))


def _read_qualities(accepted: str) -> dict[str, float]:
    """Read a list of encodings and how much they are liked; what cannot be read counts fully."""
    qualities: dict[str, float] = {}
    for choice in accepted.split(",")[:_MAX_CHOICES]:
        name, *parameters = (part.strip().lower() for part in choice.split(";"))
        if name:
            found = (_QUALITY.fullmatch(each) for each in parameters)
            quality = next((float(each[1]) for each in found if each), 1.0)
            qualities.setdefault(GZIP if name == "x-gzip" else name, min(quality, 1.0))
    return qualities


async def pack(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give contents with gzip, piece by piece; nothing is held back longer than it must be."""
    packer = zlib.compressobj(_FAST, zlib.DEFLATED, _GZIP_FORM)
    async for piece in pieces:
        if len(piece) <= _INLINE:
            packed = packer.compress(piece)
        else:
            packed = await anyio.to_thread.run_sync(packer.compress, piece)
        if packed:
            yield packed
    yield packer.flush()


async def unpack(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Give contents that were sent with gzip, in pieces of at most 64 KiB however small they were.

    Raises InvalidRequestError for what is not gzip, or not all of it.
    """
    unpacker = _Unpacker()
    async for piece in pieces:
        for unpacked in unpacker.feed(piece):
            yield unpacked
    unpacker.end()


class _Unpacker:
    """Unpacks one file of gzip, or several one after the other, which mean their sum."""

    def __init__(self) -> None:
        self._inflater = zlib.decompressobj(_GZIP_FORM)
        self._is_begun = False

    def feed(self, piece: bytes) -> Iterator[bytes]:
        """Give what a piece unpacks to; it is made only as it is taken."""
        rest = piece
        while rest:
            if self._inflater.eof:
                self._inflater = zlib.decompressobj(_GZIP_FORM)
            self._is_begun = True
            try:
                unpacked = self._inflater.decompress(rest, PIECE)
            except zlib.error as error:
                raise InvalidRequestError(f"the body is not gzip: {error}") from error
            inflater = self._inflater
            rest = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
            if unpacked:
                yield unpacked

    def end(self) -> None:
        """Note the end; raises InvalidRequestError if something is missing."""
        if not self._is_begun or not self._inflater.eof:
            raise InvalidRequestError("the body is not gzip, or not all of it")
