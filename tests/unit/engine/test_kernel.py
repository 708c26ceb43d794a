"""Our end of a kernel, against one that we play ourselves and that may lie."""

import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from headrace.engine.event_log import EventLog
from headrace.engine.kernel import Kernel, KernelEnd, name_of
from headrace.engine.launcher import ExitNotice
from headrace.engine.log_store import LogStore
from headrace.engine.output import OutputPump
from headrace.model.errors import KernelDiedError, LaunchError
from headrace.model.events import ExecutionEvent, InputRequested, OutputWritten
from headrace.model.records import EXECUTION_CODEC
from headrace_guest.protocol import (
    MAX_GUEST_FRAME,
    MAX_VALUES,
    KernelDone,
    KernelInput,
    KernelMessage,
    ProtocolError,
    encode_frame,
)
from tests.support.fakes import Channel
from tests.support.logs import count_descriptors, make_finished, read_all, wait_until

DONE = {"type": "done", "execution": "x1", "status": "ok", "exit_code": None}
ASK = {"type": "input", "execution": "x1", "prompt": "", "is_password": False}


@dataclass
class Control:
    """Takes the guest's ends, and writes down the signals."""

    name: str = "k1"
    takes_interrupts: bool = False
    fds: list[int] = field(default_factory=list)
    signals: list[str] = field(default_factory=list)
    error: Exception | None = None

    async def launch(self, fds: Sequence[int]) -> None:
        if self.error is not None:
            raise self.error
        self.fds = [os.dup(fd) for fd in fds]

    async def interrupt(self) -> None:
        self.signals.append("interrupt")

    async def kill(self) -> None:
        self.signals.append("kill")


@dataclass
class Listener:
    """Appends what it hears to a log, as a context does."""

    log: EventLog[ExecutionEvent] | None = None
    said: list[KernelMessage] = field(default_factory=list)
    ends: int = 0

    def kernel_said(self, message: KernelMessage) -> None:
        self.said.append(message)
        if isinstance(message, KernelInput):
            if message.prompt == "refuse me":
                raise ProtocolError("that may not be asked")
            if message.prompt == "break":
                raise RuntimeError("a bug of ours")
            if self.log is not None:
                self.log.append(
                    lambda seq, timestamp: InputRequested(
                        seq, timestamp, message.prompt, is_password=False
                    )
                )

    def kernel_ended(self) -> None:
        self.ends += 1


class Played:
    """A kernel and the guest's ends of its channels."""

    def __init__(self) -> None:
        self.control, self.listener = Control(), Listener()
        self.kernel = Kernel(self.control, self.listener)

    async def launch(self) -> None:
        await self.kernel.launch()
        self.guest = Channel(self.control.fds[0])
        self.stdout, self.stderr = self.control.fds[1:]

    async def be_ready(self) -> None:
        await self.guest.send({"type": "ready"})
        await self.kernel.await_ready()

    def begin(self, log: EventLog[ExecutionEvent], execution: str = "x1") -> None:
        self.listener.log = log
        self.kernel.begin(execution, log, {"code": "1"})

    async def settle(self) -> None:
        """Let everything that is on its way arrive."""
        for _ in range(5):
            await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()

    def close(self) -> None:
        self.guest.close()
        os.close(self.stdout)
        os.close(self.stderr)


@asynccontextmanager
async def at_work() -> AsyncIterator[Played]:
    played = Played()
    await played.launch()
    try:
        await played.be_ready()
        yield played
    finally:
        await played.kernel.aclose()
        played.close()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[LogStore]:
    async with LogStore(tmp_path / "run", tmp_path / "state") as store:
        yield store


@pytest.fixture
async def log(store: LogStore) -> EventLog[ExecutionEvent]:
    return store.create("x1", EXECUTION_CODEC, max_output=1 << 20)


def notice(
    exit_code: int | None = None, number: int | None = None, *, oom: bool = False
) -> ExitNotice:
    return ExitNotice("s", "k1", exit_code, number, oom)


