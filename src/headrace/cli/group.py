"""The subcommands, each imported when it is called, and how failures are told."""

import importlib
import sys
from collections.abc import Sequence

import click

from headrace import __version__
from headrace.cli import exit_status
from headrace.model.errors import HeadraceError, InvalidRequestError

COMMANDS = {
    "bench": "Measure how fast sandboxes are on this machine.",
    "config": "Show the settings of the service and where each is from.",
    "doctor": "Say what this machine offers and what will be enforced.",
    "keys": "Add, list and revoke API keys.",
    "kill": "End sandboxes of a running service, or processes in them.",
    "logs": "Show what an execution or a process wrote.",
    "ls": "List the sandboxes of a running service.",
    "run": "Run a program in a sandbox and show its output live.",
    "serve": "Serve sandboxes over HTTP.",
    "shell": "Open a terminal in a sandbox of a running service.",
}


class LazyGroup(click.Group):
    """A group that knows its commands' names and imports the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Give the names in the order of the help text."""
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module ``headrace.cli.<name>`` and give its ``command``."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"headrace.cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of commands without importing any."""
        with formatter.section("Commands"):
            formatter.write_dl(sorted(COMMANDS.items()))


@click.group(cls=LazyGroup, help="Run untrusted code in isolated sandboxes on this machine.")
@click.version_option(__version__, prog_name="headrace", message="%(prog)s %(version)s")
def headrace() -> None:
    """Only the subcommands do something."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line; every failure becomes one line on stderr and an exit status."""
    try:
        status = headrace.main(list(arguments), prog_name="headrace", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except click.Abort:
        return exit_status.INTERRUPTED
    except InvalidRequestError as error:
        return fail(error.message, exit_status.USAGE)
    except HeadraceError as error:
        return fail(f"{error.code}: {error.message}", exit_status.FAILED)
    return status if isinstance(status, int) else 0


def fail(message: str, status: int) -> int:
    """Say what is wrong on stderr and give the status back."""
    print(f"headrace: {message}", file=sys.stderr)
    return status
