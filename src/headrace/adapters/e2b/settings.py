"""The bounds and choices of this dialect."""

from dataclasses import dataclass

from headrace.model.specs import MIB


@dataclass(frozen=True)
class E2bSettings:
    """The bounds of this dialect, in seconds and bytes.

    ``domain`` is the name below which servers in sandboxes have their host names, if it is not that
    of the request. With ``debug`` one sandbox is there for clients that ask for none and show no
    key. ``keepalive`` is the pause after which a silent execution says that it lives.
    ``max_upload`` bounds a file that is written; without it the disk of the sandbox decides.
    """

    domain: str | None = None
    debug: bool = False
    keepalive: float = 5.0
    max_body: int = 20 * MIB
    max_upload: int | None = None