async def test_code_is_handed_over_and_its_end_is_heard(log: EventLog[ExecutionEvent]) -> None:
    async with at_work() as played:
        played.kernel.configure({"A": "1"}, "/home/user")
        played.begin(log)
        assert await played.guest.receive() == {
            "type": "configure",
            "env": {"A": "1"},
            "cwd": "/home/user",
        }
        assert await played.guest.receive() == {"type": "execute", "execution": "x1", "code": "1"}
        await played.guest.send(DONE)
        await wait_until(lambda: played.listener.said != [])
        assert played.listener.said == [KernelDone("x1", "ok", None)]
        assert played.kernel.end is None


@pytest.mark.parametrize("reads_by_itself", [True, False])
async def test_output_that_was_written_before_a_message_is_before_it(
    log: EventLog[ExecutionEvent], monkeypatch: pytest.MonkeyPatch, *, reads_by_itself: bool
) -> None:
    if not reads_by_itself:
        # As if the loop never came to the pipes before the socket.
        monkeypatch.setattr(OutputPump, "_on_readable", lambda _pump: None)
    async with at_work() as played:
        played.begin(log)
        for number in range(50):
            os.write(played.stdout, b"out %d\n" % number)
            os.write(played.stderr, b"err %d\n" % number)
            await played.guest.send({**ASK, "prompt": str(number)})
            await wait_until(lambda number=number: len(played.listener.said) > number)  # type: ignore[misc]
        log.finish(make_finished)
        position, seen = 0, b""
        for event in await read_all(log):
            if isinstance(event, OutputWritten):
                seen += event.data
            if isinstance(event, InputRequested):
                assert seen == b"out %d\nerr %d\n" % (position, position)
                position, seen = position + 1, b""
        assert position == 50


async def test_code_larger_than_the_sockets_buffer_arrives_whole(
    log: EventLog[ExecutionEvent],
) -> None:
    async with at_work() as played:
        code = "x" * 3_000_000
        played.kernel.begin("x1", log, {"code": code})
        played.kernel.send_input("x1", "line")
        first, second = await played.guest.receive(), await played.guest.receive()
        assert first is not None
        assert first["code"] == code
        assert second == {"type": "input", "execution": "x1", "text": "line"}


async def test_an_interrupt_is_a_frame_for_kernels_that_want_it(
    log: EventLog[ExecutionEvent],
) -> None:
    async with at_work() as played:
        played.control.takes_interrupts = True
        await played.kernel.interrupt()
        played.begin(log, "x7")
        await played.kernel.interrupt()
        frames = [await played.guest.receive() for _ in range(2)]
        assert frames[1] == {"type": "interrupt", "execution": "x7"}
        assert played.control.signals == []


async def test_an_interrupt_meant_for_earlier_code_is_to_be_discarded(store: LogStore) -> None:
    async with at_work() as played:
        logs = [store.create(f"x{n}", EXECUTION_CODEC, max_output=1024) for n in (1, 2, 3)]
        frames: list[dict[str, Any] | None] = []
        for number, log in enumerate(logs, 1):
            played.begin(log, f"x{number}")
            frames.append(await played.guest.receive())
            if number == 1:
                await played.kernel.interrupt()
            await played.guest.send({**DONE, "execution": f"x{number}"})
            await wait_until(lambda number=number: len(played.listener.said) == number)  # type: ignore[misc]
            played.kernel.finish()
        discarded = [frame.get("discard_interrupt") for frame in frames if frame is not None]
        assert discarded == [None, True, None]
        assert played.control.signals == ["interrupt"]


