"""Making one file of several, for uploads that came in parts."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress

from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.envd.paths import absolute_path
from headrace.adapters.e2b.schemas.filesystem import Compose
from headrace.adapters.e2b.users import DEFAULT_USER, check_username
from headrace.engine.files import Files
from headrace.model.errors import HeadraceError, InvalidRequestError
from headrace.model.files import FileType


async def compose(call: Call) -> None:
    """Answer ``POST /files/compose``: the sources, one after the other, become the destination.

    The sources are gone afterwards. If it fails they are there still, and the destination is as
    it was.
    """
    request = await call.exchange.read_body(Compose)
    user = check_username(request.username or DEFAULT_USER)
    files = call.files
    destination = absolute_path(request.destination, user)
    sources = [absolute_path(each, user) for each in request.source_paths]
    for source in sources:
        await _check_source(files, source, destination, user)
    async with aclosing(_join(files, sources, user)) as content:
        await files.write(destination, content, create_parents=True, user=user)
    for source in dict.fromkeys(sources):
        # The file is whole; that a part could not be removed does not change that.
        with suppress(HeadraceError):
            await files.remove(source, missing_ok=True, user=user)
    await call.exchange.answer(
        {"path": destination, "name": destination.rpartition("/")[2], "type": "file"}
    )


async def _check_source(files: Files, source: str, destination: str, user: str) -> None:
    if source == destination:
        raise InvalidRequestError(f"{source[:200]!r} is a source and the destination")
    entry = await files.stat(source, user=user)
    if FileType.FILE not in (entry.type, entry.target_type):
        raise InvalidRequestError(f"{source[:200]!r} is not a regular file")


async def _join(files: Files, sources: Sequence[str], user: str) -> AsyncGenerator[bytes, None]:
    for source in sources:
        async with files.read(source, user=user) as reader:
            async for piece in reader:
                yield piece
