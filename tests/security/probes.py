"""Probes: functions whose source runs inside a sandbox and gives a JSON-able verdict."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from tests.security import prelude
from tests.support.running import run_process, run_python

_PRELUDE = Path(prelude.__file__).read_text()
PYTHON = f"{sys.prefix}/bin/python"
"""The interpreter, at the same place inside a sandbox as outside."""


class Place(StrEnum):
    """Where hostile code may run."""

    KERNEL = "kernel"
    PROCESS = "process"
    ROOT = "in_sandbox_root"
    SUDO = "in_sandbox_root_by_sudo"


class Probe(Protocol):
    """Runs a function's source somewhere and gives what it returned."""

    async def __call__(self, function: Callable[..., Any], *arguments: Any) -> Any: ...


def source_of(function: Callable[..., Any], arguments: tuple[Any, ...]) -> str:
    """Give a program that calls the function and prints its verdict as one line of JSON."""
    text = json.dumps([list(arguments)])
    return (
        f"{_PRELUDE}\n{inspect.getsource(function)}\n"
        f"import json, resource, subprocess, sys, threading\n"
        f"verdict = {function.__name__}(*json.loads({text!r})[0])\n"
        f"print('verdict', json.dumps(verdict), flush=True)\n"
    )


def verdict_in(output: str) -> Any:
    """Find the verdict among what the program printed."""
    lines = [line for line in output.splitlines() if line.startswith("verdict ")]
    assert lines, f"the probe gave no verdict but {output[-2000:]!r}"
    return json.loads(lines[-1].removeprefix("verdict "))


async def probe_in(
    sandbox: Sandbox, place: Place, function: Callable[..., Any], *arguments: Any
) -> Any:
    """Run a function's source at a place of a sandbox and give what it returned."""
    code = source_of(function, arguments)
    if place is Place.KERNEL:
        outcome = await run_python(sandbox, code)
        assert outcome.finished.reason is FinishReason.OK, outcome.events[-2:]
        return verdict_in(outcome.stdout)
    user = "root" if place is Place.ROOT else "user"
    prefix = ("sudo", "-n") if place is Place.SUDO else ()
    done = await run_process(sandbox, *prefix, PYTHON, "-I", "-c", code, user=user)
    assert done.exited.exit_code == 0, (done.exited, done.stderr[-2000:])
    return verdict_in(done.stdout)


def outside(function: Callable[..., Any], *arguments: Any, in_namespaces: bool = False) -> Any:
    """Run the same source on the host: the control that shows what the sandbox prevents.

    With ``in_namespaces`` it is root of namespaces of its own, so that what it does to mounts,
    names and networks harms nobody.
    """
    command = [sys.executable, "-I", "-c", source_of(function, arguments)]
    if in_namespaces:
        flags = ["--user", "--map-root-user", "--mount", "--uts", "--ipc", "--net", "--fork"]
        command = ["unshare", *flags, *command]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=50, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return verdict_in(done.stdout)
