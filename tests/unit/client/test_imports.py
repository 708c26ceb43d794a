"""What importing the SDK brings in, and what it is to users."""

import subprocess
import sys
import types
from pathlib import Path

import pytest

import headrace

SERVER_SIDE = {
    *("starlette", "uvicorn", "uvloop", "httptools", "pydantic", "pydantic_settings", "structlog"),
    *("prometheus_client", "websockets", "IPython", "numpy", "pandas", "matplotlib"),
    *("headrace.server", "headrace.engine", "headrace.adapters"),
}


def modules_after(statement: str) -> set[str]:
    """Give what a fresh interpreter has imported after a statement."""
    code = f"{statement}\nimport sys; print('\\n'.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "statement",
    ["import headrace", "from headrace import *", "from headrace import Sandbox, AsyncSandbox"],
)
def test_no_server_package_is_imported(statement: str) -> None:
    assert sorted(modules_after(statement) & SERVER_SIDE) == []


def test_the_package_alone_imports_next_to_nothing() -> None:
    bare = modules_after("pass")
    added = {name for name in modules_after("import headrace") - bare if name != "headrace"}

    assert added == set()


def test_the_sync_face_imports_nothing_heavy() -> None:
    heavy = {"asyncio", "anyio", "ssl", "httpcore", "httpx", "subprocess", "click", "rich"}

    assert modules_after("from headrace import Sandbox") & heavy == set()


@pytest.mark.parametrize("name", headrace.__all__)
def test_a_public_name_exists(name: str) -> None:
    value = getattr(headrace, name)

    assert name in dir(headrace)
    assert not isinstance(value, types.ModuleType)


def test_no_other_name_does() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Sandbocks'"):
        headrace.Sandbocks  # type: ignore[attr-defined]  # noqa: B018 - that is the test


def test_checkers_see_the_names_that_programs_see() -> None:
    source = Path(headrace.__file__).read_text()
    shown = source.partition("if TYPE_CHECKING:")[2].partition("# Where each name")[0]

    assert [n for n in headrace.__all__ if n != "__version__" and f" {n}" not in shown] == []


@pytest.mark.parametrize("package", ["headrace", "headrace_guest"])
def test_packages_say_that_they_are_typed(package: str) -> None:
    import headrace_guest

    home = {"headrace": headrace, "headrace_guest": headrace_guest}[package]
    assert home.__file__ is not None
    assert (Path(home.__file__).parent / "py.typed").exists()
