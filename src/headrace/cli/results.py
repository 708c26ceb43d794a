"""Rich results: their text form, and their other forms as files with stable names."""

import base64
import binascii
import contextlib
import json
import os
import re
import select
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import anyio

from headrace.cli.results_writer import ANSWER, MAX_FILE, REQUEST, Answer, start_writer
from headrace.model.errors import InvalidRequestError, LimitExceededError, SandboxFailedError
from headrace.model.results import Json, Result

_DEADLINE = 30.0
_PATIENCE_MS = 5000

_SUFFIXES = {
    "application/javascript": "js",
    "application/json": "json",
    "application/pdf": "pdf",
    "application/vnd.headrace.chart+json": "chart.json",
    "application/vnd.headrace.data+json": "data.json",
    "image/gif": "gif",
    "image/jpeg": "jpg",
    "image/png": "png",
    "image/svg+xml": "svg",
    "image/webp": "webp",
    "text/html": "html",
    "text/latex": "tex",
    "text/markdown": "md",
}
_NUMBERED = re.compile(r"result-([0-9]{1,9})\.")


def text_form(result: Result) -> str:
    """Give what stands for the result among the program's output."""
    if result.text is not None:
        return result.text
    forms = ", ".join([*result.bundle, *result.omitted])
    return f"<{forms or 'an empty result'}>"


def has_picture(result: Result) -> bool:
    """Say whether the text form leaves out something that a file would show."""
    return any(mime.startswith("image/") or mime == "application/pdf" for mime in result.bundle)


def is_for_people(mime: str) -> bool:
    """Say whether a form would be missed by somebody who only reads the output."""
    return not mime.endswith("json")


def file_forms(result: Result) -> Iterator[tuple[str, bytes]]:
    """Give the suffix and the bytes of every form but the plain text."""
    for mime, value in result.bundle.items():
        if mime != "text/plain":
            yield suffix_of(mime), encode_form(mime, value)


def suffix_of(mime: str) -> str:
    """Make a file's suffix, of ``[a-z0-9.-]`` only, from a MIME type that a guest sent."""
    known = _SUFFIXES.get(mime)
    if known is not None:
        return known
    kind = re.sub(r"[^a-z0-9]+", "-", mime.partition("/")[2].lower()).strip("-")
    if kind.endswith("-json"):
        return f"{kind[:30].removesuffix('-json')}.json"
    return kind[:30].strip("-") or "bin"


def encode_form(mime: str, value: Json) -> bytes:
    """Turn one form of a result into the bytes of its file."""
    if not isinstance(value, str):
        return (json.dumps(value, ensure_ascii=False, indent=1) + "\n").encode()
    is_binary = mime == "application/pdf" or (
        mime.startswith("image/") and not mime.endswith("+xml")
    )
    if is_binary:
        with contextlib.suppress(binascii.Error, ValueError):
            return base64.b64decode("".join(value.split()), validate=True)
    return value.encode("utf-8", "replace")


def first_free_number(directory: Path) -> int:
    """Give the number behind the highest that a file in ``directory`` has."""
    found = (_NUMBERED.match(path.name) for path in directory.iterdir())
    return max((int(match[1]) for match in found if match), default=0) + 1


class ResultsFolder:
    """A directory for results, open before privileges are dropped; an ordinary context manager.

    Must be made while this process has one thread, because it forks.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        try:
            path = Path(directory)
            path.mkdir(parents=True, exist_ok=True)
            self._number = first_free_number(path)
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise InvalidRequestError(f"cannot use --results {directory!r}: {reason}") from error
        try:
            self.pid, self._socket = start_writer(fd)
        finally:
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the socket, on which the child ends, and reap it."""
        self._socket.close()
        pidfd = os.pidfd_open(self.pid)
        try:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if poll.poll(_PATIENCE_MS):
                os.waitpid(self.pid, 0)
        finally:
            os.close(pidfd)

    async def save(self, result: Result) -> list[str]:
        """Write every form but the text to a file of its own; give the paths.

        Raises LimitExceededError beyond the bounds of one run and SandboxFailedError if the
        directory cannot be written.
        """
        forms = list(file_forms(result))
        if not forms:
            return []
        paths = []
        for suffix, data in forms:
            while not await self._write(name := f"result-{self._number:03}.{suffix}", data):
                self._number += 1
            paths.append(str(Path(self._directory) / name))
        self._number += 1
        return paths

    async def _write(self, name: str, data: bytes) -> bool:
        """Write one file; False if the name is taken."""
        if len(data) > MAX_FILE:
            raise LimitExceededError(
                f"{name} has {len(data)} bytes; a result's file may have {MAX_FILE}"
            )
        encoded = name.encode()
        with anyio.fail_after(_DEADLINE):
            await self._send(REQUEST.pack(len(encoded), len(data)) + encoded)
            await self._send(data)
            code, size = ANSWER.unpack(await self._receive(ANSWER.size))
            detail = (await self._receive(size)).decode("utf-8", "replace")
        if code == Answer.FAILED:
            raise SandboxFailedError(f"cannot write {name} in {self._directory!r}: {detail}")
        return bool(code == Answer.WRITTEN)

    async def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            await anyio.wait_writable(self._socket)
            with contextlib.suppress(BlockingIOError):
                view = view[self._socket.send(view) :]

    async def _receive(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            await anyio.wait_readable(self._socket)
            with contextlib.suppress(BlockingIOError):
                chunk = self._socket.recv(count - len(data))
                if not chunk:
                    raise SandboxFailedError(
                        f"the writer of {self._directory!r} has ended unexpectedly"
                    )
                data += chunk
        return data
