"""How programs of the same machine find the service, and how a second service finds the first.

Root makes both files before it gives itself up: the directory belongs to root, and the service
may only write into a file of its own there.
"""

import contextlib
import fcntl
import json
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Self

from headrace.engine.privileges import ServiceIds
from headrace.model.errors import ConflictError

LOCK = "server.lock"
FILE = "server.json"


class Claim:
    """The right to be the service of a runtime directory; the kernel ends it with the process."""

    def __init__(self, runtime: Path) -> None:
        """Take it; raises ConflictError that names the process that has it."""
        self._fd = _open_own(runtime / LOCK, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.pread(self._fd, 20, 0).decode("ascii", "replace").strip()
            os.close(self._fd)
            raise ConflictError(
                f"another server (process {pid or 'unknown'}) uses {runtime} already; stop it, or "
                "give this one directories of its own with engine.runtime_dir and engine.state_dir"
            ) from None
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def close(self) -> None:
        """Give it up."""
        os.close(self._fd)


class Discovery:
    """The file ``server.json``; empty while there is no service."""

    def __init__(self, runtime: Path, owner: ServiceIds | None = None) -> None:
        """Make it, or empty what a server that was killed left in it."""
        self._path = runtime / FILE
        self._fd = _open_own(self._path, 0o644)
        if owner is not None:
            os.fchown(self._fd, owner.uid, owner.gid)
        os.fchmod(self._fd, 0o644)
        os.ftruncate(self._fd, 0)

    def announce(self, url: str | None, socket: Path | None) -> None:
        """Say where the service is, once it takes requests."""
        fields = {"url": url, "socket": None if socket is None else str(socket), "pid": os.getpid()}
        os.pwrite(self._fd, json.dumps(fields).encode(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Say that there is no service any more."""
        os.ftruncate(self._fd, 0)
        os.close(self._fd)
        with contextlib.suppress(OSError):
            # Not allowed to a service that root started; an empty file says the same.
            self._path.unlink()


def _open_own(path: Path, mode: int) -> int:
    """Open a file to change it, or make it; never another file that somebody put in its place.

    The directory may belong to the service, which a guest may have taken over in an earlier life.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    fd = os.open(path, flags, mode)
    found = os.fstat(fd)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1:
        os.close(fd)
        raise ConflictError(f"{path} is not a file of ours; remove it")
    return fd
