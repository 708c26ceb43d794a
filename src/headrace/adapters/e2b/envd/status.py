"""What the agent of a sandbox says of it over plain HTTP: what it uses, and its environment."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping

import anyio

from headrace.adapters.e2b.call import Call
from headrace.model.specs import MIB

_MEASURED = 0.1
"""How many seconds the use of processors is measured for."""


async def show_metrics(call: Call) -> None:
    """Answer ``GET /metrics``; what the machine does not tell is left out."""
    sandbox, limits = call.sandbox, call.sandbox.spec.limits
    before, began = await sandbox.stats(), time.monotonic()
    await anyio.sleep(_MEASURED)
    after, elapsed = await sandbox.stats(), time.monotonic() - began
    disk = await sandbox.files.disk_usage()
    metrics: dict[str, float | int | None] = {
        "ts": int(time.time()),
        "cpu_count": math.ceil(limits.cpus),
        "cpu_used_pct": measure_cpu(
            before.cpu_seconds, after.cpu_seconds, elapsed * math.ceil(limits.cpus)
        ),
        "mem_total": limits.memory,
        "mem_total_mib": limits.memory // MIB,
        "mem_used": after.memory,
        "mem_used_mib": None if after.memory is None else after.memory // MIB,
        "disk_total": disk.total,
        "disk_used": disk.used,
    }
    await call.exchange.answer({name: each for name, each in metrics.items() if each is not None})


def measure_cpu(before: float | None, after: float | None, available: float) -> float | None:
    """Give the percentage that was used of the processor time that was there, in seconds."""
    if before is None or after is None:
        return None
    return round(min(100.0, max(0.0, 100.0 * (after - before) / available)), 2)


async def show_environment(call: Call) -> None:
    """Answer ``GET /envs`` with what was set when the sandbox was made."""
    await call.exchange.answer(dict(call.sandbox.spec.env))


PAGES: Mapping[str, Callable[[Call], Awaitable[None]]] = {
    "/metrics": show_metrics,
    "/envs": show_environment,
}
"""What can be read, by path."""
