"""Running file requests whose child, inside the sandbox, writes into a pipe for us."""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping
from types import TracebackType
from typing import Any, Self

import anyio

from headrace.engine.agent import AgentConnection, AgentRequest
from headrace.engine.pipes import PipeClosedError, PipeReader, open_pipe
from headrace.model.errors import AgentProtocolError, HeadraceError
from headrace_guest.protocol import ProtocolError, clean_json, decode_body

MAX_LINE = 64 * 1024
STALL = 60.0
"""How many seconds a transfer may stand still."""

_CLEANUP = 5.0


class Transfer:
    """A running file request whose child writes into a pipe for us."""

    def __init__(self, agent: AgentConnection, fields: Mapping[str, object]) -> None:
        self._agent = agent
        self._fields = fields
        self._reader: PipeReader | None = None
        self._request: AgentRequest | None = None

    async def __aenter__(self) -> Self:
        read_end, write_end = open_pipe()
        self._reader = PipeReader(read_end)
        try:
            self._request = await self._agent.begin("file", self._fields, [write_end])
        except BaseException:
            self._reader.close()
            raise
        finally:
            os.close(write_end)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        if self._request is not None and self._request.reply is None:
            await break_off(self._agent, self._request)
        if self._reader is not None:
            self._reader.close()

    async def read(self, timeout: float = STALL) -> bytes:  # noqa: ASYNC109 - passed on
        """Give the next piece, nothing at the end."""
        if self._reader is None:
            raise PipeClosedError("nothing is being read")
        return await self._reader.read(timeout=timeout)

    async def end(self) -> Mapping[str, Any]:
        """Give the answer to the request; raises what went wrong."""
        if self._request is None:
            raise PipeClosedError("nothing is being read")
        return await self._agent.reply_to(self._request, timeout=STALL)


class Lines(Transfer):
    """The JSON objects, one per line, that the child of a file request writes."""

    async def follow(self, patience: float = STALL) -> AsyncIterator[Mapping[str, Any]]:
        """Give them as they come; raises DeadlineError if none came for ``patience`` seconds."""
        rest = b""
        while chunk := await self.read(patience):
            *lines, rest = (rest + chunk).split(b"\n")
            if len(rest) > MAX_LINE:
                raise AgentProtocolError(f"a line has more than {MAX_LINE} bytes")
            for line in lines:
                yield _read_line(line)
        if rest:
            raise AgentProtocolError("the last line is not finished")


async def break_off(agent: AgentConnection, request: AgentRequest) -> None:
    """Cancel a running request and wait, within a bound, until it has ended."""
    with anyio.move_on_after(_CLEANUP, shield=True), contextlib.suppress(HeadraceError):
        await agent.cancel(request)
        await request.replied.wait()


def _read_line(line: bytes) -> Mapping[str, Any]:
    try:
        value = clean_json(decode_body(line))
    except ProtocolError as error:
        raise AgentProtocolError(f"a line is not valid: {error}") from error
    return value if isinstance(value, dict) else {}
