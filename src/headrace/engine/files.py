"""Files inside a sandbox: requests to its agent, which does everything there, with its own ids.

Contents stream through pipes in both directions, with back-pressure; nothing is held in memory
but a piece at a time.
"""

import contextlib
import os
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

from headrace.engine.agent import AgentConnection, read_field
from headrace.engine.pipes import PipeClosedError, PipeWriter, open_pipe
from headrace.engine.transfers import STALL, Lines, Transfer, break_off
from headrace.engine.watch import Watch, Watches
from headrace.model.errors import (
    AgentProtocolError,
    InvalidRequestError,
    LimitExceededError,
    PathNotFoundError,
)
from headrace.model.files import (
    MAX_ATTRIBUTES,
    DiskUsage,
    FileAttributes,
    FileInfo,
    FileType,
    check_attributes_prefix,
)
from headrace.model.specs import check_user, check_whole, resolve_path

MAX_ENTRIES = 100_000
_MAX_MODE = 0o7777
_MAX_DEPTH = 2**31
_MAX_SIZE = 2**63 - 1


class Files:
    """The files of one sandbox. A relative path is taken from the user's home directory.

    Every method raises `InvalidRequestError` for what is no path, and what the agent says:
    PathNotFoundError, PermissionDeniedError, AlreadyExistsError, QuotaError (no space) and so on.
    ``user`` is whose rights count, ``user`` or ``root``.
    """

    def __init__(
        self, agent: AgentConnection, watches: Watches, *, is_privileged: bool = False
    ) -> None:
        self._agent = agent
        self._watches = watches
        self._privilege = {"privileged": True} if is_privileged else {}

    @property
    def privileged(self) -> "Files":
        """The same files, and no right that ``user`` has not is in the way.

        What is made or written anew belongs to ``user`` all the same. Where a sandbox has no root
        (rootless mode), rights count as ever.
        """
        return Files(self._agent, self._watches, is_privileged=True)

    def read(
        self, path: str, *, offset: int = 0, length: int | None = None, user: str = "user"
    ) -> "FileReader":
        """Open a file for reading; use it with ``async with`` and ``async for``."""
        _check_range(offset, length)
        fields = {**self._where(path, user), "offset": offset, "length": length}
        return FileReader(self._agent, fields)

    async def read_bytes(self, path: str, *, limit: int, user: str = "user") -> bytes:
        """Give a whole file; raises LimitExceededError if it has more than ``limit`` bytes."""
        content = bytearray()
        async with self.read(path, length=limit + 1, user=user) as reader:
            async for chunk in reader:
                content += chunk
            if len(content) > limit:
                raise LimitExceededError(
                    f"{path} has {reader.size} bytes; at most {limit} are accepted",
                    path=path,
                    size=reader.size,
                )
        return bytes(content)

    async def write(
        self,
        path: str,
        data: bytes | AsyncIterable[bytes],
        *,
        mode: int | None = None,
        create_parents: bool = False,
        append: bool = False,
        user: str = "user",
        attributes: FileAttributes | None = None,
    ) -> int:
        """Write a file and give its size. It is complete, or as it was before, never half.

        Without ``mode`` an existing file keeps its own and a new one gets 0644; without
        ``attributes`` it keeps those as well. If ``data`` fails or the caller is cancelled,
        nothing changes.

        Where the file system can hold no attributes, the file is written without them, and
        InvalidRequestError has ``not_supported`` as ``reason`` in its details.
        """
        _check_mode(mode)
        fields = {
            **self._where(path, user),
            "action": "write",
            "mode": mode,
            "create_parents": create_parents,
            "append": append,
            "attributes": _encode_attributes(attributes),
        }
        read_end, write_end = open_pipe()
        writer = PipeWriter(write_end)
        try:
            try:
                request = await self._agent.begin("file", fields, [read_end])
            finally:
                os.close(read_end)
            try:
                with contextlib.suppress(PipeClosedError):
                    # Then the child has given up, and says why in its answer.
                    await _send(data, writer)
                    writer.close()
                reply = await self._agent.reply_to(request, timeout=STALL)
            except BaseException:
                # The agent hears of it before it sees the end of the pipe, and commits nothing.
                await break_off(self._agent, request)
                raise
        finally:
            writer.close()
        size: int = read_field(reply, "size", int)
        return size

    async def list(
        self,
        path: str,
        *,
        depth: int = 1,
        user: str = "user",
        attributes_prefix: str | None = None,
    ) -> list[FileInfo]:
        """Give what is below a directory, ``depth`` levels deep, each directory before its own.

        Paths are below ``path`` also where that is a symbolic link. Entries have the attributes
        under ``attributes_prefix``, if there is one.

        Raises LimitExceededError if there are more than 100,000 entries.
        """
        check_whole("depth", depth, 1, _MAX_DEPTH)
        entries: list[FileInfo] = []
        prefix = _check_prefix(attributes_prefix)
        fields = {**self._where(path, user), "action": "list", "depth": depth, **prefix}
        async with Lines(self._agent, fields) as lines:
            async for line in lines.follow():
                entries.append(read_entry(line))
                if len(entries) > MAX_ENTRIES:
                    raise LimitExceededError(
                        f"{path} has more than {MAX_ENTRIES} entries {depth} levels deep"
                    )
            await lines.end()
        return entries

    async def stat(
        self, path: str, *, user: str = "user", attributes_prefix: str | None = None
    ) -> FileInfo:
        """Give what is known of a path; a symbolic link is not followed."""
        prefix = _check_prefix(attributes_prefix)
        value = await self._ask({**self._where(path, user), "action": "stat", **prefix})
        return read_entry(read_field(value, "entry", dict))

    async def exists(self, path: str, *, user: str = "user") -> bool:
        """Say whether something is there, be it a broken link."""
        try:
            await self.stat(path, user=user)
        except PathNotFoundError:
            return False
        return True

    async def make_dir(
        self,
        path: str,
        *,
        parents: bool = False,
        exist_ok: bool = False,
        mode: int | None = None,
        user: str = "user",
    ) -> bool:
        """Make a directory; says whether it is new.

        A directory that is there is an AlreadyExistsError unless ``exist_ok``. Anything else
        that is there is an InvalidRequestError, with ``not_a_directory`` as ``reason``.
        """
        _check_mode(mode)
        fields = {
            **self._where(path, user),
            "action": "make_dir",
            "parents": parents,
            "exist_ok": exist_ok,
            "mode": mode,
        }
        created: bool = read_field(await self._ask(fields), "created", bool)
        return created

    async def move(
        self, source: str, destination: str, *, create_parents: bool = False, user: str = "user"
    ) -> FileInfo:
        """Move or rename; gives what is at the destination then."""
        check_user(user)
        fields = {
            "action": "move",
            "source": resolve_path("source", source),
            "destination": resolve_path("destination", destination),
            "create_parents": create_parents,
            "user": user,
            **self._privilege,
        }
        return read_entry(read_field(await self._ask(fields), "entry", dict))

    async def remove(
        self, path: str, *, recursive: bool = False, missing_ok: bool = False, user: str = "user"
    ) -> bool:
        """Remove a file or directory; says whether there was one."""
        fields = {
            **self._where(path, user),
            "action": "remove",
            "recursive": recursive,
            "missing_ok": missing_ok,
        }
        removed: bool = read_field(await self._ask(fields), "removed", bool)
        return removed

    async def set_mode(self, path: str, mode: int, *, user: str = "user") -> None:
        """Set the permission bits."""
        _check_mode(mode)
        await self._ask({**self._where(path, user), "action": "set_mode", "mode": mode})

    async def set_attributes(
        self, path: str, attributes: FileAttributes, *, user: str = "user"
    ) -> FileInfo:
        """Replace all attributes under a prefix; gives what is known of the path then.

        Raises InvalidRequestError, with ``not_supported`` as ``reason``, where the file system
        can hold none.
        """
        fields = {
            **self._where(path, user),
            "action": "set_attributes",
            "attributes": _encode_attributes(attributes),
        }
        return read_entry(read_field(await self._ask(fields), "entry", dict))

    async def disk_usage(self) -> DiskUsage:
        """Tell how large the sandbox's own copy of all files is and what is left of it."""
        value = await self._ask({"action": "disk_usage", "user": "user"})
        numbers = ("total", "free", "inodes", "inodes_free")
        return DiskUsage(**{name: read_field(value, name, int) for name in numbers})

    async def watch(
        self, path: str, *, recursive: bool = False, tells_modes: bool = False, user: str = "user"
    ) -> Watch:
        """Watch a directory; changes from now on are events of the watch.

        With ``tells_modes`` a file that `write` made is told to have got its mode, too.
        """
        fields = {
            **self._where(path, user),
            "action": "watch",
            "recursive": recursive,
            "tells_modes": tells_modes,
        }
        return await self._watches.start(str(fields["path"]), fields)

    def _where(self, path: str, user: str) -> dict[str, object]:
        check_user(user)
        return {"path": resolve_path("path", path), "user": user, **self._privilege}

    async def _ask(self, fields: Mapping[str, object]) -> Mapping[str, Any]:
        return await self._agent.ask("file", fields)


