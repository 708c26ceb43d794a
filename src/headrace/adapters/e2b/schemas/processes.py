"""What clients send to the process service: the JSON form of its protobuf messages.

An absent field, an explicit null and the field's default mean the same, unknown fields are
ignored, numbers may be text, bytes are base64. Of a oneof there must be exactly one.
"""

import base64
import binascii
import re
from typing import Annotated

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    StrictBool,
    StringConstraints,
    model_validator,
)

MAX_TAG = 1024
"""The longest tag, in characters; it is kept as long as the process is known."""

_MAX_UINT32 = 2**32 - 1
_DIGITS = re.compile(r"[0-9]{1,10}", re.ASCII)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


def read_number(value: object) -> int:
    """Read an integer, which may be a whole float or text; raises ValueError."""
    if type(value) is int:
        return value
    if type(value) is float and value.is_integer():
        return int(value)
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return int(value)
    raise ValueError("expected a whole number")


def read_bytes(value: object) -> bytes:
    """Read base64, in either alphabet, with or without padding; raises ValueError."""
    if not isinstance(value, str):
        raise ValueError("expected text in base64")  # noqa: TRY004 - pydantic wants this one
    data = value.encode("utf-8").translate(_URL_SAFE)
    if not data.endswith(b"="):
        data += b"=" * (-len(data) % 4)
    try:
        return base64.b64decode(data, validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from error


def read_list(value: object) -> object:
    """Read null as the list that it stands for."""
    return [] if value is None else value


Uint32 = Annotated[int, BeforeValidator(read_number), Field(ge=0, le=_MAX_UINT32)]
Base64 = Annotated[bytes, BeforeValidator(read_bytes)]
# Describing the faults of millions of words would take long.
Words = Annotated[list[str], FailFast(), BeforeValidator(read_list)]


class Message(BaseModel):
    """What all have in common."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Empty(Message):
    """A message without fields."""


class ProcessConfig(Message):
    """A command."""

    cmd: str | None = None
    args: Words = Field(default_factory=list)
    envs: dict[str, str] | None = None
    cwd: str | None = None


class Size(Message):
    """A terminal's size; what is 0 is left to us."""

    cols: Uint32 | None = None
    rows: Uint32 | None = None


class Pty(Message):
    """A terminal."""

    size: Size | None = None


class StartRequest(Message):
    """A command to start. Clients that do not know ``stdin`` expect that there is one."""

    process: ProcessConfig | None = None
    pty: Pty | None = None
    tag: Annotated[str, StringConstraints(max_length=MAX_TAG)] | None = None
    stdin: StrictBool | None = None


class ProcessSelector(Message):
    """Which process: by its pid or by the tag that it was started with."""

    pid: Uint32 | None = None
    tag: str | None = None

    @model_validator(mode="after")
    def _check(self) -> "ProcessSelector":
        if (self.pid is None) is (self.tag is None):
            raise ValueError("expected either pid or tag")
        return self

    @property
    def key(self) -> int | str:
        """What was selected by; an empty tag is never one of a process."""
        return self.pid if self.pid is not None else self.tag or ""


class Selected(Message):
    """A request that has nothing but its process: Connect, CloseStdin."""

    process: ProcessSelector


class ListRequest(Message):
    """A request for the processes that run."""


class UpdateRequest(Message):
    """A new size for a terminal."""

    process: ProcessSelector
    pty: Pty | None = None


class ProcessInput(Message):
    """What goes to the standard input, or to the terminal."""

    stdin: Base64 | None = None
    pty: Base64 | None = None

    @model_validator(mode="after")
    def _check(self) -> "ProcessInput":
        if (self.stdin is None) is (self.pty is None):
            raise ValueError("expected either stdin or pty")
        return self


class SendInputRequest(Message):
    """Input for a process."""

    process: ProcessSelector
    input: ProcessInput


class InputData(Message):
    """Input within a stream of it."""

    input: ProcessInput


class StreamInputRequest(Message):
    """One step of a stream of input: whose it is, some of it, or a sign of life."""

    start: Selected | None = None
    data: InputData | None = None
    keepalive: Empty | None = None

    @model_validator(mode="after")
    def _check(self) -> "StreamInputRequest":
        if [self.start, self.data, self.keepalive].count(None) != 2:
            raise ValueError("expected either start, data or keepalive")
        return self


class SendSignalRequest(Message):
    """A signal, by its name or number."""

    process: ProcessSelector
    signal: str | Annotated[int, BeforeValidator(read_number)] | None = None
