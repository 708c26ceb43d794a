"""What a client may say over the WebSocket; each message is one JSON object."""

import base64
import binascii
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from headrace.adapters.native.exchange import check_values, explain_refusal
from headrace.adapters.native.schemas import (
    MAX_SEQ,
    Body,
    Execute,
    Resize,
    SendInput,
    SendSignal,
    StartProcess,
)
from headrace.model.errors import InvalidRequestError
from headrace.model.specs import MIB
from headrace.wire.ndjson import decode_json

MAX_STDIN = 1 * MIB
"""The most that one message writes to a process."""

_MAX_REQUEST = 256

RequestName = Annotated[
    str | None, Field(max_length=_MAX_REQUEST, description="Any text; it comes back.")
]
Id = Annotated[str, Field(max_length=128)]


class ExecuteMessage(Execute):
    """Run code."""

    type: Literal["execute"]
    request: RequestName = None


class StartProcessMessage(StartProcess):
    """Run a command."""

    type: Literal["start_process"]
    request: RequestName = None


class FollowMessage(Body):
    """Send the events of an execution, a process or a watch."""

    type: Literal["follow"]
    request: RequestName = None
    id: Id
    after: int = Field(0, ge=0, le=MAX_SEQ)


class InterruptMessage(Body):
    """Ask code to stop."""

    type: Literal["interrupt"]
    request: RequestName = None
    id: Id


class InputMessage(SendInput):
    """Answer code that waits for input."""

    type: Literal["input"]
    request: RequestName = None
    id: Id


class StdinMessage(Body):
    """Write to the standard input or the terminal of a process."""

    type: Literal["stdin"]
    request: RequestName = None
    id: Id
    text: str | None = None
    base64: str | None = None

    def to_bytes(self) -> bytes:
        """Give what is to be written; raises InvalidRequestError."""
        if (self.text is None) == (self.base64 is None):
            raise InvalidRequestError("stdin: there must be either text or base64")
        if self.text is not None:
            data = self.text.encode()
        else:
            try:
                data = base64.b64decode(self.base64 or "", validate=True)
            except (binascii.Error, ValueError) as error:
                raise InvalidRequestError(f"stdin: base64 cannot be read: {error}") from error
        if len(data) > MAX_STDIN:
            raise InvalidRequestError(f"stdin: at most {MAX_STDIN} bytes at once, got {len(data)}")
        return data


class CloseStdinMessage(Body):
    """End the standard input of a process."""

    type: Literal["close_stdin"]
    request: RequestName = None
    id: Id


class KillMessage(Body):
    """Send SIGKILL to a process."""

    type: Literal["kill"]
    request: RequestName = None
    id: Id


class SignalMessage(SendSignal):
    """Send a signal to a process."""

    type: Literal["signal"]
    request: RequestName = None
    id: Id


class ResizeMessage(Resize):
    """Give a terminal another size."""

    type: Literal["resize"]
    request: RequestName = None
    id: Id


Message: TypeAlias = (
    ExecuteMessage
    | StartProcessMessage
    | FollowMessage
    | InterruptMessage
    | InputMessage
    | StdinMessage
    | CloseStdinMessage
    | KillMessage
    | SignalMessage
    | ResizeMessage
)

_ADAPTER: TypeAdapter[Message] = TypeAdapter(Annotated[Message, Field(discriminator="type")])


def check_message(data: bytes | str) -> Message:
    """Read a message; raises InvalidRequestError that says where it is wrong."""
    check_values(data, "the message")
    try:
        return _ADAPTER.validate_json(data)
    except ValidationError as error:
        raise explain_refusal(error, "the message") from None


def request_of(data: bytes | str) -> str | None:
    """Give the name of a request that was refused, if it can be found."""
    try:
        value = decode_json(data)
    except (ValueError, RecursionError):
        return None
    name = value.get("request") if isinstance(value, dict) else None
    return name if isinstance(name, str) and len(name) <= _MAX_REQUEST else None
