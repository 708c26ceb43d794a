"""What one tenant has, another cannot see, by no way."""

from pathlib import Path
from typing import Any

import pytest

from headrace.engine.tenancy import TenantEngine
from headrace.model.errors import (
    ExecutionNotFoundError,
    InvalidRequestError,
    QuotaError,
    SandboxNotFoundError,
)
from headrace.model.specs import ExecutionRequest, Limits, SandboxSpec
from tests.support.fakes import open_fake_engine


async def test_a_sandbox_belongs_to_the_tenant_that_made_it(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, _):
        ours, theirs = TenantEngine(engine, "ours"), TenantEngine(engine, "theirs")
        sandbox = await ours.create(SandboxSpec(tenant="theirs"))

        assert ours.find(sandbox.id) is sandbox
        assert ours.list() == [sandbox]
        assert theirs.list() == []
        assert theirs.record(sandbox.id) is None
        with pytest.raises(SandboxNotFoundError, match="there is no sandbox"):
            theirs.find(sandbox.id)
        with pytest.raises(SandboxNotFoundError):
            await theirs.kill(sandbox.id)
        assert sandbox.is_alive


async def test_a_foreign_sandbox_answers_like_one_that_never_was(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, _):
        ours, theirs = TenantEngine(engine, "ours"), TenantEngine(engine, "theirs")
        alive = await ours.create(SandboxSpec())
        dead = await ours.create(SandboxSpec())
        await ours.kill(dead.id)

        with pytest.raises(SandboxNotFoundError, match="the sandbox was killed"):
            ours.find(dead.id)
        for sandbox_id in (alive.id, dead.id, "z" * 26):
            with pytest.raises(SandboxNotFoundError) as caught:
                theirs.find(sandbox_id)
            assert caught.value.message == f"there is no sandbox {sandbox_id!r}"


async def test_logs_outlive_their_sandbox_for_their_tenant_only(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, _):
        ours, theirs = TenantEngine(engine, "ours"), TenantEngine(engine, "theirs")
        sandbox = await ours.create(SandboxSpec())
        execution = await sandbox.execute(ExecutionRequest("out hello"))
        await execution.wait()
        assert ours.find_owner(execution.id) is sandbox
        await ours.kill(sandbox.id)

        assert ours.find_log(execution.id) is execution.log
        for log_id in (execution.id, "nonsense", f"{sandbox.id}-aaaaaaaaaaaaaaaa"):
            with pytest.raises(ExecutionNotFoundError, match="there is no log of"):
                theirs.find_log(log_id)


async def test_one_tenant_cannot_take_every_place(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, max_tenant_sandboxes=2) as (engine, _):
        ours, theirs = TenantEngine(engine, "ours"), TenantEngine(engine, "theirs")
        first = await ours.create(SandboxSpec())
        await ours.create(SandboxSpec())

        with pytest.raises(QuotaError, match="one tenant may have 2 sandboxes"):
            await ours.create(SandboxSpec())
        await theirs.create(SandboxSpec())
        await ours.kill(first.id)
        await ours.create(SandboxSpec())


async def test_more_than_the_operators_ceiling_is_refused(tmp_path: Path) -> None:
    ceiling = Limits(lifetime=7200.0)
    async with open_fake_engine(tmp_path, max_limits=ceiling) as (engine, _):
        ours = TenantEngine(engine, "ours")

        await ours.create(SandboxSpec(limits=ceiling))
        with pytest.raises(InvalidRequestError, match=r"limit lifetime may be at most 7200 here"):
            await ours.create(SandboxSpec(limits=Limits(lifetime=7201.0)))


@pytest.mark.parametrize("name", ["", "a b", "a" * 65, "tenant:x", None, 7])
def test_names_that_no_tenant_can_have_are_refused(name: Any) -> None:
    with pytest.raises(InvalidRequestError, match="a tenant is 1 to 64 letters"):
        SandboxSpec(tenant=name)
