"""What the commands for a running service share: where it is, and how things are shown."""

import os
import time
from collections.abc import Callable, Mapping
from typing import Any, TypedDict, TypeVar

import click

from headrace.client._shared.endpoint import LOCAL, URL_VARIABLE

F = TypeVar("F", bound=Callable[..., Any])


class Where(TypedDict):
    """The arguments of the SDK that say which service is meant."""

    url: str
    api_key: str | None


def service_options(command: F) -> F:
    """Add ``--url`` and ``--api-key``."""
    for option in (
        click.option("--api-key", metavar="KEY", help="The key; else HEADRACE_API_KEY."),
        click.option(
            "--url", metavar="URL", help="The service; or HEADRACE_URL, or this machine's."
        ),
    ):
        command = option(command)
    return command


def where(url: str | None, api_key: str | None, environ: Mapping[str, str] = os.environ) -> Where:
    """Decide which service is meant: what was said, the environment's, or that of this machine."""
    return Where(url=url or environ.get(URL_VARIABLE) or LOCAL, api_key=api_key)


def age(then: float, now: float | None = None) -> str:
    """Give how long ago, or in how long, a point in time is, in its largest unit."""
    seconds = abs((time.time() if now is None else now) - then)
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
