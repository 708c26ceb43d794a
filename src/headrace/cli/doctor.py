"""``headrace doctor``: what this machine offers, and what is enforced when it is tried for real."""

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence

import anyio
import click

from headrace.cli import sources
from headrace.cli.failure import ungrouped
from headrace.engine.config import REQUIREMENTS, IsolationReport, check_requirements
from headrace.engine.opening import open_engine
from headrace.engine.places import Places, find_places, is_root_mode
from headrace.engine.probe import Check, State, probe
from headrace.model.errors import HeadraceError
from headrace.model.events import ExecutionFinished, FinishReason
from headrace.model.specs import ExecutionRequest, SandboxSpec

_PATIENCE = 180.0
_REMEDIES = {
    "memory": "delegate a cgroup with the memory controller; until then a watchdog kills, later",
    "cpu": "delegate a cgroup with the cpu controller",
    "id_ranges": "run as root",
    "idmapped_mounts": "run as root on a kernel of at least 5.19",
}
_COLOURS = {State.PASS: "green", State.WARN: "yellow", State.FAIL: "red"}


@click.command("doctor", short_help="Say what this machine offers and what will be enforced.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--require", metavar="NAMES", multiple=True, help="Fail without these protections.")
@click.option("--mode", type=click.Choice(["auto", "root", "rootless"]), default="auto")
def command(*, as_json: bool, require: tuple[str, ...], mode: str) -> int:
    """Check this machine, start a sandbox for real and say what is enforced.

    The exit status is 0 if nothing fails and 1 otherwise.
    """
    names = sources.parse_names(require)
    check_requirements(names)
    places = find_places(mode, os.environ)
    checks = probe(places, is_root=is_root_mode(mode))
    checks += anyio.run(try_engine, mode, names, places)
    if as_json:
        print(as_document(checks))
    elif sys.stdout.isatty():
        _print_table(checks)
    else:
        print("\n".join(as_lines(checks)))
    return 1 if any(check.state is State.FAIL for check in checks) else 0


async def try_engine(mode: str, require: frozenset[str], places: Places) -> list[Check]:
    """Start an engine and a sandbox, run something in it, and judge what is enforced."""
    started = time.perf_counter()
    try:
        with ungrouped(TimeoutError), anyio.fail_after(_PATIENCE):
            async with open_engine(mode, frozenset(), places) as engine:
                seconds = time.perf_counter() - started
                checks = [
                    Check("engine", State.PASS, f"{engine.report.mode} mode, up in {seconds:.1f} s")
                ]
                checks += judge_report(engine.report, require)
                started = time.perf_counter()
                sandbox = await engine.create(SandboxSpec())
                execution = await sandbox.execute(ExecutionRequest("1 + 1"))
                finished = await execution.wait()
                checks.append(judge_first(finished, time.perf_counter() - started))
    except TimeoutError:
        return [Check("engine", State.FAIL, f"not up within {_PATIENCE:g} s", None)]
    except HeadraceError as error:
        return [Check("engine", State.FAIL, error.message, "see the failures above")]
    return checks


def judge_first(finished: ExecutionFinished, seconds: float) -> Check:
    """Judge the first execution in a new sandbox."""
    name = "sandbox"
    if finished.reason is FinishReason.OK:
        return Check(name, State.PASS, f"created and ran 1 + 1 in {seconds * 1000:.0f} ms")
    value = f"1 + 1 ended with {finished.reason}: {finished.detail}"
    return Check(name, State.FAIL, value, "see the failures above")


def judge_report(report: IsolationReport, require: frozenset[str]) -> list[Check]:
    """Judge each protection: enforced, not enforced, or not enforced though required."""
    return [_judge(name, report, is_required=name in require) for name in REQUIREMENTS]


def _judge(name: str, report: IsolationReport, *, is_required: bool) -> Check:
    label = f"enforced {name}"
    if name in report.enforced:
        return Check(label, State.PASS, "yes")
    value = f"no: {report.memory}" if name == "memory" else "no"
    if is_required:
        return Check(label, State.FAIL, f"{value}, but required", _REMEDIES.get(name))
    return Check(label, State.WARN, value, _REMEDIES.get(name))


def as_document(checks: Iterable[Check]) -> str:
    """Give the checks as JSON."""
    rows = [
        {"name": check.name, "state": check.state, "value": check.value, "remedy": check.remedy}
        for check in checks
    ]
    return json.dumps({"ok": all(row["state"] != State.FAIL for row in rows), "checks": rows})


def as_lines(checks: Sequence[Check]) -> list[str]:
    """Give the checks as lines that stay the same for programs that read them."""
    width = max((len(check.name) for check in checks), default=0)
    lines = []
    for check in checks:
        lines.append(f"{check.state}  {check.name:{width}}  {check.value}")
        if check.remedy is not None:
            lines.append(f"      to mend it: {check.remedy}")
    return lines


def _print_table(checks: Iterable[Check]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "what", "found", "to mend it")
    for check in checks:
        state = Text(check.state, style=_COLOURS[check.state])
        table.add_row(state, Text(check.name), Text(check.value), Text(check.remedy or ""))
    Console().print(table)
