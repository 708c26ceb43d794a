"""The messages to the filesystem service, as proto3's JSON has them.

Names come in camel case or as in the schema, absent and null mean the default, and what is
unknown is passed over.
"""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictStr, model_validator
from pydantic.alias_generators import to_camel

_LARGEST = 2**32 - 1
_MAX_SOURCES = 10_000


class Message(BaseModel):
    """The base of the messages."""

    model_config = ConfigDict(
        extra="ignore", frozen=True, populate_by_name=True, alias_generator=to_camel
    )

    @model_validator(mode="before")
    @classmethod
    def drop_nulls(cls, value: Any) -> Any:  # noqa: ANN401 - any JSON comes in
        """Take null for absent."""
        if isinstance(value, dict):
            return {name: each for name, each in value.items() if each is not None}
        return value


class AtPath(Message):
    """The request of Stat, MakeDir and Remove."""

    path: StrictStr = ""


class Move(Message):
    """The request of Move."""

    source: StrictStr = ""
    destination: StrictStr = ""


class ListDir(Message):
    """The request of ListDir; a depth of 0 is 1."""

    path: StrictStr = ""
    depth: Annotated[int, Field(ge=0, le=_LARGEST)] = 0


class Watch(Message):
    """The request of WatchDir and CreateWatcher.

    Network mounts, which a client may allow or not, are none in a sandbox.
    """

    path: StrictStr = ""
    recursive: StrictBool = False
    include_entry: StrictBool = False


class AtWatcher(Message):
    """The request of GetWatcherEvents and RemoveWatcher."""

    watcher_id: StrictStr = ""


class Compose(BaseModel):
    """The body of ``POST /files/compose``, which is not RPC."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    source_paths: Annotated[list[str], Field(min_length=1, max_length=_MAX_SOURCES)]
    destination: Annotated[str, Field(min_length=1)]
    username: str | None = None