class FileReader:
    """A file that is read. ``size`` is that of the whole file; iterate once over the pieces.

    Leaving it early breaks the reading off inside the sandbox, too.
    """

    def __init__(self, agent: AgentConnection, fields: Mapping[str, object]) -> None:
        self.size = 0
        self._agent = agent
        self._fields = {**fields, "action": "read"}
        self._transfer: Transfer | None = None

    async def __aenter__(self) -> Self:
        async with Transfer(self._agent, {**self._fields, "length": 0}) as probe:
            self.size = read_field(await probe.end(), "size", int)
        self._transfer = Transfer(self._agent, self._fields)
        await self._transfer.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._transfer is not None:
            await self._transfer.__aexit__(kind, error, traceback)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        transfer = self._transfer
        if transfer is None:
            raise InvalidRequestError("open the file with 'async with' before reading it")
        received = 0
        while chunk := await transfer.read():
            received += len(chunk)
            yield chunk
        sent = read_field(await transfer.end(), "sent", int)
        if sent != received:
            raise AgentProtocolError(f"{sent} bytes were sent, {received} arrived")


def read_entry(value: Mapping[str, Any]) -> FileInfo:
    """Check and read an entry; raises AgentProtocolError."""
    target, target_type = value.get("target"), value.get("target_type")
    mode, attributes = value.get("target_mode"), value.get("attributes")
    try:
        return FileInfo(
            path=read_field(value, "path", str),
            name=read_field(value, "name", str),
            type=FileType(read_field(value, "type", str)),
            size=read_field(value, "size", int),
            mode=read_field(value, "mode", int),
            owner=read_field(value, "owner", str),
            group=read_field(value, "group", str),
            modified=float(value.get("modified", 0.0)),
            target=read_field(value, "target", str) if target is not None else None,
            target_type=FileType(str(target_type)) if target_type is not None else None,
            target_mode=read_field(value, "target_mode", int) if mode is not None else None,
            attributes=_read_attributes(value) if attributes is not None else None,
        )
    except (ValueError, TypeError) as error:
        raise AgentProtocolError(f"an entry of a directory is not valid: {error}") from error


