"""The part of ``headrace bench`` about contexts: how long a fresh one takes to its first result."""

import time

import anyio

from headrace.engine.contexts import runnable
from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.specs import ContextSpec, ExecutionRequest, Language, SandboxSpec

_PATIENCE = 120.0
_REFILL = 0.2
"""Seconds for what is done in the background, so that this does not run into a sample."""
_SLOW = frozenset({Language.R, Language.JAVA})
_SLOW_ROUNDS = 5
_TRIVIAL = {Language.BASH: "echo 2"}
"""What is run; ``1+1`` in the other languages."""

Samples = dict[str, list[float]]


async def measure(engine: Engine, rounds: int) -> Samples:
    """Give samples in seconds, by name, for each language that runs here.

    Each is of a sandbox of its own, taken from the pool: from making a context to the terminal
    event of trivial code in it.
    """
    samples: Samples = {}
    for language in runnable(engine.report.languages):
        count = min(rounds, _SLOW_ROUNDS) if language in _SLOW else rounds
        name = f"first result of a fresh context, {language}"
        samples[name] = [await _sample(engine, language) for _ in range(count)]
    # The kernel of the default context, which a new one takes as long as it is unused, is gone.
    name = "the same, python, beside a used context"
    samples[name] = [
        await _sample(engine, Language.PYTHON, uses_default=True) for _ in range(rounds)
    ]
    return samples


async def _sample(engine: Engine, language: Language, *, uses_default: bool = False) -> float:
    sandbox = await engine.create(SandboxSpec())
    try:
        if uses_default:
            await _run(sandbox, ExecutionRequest("1+1"))
        await anyio.sleep(_REFILL)
        start = time.perf_counter()
        context = await sandbox.create_context(ContextSpec(language))
        code = _TRIVIAL.get(language, "1+1")
        await _run(sandbox, ExecutionRequest(code, context_id=context.id))
        return time.perf_counter() - start
    finally:
        await engine.kill(sandbox.id)


async def _run(sandbox: Sandbox, request: ExecutionRequest) -> None:
    with anyio.fail_after(_PATIENCE):
        execution = await sandbox.execute(request)
        async for _event in execution.events():
            pass
