"""What is installed from a cell can be imported at once, and what cannot be used is said."""

import importlib
import os
import sys
import sysconfig
import types
from pathlib import Path

import pytest

from headrace_guest.packages import (
    PathFiles,
    explain,
    find_changed,
    loaded_versions,
    refresh_imports,
)


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test change where modules come from."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "path_importer_cache", dict(sys.path_importer_cache))


@pytest.mark.usefixtures("imports")
def test_a_directory_that_came_later_is_seen(tmp_path: Path) -> None:
    later = tmp_path / "later"
    sys.path.append(str(later))
    assert importlib.util.find_spec("headrace_test_later") is None
    later.mkdir()
    (later / "headrace_test_later.py").write_text("")
    refresh_imports()
    assert importlib.util.find_spec("headrace_test_later") is not None


@pytest.mark.usefixtures("imports")
@pytest.mark.parametrize("is_virtual", [False, True])
def test_the_users_own_packages_are_seen_where_python_would_see_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_virtual: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", "/venv" if is_virtual else sys.base_prefix)
    place = sysconfig.get_path("purelib", "posix_user", {"userbase": f"{tmp_path}/.local"})
    refresh_imports()
    assert place not in sys.path
    Path(place).mkdir(parents=True)
    refresh_imports()
    assert (place in sys.path) is not is_virtual


@pytest.mark.usefixtures("imports")
def test_only_new_files_of_paths_are_followed(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
    (tmp_path / "old.pth").write_text(str(tmp_path / "old"))
    files = PathFiles(str(tmp_path))
    (tmp_path / "new.pth").write_text(str(tmp_path / "new"))
    os.utime(tmp_path, ns=(1, 1))
    files.follow()
    files.follow()
    assert sys.path.count(str(tmp_path / "new")) == 1
    assert str(tmp_path / "old") not in sys.path


def test_a_missing_directory_of_packages_is_no_obstacle(tmp_path: Path) -> None:
    PathFiles(str(tmp_path / "missing")).follow()


def test_versions_are_those_of_the_distributions() -> None:
    versions = loaded_versions(["numpy.linalg", "numpy", "PIL.Image", "os", "headrace_nothing"])
    assert set(versions) == {"numpy", "PIL", "headrace_nothing"}
    assert versions["PIL"] is not None
    assert versions["headrace_nothing"] is None


def test_strange_module_names_have_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, ".x", types.ModuleType("x"))
    assert loaded_versions(["", ".x", "a b"])[""] is None


def test_what_was_replaced_or_removed_has_changed() -> None:
    before = {"same": "1", "newer": "1", "gone": "1", "unknown": None}
    after = {"same": "1", "newer": "2", "gone": None, "unknown": "2"}
    assert find_changed(before, after) == {"gone": ("1", None), "newer": ("1", "2")}


def test_the_notes_say_what_helps() -> None:
    notes = explain({"click": ("8", "9"), "numpy": ("2", None)}, frozenset({"numpy"}))
    assert notes == [
        "Note: click 8 stays loaded though 9 was installed: restart the context to see the change.",
        "Note: numpy 2 stays loaded though it was removed: every Python context starts with it; "
        "only new processes (!python) see the change.",
    ]
