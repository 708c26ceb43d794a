"""``headrace serve``: reads the settings and is the service until something ends it."""

import os
import sys
from typing import Any

import click

from headrace.cli import exit_status
from headrace.cli.failure import ungrouped
from headrace.cli.server_options import load, setting_options
from headrace.model.errors import InvalidRequestError


@click.command("serve", short_help="Serve sandboxes over HTTP.")
@setting_options
@click.option("--exit-with", type=int, metavar="PID", help="Belong to that process, end with it.")
@click.option("--ready-fd", type=int, metavar="N", help="Tell this descriptor when ready.")
def command(exit_with: int | None, ready_fd: int | None, **options: Any) -> int:  # noqa: ANN401 - click's
    """Serve sandboxes over HTTP until SIGTERM or Ctrl-C.

    Settings come from flags, the environment (HEADRACE_PORT=8000) and a file; `headrace config
    show` names all of them. When requests are taken, a line says where, and where the key is.
    """
    # First of all, so that no end of that process is missed.
    owner_fd = _open_owner(exit_with)
    _check_descriptor(ready_fd)
    usual: dict[str, object] = {"engine.pool_size": 1, "logs.level": "warning"}
    configuration = load(options, os.environ, **(usual if exit_with is not None else {}))
    from headrace.server import logs, service
    from headrace.server.directories import choose_places
    from headrace.server.ends import Owner

    settings = configuration.settings
    logs.configure(settings.logs)
    owner = Owner(owner_fd) if owner_fd is not None else None
    plan = service.Plan(settings, choose_places(settings), _say, owner, ready_fd)
    with ungrouped():
        return exit_status.FAILED if service.run(plan) else 0


def _open_owner(pid: int | None) -> int | None:
    if pid is None:
        return None
    try:
        return os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError) as error:
        raise InvalidRequestError(f"--exit-with: there is no process {pid}") from error


def _check_descriptor(fd: int | None) -> None:
    if fd is None:
        return
    try:
        os.fstat(fd)
    except (OSError, OverflowError) as error:
        raise InvalidRequestError(f"--ready-fd: descriptor {fd} is not open") from error


def _say(text: str) -> None:
    try:
        print(text, flush=True)
    except OSError:
        # Nobody listens, which is no reason not to serve.
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - stays open until the end
