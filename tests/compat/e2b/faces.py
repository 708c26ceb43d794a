"""The faces of E2B's SDKs that are tested: their packages, and where their tests are."""

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path

from tests.support.vendor import NodeEnvironment, PythonEnvironment
from tests.support.vendor_cases import Case, find_cases

HERE = Path(__file__).parent
RUNNER = ("pytest>=8.3", "pytest-timeout>=2.3", "anyio>=4.12")

PYTHON = PythonEnvironment("e2b.python", ("e2b==2.63.0", "e2b-code-interpreter==2.11.5", *RUNNER))
NODE = NodeEnvironment("e2b.node", ("e2b@2.51.0", "@e2b/code-interpreter@2.8.0"))
PYTHON_LATEST = PythonEnvironment("e2b.latest.python", ("e2b", "e2b-code-interpreter", *RUNNER))
NODE_LATEST = NodeEnvironment("e2b.latest.node", ("e2b@latest", "@e2b/code-interpreter@latest"))
SMOLAGENTS = PythonEnvironment(
    "e2b.smolagents",
    ("smolagents[e2b]==1.26.0", "e2b==2.63.0", "e2b-code-interpreter==2.11.5", *RUNNER),
)
COMPUTESDK = NodeEnvironment(
    "e2b.computesdk", ("computesdk@4.1.4", "@computesdk/e2b@1.7.52", "e2b@2.51.0")
)


class Face(StrEnum):
    """One SDK in one manner of calling it."""

    PYTHON = "python"
    PYTHON_ASYNC = "python_async"
    JAVASCRIPT = "javascript"


DIRECTORIES = {
    Face.PYTHON: ("python_sync", "python_sync_only"),
    Face.PYTHON_ASYNC: ("python_async", "python_async_only"),
    Face.JAVASCRIPT: ("javascript", "javascript_long"),
}
PLUGINS = {Face.PYTHON: "face_sync", Face.PYTHON_ASYNC: "face_async", Face.JAVASCRIPT: ""}
"""The module in ``shared`` with the fixtures."""


SMOKE = ("documents", "acceptance")
"""The topics whose tests tell whether an SDK is of any use."""


def cases_of(face: Face) -> Sequence[Case]:
    """Give the tests of a face."""
    return find_cases(HERE / name for name in DIRECTORIES[face])
