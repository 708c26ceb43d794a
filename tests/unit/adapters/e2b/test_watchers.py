"""Watching directories over RPC: as a stream, and by asking again and again."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.adapters.e2b import watcher
from headrace.engine.pipes import PipeWriter
from headrace.engine.sandbox import Sandbox
from headrace.engine.watch import MAX_WATCHES
from tests.support.e2b import E2bService, envelope, open_e2b, open_envelopes
from tests.support.fakes import PATIENCE, Channel
from tests.support.native import Client, Conversation, FileAgent, Reply, eventually

STREAM = {"content-type": "application/connect+json"}
OVERFLOW = {"overflow": True}
END = None


class WatchAgent(FileAgent):
    """A fake agent that tells of the changes that a test makes up; None ends the watch."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.changes: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.watching = 0

    def change(self, change: str, path: str) -> None:
        """Let something happen."""
        self.changes.put_nowait({"change": change, "path": path})

    async def _watch(self, request: Mapping[str, Any], fd: int) -> None:
        if request["path"] == "/missing":
            await super()._watch(request, fd)
            return
        pipe = PipeWriter(fd)
        self.watching += 1
        try:
            line: dict[str, Any] | None = {"started": True}
            while line is not None:
                await pipe.write(json.dumps(line).encode() + b"\n", timeout=PATIENCE)
                line = await self.changes.get()
            pipe.close()
            await self.reply(request, ended="removed")
        finally:
            self.watching -= 1
            pipe.close()


