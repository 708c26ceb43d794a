"""``headrace run``: reads programs, starts a private engine and runs them in one sandbox."""

import os
from dataclasses import dataclass
from typing import TypedDict, Unpack

import anyio
import click

from headrace.cli import exit_status, sources
from headrace.cli.failure import ungrouped
from headrace.cli.results import ResultsFolder
from headrace.cli.session import Session, SignalGate, Streams
from headrace.cli.sources import Source
from headrace.cli.terminal import LineSource, ReaderGoneError, open_outputs
from headrace.engine.config import check_requirements
from headrace.engine.opening import open_engine
from headrace.engine.places import Places, find_places
from headrace.model.specs import MAX_TIMEOUT, Limits, SandboxSpec


@dataclass(frozen=True, slots=True)
class RunPlan:
    """Everything that one ``headrace run`` was asked, checked."""

    sources: list[Source]
    spec: SandboxSpec
    timeout: float | None
    mode: str
    require: frozenset[str]
    places: Places
    has_input: bool


class RunOptions(TypedDict):
    """What click read from the command line."""

    files: tuple[str, ...]
    code: str | None
    language: str | None
    env: tuple[str, ...]
    timeout: str | None
    directory: str | None
    require: tuple[str, ...]
    mode: str


@click.command("run", short_help="Run a program in a sandbox and show its output live.")
@click.argument("files", nargs=-1, metavar="FILE|-...")
@click.option("-c", "code", metavar="CODE", help="Run this code instead of a file.")
@click.option("--language", metavar="NAME", help="The language, where the suffix does not say it.")
@click.option("--env", "env", metavar="NAME=VALUE", multiple=True, help="Set a variable inside.")
@click.option("--timeout", metavar="SECONDS", help="The time limit of each program.")
@click.option("--results", "directory", metavar="DIR", help="Save pictures and other results here.")
@click.option("--require", metavar="NAMES", multiple=True, help="Refuse to run without these.")
@click.option("--mode", type=click.Choice(["auto", "root", "rootless"]), default="auto")
def command(**options: Unpack[RunOptions]) -> int:
    """Run programs in a sandbox and show their output live.

    Each FILE gets a context of its own in the one sandbox, in order; - is standard input. The
    language follows the suffix. The exit status is the program's own.
    """
    plan = make_plan(options)
    directory = options["directory"]
    if directory is None:
        return anyio.run(_run, plan, None)
    with ResultsFolder(directory) as folder:
        return anyio.run(_run, plan, folder)


def make_plan(options: RunOptions) -> RunPlan:
    """Check everything that can be wrong with the request, before anything is made."""
    require = sources.parse_names(options["require"])
    check_requirements(require)
    return RunPlan(
        sources=sources.read_sources(options["files"], options["code"], options["language"]),
        # The sandbox lives as long as the command; the programs have limits of their own.
        spec=SandboxSpec(
            env=sources.parse_env(options["env"]), limits=Limits(lifetime=MAX_TIMEOUT)
        ),
        timeout=sources.parse_timeout(options["timeout"]),
        mode=options["mode"],
        require=require,
        places=find_places(options["mode"], os.environ),
        has_input=sources.STANDARD_INPUT not in options["files"],
    )


async def _run(plan: RunPlan, folder: ResultsFolder | None) -> int:
    gate = SignalGate()
    status = exit_status.FAILED
    try:
        with ungrouped(ReaderGoneError):
            async with anyio.create_task_group() as tasks:
                await tasks.start(gate.watch)
                with gate.scope:
                    status = await _run_in_sandbox(plan, folder, gate)
                tasks.cancel_scope.cancel()
    except ReaderGoneError:
        return exit_status.READER_GONE
    return status if gate.stopped_by is None else 128 + gate.stopped_by


async def _run_in_sandbox(plan: RunPlan, folder: ResultsFolder | None, gate: SignalGate) -> int:
    stdout, stderr = open_outputs()
    stdin = LineSource(0) if plan.has_input else None
    status = exit_status.FAILED
    async with open_engine(plan.mode, plan.require, plan.places) as engine:
        sandbox = await engine.create(plan.spec)
        session = Session(sandbox, Streams(stdout, stderr, stdin), folder, plan.timeout)
        with gate.guard(session):
            status = await session.run(plan.sources)
    return status
