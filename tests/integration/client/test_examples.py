"""Every example of the SDK does what it says, and so do the programs in its documents."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.integration.client.conftest import Service

ROOT = Path(__file__).parents[3]
EXAMPLES = ROOT / "examples" / "sdk"
PATIENCE = 50.0

EXPECTED = {
    "asking.py": "Ann gets 3 sacks\n",
    "asynchronous.py": "[\"'rye is flour now'\", \"'wheat is flour now'\"]\n",
    "background.py": "barley\nrye\nwheat\ntick\ninterrupted\n",
    "contexts.py": "in the context: 'rye'\noutside: name 'grain' is not defined\n"
    "after a restart: name 'grain' is not defined\n",
    "files.py": '"price":28}]\n5000000 bytes done\n5000000 bytes done\nfile harvest.bin 5000000\n',
    "quickstart.py": "ground 420 kg\n   grain   kg\n0    rye  120\n1  wheat  300\n"
    "the code failed: KeyError 'price'\n",
    "streaming.py": "[stdout] sack 3\nresult: 150\nended: ok\n",
    "terminal.py": "24 80\n",
}


def run(program: list[str], env: Mapping[str, str], directory: Path = ROOT) -> str:
    """Run a program and give what it said; it must succeed."""
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    done = subprocess.run(
        [sys.executable, *program],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**surroundings, **env},
        cwd=directory,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout.replace("\r\n", "\n")


def variables(service: Service) -> dict[str, str]:
    """Give the environment that names a service."""
    return {"HEADRACE_URL": service["url"], "HEADRACE_API_KEY": service["api_key"]}


def test_every_example_is_tested() -> None:
    assert sorted(path.name for path in EXAMPLES.glob("*.py")) == sorted(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_an_example_does_what_it_says(name: str, service: Service) -> None:
    assert EXPECTED[name] in run([str(EXAMPLES / name)], variables(service))


def test_the_quick_start_needs_no_service() -> None:
    assert EXPECTED["quickstart.py"] in run([str(EXAMPLES / "quickstart.py")], {})


def programs(document: str) -> list[str]:
    """Give the Python programs of a document."""
    text = (ROOT / "docs" / document).read_text()
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


DOCUMENTED = [
    pytest.param(program, id=f"{document}-{number}")
    for document in ("quickstart.md", "sdk.md")
    for number, program in enumerate(programs(document))
]


@pytest.mark.parametrize("program", DOCUMENTED)
def test_a_program_in_the_documents_runs(program: str, service: Service, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    # Pieces of the documents go on from a sandbox that is there already.
    if "Sandbox.create" not in program and "AsyncSandbox" not in program:
        program = f"from headrace import *\nsandbox = Sandbox.create()\n{program}\nsandbox.kill()\n"
    path.write_text(program)

    run([str(path)], variables(service), tmp_path)
