"""Environment variables and working directory of one execution, undone exactly afterwards."""

import os
from collections.abc import Mapping

from headrace_guest.capture import move_high

# Bound once: user code may bind the names to something else.
_environ = os.environ
_open = os.open
_close = os.close
_chdir = os.chdir
_fchdir = os.fchdir


class Surroundings:
    """What an execution runs in. `enter` may fail halfway: call `leave` all the same."""

    def __init__(self, variables: Mapping[str, str], directory: str | None) -> None:
        self._variables = variables
        self._directory = directory
        self._former: dict[str, str | None] = {}
        self._former_directory: int | None = None

    def enter(self) -> None:
        """Set the variables and go to the directory; raises OSError or ValueError naming it."""
        for name, value in self._variables.items():
            former = _environ.get(name)
            _environ[name] = value
            self._former[name] = former
        if self._directory is not None:
            self._former_directory = _open_current_directory()
            _chdir(self._directory)

    def leave(self) -> None:
        """Put back what `enter` changed, also where the code has changed it since."""
        for name, value in self._former.items():
            if value is None:
                _environ.pop(name, None)
            else:
                _environ[name] = value
        if self._former_directory is not None:
            _return_to(self._former_directory)


def _open_current_directory() -> int | None:
    try:
        fd = _open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        return move_high(fd)
    finally:
        _close(fd)


def _return_to(fd: int) -> None:
    try:
        _fchdir(fd)
        _close(fd)
    except OSError:
        return  # user code closed it, or may no longer enter the directory: stay where we are
