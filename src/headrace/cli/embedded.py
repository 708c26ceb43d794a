"""The private engine of one command: its directories, and the privileges it starts and ends with.

Started as root, the launcher keeps root and everything else becomes the service for good, as
soon as the launcher stands. Templates are shared by all commands; logs are not, so that commands
may run at the same time.
"""

import fcntl
import os
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from headrace.engine import privileges
from headrace.engine.config import EngineConfig, check_requirements
from headrace.engine.engine import Engine
from headrace.engine.privileges import ServiceIds
from headrace.engine.probe import Places
from headrace.model.errors import InvalidRequestError, IsolationError

ROOT_PLACES = Places(Path("/var/lib/headrace"), Path("/run/headrace"))
_ABANDONED_AFTER = 60.0


@dataclass(frozen=True)
class EmbeddedConfig(EngineConfig):
    """The settings of an engine that shares its directories with others of its kind."""

    run: str = "run"

    @property
    def log_runtime_dir(self) -> Path:
        """Where the small logs of this command are."""
        return self.runtime_dir / "logs" / self.run

    @property
    def log_state_dir(self) -> Path:
        """Where the long logs of this command are."""
        return self.state_dir / "logs" / self.run


def is_root_mode(mode: str) -> bool:
    """Say whether sandboxes will run in root mode; raises InvalidRequestError if they cannot."""
    if mode == "root" and os.geteuid() != 0:
        raise InvalidRequestError(
            f"--mode root needs root; this process has uid {os.geteuid()}", mode=mode
        )
    return mode != "rootless" and os.geteuid() == 0


def find_places(mode: str, environ: Mapping[str, str]) -> Places:
    """Give the directories for this mode and user."""
    if is_root_mode(mode):
        return ROOT_PLACES
    if os.geteuid() == 0:
        return Places(ROOT_PLACES.state / "rootless", ROOT_PLACES.runtime / "rootless")
    return user_places(environ, os.getuid())


def user_places(environ: Mapping[str, str], uid: int) -> Places:
    """Give an ordinary user's directories, after the XDG rules where their variables are set."""
    own_temporary = Path(tempfile.gettempdir(), f"headrace-{uid}")
    state = _absolute(environ.get("XDG_STATE_HOME"))
    home = _absolute(environ.get("HOME"))
    runtime = _absolute(environ.get("XDG_RUNTIME_DIR"))
    if state is None and home is not None:
        state = home / ".local" / "state"
    return Places(
        state / "headrace" if state else own_temporary / "state",
        runtime / "headrace" if runtime else own_temporary / "runtime",
    )


def _absolute(text: str | None) -> Path | None:
    path = Path(text) if text else None
    return path if path is not None and path.is_absolute() else None


@asynccontextmanager
async def open_engine(
    mode: str, require: frozenset[str], places: Places, *, pool_size: int = 0
) -> AsyncIterator[Engine]:
    """Open an engine for this command; it is closed, and its logs deleted, at the end.

    Must be entered in a process with one thread. Raises IsolationError where privileges cannot
    be separated or where less is enforced than ``require`` asks.
    """
    check_requirements(require)
    with _own_logs(mode, require, places, pool_size) as config:
        async with Engine.open(config) as engine:
            yield engine


@contextmanager
def _own_logs(
    mode: str, require: frozenset[str], places: Places, pool_size: int
) -> Iterator[EmbeddedConfig]:
    run = f"run-{secrets.token_hex(8)}"
    logs = [places.state / "logs", places.runtime / "logs"]
    ids = _prepare(mode, places, logs, run)

    def become_service() -> None:
        if ids is not None and os.geteuid() == 0:
            visible = [*privileges.needed_paths(), places.state, places.runtime]
            privileges.drop(ids, visible)
        remove_abandoned(logs, time.time())

    if not is_root_mode(mode):
        become_service()
    try:
        yield EmbeddedConfig(
            state_dir=places.state,
            runtime_dir=places.runtime,
            mode=mode,
            pool_size=pool_size,
            require=require,
            on_launched=become_service if is_root_mode(mode) else None,
            run=run,
        )
    finally:
        for directory in logs:
            shutil.rmtree(directory / run, ignore_errors=True)


def _prepare(mode: str, places: Places, logs: Iterable[Path], run: str) -> ServiceIds | None:
    """Make the directories while we may; give whom to become, or None for an ordinary user."""
    if os.geteuid() != 0:
        for directory in (places.state, places.runtime):
            make_own_directory(directory, os.getuid(), 0o700)
        for directory in logs:
            (directory / run).mkdir(mode=0o700, parents=True)
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


def make_own_directory(path: Path, uid: int, mode: int) -> None:
    """Make a directory that nobody but ``uid`` can write to, or see that it is one.

    What a launcher builds here is shown to sandboxes, so nobody else may have prepared it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=mode)
        path.chmod(mode)
    except FileExistsError:
        found = path.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != uid or found.st_mode & 0o022:
            raise IsolationError(
                f"{path} must be a directory of uid {uid} that nobody else can write to; "
                f"it has uid {found.st_uid} and mode {found.st_mode & 0o7777:04o}"
            ) from None


def remove_abandoned(directories: Iterable[Path], now: float) -> None:
    """Delete the logs of commands that were killed: nobody holds their lock any more."""
    for directory in directories:
        for path in directory.glob("run-*"):
            if _is_abandoned(path, now):
                shutil.rmtree(path, ignore_errors=True)


def _is_abandoned(path: Path, now: float) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(fd).st_mtime < now - _ABANDONED_AFTER
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
