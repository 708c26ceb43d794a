"""Commands, their streams, signals, limits and ends."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.engine.execution import Stop, timed_out
from headrace.engine.processes import Process, conclude_exit
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import (
    DeadlineError,
    InvalidRequestError,
    PathNotFoundError,
    ProcessNotFoundError,
    QuotaError,
    WrongStateError,
)
from headrace.model.events import (
    FinishReason,
    OutputWritten,
    ProcessEvent,
    ProcessExited,
    ProcessStarted,
    Stream,
)
from headrace.model.specs import ExecutionRequest, Limits, ProcessRequest, PtySize, SandboxSpec
from headrace_guest.protocol import AgentExit
from tests.support.fakes import FakeAgent, FakeLauncher, open_fake_engine
from tests.support.logs import PATIENCE, count_descriptors, wait_until

SPEC = SandboxSpec(env={"A": "sandbox", "B": "sandbox"}, limits=Limits(output=10_000, processes=8))
KILL = Stop(FinishReason.KILLED, "the sandbox was killed")


def ended(exit_code: int | None, number: int | None = None) -> AgentExit:
    return AgentExit(5, exit_code, number)


@pytest.mark.parametrize(
    ("how", "stop", "sent", "was_oom", "reason", "detail"),
    [
        (ended(0), None, None, False, FinishReason.OK, None),
        (ended(3), None, None, False, FinishReason.ERROR, None),
        (ended(None, 11), None, None, False, FinishReason.ERROR, None),
        (ended(None, 15), None, 15, False, FinishReason.KILLED, None),
        (ended(None, 9), None, 9, False, FinishReason.KILLED, None),
        (ended(None, 2), None, 2, False, FinishReason.INTERRUPTED, None),
        (ended(None, 9), None, 15, False, FinishReason.ERROR, None),
        (
            ended(None, 9),
            None,
            None,
            True,
            FinishReason.OOM,
            "the sandbox ran out of memory",
        ),
        (ended(None, 9), timed_out(1.0), None, False, FinishReason.TIMEOUT, None),
        (ended(0), KILL, None, False, FinishReason.KILLED, "the sandbox was killed"),
        (None, KILL, None, False, FinishReason.KILLED, "the sandbox was killed"),
        (None, None, None, False, FinishReason.KILLED, "its exit was not seen"),
    ],
)
def test_the_reason_follows_from_what_happened(
    how: AgentExit | None,
    stop: Stop | None,
    sent: int | None,
    was_oom: bool,
    reason: FinishReason,
    detail: str | None,
) -> None:
    assert conclude_exit(how, stop, sent, was_oom=was_oom) == (reason, detail)


@dataclass
class World:
    """A sandbox on a fake launcher."""

    launcher: FakeLauncher
    sandbox: Sandbox

    @property
    def agent(self) -> FakeAgent:
        return self.launcher.sandboxes[self.sandbox.id].agent

    async def start(self, *argv: str, **fields: Any) -> Process:
        return await self.sandbox.start_process(ProcessRequest(argv, **fields))


async def read(process: Process) -> list[ProcessEvent]:
    with anyio.fail_after(PATIENCE):
        return [event async for event in process.events()]


def output(events: list[ProcessEvent], stream: Stream = Stream.STDOUT) -> bytes:
    found = [e for e in events if isinstance(e, OutputWritten) and e.stream is stream]
    return b"".join(event.data for event in found)


def terminal(events: list[ProcessEvent]) -> ProcessExited:
    assert isinstance(events[0], ProcessStarted)
    (exited,) = [event for event in events if isinstance(event, ProcessExited)]
    assert exited is events[-1]
    return exited


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        sandbox = await engine.create(SPEC)
        await sandbox.await_ready()
        yield World(launcher, sandbox)


async def test_a_command_is_told_from_start_to_end(world: World) -> None:
    process = await world.start("echo", "a", "b", cwd="/tmp", env={"B": "process"})
    events = await read(process)
    assert isinstance(events[0], ProcessStarted)
    assert (events[0].process_id, events[0].pid) == (process.id, process.pid)
    assert output(events) == b"a b\n"
    assert (terminal(events).reason, terminal(events).exit_code) == (FinishReason.OK, 0)
    (request,) = world.agent.requests
    assert request["argv"] == ["echo", "a", "b"]
    assert request["env"] == {"A": "sandbox", "B": "process"}
    assert (request["cwd"], request["user"], request["pty"], request["fds"]) == (
        "/tmp",
        "user",
        None,
        3,
    )


async def test_the_exit_status_is_told(world: World) -> None:
    exited = terminal(await read(await world.start("exit", "3")))
    assert (exited.reason, exited.exit_code, exited.signal) == (FinishReason.ERROR, 3, None)


async def test_a_missing_directory_is_told_from_a_missing_command(world: World) -> None:
    async def refuse(request: dict[str, Any], fds: list[int], _tasks: object) -> None:
        for fd in fds:
            os.close(fd)
        await world.agent.refuse(request, "no_directory", "working directory /nope: not found")

    world.agent._spawn = refuse  # type: ignore[method-assign, assignment]
    with pytest.raises(InvalidRequestError, match="/nope") as caught:
        await world.start("echo", cwd="/nope")
    assert caught.value.details == {"reason": "no_directory", "path": "/nope"}


async def test_a_command_that_is_not_found_is_refused_and_leaves_nothing(world: World) -> None:
    before = count_descriptors()
    with pytest.raises(PathNotFoundError, match="nosuch"):
        await world.start("nosuch")
    assert world.sandbox.processes == []
    assert count_descriptors() == before


async def test_input_is_written_and_ended(world: World) -> None:
    process = await world.start("cat", has_stdin=True)
    for _ in range(3):
        await process.write_stdin(b"line\n")
    await process.close_stdin()
    events = await read(process)
    assert output(events) == b"line\n" * 3
    with pytest.raises(WrongStateError, match="no open input"):
        await process.write_stdin(b"late")


async def test_a_command_without_input_reads_its_end(world: World) -> None:
    process = await world.start("cat")
    assert terminal(await read(process)).reason is FinishReason.OK
    with pytest.raises(WrongStateError, match="no open input"):
        await process.write_stdin(b"x")


async def test_a_process_that_does_not_read_holds_its_writer_up_only_so_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.processes._STDIN_TIMEOUT", 0.02)
    process = await world.start("sleep", has_stdin=True)
    with pytest.raises(DeadlineError) as caught:
        await process.write_stdin(b"x" * 1_000_000)
    assert caught.value.details["written"] == 65536


async def test_too_much_input_at_once_is_refused(world: World) -> None:
    process = await world.start("cat", has_stdin=True)
    with pytest.raises(InvalidRequestError, match="at most"):
        await process.write_stdin(b"x" * (5 * 1024 * 1024))


async def test_a_terminal_is_one_stream_with_a_size(world: World) -> None:
    process = await world.start("cat", pty=PtySize(100, 30))
    await process.resize(PtySize(120, 40))
    await process.write_stdin(b"typed")
    await process.close_stdin()
    await wait_until(lambda: process.log.last_seq >= 2)
    await process.signal(signal.SIGKILL)
    events = await read(process)
    assert output(events, Stream.PTY) == b"typed\x04"
    spawn, resize, _ = world.agent.requests
    assert (spawn["pty"], spawn["fds"]) == ({"cols": 100, "rows": 30}, 2)
    assert (resize["op"], resize["cols"], resize["rows"]) == ("resize", 120, 40)


async def test_only_a_terminal_has_a_size(world: World) -> None:
    process = await world.start("sleep")
    with pytest.raises(WrongStateError, match="no terminal"):
        await process.resize(PtySize())


async def test_a_signal_goes_to_the_process_group(world: World) -> None:
    process = await world.start("sleep")
    await process.signal(signal.SIGTERM)
    exited = terminal(await read(process))
    assert (exited.reason, exited.signal, exited.exit_code) == (FinishReason.KILLED, 15, None)
    request = world.agent.requests[-1]
    assert (request["pid"], request["signal"], request["group"]) == (process.pid, 15, True)
    with pytest.raises(ProcessNotFoundError, match="has ended"):
        await process.signal(signal.SIGTERM)


@pytest.mark.parametrize("number", [0, 65, -1, True])
async def test_what_is_no_signal_is_refused(world: World, number: int) -> None:
    process = await world.start("sleep")
    with pytest.raises(InvalidRequestError, match="1 to 64"):
        await process.signal(number)


async def test_a_time_limit_kills(world: World) -> None:
    exited = terminal(await read(await world.start("sleep", timeout=0.02)))
    assert (exited.reason, exited.limit, exited.limit_value, exited.signal) == (
        FinishReason.TIMEOUT,
        "timeout",
        0.02,
        9,
    )


async def test_too_much_output_kills(world: World) -> None:
    events = await read(await world.start("flood", "1000000"))
    exited = terminal(events)
    assert (exited.reason, exited.limit, exited.limit_value) == (
        FinishReason.OUTPUT_LIMIT,
        "output",
        10_000,
    )
    assert len(output(events)) == 10_000


async def test_out_of_memory_is_told_from_the_counter(world: World) -> None:
    process = await world.start("sleep")
    world.launcher.oom_kills = 1
    world.agent.processes[process.pid].ended_by = signal.SIGKILL
    world.agent.processes[process.pid].scope.cancel()
    exited = terminal(await read(process))
    assert (exited.reason, exited.limit, exited.limit_value) == (
        FinishReason.OOM,
        "memory",
        SPEC.limits.memory,
    )


async def test_a_kill_by_somebody_is_not_taken_for_lack_of_memory(world: World) -> None:
    process = await world.start("sleep")
    world.agent.processes[process.pid].ended_by = signal.SIGKILL
    world.agent.processes[process.pid].scope.cancel()
    exited = terminal(await read(process))
    assert (exited.reason, exited.signal) == (FinishReason.ERROR, 9)


async def test_an_earlier_lack_of_memory_is_not_taken_for_the_reason_of_a_later_kill(
    world: World,
) -> None:
    world.launcher.oom_kills = 2
    execution = await world.sandbox.execute(ExecutionRequest("oom"))
    assert (await execution.wait()).reason is FinishReason.OOM
    await wait_until(lambda: "stats" in world.launcher.verbs)
    process = await world.start("sleep")
    world.agent.processes[process.pid].ended_by = signal.SIGKILL
    world.agent.processes[process.pid].scope.cancel()
    assert terminal(await read(process)).reason is FinishReason.ERROR


async def test_ended_processes_are_kept_within_bounds(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headrace.engine.processes.KEPT_ARGV", 300)
    made = []
    for _ in range(4):
        made.append(await world.start("echo", "x" * 100))
        await made[-1].wait()
        await wait_until(lambda: world.sandbox.processes == [])
    for process in made[:2]:
        with pytest.raises(ProcessNotFoundError):
            world.sandbox.process(process.id)
    assert world.sandbox.process(made[-1].id) is made[-1]
    assert made[-1].request.env == {}


async def test_the_variables_of_a_process_are_remembered_while_it_runs(world: World) -> None:
    small = ProcessRequest(("sleep",), env={"A": "1"})
    large = ProcessRequest(("sleep",), env={"A": "x" * 20_000})
    kept, dropped = [await world.sandbox.start_process(each) for each in (small, large)]
    assert (kept.request.env, dropped.request.env) == ({"A": "1"}, {})
    await kept.signal(signal.SIGKILL)
    await wait_until(lambda: kept not in world.sandbox.processes)
    assert world.sandbox.process(kept.id).request.env == {}


async def test_processes_are_listed_and_found_again(world: World) -> None:
    first, second = await world.start("sleep"), await world.start("sleep")
    assert world.sandbox.processes == [first, second]
    assert world.sandbox.process(first.pid) is first
    assert world.sandbox.process(second.id) is second
    await first.signal(signal.SIGKILL)
    await first.wait()
    await wait_until(lambda: world.sandbox.processes == [second])
    assert world.sandbox.process(first.id) is first
    assert len([event async for event in first.events()]) == 2
    with pytest.raises(ProcessNotFoundError, match="12345"):
        world.sandbox.process(12345)


async def test_the_newest_process_with_a_tag_is_found_by_it(world: World) -> None:
    older, newer = await world.start("sleep", tag="t"), await world.start("sleep", tag="t")
    last = await world.start("echo", tag="t")
    await last.wait()
    await wait_until(lambda: world.sandbox.processes == [older, newer])

    # One that runs comes before one that has ended since.
    assert world.sandbox.process("t") is newer
    for process in (newer, older):
        await process.signal(signal.SIGKILL)
        await process.wait()
    await wait_until(lambda: world.sandbox.processes == [])
    assert world.sandbox.process("t") is older
    with pytest.raises(ProcessNotFoundError, match="nosuch"):
        world.sandbox.process("nosuch")


async def test_an_id_is_not_mistaken_for_a_tag(world: World) -> None:
    first = await world.start("sleep")
    await world.start("sleep", tag=first.id)

    assert world.sandbox.process(first.id) is first


async def test_what_is_written_before_the_start_is_told_is_not_lost(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path) as (engine, launcher):
        sandbox = await engine.create(SandboxSpec())
        launcher.sandboxes[sandbox.id].agent.tells_after = 0.2
        process = await sandbox.start_process(ProcessRequest(("flood", "3000000")))
        assert len(output(await read(process))) == 3_000_000
        await sandbox.kill()


async def test_processes_are_bounded(world: World) -> None:
    for _ in range(8):
        await world.start("sleep")
    with pytest.raises(QuotaError, match="8 processes run"):
        await world.start("sleep")


async def test_a_start_whose_caller_goes_away_is_listed(world: World) -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await world.start("sleep")
    await wait_until(lambda: len(world.sandbox.processes) == 1)


async def test_an_agent_that_does_not_answer_is_given_up(tmp_path: Path) -> None:
    async with open_fake_engine(tmp_path, agent_timeout=0.05) as (engine, launcher):
        sandbox = await engine.create(SPEC)
        launcher.sandboxes[sandbox.id].agent.ignored.add("spawn")
        with pytest.raises(DeadlineError):
            await sandbox.start_process(ProcessRequest(("sleep",)))
        await sandbox.kill()
