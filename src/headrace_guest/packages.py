"""Installing packages from a cell: what is installed can be imported at once."""

# IPython is typed only in parts.
# mypy: allow-untyped-calls

import importlib
import os
import shlex
import site
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from IPython.core.magic import Magics, line_magic, magics_class

_DISTRIBUTIONS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
"""Often used modules whose distribution has another name."""


@magics_class
class PackageMagics(Magics):
    """``%pip`` for a kernel that was forked from a warm one."""

    @line_magic
    def pip(self, line: str) -> None:
        """Run pip for this Python, and say what of it this kernel cannot use."""
        __tracebackhide__ = True
        shell: Any = self.shell
        before = loaded_versions(sys.modules)
        shell.system(f"{shlex.quote(sys.executable)} -m pip {line}")
        changed = find_changed(before, loaded_versions(before))
        for note in explain(changed, shell.warm_modules):
            print(note)  # noqa: T201 - output of the user's cell


class PathFiles:
    """The ``.pth`` files beside the packages: they add directories, for editable installs."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._changed_at = self._time()
        self._known = self._list()

    def follow(self) -> None:
        """Do what files say that have come since this process began, or was forked from."""
        changed_at = self._time()
        if changed_at == self._changed_at:
            return
        self._changed_at = changed_at
        for name in sorted(self._list() - self._known):
            self._known.add(name)
            site.addpackage(self._directory, name, None)

    def _time(self) -> int:
        try:
            return os.stat(self._directory).st_mtime_ns  # noqa: PTH116 - each new kernel waits for it
        except OSError:
            return 0

    def _list(self) -> set[str]:
        try:
            return {path.name for path in Path(self._directory).glob("*.pth")}
        except OSError:
            return set()


path_files = PathFiles(sysconfig.get_path("purelib"))


def refresh_imports() -> None:
    """Have imports see what a command may have installed."""
    importlib.invalidate_caches()
    path_files.follow()
    home = Path.home() / ".local"
    user_site = sysconfig.get_path("purelib", "posix_user", {"userbase": str(home)})
    # In a virtual environment Python leaves the user's own packages out, and so do we.
    if sys.prefix == sys.base_prefix and user_site not in sys.path and Path(user_site).is_dir():
        site.addsitedir(user_site)


def loaded_versions(modules: Iterable[str]) -> dict[str, str | None]:
    """Give the installed version of each of these modules that is a package with a version."""
    versions: dict[str, str | None] = {}
    names = {name.partition(".")[0] for name in list(modules)}
    for name in names - sys.stdlib_module_names:
        try:
            versions[name] = metadata.version(_DISTRIBUTIONS.get(name, name))
        except (metadata.PackageNotFoundError, ValueError):
            versions[name] = None
    return versions


def find_changed(
    before: Mapping[str, str | None], after: Mapping[str, str | None]
) -> dict[str, tuple[str, str | None]]:
    """Give the versions, before and now, of each module that was replaced or removed."""
    return {
        name: (version, after.get(name))
        for name, version in sorted(before.items())
        if version is not None and after.get(name) != version
    }


def explain(changed: Mapping[str, tuple[str, str | None]], warm: frozenset[str]) -> list[str]:
    """Say in a line each what happens to modules that are loaded and were replaced."""
    notes = []
    for name, (old, new) in changed.items():
        now = "it was removed" if new is None else f"{new} was installed"
        if name in warm:
            how = "every Python context starts with it; only new processes (!python) see the change"
        else:
            how = "restart the context to see the change"
        notes.append(f"Note: {name} {old} stays loaded though {now}: {how}.")
    return notes
