"""``headrace kill``: ends sandboxes, or processes in them, of a running service."""

import json

import anyio
import click

from headrace.cli.remote import Where, service_options, where
from headrace.client._async.sandbox import AsyncSandbox
from headrace.model.errors import InvalidRequestError, NotFoundError
from headrace.model.ids import sandbox_of

_NOT_THERE = 1


@click.command("kill", short_help="End sandboxes of a running service, or processes in them.")
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="End all sandboxes of this key.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@service_options
def command(
    *,
    ids: tuple[str, ...],
    everything: bool,
    as_json: bool,
    url: str | None,
    api_key: str | None,
) -> int:
    """End sandboxes, or single processes, by their ids.

    The exit status is 1 if one of them was not there.
    """
    if bool(ids) == everything:
        raise InvalidRequestError("name the ids of what is to be ended, or use --all")
    outcome = anyio.run(_kill, ids, where(url, api_key))
    if as_json:
        print(json.dumps({"killed": outcome}))
    else:
        for thing, was_there in outcome.items():
            print(f"{thing}: {'ended' if was_there else 'not there'}")
    return 0 if all(outcome.values()) else _NOT_THERE


async def _kill(ids: tuple[str, ...], service: Where) -> dict[str, bool]:
    if not ids:
        ids = tuple([info.id async for info in AsyncSandbox.list(**service)])
    return {thing: await _kill_one(thing, service) for thing in ids}


async def _kill_one(thing: str, service: Where) -> bool:
    owner = sandbox_of(thing)
    if owner is None:
        raise InvalidRequestError(f"{thing!r} is no id of a sandbox or a process")
    try:
        sandbox = await AsyncSandbox.connect(owner, **service)
        try:
            if thing == owner:
                return await sandbox.kill()
            return await (await sandbox.commands.connect(thing)).kill()
        finally:
            await sandbox.aclose()
    except NotFoundError:
        return False
