"""Starts the launcher or a fork server: ``python -I <this file> launcher|fork-server FD``.

It is started by its path, so that a checkout works like an installed package and nothing of the
starter's environment (current directory, PYTHONPATH) has a say in what is imported.
"""

import sys
from pathlib import Path


def main() -> None:
    """Run the role named by the first argument on the socket of the second one."""
    role, fd = sys.argv[1], int(sys.argv[2])
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.dont_write_bytecode = True
    if role == "launcher":
        from headrace_guest import launcher  # the fork servers do not need it

        launcher.main(fd)
    else:
        from headrace_guest import zygote

        zygote.main(fd)


if __name__ == "__main__":
    main()
