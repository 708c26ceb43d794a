"""Running vendor-side tests with the vendor's interpreter, and what each of them came to.

The runner, pytest or Node's own, writes one line of JSON per test that has ended, so that a test
of ours can be judged while the others still run, and a run that hangs has told what it knew.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.vendor_cases import Case

REPORT_VARIABLE = "HEADRACE_TEST_REPORT"
_BESIDE = Path(__file__).with_name("vendor_side")
_TEST_TIMEOUT = 60
"""Seconds for one vendor-side test."""
_TAIL = 6000
_REPORT = "report.jsonl"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one vendor-side test ended; ``text`` is what its runner has to say about it."""

    passed: bool
    text: str


@dataclass
class Run:
    """A runner that is at work in a process of its own; `stop` ends it."""

    process: "subprocess.Popen[bytes]"
    report: Path
    output: Path
    deadline: float
    _outcomes: dict[tuple[str, str], list[Outcome]] = field(default_factory=dict)
    _read: int = 0

    def outcome(self, case: Case) -> Outcome:
        """Wait until this test has ended, or the runner, and give the outcome."""
        key = (case.path.name, case.name)
        while key not in self._outcomes:
            has_ended = self.process.poll() is not None
            self._look()
            if key in self._outcomes:
                break
            if has_ended:
                return Outcome(False, f"the runner ended without this test:\n{self._tail()}")
            if time.monotonic() > self.deadline:
                return Outcome(False, f"the runner did not come to this test:\n{self._tail()}")
            time.sleep(0.02)
        outcomes = self._outcomes[key]
        return Outcome(
            all(outcome.passed for outcome in outcomes),
            "\n".join(outcome.text for outcome in outcomes if not outcome.passed),
        )

    def stop(self) -> None:
        """End the runner with all that it started."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def _look(self) -> None:
        if not self.report.exists():
            return
        with self.report.open("rb") as report:
            report.seek(self._read)
            whole = report.read().rpartition(b"\n")[0]
        self._read += len(whole) + 1 if whole else 0
        for line in whole.splitlines():
            told = json.loads(line)
            key = (told["file"], told["name"])
            outcome = Outcome(told["passed"], told["text"])
            self._outcomes.setdefault(key, []).append(outcome)

    def _tail(self) -> str:
        return self.output.read_text(errors="replace")[-_TAIL:]


@dataclass(frozen=True, slots=True)
class Job:
    """What a runner is to do, for how many seconds at most; ``directory`` is for what it writes.

    ``plugin`` is the module with fixtures, for Python.
    """

    cases: Sequence[Case]
    directory: Path
    variables: Mapping[str, str]
    patience: float
    plugin: str = ""


def start_python(python: Path, job: Job) -> Run:
    """Run tests with the vendor's pytest, with the modules that are shared beside their files."""
    root = Path(os.path.commonpath([case.path.parents[1] for case in job.cases]))
    plugins = ["report_lines", job.plugin] if job.plugin else ["report_lines"]
    command = [
        *(str(python), "-m", "pytest", "-c", "/dev/null", "--rootdir", str(root)),
        *("--noconftest", "--import-mode", "importlib", "-p", "no:cacheprovider"),
        *(word for plugin in plugins for word in ("-p", plugin)),
        *("-o", "anyio_mode=auto", "--timeout", str(_TEST_TIMEOUT), "--tb=short", "-q"),
        *(f"{case.path}::{case.name}" for case in job.cases),
    ]
    search = os.pathsep.join([str(_BESIDE), str(root / "shared")])
    more = {"PYTHONPATH": search, "PYTHONDONTWRITEBYTECODE": "1"}
    return _start(command, job, more)


def start_node(node: Path, place: Path, job: Job) -> Run:
    """Run tests with Node's test runner, with the packages in ``place``.

    Node looks for packages beside the file that imports them, so the files are copied.
    """
    for source in {case.path.parent for case in job.cases}:
        shutil.copytree(source, job.directory, dirs_exist_ok=True)
    (job.directory / "node_modules").symlink_to(place / "node_modules")
    command = [
        *(str(node), "--test", "--test-concurrency", "3"),
        *("--test-timeout", str(_TEST_TIMEOUT * 2000)),
        *("--test-reporter", str(_BESIDE / "report_lines.mjs")),
        *("--test-reporter-destination", str(job.directory / _REPORT)),
        *(f"--test-name-pattern=^{re.escape(case.name)}$" for case in job.cases),
        *sorted({str(job.directory / case.path.name) for case in job.cases}),
    ]
    return _start(command, job, {})


def _start(command: Sequence[str], job: Job, more: Mapping[str, str]) -> Run:
    report = job.directory / _REPORT
    output = job.directory / "output"
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command,
            cwd=job.directory,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            env={**_environment(), **job.variables, **more, REPORT_VARIABLE: str(report)},
            process_group=0,
        )
    return Run(process, report, output, time.monotonic() + job.patience)


def _environment() -> dict[str, str]:
    unwanted = ("E2B_", "HEADRACE_", "PYTHON", "PYTEST", "NODE_", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}


def stop_all(runs: Iterable[Run]) -> None:
    """End every runner."""
    for run in runs:
        run.stop()
