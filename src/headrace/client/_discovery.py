"""Finds the service that runs on this machine: the files that it leaves for programs like us."""

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.client._shared.endpoint import KEY_VARIABLE, Endpoint, parse
from headrace.client.errors import ConnectionFailedError

_MAX_FILE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Places:
    """Where a service of this machine may keep its files; the same as those of the engine."""

    state: Path
    runtime: Path


def list_places(environ: Mapping[str, str], uid: int) -> Iterator[Places]:
    """Give the places of one's own service first, then those of the machine's."""
    root = Places(Path("/var/lib/headrace"), Path("/run/headrace"))
    if uid == 0:
        yield root
        yield Places(root.state / "rootless", root.runtime / "rootless")
        return
    own = Path(tempfile.gettempdir(), f"headrace-{uid}")
    state, runtime = environ.get("XDG_STATE_HOME"), environ.get("XDG_RUNTIME_DIR")
    home = environ.get("HOME")
    if not _is_absolute(state) and _is_absolute(home):
        state = f"{home}/.local/state"
    yield Places(
        Path(str(state), "headrace") if _is_absolute(state) else own / "state",
        Path(str(runtime), "headrace") if _is_absolute(runtime) else own / "runtime",
    )
    yield root


def _is_absolute(text: str | None) -> bool:
    return bool(text) and Path(str(text)).is_absolute()


def find_local(key: str | None, environ: Mapping[str, str], uid: int | None = None) -> Endpoint:
    """Give the service that runs here, with ``key`` or else with its own.

    Raises ConnectionFailedError that names the places that were looked at.
    """
    looked = []
    for places in list_places(environ, os.getuid() if uid is None else uid):
        path = places.runtime / "server.json"
        url = _read_url(path)
        looked.append(str(path))
        if url is not None:
            return parse(url, key or _read_key(places.state / "key"))
    raise ConnectionFailedError(
        f"no service runs on this machine (looked at {', '.join(looked)}); start one with "
        "'headrace serve'"
    )


def _read_url(path: Path) -> str | None:
    """Give where a service says that it is; its unix socket if this user may use that."""
    text = _read(path)
    if not text:
        return None
    try:
        record = json.loads(text)
        url, socket = record["url"], record["socket"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConnectionFailedError(f"{path} is not what a service writes: {error!r}") from error
    if isinstance(socket, str) and os.access(socket, os.W_OK):
        return f"unix://{socket}"
    return url if isinstance(url, str) else None


def _read_key(path: Path) -> str:
    text = _read(path)
    if not text:
        raise ConnectionFailedError(
            f"the key of the service on this machine, {path}, cannot be read; give api_key or set "
            f"{KEY_VARIABLE}"
        )
    return text


def _read(path: Path) -> str | None:
    try:
        with path.open("rb") as file:
            return file.read(_MAX_FILE).decode("utf-8", "replace").strip()
    except OSError:
        return None
