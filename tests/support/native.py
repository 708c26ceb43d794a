"""The native API without a network: requests go straight into the ASGI application."""

import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import TaskGroup

from headrace.adapters.base import ASGIApp, Message, Receive, Send, set_request
from headrace.adapters.native.app import NativeSettings, make_app
from headrace.engine.engine import Engine
from headrace.engine.tenancy import TenantEngine
from headrace.model.errors import UnauthenticatedError
from tests.support.fakes import Channel, FakeAgent, FakeLauncher, open_fake_engine

KEYS = {"key-of-ours": "ours", "key-of-theirs": "theirs"}
OURS, THEIRS = KEYS
ORIGIN = "http://headrace.test:8000"
PATIENCE = 10.0


class FakeAccess:
    """Knows the keys above."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def authenticate(self, presented: str | None) -> TenantEngine:
        """Give the engine of the tenant that has this key."""
        if presented not in KEYS:
            raise UnauthenticatedError("a key of this service is required")
        return TenantEngine(self._engine, KEYS[presented])

    def is_key(self, presented: str) -> bool:
        """Say whether it is one of them."""
        return presented in KEYS


@dataclass(frozen=True)
class Reply:
    """A complete answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_complete: bool

    def json(self) -> Any:
        """Read the body."""
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of the error in the body."""
        code: str = self.json()["error"]["code"]
        return code

    def lines(self) -> list[Any]:
        """Read a body of NDJSON."""
        return [json.loads(line) for line in self.body.splitlines()]


class Conversation:
    """One request while it is being answered; the test plays the client's side of the socket.

    The last ``withheld`` pieces of the body are never sent.
    """

    def __init__(self, body: list[bytes]) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""
        self.is_complete = False
        self.is_reading = True
        self.waits_for_reader = 0
        self.sends = 0
        self.withheld = 0
        self._body = body
        self._gone = anyio.Event()
        self._changed = anyio.Event()
        self._may_send = anyio.Event()

    def disconnect(self) -> None:
        """Go away."""
        self._gone.set()
        self._may_send.set()

    def stop_reading(self) -> None:
        """Take nothing more; what is sent waits."""
        self.is_reading = False
        self._may_send = anyio.Event()

    def read_on(self) -> None:
        """Take what comes again."""
        self.is_reading = True
        self._may_send.set()

    async def receive(self) -> Message:
        """Be the server: hand the body over, then wait for the client's end."""
        if len(self._body) > self.withheld:
            data = self._body.pop(0)
            return {"type": "http.request", "body": data, "more_body": bool(self._body)}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """Be the server: take a part of the answer."""
        if not self.is_reading:
            self.waits_for_reader += 1
            await self._may_send.wait()
        self.sends += 1
        if message["type"] == "http.response.start":
            assert not self.status, "an answer began twice"
            self.status = message["status"]
            headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
            assert all(name == name.lower() for name, _ in headers)
            assert len({name for name, _ in headers}) == len(headers), headers
            self.headers = dict(headers)
        else:
            assert self.status, "a body came before its head"
            assert not self.is_complete, "a body came after its end"
            self.body += message.get("body", b"")
            self.is_complete = not message.get("more_body", False)
        self._changed.set()
        self._changed = anyio.Event()

    async def wait_for(self, text: bytes) -> None:
        """Wait until the answer has this in it."""
        with anyio.fail_after(PATIENCE):
            while text not in self.body:
                assert not self.is_complete, self.body
                await self._changed.wait()

    def reply(self) -> Reply:
        """Give what was answered so far."""
        return Reply(self.status, self.headers, self.body, self.is_complete)


