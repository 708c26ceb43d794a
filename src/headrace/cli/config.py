"""``headrace config show``: every setting of the service, and where its value is from."""

import json
import os
import sys
from typing import Any

import click

from headrace.cli.server_options import load, setting_options


@click.group("config", help="Show the settings of the service and where each is from.")
def command() -> None:
    """Only the subcommands do something."""


@command.command("show", short_help="Show every setting, its value and where it is from.")
@setting_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
def show(*, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """Show every setting, its value and where it is from.

    With the flags of `headrace serve` it shows what that would use. Keys are not shown.
    """
    rows = load(options, os.environ).rows()
    if as_json:
        names = ("name", "value", "origin")
        print(json.dumps({"settings": [dict(zip(names, row, strict=True)) for row in rows]}))
        return 0
    shown = [(name, _show(value), origin) for name, value, origin in rows]
    if sys.stdout.isatty():
        _print_table(shown)
        return 0
    widths = [max(len(row[column]) for row in shown) for column in (0, 1)]
    for name, value, origin in shown:
        print(f"{name:{widths[0]}}  {value:{widths[1]}}  {origin}")
    return 0


def _show(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _print_table(rows: list[tuple[str, str, str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("setting", "value", "from")
    for name, value, origin in rows:
        style = "dim" if origin == "default" else ""
        table.add_row(Text(name, style=style), Text(value, style=style), Text(origin, style=style))
    Console().print(table)
