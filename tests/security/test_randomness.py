"""Random numbers after fork: no two kernels may draw the same ones."""

import itertools
import json

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.specs import ContextSpec, SandboxSpec
from tests.support.running import Outcome, run_python

DRAW = """
import json, os, random, secrets, ssl, tempfile, uuid
import numpy as np
print(json.dumps({
    'ssl': ssl.RAND_bytes(16).hex(),
    'random': random.getrandbits(128),
    'random.Random': random.Random().getrandbits(128),
    'numpy': np.random.bytes(16).hex(),
    'numpy.default_rng': np.random.default_rng().bytes(16).hex(),
    'numpy.RandomState': np.random.RandomState().bytes(16).hex(),
    'uuid1': uuid.uuid1().hex,
    'uuid4': uuid.uuid4().hex,
    'secrets': secrets.token_hex(),
    'urandom': os.urandom(16).hex(),
    'tempfile': next(tempfile._get_candidate_names()),
}))
"""
"""A number from every generator that a program may use, and that has a state of its own."""


def verdict_of(outcome: Outcome) -> dict[str, object]:
    """Read the numbers that were drawn."""
    numbers = json.loads(outcome.stdout.splitlines()[0])
    assert isinstance(numbers, dict)
    return numbers


def assert_all_differ(draws: list[dict[str, object]]) -> None:
    """Assert that no generator gave the same number to two kernels."""
    for first, second in itertools.combinations(draws, 2):
        assert not {name for name in first if first[name] == second[name]}


async def test_sandboxes_draw_different_numbers(engine: Engine) -> None:
    """Threat: OpenSSL notices a fork by its pid, and kernels of two sandboxes have the same."""
    draws = []
    for _ in range(4):
        sandbox = await engine.create(SandboxSpec())
        draws.append(verdict_of(await run_python(sandbox, DRAW)))
        await engine.kill(sandbox.id)
    assert_all_differ(draws)


async def test_kernels_of_one_sandbox_draw_different_numbers(sandbox: Sandbox) -> None:
    """Threat: two contexts of a sandbox make the same keys."""
    contexts = [await sandbox.create_context(ContextSpec()) for _ in range(3)]
    draws = [verdict_of(await run_python(sandbox, DRAW))]
    draws += [verdict_of(await run_python(sandbox, DRAW, context=context)) for context in contexts]
    assert_all_differ(draws)


async def test_a_restarted_kernel_draws_different_numbers(sandbox: Sandbox) -> None:
    """Threat: a fresh kernel, forked from the same parent, repeats what the old one drew."""
    first = verdict_of(await run_python(sandbox, DRAW))
    await run_python(sandbox, "import os; os._exit(0)")
    assert_all_differ([first, verdict_of(await run_python(sandbox, DRAW))])


async def test_a_child_of_a_kernel_draws_different_numbers(sandbox: Sandbox) -> None:
    """Threat: multiprocessing, which forks as we do."""
    code = DRAW + (
        "child = os.fork()\n"
        "if child == 0:\n"
        "    print(ssl.RAND_bytes(16).hex(), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(child, 0)\n"
        "print(ssl.RAND_bytes(16).hex())\n"
    )
    lines = (await run_python(sandbox, code)).stdout.split("\n")[-3:-1]
    assert len(set(lines)) == len(lines) == 2
