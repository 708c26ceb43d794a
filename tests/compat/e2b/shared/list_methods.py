"""Prints the public methods of the SDK as JSON, one list per face."""

import inspect
import json
import sys

from e2b.sandbox_async.commands.command import Commands as AsyncCommands
from e2b.sandbox_async.commands.pty import Pty as AsyncPty
from e2b.sandbox_async.filesystem.filesystem import Filesystem as AsyncFilesystem
from e2b.sandbox_async.git import Git as AsyncGit
from e2b.sandbox_sync.commands.command import Commands
from e2b.sandbox_sync.commands.pty import Pty
from e2b.sandbox_sync.filesystem.filesystem import Filesystem
from e2b_code_interpreter import (
    AsyncCommandHandle,
    AsyncSandbox,
    AsyncSandboxPaginator,
    AsyncWatchHandle,
    CommandHandle,
    Git,
    Sandbox,
    SandboxPaginator,
    WatchHandle,
)

NAMES = ("Sandbox", "paginator", "commands", "handle", "pty", "files", "watch", "git")
SYNC = (Sandbox, SandboxPaginator, Commands, CommandHandle, Pty, Filesystem, WatchHandle, Git)
ASYNC = (
    AsyncSandbox,
    AsyncSandboxPaginator,
    AsyncCommands,
    AsyncCommandHandle,
    AsyncPty,
    AsyncFilesystem,
    AsyncWatchHandle,
    AsyncGit,
)


def methods(classes: tuple[type, ...]) -> list[str]:
    """Give the public methods of these classes."""
    return [
        f"{name}.{method}"
        for name, kind in zip(NAMES, classes, strict=True)
        for method, value in inspect.getmembers(kind)
        if callable(value) and not method.startswith("_")
    ]


json.dump({"python": methods(SYNC), "python_async": methods(ASYNC)}, sys.stdout)
