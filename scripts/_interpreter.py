"""Says whether the interpreter that runs this file may carry Headrace, and why not.

`scripts/_setup` runs it with every Python that it finds, so old versions must be able to read
it. The service gives up root, and sandboxes run with ids of their own; a Python that only its
owner can read would then silently become another one, or none.

Prints ``ok``, the version, the real executable and ``pip`` or ``bare`` (ensurepip is missing),
or ``no`` and the reason.
"""

import importlib.util
import os
import stat
import sys
from pathlib import Path
from typing import List, Optional  # noqa: UP035 - old interpreters read this file

OLDEST = (3, 11)


def first_unreadable(path: Path) -> Optional[Path]:  # noqa: UP045 - old interpreters read this
    """Give the first part of ``path`` that not everybody may read or pass through, or None."""
    path = path.resolve()
    for part in [*reversed(path.parents), path]:
        mode = part.stat().st_mode
        wanted = stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
        if part == path:
            wanted |= stat.S_IROTH
        if mode & wanted != wanted:
            return part
    return None


def verdict() -> List[str]:  # noqa: UP006 - old interpreters read this file
    """Give the fields to print."""
    version = tuple(sys.version_info[:2])
    named = "{}.{}".format(*version)
    if version < OLDEST:
        return ["no", "is Python {}, the oldest that works is {}.{}".format(named, *OLDEST)]
    executable = Path(getattr(sys, "_base_executable", "") or sys.executable).resolve()
    for path in (executable, Path(sys.base_prefix), Path(os.__file__)):
        blocked = first_unreadable(path)
        if blocked is not None:
            return ["no", f"lies below {blocked}, which not every user may read"]
    # Debian puts ensurepip into a package of its own.
    spec = importlib.util.find_spec("ensurepip")
    return ["ok", named, str(executable), "pip" if spec and spec.origin else "bare"]


if __name__ == "__main__":
    sys.stdout.write("\t".join(verdict()) + "\n")