async def test_late_frames_of_earlier_code_are_dropped(store: LogStore) -> None:
    async with at_work() as played:
        played.begin(store.create("x1", EXECUTION_CODEC, max_output=1024))
        await played.guest.send(DONE)
        await wait_until(lambda: len(played.listener.said) == 1)
        await played.guest.send({**ASK, "prompt": "between"})
        await played.settle()
        played.kernel.finish()
        played.begin(store.create("x2", EXECUTION_CODEC, max_output=1024), "x2")
        await played.guest.send({**ASK, "prompt": "later"})
        await played.guest.send({**DONE, "execution": "x2"})
        await wait_until(lambda: len(played.listener.said) == 2)
        assert played.listener.said == [
            KernelDone("x1", "ok", None),
            KernelDone("x2", "ok", None),
        ]
        assert played.kernel.end is None


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xff\xff\xff", "exceeds"),
        (b"\0\0\0\4nope", "not JSON"),
        (b"\0\0\0\2[]", "expected an object"),
        (encode_frame({"type": "surprise"}), "unknown kernel message"),
        (encode_frame({"type": "ready"}), "ready came twice"),
        (encode_frame({**DONE, "execution": "x9"}), "does not run"),
        (encode_frame({**ASK, "execution": "x9"}), "does not run"),
        (encode_frame({**DONE, "status": "fine"}), "unknown status"),
        (encode_frame(DONE) * 2, "does not run"),
        (encode_frame({**ASK, "prompt": "refuse me"}), "may not be asked"),
        (b"\0\0\x27\x10" + b"[" * 10_000, "not JSON"),
        (encode_frame({"type": "result", "x": [0] * (MAX_VALUES + 1)}), "1000000 values"),
        (
            encode_frame({"type": "error", "x": json.loads("[" * 400 + "]" * 400)}),
            "execution must be text",
        ),
    ],
)
async def test_what_the_protocol_does_not_allow_ends_the_kernel(
    log: EventLog[ExecutionEvent], data: bytes, why: str
) -> None:
    async with at_work() as played:
        played.begin(log)
        await played.guest.send_bytes(data)
        await wait_until(lambda: played.kernel.end is not None)
        assert played.kernel.end is not None
        assert "broke the protocol" in played.kernel.end.detail
        assert why in played.kernel.end.detail
        assert played.listener.ends == 1
        # Nothing is heard any more.
        heard = len(played.listener.said)
        await played.guest.send(DONE)
        await played.settle()
        assert len(played.listener.said) == heard


async def test_a_failure_of_ours_ends_the_kernel_and_nothing_else(
    log: EventLog[ExecutionEvent], caplog: pytest.LogCaptureFixture
) -> None:
    async with at_work() as played:
        played.begin(log)
        await played.guest.send({**ASK, "prompt": "break"})
        await wait_until(lambda: played.kernel.end is not None)
        assert played.kernel.end is not None
        assert "internal failure" in played.kernel.end.detail
        assert "a bug of ours" in caplog.text


async def test_a_message_when_nothing_runs_ends_the_kernel() -> None:
    async with at_work() as played:
        await played.guest.send(DONE)
        await wait_until(lambda: played.kernel.end is not None)


async def test_frames_before_ready_end_the_kernel() -> None:
    played = Played()
    await played.launch()
    await played.guest.send(DONE)
    with pytest.raises(KernelDiedError, match="does not run"):
        await played.kernel.await_ready()
    await played.kernel.aclose()
    played.close()


async def test_an_exit_is_told_after_everything_that_was_sent_before_it(
    log: EventLog[ExecutionEvent],
) -> None:
    async with at_work() as played:
        played.begin(log)
        os.write(played.stdout, b"last words")
        await played.guest.send(DONE)
        played.kernel.process_exited(notice(3))
        assert played.listener.said == [KernelDone("x1", "ok", None)]
        assert played.kernel.end == KernelEnd(
            "the kernel exited with status 3", exit_code=3, has_exited=True
        )
        assert played.kernel.is_lost
        assert log.output_bytes == len(b"last words")


@pytest.mark.parametrize(
    ("told", "detail"),
    [
        (notice(0), "exited with status 0"),
        (notice(number=11), "signal 11 (SIGSEGV)"),
        (notice(number=9, oom=True), "ran out of memory"),
        (notice(number=64), "signal 64"),
    ],
)
async def test_every_end_is_put_into_words(told: ExitNotice, detail: str) -> None:
    end = KernelEnd.from_notice(told)
    assert detail in end.detail
    assert (end.exit_code, end.signal, end.oom) == (told.exit_code, told.signal, told.oom)


