"""Watching directories over RPC, as a stream or by asking again and again.

Neither goes on as if nothing were missing: when changes were lost, a stream ends with an error, and
the next request for a watcher's events fails once.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.codec.filesystem import (
    HAS_ENTRY,
    WatchedEvent,
    describe_change,
    encode_keepalive,
    encode_watch,
    find_fault,
)
from headrace.adapters.e2b.envd.paths import METADATA_PREFIX, absolute_path
from headrace.adapters.e2b.envd.rpc import Method, Outgoing, ServerStream, Unary
from headrace.adapters.e2b.following import Form
from headrace.adapters.e2b.schemas.filesystem import AtWatcher
from headrace.adapters.e2b.schemas.filesystem import Watch as WatchRequest
from headrace.adapters.e2b.watcher import Watcher
from headrace.engine.files import Files
from headrace.engine.watch import MAX_WATCHES, Watch
from headrace.model.errors import (
    HeadraceError,
    InvalidRequestError,
    NotFoundError,
    PathNotFoundError,
    PermissionDeniedError,
)
from headrace.model.events import FileChanged, WatchEvent
from headrace.model.files import FileInfo

_Changes = Sequence[WatchEvent]


class _Entries:
    """Looks up what is at the paths of events, once per path and batch."""

    def __init__(self, files: Files, directory: str, user: str) -> None:
        self._files = files
        self._directory = directory.rstrip("/")
        self._user = user

    async def add(self, batch: _Changes) -> list[WatchedEvent]:
        """Give the events with their entries; none where nothing is there any more."""
        found: dict[str, FileInfo | None] = {}
        events: list[WatchedEvent] = []
        for event in batch:
            entry = None
            if isinstance(event, FileChanged) and event.change in HAS_ENTRY:
                if event.path not in found:
                    found[event.path] = await self._find(event.path)
                entry = found[event.path]
            events.append((event, entry))
        return events

    async def _find(self, path: str) -> FileInfo | None:
        try:
            return await self._files.stat(
                f"{self._directory}/{path}", user=self._user, attributes_prefix=METADATA_PREFIX
            )
        except (PathNotFoundError, PermissionDeniedError, InvalidRequestError):
            return None


async def _watch(files: Files, path: str, request: WatchRequest, user: str) -> Watch:
    """Watch; the vendor's agent gives a new file to its user, so clients expect three changes."""
    return await files.watch(path, recursive=request.recursive, tells_modes=True, user=user)


async def watch_dir(outgoing: Outgoing, request: WatchRequest) -> None:
    """Tell changes as they happen, until the client goes or the directory is removed."""
    call = outgoing.call
    user = call.user
    path = absolute_path(request.path, user)
    files = call.files
    watch = await _watch(files, path, request, user)
    entries = _Entries(files, path, user)

    async def prepare(batch: _Changes) -> list[WatchedEvent]:
        _check(batch)
        if request.include_entry:
            return await entries.add(batch)
        return [(event, None) for event in batch]

    try:
        await outgoing.follow(watch.log, Form(encode_watch, encode_keepalive, prepare=prepare))
    finally:
        watch.abandon()


async def create_watcher(call: Call, request: WatchRequest) -> Mapping[str, Any]:
    """Watch a directory for a client that asks for its changes from time to time."""
    user = call.user
    path = absolute_path(request.path, user)
    watchers = call.registry.details(call.sandbox).watchers
    watch = await _watch(call.files, path, request, user)
    _forget_ended(watchers)
    watchers[watch.id] = Watcher(watch, user=user, includes_entry=request.include_entry)
    return {"watcherId": watch.id}


async def get_watcher_events(call: Call, request: AtWatcher) -> Mapping[str, Any]:
    """Give the changes since the last request, each once."""
    watcher = _find(call, request)
    taken = await watcher.take(lambda event: find_fault(event) is not None)
    _check(taken)
    events: Sequence[WatchedEvent] = [(event, None) for event in taken]
    if watcher.includes_entry:
        events = await _Entries(call.files, watcher.path, watcher.user).add(taken)
    changes = [
        describe_change(event, entry) for event, entry in events if isinstance(event, FileChanged)
    ]
    return {"events": changes}


async def remove_watcher(call: Call, request: AtWatcher) -> Mapping[str, Any]:
    """Watch no longer."""
    watcher = _find(call, request)
    del call.registry.details(call.sandbox).watchers[watcher.id]
    await watcher.close()
    return {}


def _find(call: Call, request: AtWatcher) -> Watcher:
    watcher = call.registry.details(call.sandbox).watchers.get(request.watcher_id)
    if watcher is None:
        raise NotFoundError(f"there is no watcher {request.watcher_id[:100]!r}")
    return watcher


def _forget_ended(watchers: dict[str, Watcher]) -> None:
    """Keep a bound on those that ended by themselves and that nobody removed."""
    ended = [each for each in watchers.values() if each.has_ended]
    for watcher in ended[: max(0, len(watchers) - MAX_WATCHES)]:
        del watchers[watcher.id]


def _check(batch: _Changes) -> None:
    """Raise an error if changes were lost, or the watch ended otherwise than it should."""
    for event in batch:
        fault = find_fault(event)
        if fault is not None:
            raise HeadraceError(fault)


METHODS: Mapping[str, Method] = {
    "/filesystem.Filesystem/WatchDir": ServerStream(WatchRequest, watch_dir),
    "/filesystem.Filesystem/CreateWatcher": Unary(WatchRequest, create_watcher),
    "/filesystem.Filesystem/GetWatcherEvents": Unary(AtWatcher, get_watcher_events),
    "/filesystem.Filesystem/RemoveWatcher": Unary(AtWatcher, remove_watcher),
}
