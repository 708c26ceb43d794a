"""The directories of the service and the files with its keys, in every mode.

In root mode they belong to root and the service, which is not root then, only reads: the local
key is root's alone, the file of hashes can also be read by the group of the service.
"""

import os
from pathlib import Path

from headrace.engine.places import (
    ROOT_PLACES,
    Places,
    find_places,
    is_root_mode,
    make_own_directory,
)
from headrace.engine.privileges import ServiceIds, find_service_ids, prepare_directory
from headrace.server.keys import KeyFile
from headrace.server.settings import Settings

LOCAL_KEY = "key"
KEYS = "keys.json"


def choose_places(settings: Settings) -> Places:
    """Give the directories: those of the settings, or else those of mode and user."""
    engine = settings.engine
    usual = find_places(engine.mode, os.environ)
    return Places(
        (engine.state_dir or usual.state).absolute(),
        (engine.runtime_dir or usual.runtime).absolute(),
    )


def make_root_directories(settings: Settings, places: Places) -> None:
    """Make those of root mode where they are not the usual ones, which the engine makes."""
    if is_root_mode(settings.engine.mode):
        for directory in (places.state, places.runtime):
            make_own_directory(directory, 0, 0o755)


def open_key_file(settings: Settings) -> KeyFile:
    """Give the file of keys, in a directory that is made if need be."""
    state = choose_places(settings).state
    if os.geteuid() != 0:
        make_own_directory(state, os.getuid(), 0o700)
        return KeyFile(state / KEYS)
    ids = find_service_ids()
    _make_state(settings, state, ids)
    return KeyFile(state / KEYS, ids)


def _make_state(settings: Settings, state: Path, ids: ServiceIds) -> None:
    if is_root_mode(settings.engine.mode):
        make_own_directory(state, 0, 0o755)
        return
    make_own_directory(ROOT_PLACES.state, 0, 0o755)
    prepare_directory(state, ids)
