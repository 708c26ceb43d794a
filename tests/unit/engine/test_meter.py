"""What the engine tells whoever counts."""

from pathlib import Path

import pytest

from headrace.model.errors import TemplateNotFoundError, UnavailableError
from headrace.model.events import FinishReason
from headrace.model.specs import ExecutionRequest, ProcessRequest, SandboxSpec
from tests.support.fakes import FakeClock, open_fake_engine
from tests.support.logs import wait_until


class ListingMeter:
    """Keeps everything that it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[object, ...]] = []

    def sandbox_created(self, seconds: float, *, from_pool: bool) -> None:
        """Note it."""
        self.heard.append(("created", seconds, from_pool))

    def sandbox_ended(self) -> None:
        """Note it."""
        self.heard.append(("ended",))

    def log_finished(
        self, kind: str, reason: FinishReason, duration: float, output_bytes: int
    ) -> None:
        """Note it."""
        self.heard.append((kind, reason, duration, output_bytes))

    def refused(self, code: str) -> None:
        """Note it."""
        self.heard.append(("refused", code))


async def test_the_life_of_a_sandbox_and_what_it_ran_is_counted(tmp_path: Path) -> None:
    meter = ListingMeter()
    clock = FakeClock(500.0)
    async with open_fake_engine(tmp_path, clock=clock, meter=meter) as (engine, _):
        sandbox = await engine.create(SandboxSpec())
        execution = await sandbox.execute(ExecutionRequest("out hello"))
        await execution.wait()
        process = await sandbox.start_process(ProcessRequest(("echo", "hi")))
        await process.wait()
        await engine.kill(sandbox.id)

    assert meter.heard == [
        ("created", 0.0, False),
        ("execution", FinishReason.OK, 0.0, 6),
        ("process", FinishReason.OK, 0.0, 3),
        ("ended",),
    ]


async def test_a_refusal_is_counted_with_its_code(tmp_path: Path) -> None:
    meter = ListingMeter()
    async with open_fake_engine(tmp_path, meter=meter) as (engine, _):
        with pytest.raises(TemplateNotFoundError):
            await engine.create(SandboxSpec(template="unknown"))

    assert meter.heard == [("refused", "template_not_found")]


async def test_a_sandbox_that_nobody_took_is_not_counted(tmp_path: Path) -> None:
    meter = ListingMeter()
    async with open_fake_engine(tmp_path, meter=meter, pool_size=1) as (engine, _):
        await wait_until(lambda: engine.count_ready() == 1)
        sandbox = await engine.create(SandboxSpec())
        assert sandbox.timings.from_pool

    assert [entry[0] for entry in meter.heard] == ["created", "ended"]
    assert meter.heard[0][2] is True


async def test_draining_ends_every_stream_and_lets_it_be_read(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, _):
        sandbox = await engine.create(SandboxSpec())
        execution = await sandbox.execute(ExecutionRequest("wait"))
        await engine.drain("the service is shutting down")

        finished = await execution.wait()
        assert finished.reason is FinishReason.KILLED
        assert finished.detail == "the service is shutting down"
        assert engine.find_log(execution.id) is execution.log
        with pytest.raises(UnavailableError, match="closing"):
            await engine.create(SandboxSpec())
