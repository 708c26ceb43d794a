"""Following a log: what is sent when, and how it ends."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from headrace.adapters.base import Receive, Scope, Send
from headrace.adapters.e2b import following
from headrace.adapters.e2b.exchange import Exchange
from headrace.adapters.e2b.following import Ending, Following, Form
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.event_log import EventLog
from headrace.engine.processes import Process
from headrace.engine.sandbox import Sandbox
from headrace.model.events import (
    ExecutionFinished,
    ExecutionStarted,
    FinishReason,
    OutputWritten,
    ProcessExited,
    ProcessStarted,
)
from headrace.model.specs import ContextSpec, ExecutionRequest, ProcessRequest
from tests.support.native import Client, Conversation

LONG = 60.0


def encode(events: Sequence[Any]) -> bytes:
    """Tell events so that tests can read them."""
    return b"".join(
        event.data if isinstance(event, OutputWritten) else _NAMES[type(event)] for event in events
    )


_NAMES = {
    ProcessStarted: b"<started>",
    ProcessExited: b"<exited>",
    ExecutionStarted: b"<started>",
    ExecutionFinished: b"<exited>",
}
FORM = Form(encode, lambda: b"<alive>", b"<end>")


class Viewer:
    """A client that follows a process."""

    def __init__(self, sandbox: Sandbox, process: Process) -> None:
        self.endings: list[Ending] = []
        self.interval = LONG
        self.time_limit: float | None = None
        self.after = 0
        self.form = FORM
        self.log: EventLog[Any] = process.log
        self._sandbox = sandbox

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = Exchange(scope, receive, send, E2bSettings())
        await exchange.receive()
        await exchange.start(200, ())
        followed = Following(exchange, self._sandbox, self.log, self.form, self.after)
        ending = await followed.run(interval=self.interval, time_limit=self.time_limit)
        self.endings.append(ending)

    def begin(self, tasks: anyio.abc.TaskGroup) -> Conversation:
        """Begin to follow."""
        return Client(self, None).begin(tasks, "GET", "/")


@pytest.fixture
async def process(sandbox: Sandbox) -> AsyncIterator[Process]:
    """A process that writes what it reads."""
    process = await sandbox.start_process(ProcessRequest(("cat",), has_stdin=True))
    yield process
    await process.close_stdin()


@pytest.fixture
def viewer(sandbox: Sandbox, process: Process, monkeypatch: pytest.MonkeyPatch) -> Viewer:
    """Somebody who follows it, with a watcher for the client's end from the beginning."""
    monkeypatch.setattr(following, "ALONE", 0.01)
    return Viewer(sandbox, process)


async def test_events_come_as_they_happen_and_then_the_end(
    viewer: Viewer, process: Process
) -> None:
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await talk.wait_for(b"<started>")
        await process.write_stdin(b"one ")
        await talk.wait_for(b"one ")
        await process.write_stdin(b"two ")
        await talk.wait_for(b"two ")
        await process.close_stdin()

    assert talk.body == b"<started>one two <exited><end>"
    assert talk.is_complete
    assert viewer.endings == [Ending.COMPLETE]


async def test_the_end_goes_out_with_the_last_events(viewer: Viewer, process: Process) -> None:
    await process.close_stdin()
    await process.wait()

    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)

    assert talk.body == b"<started><exited><end>"
    # The head, and one piece of the body.
    assert talk.sends == 2


async def test_who_is_behind_the_last_event_gets_the_end(viewer: Viewer, process: Process) -> None:
    await process.close_stdin()
    await process.wait()
    viewer.after = process.log.last_seq

    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)

    assert (talk.body, talk.is_complete) == (b"<end>", True)


async def test_a_silent_log_gives_signs_of_life(viewer: Viewer, process: Process) -> None:
    viewer.interval = 0.02
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await talk.wait_for(b"<started><alive><alive>")
        await process.write_stdin(b"word")
        await talk.wait_for(b"word<alive>")
        await process.close_stdin()

    assert talk.body.endswith(b"<exited><end>")


async def test_what_is_held_back_comes_without_waiting_for_a_sign_of_life(
    viewer: Viewer, process: Process
) -> None:
    held: list[bytes] = []

    def hold(events: Sequence[Any]) -> bytes:
        held.append(encode(events))
        return b""

    def let_go() -> bytes:
        told = b"".join(held)
        held.clear()
        return told

    viewer.form = Form(hold, let_go, holds=lambda: bool(held))
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await talk.wait_for(b"<started>")
        await process.write_stdin(b"word")
        await talk.wait_for(b"word")
        await process.close_stdin()


