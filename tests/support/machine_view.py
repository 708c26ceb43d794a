"""A view of this machine without some of its programs, for launchers that are started meanwhile.

The launcher is started by a script in place of the interpreter. It covers /usr, in a mount
namespace of its own, with an overlay that hides the programs, and goes on as the
interpreter. Fork servers and sandboxes see what the launcher sees.
"""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_SCRIPT = """#!{python} -I
import os, stat, sys
from headrace_guest import linux

uid, gid = os.getuid(), os.getgid()
linux.unshare(linux.CLONE_NEWNS | (linux.CLONE_NEWUSER if uid else 0))
if uid:
    linux.write_file("/proc/self/setgroups", "deny")
    linux.write_file("/proc/self/uid_map", f"0 {{uid}} 1")
    linux.write_file("/proc/self/gid_map", f"0 {{gid}} 1")
linux.mount(None, "/", flags=linux.MS_REC | linux.MS_PRIVATE)
linux.mount("none", {at!r}, "tmpfs", 0, "mode=755")
for name in ("upper", "upper/bin", "work"):
    os.mkdir(f"{at}/{{name}}")
# Whiteouts, made by hand: /usr/bin belongs to an id that is unknown in a user namespace.
for name in {missing!r}:
    os.mknod(f"{at}/upper/bin/{{name}}", stat.S_IFCHR, 0)
options = "lowerdir=/usr,upperdir={at}/upper,workdir={at}/work"
linux.mount("none", "/usr", "overlay", 0, options + (",userxattr" if uid else ""))
os.execv({python!r}, [{python!r}, *sys.argv[1:]])
"""


@contextmanager
def machine_without(programs: Iterable[str], directory: Path) -> Iterator[None]:
    """Let launchers that are started meanwhile find none of these programs in /usr/bin."""
    at = directory / "cover"
    at.mkdir()
    script = directory / "interpreter"
    text = _SCRIPT.format(python=sys.executable, at=str(at), missing=tuple(programs))
    script.write_text(text)
    script.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(script))
        yield
