# Made from the async face by scripts/generate-sync; change that one.
"""Files in a sandbox: small ones as values, large ones in pieces and with progress."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.client._shared import answers, file_calls
from headrace.client._shared.failure import CutError, TransportError
from headrace.client._sync.connection import Answer, Connection
from headrace.client._sync.watch import Watch
from headrace.client._transport_sync import LocalFile, Pieces, each_piece, read_pieces
from headrace.client.errors import ConnectionFailedError
from headrace.model.errors import PathNotFoundError
from headrace.model.files import FileInfo
from headrace.model.ids import SandboxId
from headrace.model.specs import HOME

Progress = Callable[[int, int | None], object]
"""Is told how many bytes are done, and of how many (None if nobody knows)."""

PIECE = 256 * 1024


class Content:
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

    def open(self) -> Iterator[bytes]:
        """Give the bytes in pieces, telling the progress."""
        done, total = 0, self.size
        for piece in self._pieces():
            yield piece
            done += len(piece)
            if self._progress is not None:
                self._progress(done, total)

    def _pieces(self) -> Iterable[bytes]:
        if isinstance(self._source, bytes):
            whole = self._source
            return each_piece(whole[at : at + PIECE] for at in range(0, len(whole), PIECE))
        if isinstance(self._source, Path):
            return read_pieces(self._source, PIECE)
        return each_piece(self._source)


class FileReader:
    """The content of a file in pieces, without holding it as a whole.

        with sandbox.files.open("/tmp/big.csv") as reader:
            for piece in reader:
                ...

    ``size`` is known once it is entered. If the connection breaks, `ConnectionFailedError` is
    raised: the file may have changed, so it is not read on.
    """

    def __init__(
        self, connection: Connection, sandbox_id: SandboxId, path: str, user: str | None
    ) -> None:
        self._connection = connection
        self._request = file_calls.read_file(sandbox_id, path, user)
        self._answer: Answer | None = None
        self.size: int | None = None

    def __enter__(self) -> Self:
        self._answer = self._connection.open(self._request)
        self.size = answers.content_length(self._answer.head)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._answer is not None:
            self._answer.close()

    def __iter__(self) -> Iterator[bytes]:
        if self._answer is None:
            raise ConnectionFailedError("enter the reader first: with files.open(...)")
        try:
            while piece := self._answer.receive():
                yield piece
        except TransportError as error:
            raise ConnectionFailedError(f"{self._request}: {error}") from error


class Files:
    """The files of a sandbox.

    Paths are absolute, or relative to ``/home/user``. ``user`` is ``user`` (the default) or
    ``root``.
    """

    def __init__(self, connection: Connection, sandbox_id: SandboxId) -> None:
        self._connection = connection
        self._sandbox_id = sandbox_id

    def read(self, path: str, *, user: str | None = None) -> bytes:
        """Give the content of a file, at most 512 MiB; `download` and `open` have no bound."""
        return self._connection.fetch(file_calls.read_file(self._sandbox_id, path, user))

    def read_text(self, path: str, *, encoding: str = "utf-8", user: str | None = None) -> str:
        """Give the content of a text file; raises InvalidRequestError where it is no text."""
        return answers.decode_text(path, self.read(path, user=user), encoding)

    def open(self, path: str, *, user: str | None = None) -> FileReader:
        """Read a file in pieces, see `FileReader`."""
        return FileReader(self._connection, self._sandbox_id, path, user)

    def download(
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
        local = LocalFile(Path(to))

        def receive(answer: Answer) -> int:
            local.restart()
            done, total = 0, answers.content_length(answer.head)
            while piece := answer.receive():
                local.write(piece)
                done += len(piece)
                if progress is not None:
                    progress(done, total)
            if total is not None and done != total:
                raise CutError(f"{done} bytes of {total} arrived")
            local.commit()
            return done

        try:
            request = file_calls.read_file(self._sandbox_id, path, user)
            return self._connection.exchange(request, receive)
        finally:
            local.close()

    def write(
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

            sandbox.files.write("data.csv", Path("local.csv"), progress=show)

        The file is complete afterwards or as it was before. ``parents`` makes the directories.
        """
        request = file_calls.write_file(
            self._sandbox_id, path, user=user, mode=mode, parents=parents, append=append
        )
        body = Content(content, progress)
        return self._connection.call(request, answers.size, body)

    def list(
        self, path: str = HOME, *, depth: int = 1, user: str | None = None
    ) -> tuple[FileInfo, ...]:
        """Give what is in a directory, down to ``depth`` levels."""
        request = file_calls.list_files(self._sandbox_id, path, depth, user)
        return self._connection.call(request, answers.entries)

    def stat(self, path: str, *, user: str | None = None) -> FileInfo:
        """Say what a path is; a symbolic link is not followed."""
        request = file_calls.stat_file(self._sandbox_id, path, user)
        return self._connection.call(request, answers.entry)

    def exists(self, path: str, *, user: str | None = None) -> bool:
        """Say whether there is something at a path."""
        try:
            self.stat(path, user=user)
        except PathNotFoundError:
            return False
        return True

    def make_dir(
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
        self._connection.fetch(request)

    def move(
        self, source: str, destination: str, *, parents: bool = True, user: str | None = None
    ) -> FileInfo:
        """Move or rename, and give what is at the destination then."""
        request = file_calls.move_file(
            self._sandbox_id, source, destination, parents=parents, user=user
        )
        return self._connection.call(request, answers.entry)

    def remove(
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
        self._connection.fetch(request)

    def set_mode(self, path: str, mode: int, *, user: str | None = None) -> None:
        """Change the permission bits, such as 0o755."""
        self._connection.fetch(file_calls.set_mode(self._sandbox_id, path, mode, user))

    def watch(self, path: str, *, recursive: bool = False, user: str | None = None) -> Watch:
        """Be told of changes in a directory, see `Watch`."""
        request = file_calls.start_watch(self._sandbox_id, path, recursive=recursive, user=user)
        return Watch(self._connection, request)
