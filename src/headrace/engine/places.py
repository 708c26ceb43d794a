"""The directories of an engine: where they are for whom, who may own them, what is left there."""

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from headrace.model.errors import InvalidRequestError, IsolationError

_ABANDONED_AFTER = 60.0


@dataclass(frozen=True, slots=True)
class Places:
    """The directories of the service: for what must last, and for what is gone at its end."""

    state: Path
    runtime: Path


ROOT_PLACES = Places(Path("/var/lib/headrace"), Path("/run/headrace"))


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
