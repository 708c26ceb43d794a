"""Starts the launcher or a fork server: ``python -I <this file> launcher|fork-server|inside FD``.

It is started by its path, so that a checkout works like an installed package and nothing of the
starter's environment (current directory, PYTHONPATH) has a say in what is imported.
"""

import resource
import signal
import sys
from pathlib import Path


def main() -> None:
    """Run the role named by the first argument on the socket of the second one."""
    role, fd = sys.argv[1], int(sys.argv[2])
    sys.path[0] = str(Path(__file__).resolve().parent.parent)
    sys.dont_write_bytecode = True
    from headrace_guest import linux

    # The guests' descriptors on their way count against this limit, too; unix(7).
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if role == "launcher":
        from headrace_guest import launcher  # the fork servers do not need it

        launcher.main(fd)
    elif role == "fork-server":
        # Before anything that could fail: a fork server must not outlive its launcher.
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
        from headrace_guest import entry

        entry.main(fd)
    else:
        from headrace_guest import zygote

        zygote.main(fd, int(sys.argv[3]))


if __name__ == "__main__":
    main()
