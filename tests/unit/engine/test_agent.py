"""Our end of an agent, against one that we play ourselves and that may lie."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from headrace.engine.agent import MAX_OPEN_REQUESTS, AgentConnection, read_field
from headrace.model.errors import (
    AgentProtocolError,
    AlreadyExistsError,
    ConflictError,
    DeadlineError,
    HeadraceError,
    InvalidRequestError,
    LaunchError,
    LimitExceededError,
    PathNotFoundError,
    PermissionDeniedError,
    ProcessNotFoundError,
    QuotaError,
    SandboxFailedError,
    UnavailableError,
    WrongStateError,
)
from headrace_guest.protocol import MAX_AGENT_FRAME, encode_frame
from tests.support.fakes import Channel
from tests.support.logs import wait_until


class Played:
    """A connection, the guest's end of it, and what was told at its end."""

    def __init__(self, patience: float) -> None:
        ours, theirs = socket.socketpair()
        self.ends: list[str] = []
        self.agent = AgentConnection(ours, timeout=patience, on_end=self.ends.append)
        self.guest = Channel(theirs.detach())

    async def reply(self, number: int, error: str | None = None, **value: Any) -> None:
        await self.guest.send(
            {
                "type": "reply",
                "request": number,
                "value": value,
                "error": error,
                "detail": "the reason",
            }
        )


@asynccontextmanager
async def at_work(patience: float = 5.0) -> AsyncIterator[Played]:
    played = Played(patience)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(played.agent.run)
            yield played
            tasks.cancel_scope.cancel()
    finally:
        played.agent.close()
        played.guest.close()


async def test_an_agent_that_is_ready_is_waited_for() -> None:
    async with at_work() as played:
        await played.guest.send({"type": "ready"})
        await played.agent.await_ready(5.0)
        assert played.ends == []


async def test_a_sandbox_that_cannot_be_built_is_an_error_in_the_guests_words() -> None:
    async with at_work() as played:
        await played.guest.send({"type": "failed", "detail": "mount: operation not permitted"})
        played.guest.sock.shutdown(socket.SHUT_RDWR)
        with pytest.raises(LaunchError, match="mount: operation not permitted"):
            await played.agent.await_ready(5.0)


async def test_a_silent_agent_is_given_up() -> None:
    async with at_work() as played:
        with pytest.raises(LaunchError, match=r"within 0\.01 s"):
            await played.agent.await_ready(0.01)


async def test_a_request_carries_its_fields_and_descriptors() -> None:
    async with at_work() as played, anyio.create_task_group() as tasks:
        read_end, write_end = os.pipe()
        answers: list[object] = []

        async def ask() -> None:
            answers.append(await played.agent.ask("spawn", {"argv": ["ls"]}, [write_end]))

        tasks.start_soon(ask)
        request = await played.guest.receive()
        assert request == {
            "type": "request",
            "request": 1,
            "op": "spawn",
            "fds": 1,
            "argv": ["ls"],
        }
        os.write(played.guest.fds[0], b"it is ours")
        assert os.read(read_end, 100) == b"it is ours"
        await played.reply(1, pid=7)
        await wait_until(lambda: bool(answers))
        assert answers == [{"pid": 7}]
        os.close(read_end)
        os.close(write_end)


async def test_a_long_request_arrives_whole_and_its_descriptors_once() -> None:
    async with at_work() as played, anyio.create_task_group() as tasks:
        fd = os.open("/dev/null", os.O_RDONLY)
        tasks.start_soon(played.agent.ask, "file", {"text": "x" * 3_000_000}, [fd])
        tasks.start_soon(played.agent.ask, "file", {"text": "second"})
        first, second = await played.guest.receive(), await played.guest.receive()
        assert first is not None
        assert second is not None
        assert len(first["text"]) == 3_000_000
        assert second["text"] == "second"
        assert len(played.guest.fds) == 1
        await played.reply(2)
        await played.reply(1)
        os.close(fd)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("not_found", PathNotFoundError),
        ("already_exists", AlreadyExistsError),
        ("not_a_directory", InvalidRequestError),
        ("is_a_directory", InvalidRequestError),
        ("not_empty", ConflictError),
        ("permission_denied", PermissionDeniedError),
        ("no_space", QuotaError),
        ("too_large", LimitExceededError),
        ("invalid", InvalidRequestError),
        ("failed", SandboxFailedError),
    ],
)
async def test_each_refusal_has_its_own_class(code: str, kind: type[HeadraceError]) -> None:
    async with at_work() as played, anyio.create_task_group() as tasks:

        async def ask() -> None:
            with pytest.raises(kind, match="the reason") as caught:
                await played.agent.ask("file", {})
            assert type(caught.value) is kind
            assert caught.value.details["reason"] == code

        tasks.start_soon(ask)
        await played.guest.receive()
        await played.reply(1, code)


async def test_what_is_not_found_may_be_a_process() -> None:
    async with at_work() as played:
        request = await played.agent.begin("signal", {"pid": 4})
        await played.reply(1, "not_found")
        with pytest.raises(ProcessNotFoundError):
            await played.agent.reply_to(request, not_found=ProcessNotFoundError)


