"""Opening an engine in its directories, and the privileges its process starts and ends with.

Started as root, the launcher keeps root and everything else becomes the service for good, as
soon as the launcher stands. Templates are shared by all engines of a user; logs are not, so that
several may run at the same time.
"""

import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from headrace.engine import privileges
from headrace.engine.config import EngineConfig, check_requirements
from headrace.engine.engine import Collaborators, Engine
from headrace.engine.meter import Meter, NoMeter
from headrace.engine.places import (
    ROOT_PLACES,
    Places,
    is_root_mode,
    make_own_directory,
    remove_abandoned,
)
from headrace.engine.privileges import ServiceIds


@asynccontextmanager
async def open_engine(
    mode: str,
    require: frozenset[str],
    places: Places,
    *,
    prepare: Callable[[ServiceIds | None], None] | None = None,
    meter: Meter | None = None,
    **settings: Any,  # noqa: ANN401 - fields of EngineConfig, which checks them
) -> AsyncIterator[Engine]:
    """Open an engine for this process; it is closed, and its logs deleted, at the end.

    Must be entered in a process with one thread. ``prepare`` is called after the directories
    were made and before root is given up, with the ids that the process will have (None: its
    own). ``settings`` are further fields of `EngineConfig`; without ``run`` among them the
    engine has a run of its own, beside others of the same user. Raises IsolationError where
    privileges cannot be separated or where less is enforced than ``require`` asks.
    """
    check_requirements(require)
    settings = {"pool_size": 0, "run": f"run-{secrets.token_hex(8)}", **settings}
    with _own_directories(mode, require, places, prepare, settings) as config:
        async with Engine.open(config, outside=Collaborators(meter=meter or NoMeter())) as engine:
            yield engine


@contextmanager
def _own_directories(
    mode: str,
    require: frozenset[str],
    places: Places,
    prepare: Callable[[ServiceIds | None], None] | None,
    settings: dict[str, Any],
) -> Iterator[EngineConfig]:
    run = settings["run"]
    logs = [places.state / "logs", places.runtime / "logs"]
    ids = _make_directories(mode, places, logs, run)
    if prepare is not None:
        prepare(ids)

    def become_service() -> None:
        if ids is not None and os.geteuid() == 0:
            visible = [*privileges.needed_paths(), places.state, places.runtime]
            privileges.drop(ids, visible)
        remove_abandoned(logs, time.time())

    if not is_root_mode(mode):
        become_service()
    try:
        yield EngineConfig(
            state_dir=places.state,
            runtime_dir=places.runtime,
            mode=mode,
            require=require,
            on_launched=become_service if is_root_mode(mode) else None,
            **settings,
        )
    finally:
        for directory in logs:
            shutil.rmtree(directory / run, ignore_errors=True)


def _make_directories(
    mode: str, places: Places, logs: Iterable[Path], run: str
) -> ServiceIds | None:
    """Make the directories while we may; give whom to become, or None for an ordinary user."""
    if os.geteuid() != 0:
        for directory in (places.state, places.runtime):
            make_own_directory(directory, os.getuid(), 0o700)
        for directory in logs:
            (directory / run).mkdir(mode=0o700, parents=True, exist_ok=True)
        return None
    ids = privileges.find_service_ids()
    for directory in (ROOT_PLACES.state, ROOT_PLACES.runtime):
        make_own_directory(directory, 0, 0o755)
    if not is_root_mode(mode):
        for directory in (places.state, places.runtime):
            privileges.prepare_directory(directory, ids)
    for directory in logs:
        privileges.prepare_directory(directory, ids)
        privileges.prepare_directory(directory / run, ids)
    return ids
