"""Files in a sandbox: small ones as values, large ones in pieces and with progress."""

from collections.abc import AsyncIterable, AsyncIterator, Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.client._async.connection import AsyncAnswer, AsyncConnection
from headrace.client._async.watch import AsyncWatch
from headrace.client._shared import answers, file_calls
from headrace.client._shared.failure import CutError, TransportError
from headrace.client._transport_async import AsyncLocalFile, Pieces, each_piece, read_pieces
from headrace.client.errors import ConnectionFailedError
from headrace.model.errors import PathNotFoundError
from headrace.model.files import FileInfo
from headrace.model.ids import SandboxId
from headrace.model.specs import HOME

Progress = Callable[[int, int | None], object]
"""Is told how many bytes are done, and of how many (None if nobody knows)."""

PIECE = 256 * 1024


class AsyncContent:
    """What is to be written: bytes, a local file, or pieces that come one by one."""

    def __init__(self, source: bytes | str | Path | Pieces, progress: Progress | None) -> None:
        self._source = source.encode() if isinstance(source, str) else source
        self._progress = progress

    @property
    def size(self) -> int | None:
        """The number of bytes, or None if it is not known before."""
        if isinstance(self._source, bytes):
            return len(self._source)
        return self._source.stat().st_size if isinstance(self._source, Path) else None

    @property
    def can_repeat(self) -> bool:
        """Whether it can be read again."""
        return isinstance(self._source, bytes | Path)

    async def open(self) -> AsyncIterator[bytes]:
        """Give the bytes in pieces, telling the progress."""
        done, total = 0, self.size
        async for piece in self._pieces():
            yield piece
            done += len(piece)
            if self._progress is not None:
                self._progress(done, total)

    def _pieces(self) -> AsyncIterable[bytes]:
        if isinstance(self._source, bytes):
            whole = self._source
            return each_piece(whole[at : at + PIECE] for at in range(0, len(whole), PIECE))
        if isinstance(self._source, Path):
            return read_pieces(self._source, PIECE)
        return each_piece(self._source)


class AsyncFileReader:
    """The content of a file in pieces, without holding it as a whole.

        async with sandbox.files.open("/tmp/big.csv") as reader:
            async for piece in reader:
                ...

    ``size`` is known once it is entered. If the connection breaks, `ConnectionFailedError` is
    raised: the file may have changed, so it is not read on.
    """

    def __init__(
        self, connection: AsyncConnection, sandbox_id: SandboxId, path: str, user: str | None
    ) -> None:
        self._connection = connection
        self._request = file_calls.read_file(sandbox_id, path, user)
        self._answer: AsyncAnswer | None = None
        self.size: int | None = None

    async def __aenter__(self) -> Self:
        self._answer = await self._connection.open(self._request)
        self.size = answers.content_length(self._answer.head)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._answer is not None:
            await self._answer.aclose()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._answer is None:
            raise ConnectionFailedError("enter the reader first: async with files.open(...)")
        try:
            while piece := await self._answer.receive():
                yield piece
        except TransportError as error:
            raise ConnectionFailedError(f"{self._request}: {error}") from error


