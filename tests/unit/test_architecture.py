"""The lint contracts cover what was added since they were written."""

import tomllib
from pathlib import Path

import pytest

import headrace_guest

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
OPEN_TO_THE_HOST = {"protocol", "linux"}


def test_the_host_is_kept_away_from_every_guest_module() -> None:
    contracts = tomllib.loads(PROJECT.read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["name"] == "The host sees only the guest protocol"]
    package = Path(headrace_guest.__file__).parent
    modules = {path.stem for path in package.glob("[a-z]*.py")} - OPEN_TO_THE_HOST
    modules |= {path.parent.name for path in package.glob("*/__init__.py")}
    assert {
        name.removeprefix("headrace_guest.") for name in contract["forbidden_modules"]
    } == modules


@pytest.mark.parametrize("package", ["headrace", "headrace_guest"])
def test_no_file_is_longer_than_one_can_keep_in_mind(package: str) -> None:
    for path in (PROJECT.parent / "src" / package).rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 500, path
