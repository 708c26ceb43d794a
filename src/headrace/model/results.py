"""Rich values: what code displays, as MIME bundles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
"""Whatever the json module can read."""


@dataclass(frozen=True, slots=True)
class Result:
    """One displayed value in all the forms that the kernel could make of it.

    ``bundle`` maps a MIME type to its representation: text as ``str``, binary formats
    (``image/png``, ``image/jpeg``, ``application/pdf``) as base64 ``str``, JSON formats as the
    JSON value. ``omitted`` maps MIME types that were too large to their size in bytes: they
    existed and were cut, on purpose and visibly. ``display_id`` names a display that may be
    updated later; ``is_update`` says that this result replaces the earlier one of that name.
    """

    bundle: Mapping[str, Json]
    is_main: bool = False
    omitted: Mapping[str, int] = field(default_factory=dict)
    display_id: str | None = None
    is_update: bool = False

    @property
    def text(self) -> str | None:
        """The plain-text form, if there is one."""
        value = self.bundle.get("text/plain")
        return value if isinstance(value, str) else None