async def test_a_closed_event_socket_is_an_end_even_without_an_exit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.engine.kernel._EXIT_WAIT", 0.01)
    async with at_work() as played:
        played.guest.sock.shutdown(socket.SHUT_RDWR)
        await wait_until(lambda: played.kernel.is_lost)
        await wait_until(lambda: played.kernel.end is not None)
        assert played.kernel.end == KernelEnd("the kernel closed its event socket")
        assert played.listener.ends == 1
        played.kernel.process_exited(notice(number=9))
        assert played.kernel.end == KernelEnd(
            "the kernel closed its event socket", signal=9, has_exited=True
        )
        assert played.listener.ends == 1


async def test_an_exit_explains_a_closed_event_socket() -> None:
    async with at_work() as played:
        played.guest.sock.shutdown(socket.SHUT_RDWR)
        await wait_until(lambda: played.kernel.is_lost)
        played.kernel.process_exited(notice(7))
        assert played.kernel.end is not None
        assert played.kernel.end.exit_code == 7


async def test_a_kernel_is_killed_and_waited_for() -> None:
    async with at_work() as played, anyio.create_task_group() as tasks:
        tasks.start_soon(played.kernel.kill)
        await wait_until(lambda: played.control.signals == ["kill"])
        played.kernel.process_exited(notice(number=signal.SIGKILL))
    assert played.kernel.was_killed
    assert played.kernel.end is not None
    assert played.kernel.end.signal == signal.SIGKILL


async def test_a_kernel_that_is_not_seen_to_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headrace.engine.kernel._KILL_WAIT", 0.01)
    async with at_work() as played:
        await played.kernel.kill()
        assert played.kernel.end is not None
        assert "not seen to end" in played.kernel.end.detail


async def test_a_kernel_that_has_exited_is_not_killed_again() -> None:
    async with at_work() as played:
        played.kernel.process_exited(notice(0))
        await played.kernel.kill()
        assert played.control.signals == []


async def test_a_kernel_that_cannot_be_launched_leaves_nothing() -> None:
    before = count_descriptors()
    control = Control(error=LaunchError("the fork server died"))
    kernel = Kernel(control, Listener())
    with pytest.raises(LaunchError):
        await kernel.launch()
    await kernel.kill()
    await kernel.aclose()
    await kernel.aclose()
    assert count_descriptors() == before


async def test_sending_to_a_kernel_that_is_gone_does_no_harm(
    log: EventLog[ExecutionEvent],
) -> None:
    async with at_work() as played:
        played.guest.sock.shutdown(socket.SHUT_RDWR)
        played.begin(log)
        played.kernel.send_input("x1", None)


async def test_a_large_frame_within_the_limit_is_taken(log: EventLog[ExecutionEvent]) -> None:
    async with at_work() as played:
        played.begin(log)
        result = {
            "type": "result",
            "execution": "x1",
            "bundle": {"text/plain": "x" * (MAX_GUEST_FRAME - 1000)},
            "is_main": True,
            "omitted": {},
            "display_id": None,
            "is_update": False,
        }
        await played.guest.send(result)
        await wait_until(lambda: played.listener.said != [])
        assert played.kernel.end is None


async def test_a_kernel_that_takes_too_much_time_is_read_less_often(
    log: EventLog[ExecutionEvent], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with at_work() as played:
        played.begin(log)
        rests = iter([0.02, 0.02])
        monkeypatch.setattr(played.kernel._share, "spend", lambda _began, _ended: next(rests, 0.0))
        times = []
        for number in range(1, 4):
            await played.guest.send({**ASK, "prompt": str(number)})
            await wait_until(lambda number=number: len(played.listener.said) == number)  # type: ignore[misc]
            times.append(anyio.current_time())
        assert min(times[1] - times[0], times[2] - times[1]) >= 0.015


def test_signals_have_names() -> None:
    assert name_of(11) == "SIGSEGV"
    assert name_of(99) == "unknown"