async def test_an_agent_that_does_not_answer_is_a_deadline() -> None:
    async with at_work(patience=0.01) as played:
        with pytest.raises(DeadlineError, match="no answer to stat"):
            await played.agent.ask("stat", {})


async def test_a_late_answer_does_no_harm() -> None:
    async with at_work(patience=0.01) as played:
        with pytest.raises(DeadlineError):
            await played.agent.ask("stat", {})
        await played.reply(1)
        request = await played.agent.begin("stat", {})
        await played.reply(2, size=3)
        assert await played.agent.reply_to(request, timeout=5.0) == {"size": 3}


async def test_the_end_of_a_process_is_told_after_its_start() -> None:
    async with at_work() as played:
        told: list[str] = []

        def started(_reply: object) -> None:
            told.append("started")
            played.agent.await_exit(7, lambda ended: told.append(f"exit {ended.exit_code}"))

        await played.agent.begin("spawn", {}, on_reply=started)
        await played.reply(1, pid=7)
        await played.guest.send({"type": "exit", "pid": 7, "exit_code": 3, "signal": None})
        await wait_until(lambda: len(told) == 2)
        assert told == ["started", "exit 3"]


async def test_a_running_request_can_be_cancelled() -> None:
    async with at_work() as played, anyio.create_task_group() as tasks:
        request = await played.agent.begin("file", {})
        await played.guest.receive()
        tasks.start_soon(played.agent.cancel, request)
        assert await played.guest.receive() == {
            "type": "request",
            "request": 2,
            "op": "cancel",
            "fds": 0,
            "target": 1,
        }
        await played.reply(2)


async def test_cancelling_what_was_answered_asks_nobody() -> None:
    async with at_work() as played:
        request = await played.agent.begin("file", {})
        await played.reply(1)
        await played.agent.reply_to(request)
        await played.agent.cancel(request)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\xff\xff\xff\xff", "exceeds"),
        (encode_frame({"type": "reply", "request": 9}), "value must be dict"),
        (b"\0\0\0\2[]", "expected an object"),
        (b"\0\0\0\4nope", "not JSON"),
        (encode_frame({"type": "surprise"}), "unknown agent message"),
        (
            encode_frame({"type": "exit", "pid": 5, "exit_code": 0, "signal": None}),
            "process 5 ended, which was never started",
        ),
        (
            encode_frame({"type": "reply", "request": 9, "value": {}, "error": None, "detail": ""}),
            "request 9, which is not open",
        ),
        (encode_frame({"type": "ready"}) * 2, "ready came twice"),
        (encode_frame({"type": "failed", "detail": "x" * MAX_AGENT_FRAME}), "exceeds"),
    ],
)
async def test_what_the_protocol_does_not_allow_ends_the_agent(data: bytes, why: str) -> None:
    async with at_work() as played, anyio.create_task_group() as tasks:
        tasks.start_soon(played.guest.send_bytes, data)
        await wait_until(lambda: bool(played.ends))
        assert why in played.ends[0]
        with pytest.raises(WrongStateError, match="broke the protocol"):
            await played.agent.ask("stat", {})
        tasks.cancel_scope.cancel()


async def test_the_end_of_the_agent_fails_open_requests() -> None:
    async with at_work() as played:

        async def ask() -> None:
            with pytest.raises(WrongStateError, match="closed its socket"):
                await played.agent.ask("stat", {})

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(ask)
            await played.guest.receive()
            played.guest.sock.shutdown(socket.SHUT_RDWR)
        assert played.ends == ["the agent closed its socket"]


async def test_an_agent_that_takes_no_requests_is_given_up() -> None:
    async with at_work(patience=0.05) as played:
        with pytest.raises(WrongStateError, match="took no requests"):
            await played.agent.ask("file", {"text": "x" * 3_000_000})
        assert len(played.ends) == 1


async def test_open_requests_are_bounded() -> None:
    async with at_work() as played, anyio.create_task_group() as tasks:

        async def read() -> None:
            while await played.guest.receive() is not None:
                pass

        tasks.start_soon(read)
        for _ in range(MAX_OPEN_REQUESTS):
            await played.agent.begin("stat", {})
        with pytest.raises(UnavailableError, match=str(MAX_OPEN_REQUESTS)):
            await played.agent.begin("stat", {})
        tasks.cancel_scope.cancel()


async def test_a_cancelled_caller_leaves_the_connection_whole() -> None:
    async with at_work() as played, anyio.create_task_group() as tasks:
        tasks.start_soon(played.agent.ask, "file", {"text": "x" * 3_000_000})
        await anyio.wait_all_tasks_blocked()
        tasks.cancel_scope.cancel()
        with anyio.CancelScope(shield=True):
            first = await played.guest.receive()
            assert first is not None
            await played.agent.begin("stat", {})
            second = await played.guest.receive()
            assert second is not None
            assert second["op"] == "stat"


def test_a_field_of_another_type_is_the_agents_fault() -> None:
    assert read_field({"size": 3}, "size", int) == 3
    for value in ({}, {"size": True}, {"size": "3"}):
        with pytest.raises(AgentProtocolError, match="no int size"):
            read_field(value, "size", int)