@dataclass
class Client:
    """Sends requests as the owner of a key."""

    app: ASGIApp
    key: str | None = OURS
    lasting: dict[str, str] = field(default_factory=dict)

    async def request(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        content: bytes | list[bytes] | None = None,
        **headers: str,
    ) -> Reply:
        """Send a request and wait for the whole answer."""
        conversation = Conversation(_pieces(body, content))
        with anyio.fail_after(PATIENCE):
            await self._run(conversation, method, path, headers)
        return conversation.reply()

    async def get(self, path: str, **headers: str) -> Reply:
        """Send GET."""
        return await self.request("GET", path, None, content=None, **headers)

    async def post(self, path: str, body: object = None, **headers: str) -> Reply:
        """Send POST."""
        return await self.request("POST", path, body, content=None, **headers)

    async def create(self) -> str:
        """Make a sandbox and give its id."""
        reply = await self.post("/v1/sandboxes", {})
        assert reply.status == 201, reply
        sandbox_id: str = reply.json()["id"]
        return sandbox_id

    async def execute(self, sandbox_id: str, code: str, **fields: object) -> Any:
        """Run code and give the outcome."""
        path = f"/v1/sandboxes/{sandbox_id}/executions"
        reply = await self.post(path, {"code": code, **fields}, accept="application/json")
        assert reply.status in (200, 202), reply
        return reply.json()

    def begin(
        self,
        tasks: TaskGroup,
        method: str,
        path: str,
        body: object = None,
        *,
        content: bytes | list[bytes] | None = None,
        **headers: str,
    ) -> Conversation:
        """Send a request and go on while it is being answered."""
        conversation = Conversation(_pieces(body, content))
        tasks.start_soon(self._run, conversation, method, path, headers)
        return conversation

    async def _run(
        self, conversation: Conversation, method: str, path: str, headers: Mapping[str, str]
    ) -> None:
        raw, _, query = path.partition("?")
        given = {**self.lasting, **headers}
        if self.key is not None:
            given.setdefault("authorization", f"Bearer {self.key}")
        scope: dict[str, Any] = {
            "type": "http",
            "method": method,
            "path": raw,
            "raw_path": raw.encode("latin-1"),
            "query_string": query.encode("latin-1"),
            "headers": [
                (name.replace("_", "-").encode(), value.encode("latin-1"))
                for name, value in given.items()
            ],
        }
        set_request(scope, "request-1", ORIGIN)
        await self.app(scope, conversation.receive, conversation.send)


def _pieces(body: object, content: bytes | list[bytes] | None) -> list[bytes]:
    if content is not None:
        return content if isinstance(content, list) else [content]
    return [b"" if body is None else json.dumps(body).encode()]


@dataclass
class NativeService:
    """The application on a fake launcher."""

    app: ASGIApp
    engine: Engine
    launcher: FakeLauncher
    to_ports: list[dict[str, Any]]

    @property
    def client(self) -> Client:
        """A client with a key."""
        return Client(self.app)

    @property
    def stranger(self) -> Client:
        """A client with the key of another tenant."""
        return Client(self.app, THEIRS)

    @property
    def nobody(self) -> Client:
        """A client without a key."""
        return Client(self.app, None)


@asynccontextmanager
async def open_native(
    directory: Path,
    *,
    launcher: FakeLauncher | None = None,
    settings: NativeSettings | None = None,
    **engine_settings: Any,
) -> AsyncIterator[NativeService]:
    """Open the application on an engine with a fake launcher."""
    to_ports: list[dict[str, Any]] = []

    async def ports(scope: Any, receive: Receive, send: Send) -> None:
        to_ports.append(dict(scope))
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": b"from a port"})

    launcher = launcher or FakeLauncher()
    launcher.make_agent = FileAgent
    async with open_fake_engine(directory, launcher, **engine_settings) as (engine, fake):
        app = make_app(FakeAccess(engine), engine.report, ports, settings or NativeSettings())
        yield NativeService(app, engine, fake, to_ports)


class FileAgent(FakeAgent):
    """A fake agent that also makes directories, moves files and sets their modes."""

    def __init__(self, channel: Channel) -> None:
        super().__init__(channel)
        self.modes: dict[str, int] = {}

    async def _make_dir(self, request: Mapping[str, Any]) -> None:
        path = request["path"]
        if path in self.files and not request["exist_ok"]:
            await self.refuse(request, "already_exists", f"{path} is there already")
            return
        is_new = path not in self.files
        self.files.setdefault(path, b"")
        await self.reply(request, created=is_new)

    async def _move(self, request: Mapping[str, Any]) -> None:
        if request["source"] not in self.files:
            await self.refuse(request, "not_found", f"{request['source']}: not found")
            return
        self.files[request["destination"]] = self.files.pop(request["source"])
        await self.reply(request, entry=self.entry(request["destination"]))

    async def _set_mode(self, request: Mapping[str, Any]) -> None:
        self.modes[request["path"]] = request["mode"]
        await self.reply(request)


