"""``headrace bench``: measure what the design promises, on this machine, and print it.

It judges nothing: machines are noisy, so compare medians of one run with each other.
"""

import json
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles

import anyio
import click

from headrace.cli import bench_contexts
from headrace.engine.engine import Engine
from headrace.engine.opening import open_engine
from headrace.engine.places import find_places
from headrace.engine.sandbox import Sandbox
from headrace.model.events import ExecutionEvent, OutputWritten, ResultDisplayed
from headrace.model.specs import MIB, ExecutionRequest, Limits, SandboxSpec

PANDAS = "import pandas as pd\npd.DataFrame({'a': [1, 2]}).sum().a"
PATIENCE = 120.0


@click.command("bench", short_help="Measure how fast sandboxes are on this machine.")
@click.option("--rounds", type=click.IntRange(3, 1000), default=30, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
@click.option("--http", "over_http", is_flag=True, help="Measure a private service over HTTP.")
@click.option("--mode", type=click.Choice(["auto", "root", "rootless"]), default="auto")
def command(*, rounds: int, as_json: bool, over_http: bool, mode: str) -> int:
    """Measure on this machine: from creating a sandbox to its first result, output, kills.

    With --http a private service is started and measured by the SDK and by a bare client, in the
    mode that it chooses. Machines are noisy: compare figures of one run with each other, not
    those of two.
    """
    if over_http:
        from headrace.cli import bench_http

        samples = bench_http.measure(rounds)
        figures = [summarize(name, seconds) for name, seconds in samples.items()]
    else:
        figures = anyio.run(_measure_here, mode, rounds)
    if as_json:
        print(json.dumps([asdict(figure) for figure in figures], indent=2))
        return 0
    for figure in figures:
        p99 = "" if figure.p99 is None else f"   p99 {figure.p99:.2f}"
        print(f"{figure.name:45} {figure.value:12,.2f} {figure.unit}{p99}")
    return 0


async def _measure_here(mode: str, rounds: int) -> list["Figure"]:
    places = find_places(mode, os.environ)
    async with open_engine(mode, frozenset(), places, pool_size=4) as engine:
        return await measure(engine, rounds)


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured line: the median, where it makes sense the 99th percentile, and the unit."""

    name: str
    value: float
    p99: float | None
    unit: str


def summarize(name: str, seconds: Sequence[float]) -> Figure:
    """Make a line in milliseconds from samples in seconds."""
    ordered = sorted(seconds)
    p99 = quantiles(ordered, n=100)[98] if len(ordered) > 1 else None
    return Figure(name, median(ordered) * 1e3, None if p99 is None else p99 * 1e3, "ms")


async def measure(engine: Engine, rounds: int) -> list[Figure]:
    """Measure everything that a running engine can show."""
    cold = SandboxSpec(limits=Limits(open_files=1000))  # unlike the pool's, hence made from nothing
    warm = SandboxSpec()
    figures = [
        summarize("create to first pandas result, no pool", await _first(engine, cold, rounds)),
        summarize("create to first pandas result, pool", await _first(engine, warm, rounds)),
    ]
    contexts = await bench_contexts.measure(engine, rounds)
    figures += [summarize(name, seconds) for name, seconds in contexts.items()]
    sandbox = await engine.create(warm)
    try:
        figures.append(
            summarize("1+1 in a warm context", await _repeat(rounds * 10, _one(sandbox)))
        )
        figures.append(summarize("print to reader", await _print_delay(sandbox, rounds * 10)))
        figures.append(await _lines(sandbox))
        figures.append(await _bulk(sandbox))
    finally:
        await engine.kill(sandbox.id)
    figures.append(summarize("kill", await _kills(engine, rounds)))
    figures.append(await _memory(engine))
    figures.append(await _crowd(engine, 100))
    return figures


async def _run(sandbox: Sandbox, code: str) -> list[ExecutionEvent]:
    with anyio.fail_after(PATIENCE):
        execution = await sandbox.execute(ExecutionRequest(code))
        return [event async for event in execution.events()]


async def _repeat(rounds: int, action: Callable[[], Awaitable[object]]) -> list[float]:
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        await action()
        samples.append(time.perf_counter() - start)
    return samples


async def _first(engine: Engine, spec: SandboxSpec, rounds: int) -> list[float]:
    samples = []
    for _ in range(rounds):
        start = time.perf_counter()
        sandbox = await engine.create(spec)
        execution = await sandbox.execute(ExecutionRequest(PANDAS))
        async for event in execution.events():
            if isinstance(event, ResultDisplayed):
                break
        samples.append(time.perf_counter() - start)
        await engine.kill(sandbox.id)
        # The pool is refilled in the background; that must not run into the next sample.
        await anyio.sleep(0.03)
    return samples


def _one(sandbox: Sandbox) -> Callable[[], Awaitable[object]]:
    return lambda: _run(sandbox, "1+1")


async def _print_delay(sandbox: Sandbox, count: int) -> list[float]:
    """Compare the guest's clock at the print with ours at the reader: it is the same clock."""
    code = f"import time\nfor _ in range({count}):\n    print(time.time()); time.sleep(0.002)"
    execution = await sandbox.execute(ExecutionRequest(code))
    samples = []
    async for event in execution.events():
        if isinstance(event, OutputWritten):
            now = time.time()
            samples += [now - float(line) for line in event.text.splitlines()]
    return samples


async def _timed_bytes(sandbox: Sandbox, code: str) -> tuple[int, float]:
    start, size = time.perf_counter(), 0
    execution = await sandbox.execute(ExecutionRequest(code))
    async for event in execution.events():
        size += len(event.data) if isinstance(event, OutputWritten) else 0
    return size, time.perf_counter() - start


async def _lines(sandbox: Sandbox) -> Figure:
    count = 300_000
    _size, seconds = await _timed_bytes(sandbox, f"for i in range({count}): print(i)")
    return Figure("print, one line each", count / seconds, None, "lines/s")


async def _bulk(sandbox: Sandbox) -> Figure:
    code = "import sys\nblock = 'x' * 65535 + '\\n'\nfor _ in range(4000): sys.stdout.write(block)"
    size, seconds = await _timed_bytes(sandbox, code)
    return Figure("bulk standard output", size / seconds / 1e6, None, "MB/s")


async def _kills(engine: Engine, rounds: int) -> list[float]:
    samples = []
    for _ in range(rounds):
        sandbox = await engine.create(SandboxSpec())
        start = time.perf_counter()
        await engine.kill(sandbox.id)
        samples.append(time.perf_counter() - start)
    return samples


async def _memory(engine: Engine) -> Figure:
    """What a sandbox with an idle Python kernel accounts for.

    Where there is no memory cgroup this is the proportional size, which contains a share of the
    warm process that all kernels were forked from.
    """
    sandboxes = [await engine.create(SandboxSpec()) for _ in range(10)]
    used = [(await sandbox.stats()).memory or 0 for sandbox in sandboxes]
    for sandbox in sandboxes:
        await engine.kill(sandbox.id)
    return Figure("memory of an idle sandbox", median(used) / MIB, None, "MiB")


async def _crowd(engine: Engine, count: int) -> Figure:
    """Create many at once; the time until the last one has shown its first result."""
    start = time.perf_counter()
    made: list[Sandbox] = []

    async def one() -> None:
        sandbox = await engine.create(SandboxSpec())
        made.append(sandbox)
        await _run(sandbox, PANDAS)

    async with anyio.create_task_group() as tasks:
        for _ in range(count):
            tasks.start_soon(one)
    seconds = time.perf_counter() - start
    for sandbox in made:
        await engine.kill(sandbox.id)
    return Figure(f"{count} sandboxes at once, to the last result", seconds * 1e3, None, "ms")
