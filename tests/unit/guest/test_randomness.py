"""Random numbers of kernels that were forked from one process."""

import os
import ssl
import tempfile
from collections.abc import Iterator

import pytest

from headrace_guest.randomness import reseed
from tests.support.kernel_process import KernelProcess, shared_fork_server


@pytest.fixture
def kernel() -> Iterator[KernelProcess]:
    with shared_fork_server().kernel() as process:
        yield process


def test_two_kernels_draw_different_random_numbers() -> None:
    code = (
        "import random, ssl, secrets, uuid, tempfile, numpy as np\n"
        "for n in (random.random(), np.random.rand(), np.random.default_rng().random(),\n"
        "          ssl.RAND_bytes(8).hex(), secrets.token_hex(8), uuid.uuid4(),\n"
        "          next(tempfile._get_candidate_names())): print(n)"
    )
    drawn = []
    for _ in range(2):
        with shared_fork_server().kernel() as kernel:
            drawn.append(kernel.run(code).stdout.split())
    assert len(drawn[0]) == 7
    assert not set(drawn[0]) & set(drawn[1])


def test_legacy_numpy_numbers_are_well_spread(kernel: KernelProcess) -> None:
    code = "import numpy as np; x = np.random.rand(100_000); abs(x.mean() - 0.5) < 0.01"
    assert kernel.run(code).text == "np.True_"


@pytest.mark.parametrize(("parent", "calls"), [(os.getpid(), 1), (1, 0)])
def test_openssl_is_reseeded_where_it_cannot_tell_the_fork(
    monkeypatch: pytest.MonkeyPatch, parent: int, calls: int
) -> None:
    added: list[bytes] = []
    monkeypatch.setattr(ssl, "RAND_add", lambda seed, _entropy: added.append(seed))
    monkeypatch.setattr(tempfile, "tempdir", None)
    reseed(parent)
    assert [len(seed) for seed in added] == [32] * calls