class SocketConversation:
    """One WebSocket; the test plays the client."""

    def __init__(self) -> None:
        self.subprotocol: str | None = None
        self.is_accepted = False
        self.close_code: int | None = None
        self.refusal = Reply(0, {}, b"", is_complete=False)
        self.messages: list[Any] = []
        self.is_reading = True
        self.is_broken = False
        self.waiting = 0
        self._incoming: list[Message] = [{"type": "websocket.connect"}]
        self._changed = anyio.Event()

    def say(self, message: object) -> None:
        """Send a message; text and bytes as they are, everything else as JSON."""
        if isinstance(message, bytes):
            self._push({"type": "websocket.receive", "bytes": message})
        else:
            text = message if isinstance(message, str) else json.dumps(message)
            self._push({"type": "websocket.receive", "text": text})

    def disconnect(self) -> None:
        """Go away."""
        self._push({"type": "websocket.disconnect", "code": 1006})

    def read_on(self) -> None:
        """Take what comes again, after ``is_reading`` was set to False."""
        self.is_reading = True
        self._wake()

    async def receive(self) -> Message:
        """Be the server: give the next message."""
        while not self._incoming:
            await self._changed.wait()
        return self._incoming.pop(0)

    async def send(self, message: Message) -> None:
        """Be the server: take a message."""
        kind = message["type"]
        if self.is_broken:
            raise OSError("the client is gone")
        while kind == "websocket.send" and not self.is_reading:
            self.waiting += 1
            await self._changed.wait()
            self.waiting -= 1
        if kind == "websocket.accept":
            self.is_accepted, self.subprotocol = True, message.get("subprotocol")
        elif kind == "websocket.send":
            assert self.is_accepted
            self.messages.append(json.loads(message["text"]))
        elif kind == "websocket.close":
            self.close_code = message["code"]
        elif kind == "websocket.http.response.start":
            headers = {name.decode(): value.decode() for name, value in message["headers"]}
            self.refusal = Reply(message["status"], headers, b"", is_complete=False)
        else:
            whole = message["body"]
            self.refusal = Reply(self.refusal.status, self.refusal.headers, whole, True)
        self._wake()

    async def wait_for(self, count: int = 1, **fields: object) -> list[Any]:
        """Wait until so many messages with these fields have come; gives them."""
        with anyio.fail_after(PATIENCE):
            while len(found := self.find(**fields)) < count:
                assert self.close_code is None, self.messages
                await self._changed.wait()
        return found

    def find(self, **fields: object) -> list[Any]:
        """Give the messages with these fields that have come."""
        return [each for each in self.messages if fields.items() <= each.items()]

    def _push(self, message: Message) -> None:
        self._incoming.append(message)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so, within a bound."""
    with anyio.fail_after(PATIENCE):
        while True:
            if is_so():
                return
            await anyio.sleep(0.005)


async def _serve(app: ASGIApp, scope: dict[str, Any], socket: SocketConversation) -> None:
    await app(scope, socket.receive, socket.send)


@asynccontextmanager
async def open_socket(
    client: Client, path: str, *, protocols: tuple[str, ...] = (), has_answers: bool = True
) -> AsyncIterator[SocketConversation]:
    """Open a WebSocket, wait until it is accepted or refused, and leave at the end."""
    conversation = SocketConversation()
    headers = [(b"authorization", f"Bearer {client.key}".encode())] if client.key else []
    scope: dict[str, Any] = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        "subprotocols": list(protocols),
        "extensions": {"websocket.http.response": {}} if has_answers else {},
    }
    set_request(scope, "request-1", ORIGIN)
    with anyio.fail_after(3 * PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_serve, client.app, scope, conversation)
            await anyio.wait_all_tasks_blocked()
            yield conversation
            conversation.disconnect()