@pytest.fixture(scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[E2bService]:
    """The dialect, with agents whose changes the test makes up."""
    async with open_e2b(tmp_path_factory.mktemp("service")) as service:
        service.launcher.make_agent = WatchAgent
        yield service


@pytest.fixture
def agent(service: E2bService, sandbox: Sandbox) -> WatchAgent:
    """The sandbox's agent."""
    agent = service.launcher.sandboxes[sandbox.id].agent
    assert isinstance(agent, WatchAgent)
    return agent


@pytest.fixture
def client(service: E2bService, sandbox: Sandbox) -> Client:
    """A client of the sandbox's agent."""
    return service.agent(sandbox)


def watch(client: Client, tasks: Any, **message: Any) -> Conversation:
    return client.begin(
        tasks,
        "POST",
        "/filesystem.Filesystem/WatchDir",
        content=envelope(message),
        **STREAM,
    )


def messages(reply: Reply) -> list[Any]:
    return [message for _, message in open_envelopes(reply.body)]


async def call(client: Client, method: str, **message: Any) -> Any:
    reply = await client.post(f"/filesystem.Filesystem/{method}", message)
    assert reply.status == 200, reply
    return reply.json()


async def fail(client: Client, method: str, **message: Any) -> tuple[int, Any]:
    reply = await client.post(f"/filesystem.Filesystem/{method}", message)
    return reply.status, reply.json()


# --- a stream -------------------------------------------------------------------------------


async def test_changes_follow_a_start_until_the_directory_is_gone(
    client: Client, agent: WatchAgent
) -> None:
    async with anyio.create_task_group() as tasks:
        conversation = watch(client, tasks, path="d", recursive=True)
        await conversation.wait_for(b"start")
        assert not conversation.is_complete
        for change in ("created", "written", "chmod", "renamed", "removed"):
            agent.change(change, "sub/f")
        agent.changes.put_nowait(END)

    reply = conversation.reply()
    assert reply.headers["content-type"] == "application/connect+json"
    assert messages(reply) == [
        {"start": {}},
        *(
            {"filesystem": {"name": "sub/f", "type": f"EVENT_TYPE_{kind}"}}
            for kind in ("CREATE", "WRITE", "CHMOD", "RENAME", "REMOVE")
        ),
        {},
    ]
    assert open_envelopes(reply.body)[-1][0] == 2
    request = next(each for each in agent.requests if each.get("action") == "watch")
    assert (request["path"], request["recursive"]) == ("/home/user/d", True)


async def test_entries_are_told_of_what_is_still_there_to_who_wants_them(
    client: Client, agent: WatchAgent
) -> None:
    agent.files["/home/user/d/here"] = b"123"
    async with anyio.create_task_group() as tasks:
        conversation = watch(client, tasks, path="d", include_entry=True)
        await conversation.wait_for(b"start")
        for change in ("created", "written", "chmod", "renamed", "removed"):
            agent.change(change, "here")
        agent.change("created", "gone")
        agent.changes.put_nowait(END)

    events = [each["filesystem"] for each in messages(conversation.reply())[1:-1]]
    sizes = [each.get("entry", {}).get("size") for each in events]
    assert sizes == ["3", "3", "3", None, None, None]
    assert events[0]["entry"]["path"] == "/home/user/d/here"


async def test_a_stream_that_lost_changes_ends_with_an_error(
    client: Client, agent: WatchAgent
) -> None:
    async with anyio.create_task_group() as tasks:
        conversation = watch(client, tasks, path="d")
        await conversation.wait_for(b"start")
        agent.changes.put_nowait(OVERFLOW)

    last = messages(conversation.reply())[-1]
    assert last["error"]["code"] == "internal"
    assert "changes were lost" in last["error"]["message"]
    await eventually(lambda: agent.watching == 0)


async def test_a_watch_ends_with_its_client(client: Client, agent: WatchAgent) -> None:
    async with anyio.create_task_group() as tasks:
        conversation = watch(client, tasks, path="d")
        await conversation.wait_for(b"start")
        assert agent.watching == 1
        conversation.disconnect()
    await eventually(lambda: agent.watching == 0)
    assert not conversation.is_complete


async def test_a_watch_ends_with_the_time_of_its_call(client: Client, agent: WatchAgent) -> None:
    reply = await client.request(
        "POST",
        "/filesystem.Filesystem/WatchDir",
        content=envelope({"path": "d"}),
        **STREAM,
        **{"connect-timeout-ms": "30"},
    )

    assert messages(reply)[-1]["error"]["code"] == "deadline_exceeded"
    await eventually(lambda: agent.watching == 0)


async def test_silence_is_broken_by_signs_of_life(client: Client, agent: WatchAgent) -> None:
    async with anyio.create_task_group() as tasks:
        conversation = client.begin(
            tasks,
            "POST",
            "/filesystem.Filesystem/WatchDir",
            content=envelope({"path": "d"}),
            **STREAM,
            **{"keepalive-ping-interval": "1"},
        )
        await conversation.wait_for(b'{"keepalive":{}}')
        conversation.disconnect()


async def test_a_stream_is_broken_off_when_its_sandbox_ends(
    client: Client, sandbox: Sandbox
) -> None:
    async with anyio.create_task_group() as tasks:
        conversation = watch(client, tasks, path="d")
        await conversation.wait_for(b"start")
        await sandbox.kill()
    assert not conversation.is_complete


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"path": "/missing"}, "not_found"),
        ({"path": "a\0"}, "invalid_argument"),
        ({"path": 1}, "invalid_argument"),
    ],
)
async def test_what_cannot_be_watched_is_said_in_the_last_envelope(
    client: Client, message: Any, code: str
) -> None:
    reply = await client.request(
        "POST", "/filesystem.Filesystem/WatchDir", content=envelope(message), **STREAM
    )

    assert reply.status == 200
    ((flags, last),) = open_envelopes(reply.body)
    assert (flags, last["error"]["code"]) == (2, code)


# --- asking ---------------------------------------------------------------------------------


async def wait_for_events(sandbox: Sandbox, watcher_id: str, count: int) -> None:
    found = sandbox.watches.find(watcher_id)
    assert found is not None
    await eventually(lambda: found.log.last_seq >= count + 1)


async def test_changes_are_told_once(client: Client, sandbox: Sandbox, agent: WatchAgent) -> None:
    agent.files["/home/user/d/a"] = b"1"
    made = (await call(client, "CreateWatcher", path="d", includeEntry=True))["watcherId"]
    assert await call(client, "GetWatcherEvents", watcherId=made) == {"events": []}
    agent.change("created", "a")
    agent.change("removed", "b")
    await wait_for_events(sandbox, made, 2)

    events = (await call(client, "GetWatcherEvents", watcherId=made))["events"]

    assert [(each["name"], each["type"]) for each in events] == [
        ("a", "EVENT_TYPE_CREATE"),
        ("b", "EVENT_TYPE_REMOVE"),
    ]
    assert events[0]["entry"]["size"] == "1"
    assert await call(client, "GetWatcherEvents", watcherId=made) == {"events": []}


