"""The command ``headrace``: finds the subcommand and turns its outcome into an exit status.

Whatever costs time to import is imported when it is needed, so that ``--version`` and ``--help``
answer at once.
"""

import os
import sys
from collections.abc import Sequence

from headrace import __version__


def main() -> None:
    """Run the command line of this process and exit."""
    plug_standard_descriptors()
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command line and give its exit status."""
    if list(arguments) == ["--version"]:
        print(f"headrace {__version__}")
        return 0
    from headrace.cli import group

    return group.run(arguments)


def plug_standard_descriptors() -> None:
    """Open /dev/null at each of the descriptors 0 to 2 that is closed.

    Otherwise the next file or socket that we open would get that number and receive the
    program's output.
    """
    while True:
        fd = os.open(os.devnull, os.O_RDWR)
        if fd > 2:
            os.close(fd)
            return
        os.set_inheritable(fd, True)


if __name__ == "__main__":
    main()
