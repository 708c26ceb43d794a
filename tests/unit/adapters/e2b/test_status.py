"""What a sandbox uses, and its environment."""

from pathlib import Path

import pytest

from headrace.adapters.e2b.envd.status import measure_cpu
from headrace.model.specs import MIB, Limits
from tests.support.e2b import E2bService, open_e2b


async def test_what_a_sandbox_uses_is_told(service: E2bService) -> None:
    sandbox = await service.create(limits=Limits(cpus=1.5, memory=256 * MIB))

    metrics = (await service.agent(sandbox).get("/metrics")).json()

    assert metrics.pop("ts") > 1_700_000_000
    assert metrics == {
        "cpu_count": 2,
        "cpu_used_pct": 0.0,
        "mem_total": 256 * MIB,
        "mem_total_mib": 256,
        "mem_used": 1,
        "mem_used_mib": 0,
        "disk_total": 100,
        "disk_used": 60,
    }


@pytest.mark.parametrize(
    ("before", "after", "available", "percent"),
    [
        (1.0, 1.05, 0.1, 50.0),
        (1.0, 1.0333, 0.1, 33.3),
        (1.0, 2.0, 0.1, 100.0),
        (2.0, 1.0, 0.1, 0.0),
        (None, 1.0, 0.1, None),
        (1.0, None, 0.1, None),
    ],
)
def test_the_use_of_processors_is_a_part_of_what_is_there(
    before: float | None, after: float | None, available: float, percent: float | None
) -> None:
    assert measure_cpu(before, after, available) == percent


async def test_the_environment_is_told(service: E2bService) -> None:
    sandbox = await service.create(env={"A": "1"})

    assert (await service.agent(sandbox).get("/envs")).json() == {"A": "1"}


async def test_nobody_is_told_without_a_token(tmp_path: Path) -> None:
    async with open_e2b(tmp_path) as service:
        sandbox = await service.create()
        for path in ("/metrics", "/envs"):
            reply = await service.agent(sandbox, **{"x-access-token": "wrong"}).get(path)
            assert (reply.status, reply.json()["code"]) == (401, 401)


@pytest.mark.parametrize("path", ["/init", "/freeze", "/unfreeze", "/fsfreeze", "/none"])
async def test_what_is_for_the_vendors_own_is_not_there(service: E2bService, path: str) -> None:
    sandbox = await service.create()
    for method in ("GET", "POST"):
        assert (await service.agent(sandbox).request(method, path)).status == 404