class AsyncFiles:
    """The files of a sandbox.

    Paths are absolute, or relative to ``/home/user``. ``user`` is ``user`` (the default) or
    ``root``.
    """

    def __init__(self, connection: AsyncConnection, sandbox_id: SandboxId) -> None:
        self._connection = connection
        self._sandbox_id = sandbox_id

    async def read(self, path: str, *, user: str | None = None) -> bytes:
        """Give the content of a file, at most 512 MiB; `download` and `open` have no bound."""
        return await self._connection.fetch(file_calls.read_file(self._sandbox_id, path, user))

    async def read_text(
        self, path: str, *, encoding: str = "utf-8", user: str | None = None
    ) -> str:
        """Give the content of a text file; raises InvalidRequestError where it is no text."""
        return answers.decode_text(path, await self.read(path, user=user), encoding)

    def open(self, path: str, *, user: str | None = None) -> AsyncFileReader:
        """Read a file in pieces, see `AsyncFileReader`."""
        return AsyncFileReader(self._connection, self._sandbox_id, path, user)

    async def download(
        self,
        path: str,
        to: str | Path,
        *,
        user: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Copy a file to a local path and give its size.

        The local file appears when it is complete. If the connection breaks the copy begins
        again, and so does the progress.
        """
        local = AsyncLocalFile(Path(to))

        async def receive(answer: AsyncAnswer) -> int:
            await local.restart()
            done, total = 0, answers.content_length(answer.head)
            while piece := await answer.receive():
                await local.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
            if total is not None and done != total:
                raise CutError(f"{done} bytes of {total} arrived")
            await local.commit()
            return done

        try:
            request = file_calls.read_file(self._sandbox_id, path, user)
            return await self._connection.exchange(request, receive)
        finally:
            await local.aclose()

    async def write(
        self,
        path: str,
        content: bytes | str | Path | Pieces,
        *,
        mode: int | None = None,
        parents: bool = True,
        append: bool = False,
        user: str | None = None,
        progress: Progress | None = None,
    ) -> int:
        """Write a file and give its size: bytes, text, the content of a local ``Path``, or pieces.

            await sandbox.files.write("data.csv", Path("local.csv"), progress=show)

        The file is complete afterwards or as it was before. ``parents`` makes the directories.
        """
        request = file_calls.write_file(
            self._sandbox_id, path, user=user, mode=mode, parents=parents, append=append
        )
        body = AsyncContent(content, progress)
        return await self._connection.call(request, answers.size, body)

    async def list(
        self, path: str = HOME, *, depth: int = 1, user: str | None = None
    ) -> tuple[FileInfo, ...]:
        """Give what is in a directory, down to ``depth`` levels."""
        request = file_calls.list_files(self._sandbox_id, path, depth, user)
        return await self._connection.call(request, answers.entries)

    async def stat(self, path: str, *, user: str | None = None) -> FileInfo:
        """Say what a path is; a symbolic link is not followed."""
        request = file_calls.stat_file(self._sandbox_id, path, user)
        return await self._connection.call(request, answers.entry)

    async def exists(self, path: str, *, user: str | None = None) -> bool:
        """Say whether there is something at a path."""
        try:
            await self.stat(path, user=user)
        except PathNotFoundError:
            return False
        return True

    async def make_dir(
        self,
        path: str,
        *,
        parents: bool = True,
        exist_ok: bool = True,
        mode: int | None = None,
        user: str | None = None,
    ) -> None:
        """Make a directory."""
        request = file_calls.make_directory(
            self._sandbox_id, path, parents=parents, exist_ok=exist_ok, mode=mode, user=user
        )
        await self._connection.fetch(request)

    async def move(
        self, source: str, destination: str, *, parents: bool = True, user: str | None = None
    ) -> FileInfo:
        """Move or rename, and give what is at the destination then."""
        request = file_calls.move_file(
            self._sandbox_id, source, destination, parents=parents, user=user
        )
        return await self._connection.call(request, answers.entry)

    async def remove(
        self,
        path: str,
        *,
        recursive: bool = False,
        missing_ok: bool = False,
        user: str | None = None,
    ) -> None:
        """Remove a file, or with ``recursive`` a directory and everything in it."""
        request = file_calls.remove_file(
            self._sandbox_id, path, recursive=recursive, missing_ok=missing_ok, user=user
        )
        await self._connection.fetch(request)

    async def set_mode(self, path: str, mode: int, *, user: str | None = None) -> None:
        """Change the permission bits, such as 0o755."""
        await self._connection.fetch(file_calls.set_mode(self._sandbox_id, path, mode, user))

    def watch(self, path: str, *, recursive: bool = False, user: str | None = None) -> AsyncWatch:
        """Be told of changes in a directory, see `AsyncWatch`."""
        request = file_calls.start_watch(self._sandbox_id, path, recursive=recursive, user=user)
        return AsyncWatch(self._connection, request)