def _read_attributes(value: Mapping[str, Any]) -> Mapping[str, str]:
    found: Mapping[str, Any] = read_field(value, "attributes", dict)
    total = sum(len(name) + len(read_field(found, name, str)) for name in found)
    if total > MAX_ATTRIBUTES:
        raise AgentProtocolError(f"an entry has {total} bytes of attributes")
    return found


async def _send(data: bytes | AsyncIterable[bytes], writer: PipeWriter) -> None:
    if isinstance(data, bytes):
        await writer.write(data, timeout=STALL)
        return
    async for chunk in data:
        await writer.write(chunk, timeout=STALL)


def _encode_attributes(attributes: FileAttributes | None) -> dict[str, object] | None:
    if attributes is None:
        return None
    return {"prefix": attributes.prefix, "values": dict(attributes.values)}


def _check_prefix(prefix: str | None) -> dict[str, object]:
    if prefix is not None:
        check_attributes_prefix(prefix)
    return {"attributes_prefix": prefix}


def _check_range(offset: int, length: int | None) -> None:
    check_whole("offset", offset, 0, _MAX_SIZE)
    if length is not None:
        check_whole("length", length, 0, _MAX_SIZE)


def _check_mode(mode: int | None) -> None:
    if mode is not None:
        check_whole("mode", mode, 0, _MAX_MODE)
