"""Files and directories over RPC."""

from collections.abc import Mapping
from typing import Any

from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.codec.filesystem import describe_entry
from headrace.adapters.e2b.envd.paths import METADATA_PREFIX, absolute_path
from headrace.adapters.e2b.envd.rpc import Method, Unary
from headrace.adapters.e2b.schemas.filesystem import AtPath, ListDir, Move
from headrace.model.errors import InvalidRequestError

_MAX_DEPTH = 2**31


async def stat(call: Call, request: AtPath) -> Mapping[str, Any]:
    """Tell what is at a path; a symbolic link is told of as what it is."""
    user = call.user
    return await _show(call, absolute_path(request.path, user), user)


async def list_dir(call: Call, request: ListDir) -> Mapping[str, Any]:
    """Tell what is below a directory."""
    user = call.user
    found = await call.files.list(
        absolute_path(request.path, user),
        depth=min(request.depth or 1, _MAX_DEPTH),
        user=user,
        attributes_prefix=METADATA_PREFIX,
    )
    return {"entries": [describe_entry(each) for each in found]}


async def make_dir(call: Call, request: AtPath) -> Mapping[str, Any]:
    """Make a directory, and those above it."""
    user = call.user
    path = absolute_path(request.path, user)
    await call.files.make_dir(path, parents=True, user=user)
    return await _show(call, path, user)


async def move(call: Call, request: Move) -> Mapping[str, Any]:
    """Move or rename; the directory it goes to is made if need be."""
    user = call.user
    if not (request.source and request.destination):
        raise InvalidRequestError("a move needs a source and a destination")
    source, destination = (
        absolute_path(each, user) for each in (request.source, request.destination)
    )
    await call.files.move(source, destination, create_parents=True, user=user)
    return await _show(call, destination, user)


async def remove(call: Call, request: AtPath) -> Mapping[str, Any]:
    """Remove what is at a path, with all that is in it; nothing there is fine."""
    user = call.user
    if not request.path:
        # The home directory with all that is in it would be a costly default.
        raise InvalidRequestError("a path is needed to remove something")
    path = absolute_path(request.path, user)
    await call.files.remove(path, recursive=True, missing_ok=True, user=user)
    return {}


async def _show(call: Call, path: str, user: str) -> Mapping[str, Any]:
    entry = await call.files.stat(path, user=user, attributes_prefix=METADATA_PREFIX)
    return {"entry": describe_entry(entry)}


METHODS: Mapping[str, Method] = {
    "/filesystem.Filesystem/Stat": Unary(AtPath, stat),
    "/filesystem.Filesystem/ListDir": Unary(ListDir, list_dir),
    "/filesystem.Filesystem/MakeDir": Unary(AtPath, make_dir),
    "/filesystem.Filesystem/Move": Unary(Move, move),
    "/filesystem.Filesystem/Remove": Unary(AtPath, remove),
}