async def test_a_client_that_leaves_ends_nothing_but_its_stream(
    viewer: Viewer, process: Process
) -> None:
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await talk.wait_for(b"<started>")
        talk.disconnect()

    assert viewer.endings == [Ending.CLIENT_GONE]
    assert process.is_running


async def test_a_stream_stops_when_its_time_is_over(viewer: Viewer, process: Process) -> None:
    viewer.time_limit = 0.05
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)

    assert viewer.endings == [Ending.TIMED_OUT]
    assert (talk.body, talk.is_complete) == (b"<started>", False)
    assert process.is_running


async def test_time_that_ends_while_the_end_is_sent_gives_no_second_end(
    viewer: Viewer, process: Process
) -> None:
    viewer.time_limit = 0.1
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await talk.wait_for(b"<started>")
        talk.stop_reading()
        await process.close_stdin()

    assert talk.waits_for_reader == 1
    # It is complete as far as the caller is concerned, who must not end it again.
    assert viewer.endings == [Ending.COMPLETE]


async def test_a_client_that_does_not_read_holds_up_its_own_stream_only(
    viewer: Viewer, process: Process, sandbox: Sandbox
) -> None:
    other = Viewer(sandbox, process)
    async with anyio.create_task_group() as tasks:
        stuck, talk = viewer.begin(tasks), other.begin(tasks)
        await stuck.wait_for(b"<started>")
        stuck.stop_reading()
        for number in range(20):
            await process.write_stdin(b"%d;" % number)
            await talk.wait_for(b"%d;" % number)
        await process.close_stdin()
        await process.wait()
        stuck.read_on()

    assert stuck.body == talk.body
    assert viewer.endings == other.endings == [Ending.COMPLETE]


async def test_the_end_of_the_sandbox_breaks_the_stream_off(
    viewer: Viewer, process: Process, sandbox: Sandbox
) -> None:
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await process.write_stdin(b"last words")
        await talk.wait_for(b"last words")
        await sandbox.kill()

    assert talk.body == b"<started>last words"
    assert not talk.is_complete
    assert viewer.endings == [Ending.BROKEN_OFF]


async def test_output_before_the_end_of_the_sandbox_is_sent(
    viewer: Viewer, process: Process, sandbox: Sandbox
) -> None:
    await process.write_stdin(b"last words")
    with anyio.fail_after(5):
        async for event in process.events():
            if isinstance(event, OutputWritten):
                break
    await sandbox.kill()

    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)

    assert (talk.body, talk.is_complete) == (b"<started>last words", False)


async def test_a_process_that_was_killed_has_an_end(viewer: Viewer, process: Process) -> None:
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await talk.wait_for(b"<started>")
        await process.signal(9)

    assert (talk.body, talk.is_complete) == (b"<started><exited><end>", True)


async def test_its_end_is_told_even_if_the_sandbox_is_gone_by_then(
    viewer: Viewer, process: Process, sandbox: Sandbox
) -> None:
    await process.signal(9)
    await process.wait()
    await sandbox.kill()

    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)

    assert (talk.body, talk.is_complete) == (b"<started><exited><end>", True)


async def test_an_execution_whose_context_is_removed_has_an_end(
    viewer: Viewer, sandbox: Sandbox
) -> None:
    context = await sandbox.create_context(ContextSpec())
    execution = await sandbox.execute(ExecutionRequest("wait", context_id=context.id))
    viewer.log = execution.log

    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await talk.wait_for(b"<started>")
        await sandbox.remove_context(context.id)

    assert isinstance(execution.log.terminal, ExecutionFinished)
    assert execution.log.terminal.reason is FinishReason.KILLED
    assert (talk.body, talk.is_complete) == (b"<started><exited><end>", True)


async def test_an_execution_whose_sandbox_ends_has_none(viewer: Viewer, sandbox: Sandbox) -> None:
    execution = await sandbox.execute(ExecutionRequest("wait"))
    viewer.log = execution.log

    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)
        await talk.wait_for(b"<started>")
        await sandbox.kill()

    assert (talk.body, talk.is_complete) == (b"<started>", False)


async def test_what_must_be_looked_up_first_can_be(viewer: Viewer, process: Process) -> None:
    async def prepare(events: Sequence[Any]) -> Sequence[Any]:
        await anyio.lowlevel.checkpoint()
        return [event for event in events if not isinstance(event, ProcessStarted)]

    viewer.form = Form(encode, lambda: b"", b"<end>", prepare)
    await process.close_stdin()
    async with anyio.create_task_group() as tasks:
        talk = viewer.begin(tasks)

    assert talk.body == b"<exited><end>"
