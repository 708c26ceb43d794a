"""``headrace keys``: adds, lists and revokes API keys; a running service notices by itself."""

import json
import os
import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.server_options import config_option, load
from headrace.model.specs import DEFAULT_TENANT

if TYPE_CHECKING:  # the server is an extra
    from headrace.server.keys import KeyFile, KeyRecord


@click.group("keys", help="Add, list and revoke API keys. A running service notices by itself.")
def command() -> None:
    """Only the subcommands do something."""


def _json_option(function: Any) -> Any:  # noqa: ANN401 - a decorator
    return click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")(
        function
    )


@command.command("add", short_help="Make a key and show it, this once.")
@config_option
@_json_option
@click.option("--tenant", default=DEFAULT_TENANT, metavar="NAME", help="Whose key it is.")
@click.option("--name", default="", metavar="TEXT", help="What it is for.")
def add(*, as_json: bool, tenant: str, name: str, **options: Any) -> int:  # noqa: ANN401 - click's
    """Make a key and show it. It is kept as a hash only, so it is never shown again."""
    file = _open(options)
    record, key = file.add(tenant, name, time.time())
    if as_json:
        print(json.dumps({**_describe(record), "key": key}))
        return 0
    print(key)
    sys.stdout.flush()
    print(
        f"headrace: key {record.id} of tenant {tenant!r} is shown only now; "
        f"its hash is in {file.path}",
        file=sys.stderr,
    )
    return 0


@command.command("list", short_help="List the keys, not what they are.")
@config_option
@_json_option
def list_keys(*, as_json: bool, **options: Any) -> int:  # noqa: ANN401 - click's
    """List the keys that `headrace keys add` made. The keys themselves are not known."""
    records = _open(options).read()
    if as_json:
        print(json.dumps({"keys": [_describe(record) for record in records]}))
        return 0
    for record in records:
        print(f"{record.id}  {_when(record):20}  {record.tenant}  {record.name}".rstrip())
    return 0


@command.command("revoke", short_help="Make a key worthless.")
@config_option
@click.argument("key_id", metavar="ID")
def revoke(*, key_id: str, **options: Any) -> int:  # noqa: ANN401 - click's
    """Make the key with that ID worthless, within a second also for a service that runs.

    What it was used for before goes on: sandboxes belong to the tenant, not to the key.
    """
    record = _open(options).revoke(key_id)
    print(f"headrace: key {record.id} of tenant {record.tenant!r} is revoked", file=sys.stderr)
    return 0


def _open(options: dict[str, Any]) -> "KeyFile":
    settings = load(options, os.environ).settings
    from headrace.server.directories import open_key_file

    return open_key_file(settings)


def _describe(record: "KeyRecord") -> dict[str, object]:
    return {
        "id": record.id,
        "tenant": record.tenant,
        "name": record.name,
        "created_at": record.created_at,
    }


def _when(record: "KeyRecord") -> str:
    return datetime.fromtimestamp(record.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S")
