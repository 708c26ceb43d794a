"""A client of E2B's process service, and the messages that it gets."""

import base64
from typing import Any

import anyio
from anyio.abc import TaskGroup

from headrace.engine.sandbox import Sandbox
from tests.support.e2b import E2bService, envelope, open_envelopes
from tests.support.fakes import FakeAgent
from tests.support.native import Conversation, Reply

STREAM = "application/connect+json"
SUCCESS = {"event": {"end": {"exitCode": 0, "exited": True, "status": "exit status 0"}}}
KILLED = {
    "event": {
        "end": {
            "exitCode": -1,
            "exited": False,
            "status": "signal: killed",
            "error": "signal: killed",
        }
    }
}


def encoded(data: bytes) -> str:
    """Give bytes as the JSON form has them."""
    return base64.b64encode(data).decode()


def output(text: bytes, stream: str = "stdout") -> dict[str, Any]:
    """Give the message with this output."""
    return {"event": {"data": {stream: encoded(text)}}}


def started(pid: int) -> dict[str, Any]:
    """Give the first message of a stream."""
    return {"event": {"start": {"pid": pid}}}


class Caller:
    """Calls the process service of one sandbox."""

    def __init__(self, service: E2bService, sandbox: Sandbox) -> None:
        self.service = service
        self.sandbox = sandbox

    @property
    def agent(self) -> FakeAgent:
        """The agent of the sandbox."""
        return self.service.launcher.sandboxes[self.sandbox.id].agent

    @property
    def pids(self) -> list[int]:
        """The processes that run."""
        return [process.pid for process in self.sandbox.processes]

    async def unary(self, method: str, message: object, **headers: str) -> Reply:
        """Make a call with one message each way."""
        client = self.service.agent(self.sandbox, **headers)
        return await client.post(f"/process.Process/{method}", message)

    async def stream(self, method: str, *messages: object, **headers: str) -> list[tuple[int, Any]]:
        """Make a call of a stream and wait for its end; gives flags and messages."""
        client = self.service.agent(self.sandbox)
        content = [envelope(message) for message in messages] or [b""]
        headers = {"content-type": STREAM, **headers}
        reply = await client.request(
            "POST", f"/process.Process/{method}", content=content, **headers
        )
        assert (reply.status, reply.is_complete) == (200, True)
        return open_envelopes(reply.body)

    async def start(self, cmd: str, *args: str, **fields: object) -> list[tuple[int, Any]]:
        """Start a command and follow it to its end."""
        return await self.stream("Start", {"process": {"cmd": cmd, "args": args}, **fields})

    async def fail(self, method: str, *messages: object, **headers: str) -> tuple[str, str]:
        """Make a call of a stream that fails at once; gives code and message."""
        ((flags, last),) = await self.stream(method, *messages, **headers)
        assert flags == 2
        return last["error"]["code"], last["error"]["message"]

    def begin(
        self, tasks: TaskGroup, method: str, *messages: object, withheld: int = 0, **headers: str
    ) -> Conversation:
        """Make a call of a stream and go on meanwhile."""
        content = [envelope(message) for message in messages] or [b""]
        headers = {"content-type": STREAM, **headers}
        client = self.service.agent(self.sandbox)
        path = f"/process.Process/{method}"
        talk = client.begin(tasks, "POST", path, content=content, **headers)
        talk.withheld = withheld
        return talk

    async def run_on(self, *argv: str, **fields: object) -> int:
        """Start a command and leave; gives its pid."""
        async with anyio.create_task_group() as tasks:
            process = {"cmd": argv[0], "args": argv[1:]}
            talk = self.begin(tasks, "Start", {"process": process, **fields})
            await talk.wait_for(b"start")
            talk.disconnect()
        pid: int = open_envelopes(talk.body)[0][1]["event"]["start"]["pid"]
        return pid