async def test_each_of_many_that_ask_at_once_gets_other_changes(
    client: Client, sandbox: Sandbox, agent: WatchAgent
) -> None:
    made = (await call(client, "CreateWatcher", path="d"))["watcherId"]
    for number in range(50):
        agent.change("created", str(number))
    await wait_for_events(sandbox, made, 50)
    told: list[str] = []

    async def ask() -> None:
        answer = await call(client, "GetWatcherEvents", watcherId=made)
        told.extend(each["name"] for each in answer["events"])

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(ask)
    assert told == [str(number) for number in range(50)]


async def test_lost_changes_fail_one_request_between_those_before_and_after(
    client: Client, sandbox: Sandbox, agent: WatchAgent
) -> None:
    made = (await call(client, "CreateWatcher", path="d"))["watcherId"]
    agent.change("created", "before")
    agent.changes.put_nowait(OVERFLOW)
    agent.change("created", "after")
    await wait_for_events(sandbox, made, 3)

    before = await call(client, "GetWatcherEvents", watcherId=made)
    status, lost = await fail(client, "GetWatcherEvents", watcherId=made)
    after = await call(client, "GetWatcherEvents", watcherId=made)

    assert [each["name"] for each in before["events"]] == ["before"]
    assert (status, lost["code"]) == (500, "internal")
    assert "changes were lost" in lost["message"]
    assert [each["name"] for each in after["events"]] == ["after"]


async def test_one_answer_is_bounded_and_the_rest_is_for_the_next(
    client: Client, sandbox: Sandbox, agent: WatchAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "MAX_EVENTS", 3)
    made = (await call(client, "CreateWatcher", path="d"))["watcherId"]
    told: list[str] = []
    for number in range(8):
        agent.change("created", str(number))
    await wait_for_events(sandbox, made, 8)

    while events := (await call(client, "GetWatcherEvents", watcherId=made))["events"]:
        told += [each["name"] for each in events]

    assert told == [str(number) for number in range(8)]


async def test_a_watcher_is_removed_once(client: Client, agent: WatchAgent) -> None:
    made = (await call(client, "CreateWatcher", path="d"))["watcherId"]

    assert await call(client, "RemoveWatcher", watcherId=made) == {}

    assert agent.watching == 0
    for method in ("GetWatcherEvents", "RemoveWatcher"):
        status, error = await fail(client, method, watcherId=made)
        assert (status, error["code"]) == (404, "not_found")


async def test_a_watcher_of_another_sandbox_is_not_there(
    service: E2bService, client: Client
) -> None:
    other = service.agent(await service.create())
    made = (await call(other, "CreateWatcher", path="d"))["watcherId"]

    assert (await fail(client, "GetWatcherEvents", watcherId=made))[0] == 404


async def test_what_happened_before_the_directory_was_removed_is_still_told(
    client: Client, agent: WatchAgent
) -> None:
    made = (await call(client, "CreateWatcher", path="d"))["watcherId"]
    agent.change("removed", "a")
    agent.changes.put_nowait(END)
    await eventually(lambda: agent.watching == 0)

    events = (await call(client, "GetWatcherEvents", watcherId=made))["events"]

    assert [each["name"] for each in events] == ["a"]
    assert await call(client, "GetWatcherEvents", watcherId=made) == {"events": []}


async def test_the_number_of_watchers_that_run_is_bounded(client: Client) -> None:
    for _ in range(MAX_WATCHES):
        await call(client, "CreateWatcher", path="d")

    status, error = await fail(client, "CreateWatcher", path="d")

    assert (status, error["code"]) == (429, "resource_exhausted")


async def test_the_oldest_of_too_many_that_ended_are_forgotten(
    client: Client, agent: WatchAgent
) -> None:
    made = []
    for _ in range(2 * MAX_WATCHES):
        made.append((await call(client, "CreateWatcher", path="d"))["watcherId"])
        agent.changes.put_nowait(END)
        await eventually(lambda: agent.watching == 0)

    known = [(await fail(client, "GetWatcherEvents", watcherId=each))[0] == 200 for each in made]

    assert known == [False] * known.count(False) + [True] * known.count(True)
    assert MAX_WATCHES <= known.count(True) <= MAX_WATCHES + 1


async def test_watchers_end_with_their_sandbox(tmp_path: Path) -> None:
    async with open_e2b(tmp_path) as service:
        service.launcher.make_agent = WatchAgent
        sandbox = await service.create()
        client = service.agent(sandbox)
        made = (await call(client, "CreateWatcher", path="d"))["watcherId"]

        await sandbox.kill()

        status, error = await fail(client, "GetWatcherEvents", watcherId=made)
        assert (status, error["code"]) == (502, 502)
