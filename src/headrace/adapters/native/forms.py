"""The forms that an answer can have, and which of them a client likes best."""

from contextlib import suppress
from functools import lru_cache
from typing import Final

from headrace.adapters.native.errors import NotAcceptableError

JSON: Final = "application/json"
SSE: Final = "text/event-stream"
NDJSON: Final = "application/x-ndjson"
BYTES: Final = "application/octet-stream"

_REMEMBERED = 200


def choose_form(accept: str | None, offered: tuple[str, ...]) -> str:
    """Give the form that the client likes best; raises NotAcceptableError.

    Among those that it likes equally the first offered wins (RFC 9110, section 12.5.1).
    """
    if accept is None or not accept.strip():
        return offered[0]
    if len(accept) > _REMEMBERED:
        return _choose.__wrapped__(accept, offered)
    return _choose(accept, offered)


@lru_cache(maxsize=256)
def _choose(accept: str, offered: tuple[str, ...]) -> str:
    ranges = [_read_range(part) for part in accept.split(",")]
    liking = {form: _liking(form, ranges) for form in offered}
    best = max(offered, key=lambda form: liking[form])
    if liking[best] <= 0:
        raise NotAcceptableError(
            f"Accept allows none of {', '.join(offered)}: {accept[:200]!r}", offered=list(offered)
        )
    return best


def _read_range(part: str) -> tuple[str, float]:
    kind, *parameters = part.split(";")
    quality = 1.0
    for parameter in parameters:
        name, _, value = parameter.strip().partition("=")
        if name.lower() == "q":
            with suppress(ValueError):
                quality = min(max(float(value), 0.0), 1.0)
    return kind.strip().lower(), quality


def _liking(form: str, ranges: list[tuple[str, float]]) -> float:
    """Give the quality of the most specific range that has this form in it; 0 if none has."""
    family = form.partition("/")[0]
    for wanted in (form, f"{family}/*", "*/*"):
        found = [quality for kind, quality in ranges if kind == wanted]
        if found:
            return max(found)
    return 0.0
