"""``headrace ls``: the sandboxes of a running service."""

import dataclasses
import json
import sys
from collections.abc import Iterable, Sequence

import anyio
import click

from headrace.cli.remote import Where, age, service_options, where
from headrace.cli.sources import parse_pairs
from headrace.client._async.sandbox import AsyncSandbox
from headrace.client._shared.values import SandboxInfo

_COLUMNS = ("id", "state", "template", "made", "ends in", "metadata")


@click.command("ls", short_help="List the sandboxes of a running service.")
@click.option("--metadata", metavar="NAME=VALUE", multiple=True, help="Only those with this.")
@click.option("--state", type=click.Choice(["running", "paused"]), help="Only those in this state.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@service_options
def command(
    *,
    metadata: tuple[str, ...],
    state: str | None,
    as_json: bool,
    url: str | None,
    api_key: str | None,
) -> int:
    """List the sandboxes of a running service, the oldest first."""
    wanted = parse_pairs("--metadata", metadata)
    found = anyio.run(_list, wanted, state, where(url, api_key))
    if as_json:
        print(json.dumps({"sandboxes": [dataclasses.asdict(info) for info in found]}))
    elif sys.stdout.isatty():
        print_table(found)
    else:
        for row in map(as_row, found):
            print("\t".join(row))
    return 0


async def _list(
    metadata: dict[str, str], state: str | None, service: Where
) -> Sequence[SandboxInfo]:
    return [info async for info in AsyncSandbox.list(metadata=metadata, state=state, **service)]


def as_row(info: SandboxInfo) -> tuple[str, ...]:
    """Give what is shown of a sandbox."""
    pairs = ", ".join(f"{name}={value}" for name, value in info.metadata.items())
    ends = "" if info.ends_at is None else age(info.ends_at)
    return info.id, info.state, info.template, f"{age(info.created_at)} ago", ends, _plain(pairs)


def _plain(text: str) -> str:
    """Show what a client chose without letting it steer the terminal."""
    return "".join(sign if sign.isprintable() else "\ufffd" for sign in text)


def print_table(found: Iterable[SandboxInfo], width: int | None = None) -> None:
    """Print a table for people, as wide as the terminal unless told otherwise."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(*_COLUMNS)
    for info in found:
        table.add_row(*map(Text, as_row(info)))
    Console(width=width).print(table)
