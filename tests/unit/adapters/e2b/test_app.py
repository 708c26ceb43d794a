"""Which plane a request is for, and whether it may."""

import base64
import hashlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from headrace.adapters.base import Message, Receive, Scope, Send, set_request
from headrace.adapters.e2b.access import Purpose
from headrace.adapters.e2b.app import AGENT_PORT, INTERPRETER_PORT, E2bApp, render_port_error
from headrace.adapters.e2b.debugging import DEBUG_SANDBOX
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import DeadlineError, PortUnreachableError
from tests.support.e2b import SECRET, TOKENS, E2bAccess, E2bService, open_e2b
from tests.support.fakes import open_fake_engine
from tests.support.native import ORIGIN, Client, Conversation, Reply, SocketConversation

NEVER = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[E2bService]:
    """A service of its own for each test."""
    async with open_e2b(tmp_path) as service:
        yield service


def to_port(service: E2bService, sandbox_id: str, port: str | None, **more: str) -> Client:
    """A client of a port of a sandbox, without any token."""
    lasting = {"e2b-sandbox-id": sandbox_id, **more}
    if port is not None:
        lasting["e2b-sandbox-port"] = port
    return Client(service.app, None, lasting)


def gone(sandbox_id: str) -> Any:
    return {"sandboxId": sandbox_id, "message": "The sandbox was not found", "code": 502}


async def open_socket(app: Any, *, path: str = "/", **headers: str) -> SocketConversation:
    """Ask for a WebSocket and give what became of it."""
    scope: dict[str, Any] = {
        "type": "websocket",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), v.encode()) for name, v in headers.items()],
        "subprotocols": [],
        "extensions": {"websocket.http.response": {}},
    }
    set_request(scope, "request-1", ORIGIN)
    conversation = SocketConversation()
    await app(scope, conversation.receive, conversation.send)
    return conversation


async def ask_host(
    service: E2bService, sandbox_id: str, port: int, path: str, **headers: str
) -> Reply:
    """Send a request to the host name of a port."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(name.replace("_", "-").encode(), v.encode()) for name, v in headers.items()],
    }
    set_request(scope, "request-1", ORIGIN)
    conversation = Conversation([b""])
    await service.app.serve_host(
        scope, conversation.receive, conversation.send, sandbox_id=sandbox_id, port=port
    )
    return conversation.reply()


# --- planes -----------------------------------------------------------------------------------


async def test_the_headers_name_sandbox_and_port(service: E2bService) -> None:
    sandbox = await service.create()

    for port in (None, "", str(AGENT_PORT)):
        assert (await to_port(service, sandbox.id, port).get("/health")).status == 204
    interpreter = to_port(service, sandbox.id, str(INTERPRETER_PORT))
    assert (await interpreter.get("/health")).status == 200
    assert service.to_ports == []
    assert (await to_port(service, sandbox.id, "3000").get("/health")).status == 299
    assert service.to_ports[0]["headrace.port"] == 3000


async def test_a_path_of_the_control_plane_is_none_where_a_sandbox_is_named(
    service: E2bService,
) -> None:
    sandbox = await service.create()

    reply = await service.agent(sandbox).get("/sandboxes", x_api_key="e2b_key-of-ours")

    assert (reply.status, reply.json()["code"]) == (404, 404)


async def test_everything_else_is_the_control_plane(service: E2bService) -> None:
    assert (await service.client.get("/sandboxes")).json() == []
    assert (await service.nobody.get("/sandboxes")).status == 401
    assert (await service.nobody.get("/health")).status == 401


async def test_a_host_name_names_sandbox_and_port(service: E2bService) -> None:
    sandbox = await service.create()

    assert (await ask_host(service, sandbox.id, AGENT_PORT, "/health")).status == 204
    assert (await ask_host(service, sandbox.id, INTERPRETER_PORT, "/health")).status == 200
    assert (await ask_host(service, sandbox.id, 3000, "/a")).body == b"from a port"
    assert service.to_ports[0]["headrace.is_main_origin"] is False
    assert (await ask_host(service, NEVER, 3000, "/a")).json() == gone(NEVER)


async def test_the_service_is_told_which_sandboxes_are_of_this_dialect(
    service: E2bService,
) -> None:
    elsewhere = await service.create()
    made = (await service.client.post("/v2/sandboxes", {"templateID": "base"})).json()

    assert service.app.knows(made["sandboxID"])
    assert not service.app.knows(elsewhere.id)
    assert not service.app.knows("nothing")


# --- signatures -------------------------------------------------------------------------------


def sign(sandbox: Sandbox, path: str, operation: str) -> str:
    token = TOKENS.make(Purpose.AGENT, sandbox.id)
    digest = hashlib.sha256(f"{path}:{operation}::{token}".encode()).digest()
    signature = "v1_" + base64.b64encode(digest).decode().rstrip("=")
    return f"/files?path={quote(path, safe='')}&signature={quote(signature, safe='')}"


async def test_a_signature_says_whose_file_it_is(service: E2bService) -> None:
    sandboxes = [await service.create() for _ in range(3)]
    for sandbox in sandboxes:
        await sandbox.files.write("/home/user/a.txt", sandbox.id.encode())

    for sandbox in sandboxes:
        reply = await service.nobody.get(sign(sandbox, "a.txt", "read"))
        assert (reply.status, reply.body) == (200, sandbox.id.encode())


async def test_a_signature_of_nobody_is_refused(service: E2bService) -> None:
    sandbox = await service.create()

    for path in (
        "/files",
        "/files?path=a.txt",
        "/files?path=a.txt&signature=v1_x",
        sign(sandbox, "a.txt", "write"),
        sign(sandbox, "a.txt", "read").replace("a.txt", "b.txt"),
    ):
        reply = await service.nobody.get(path)
        assert (reply.status, reply.json()["code"]) == (401, 401), path
    assert (await service.nobody.get("/files?path=%FF")).status == 400


async def test_a_signature_of_a_sandbox_that_is_paused_or_dead_is_no_way_in(
    service: E2bService,
) -> None:
    sandbox = await service.create()
    path = sign(sandbox, "a.txt", "read")
    await sandbox.pause()
    reply = await service.nobody.get(path)
    assert (reply.status, reply.json()) == (502, gone(sandbox.id))

    await sandbox.kill()
    assert (await service.nobody.get(path)).status == 401


async def test_a_signature_of_a_sandbox_that_a_client_made_and_ended_says_that_it_is_gone(
    service: E2bService,
) -> None:
    made = (await service.client.post("/v2/sandboxes", {"templateID": "base"})).json()
    path = sign(service.engine.find(made["sandboxID"]), "a.txt", "read")
    await service.client.request("DELETE", f"/sandboxes/{made['sandboxID']}")

    reply = await service.nobody.get(path)
    by_name = await ask_host(service, made["sandboxID"], 3000, "/")

    assert (reply.status, reply.json()) == (502, gone(made["sandboxID"]))
    assert service.app.knows(made["sandboxID"])
    assert by_name.status == 502


# --- sandboxes that are not there -------------------------------------------------------------


async def test_a_sandbox_that_is_gone_or_paused_is_502_at_every_port(service: E2bService) -> None:
    paused, dead = await service.create(), await service.create()
    await paused.pause()
    await dead.kill()

    for sandbox_id in (paused.id, dead.id, NEVER):
        for port in ("49983", "49999", "3000"):
            reply = await to_port(service, sandbox_id, port).get("/health")
            assert (reply.status, reply.json()) == (502, gone(sandbox_id))


@pytest.mark.parametrize("sandbox_id", ["", "x", "../..", "a" * 5000, "\xff\xfe", DEBUG_SANDBOX])
async def test_an_id_that_is_none_is_502(service: E2bService, sandbox_id: str) -> None:
    reply = await to_port(service, sandbox_id, "49983").get("/health")

    assert (reply.status, reply.json()) == (502, gone(sandbox_id[:100]))


@pytest.mark.parametrize(
    "port",
    ["0", "65536", "-1", "+80", "8 0", " 80", "x", "0x50", "000065535999", "\xb2", "9" * 999],
)
async def test_a_port_that_is_none_is_refused(service: E2bService, port: str) -> None:
    sandbox = await service.create()

    reply = await to_port(service, sandbox.id, port).get("/health")

    assert (reply.status, {*reply.json()}) == (400, {"code", "message"})
    assert "a port is a number" in reply.json()["message"]
    assert service.to_ports == []


# --- ports ------------------------------------------------------------------------------------


async def test_a_server_inside_hears_nothing_that_is_for_us(service: E2bService) -> None:
    sandbox = await service.create()
    client = to_port(service, sandbox.id, "3000", cookie="a=b")

    await client.get(
        "/a%20b?c=d",
        e2b_traffic_access_token=TOKENS.make(Purpose.TRAFFIC, sandbox.id),
        x_access_token=TOKENS.make(Purpose.AGENT, sandbox.id),
    )

    (scope,) = service.to_ports
    assert scope["headers"] == [(b"cookie", b"a=b")]
    assert scope["headrace.sandbox"] is sandbox
    assert scope["headrace.port"] == 3000
    assert scope["headrace.port_raw_path"] == b"/a%20b"
    assert scope["headrace.is_main_origin"] is True


async def test_a_token_of_a_servers_own_is_passed_on(service: E2bService) -> None:
    sandbox = await service.create()

    await to_port(service, sandbox.id, "3000", **{"x-access-token": "its own"}).get("/")

    assert service.to_ports[0]["headers"] == [(b"x-access-token", b"its own")]


async def test_servers_are_told_the_host_name_that_the_sandbox_was_made_with(
    service: E2bService,
) -> None:
    network = {"maskRequestHost": "custom.example:${PORT}"}
    made = (
        await service.client.post("/v2/sandboxes", {"templateID": "base", "network": network})
    ).json()
    other = await service.create()

    await to_port(service, made["sandboxID"], "3000").get("/")
    await to_port(service, other.id, "3000").get("/")

    masked, plain = service.to_ports
    assert masked["headrace.port_host"] == "custom.example:3000"
    assert plain["headrace.port_host"] is None


async def test_servers_are_spoken_to_with_tls_where_the_sandbox_was_made_so(
    service: E2bService,
) -> None:
    body = {"templateID": "base", "network": {"httpsPorts": [8443]}}
    made = (await service.client.post("/v2/sandboxes", body)).json()

    for port in ("8443", "3000"):
        await to_port(service, made["sandboxID"], port).get("/")

    assert [scope["headrace.port_has_tls"] for scope in service.to_ports] == [True, False]


async def test_ports_that_are_not_public_need_the_token_for_traffic(service: E2bService) -> None:
    body = {"templateID": "base", "network": {"allowPublicTraffic": False}}
    made = (await service.client.post("/v2/sandboxes", body)).json()
    another = await service.create()
    client = to_port(service, made["sandboxID"], "3000")

    for token in ("", "x", made["envdAccessToken"], TOKENS.make(Purpose.TRAFFIC, another.id)):
        reply = await client.get("/", e2b_traffic_access_token=token)
        assert (reply.status, {*reply.json()}) == (403, {"sandboxId", "message", "code"})
        by_name = await ask_host(
            service, made["sandboxID"], 3000, "/", e2b_traffic_access_token=token
        )
        assert by_name.status == 403
    assert service.to_ports == []
    good = await client.get("/", e2b_traffic_access_token=made["trafficAccessToken"])
    assert good.status == 299


async def test_errors_of_a_port_have_the_words_that_sdks_look_for(service: E2bService) -> None:
    sandbox = await service.create()
    scope: dict[str, Any] = {"type": "http", "headrace.sandbox": sandbox, "headrace.port": 3000}
    for error, status, text in (
        (PortUnreachableError("nothing listens"), 502, b"port is not open"),
        (DeadlineError("too late"), 504, b"too late"),
    ):
        conversation = Conversation([b""])
        answer = render_port_error(error, scope)
        await answer(scope, conversation.receive, conversation.send)
        assert conversation.status == status
        assert text in conversation.body


# --- HEAD -------------------------------------------------------------------------------------


async def test_head_has_no_body(service: E2bService) -> None:
    sandbox = await service.create()
    await sandbox.files.write("/home/user/a.txt", b"12345")

    for client, path, status in (
        (service.client, "/nothing", 404),
        (service.client, "/sandboxes", 405),
        (service.nobody, "/sandboxes", 401),
        (service.agent(sandbox), "/health", 204),
        (service.agent(sandbox), "/files?path=a.txt", 200),
        (to_port(service, NEVER, "3000"), "/", 502),
    ):
        reply = await client.request("HEAD", path)
        assert (reply.status, reply.body, reply.is_complete) == (status, b"", True), path


async def test_head_is_passed_on_as_it_is(service: E2bService) -> None:
    sandbox = await service.create()

    reply = await to_port(service, sandbox.id, "3000").request("HEAD", "/")

    assert (reply.status, reply.body) == (299, b"from a port")
    assert service.to_ports[0]["method"] == "HEAD"


# --- WebSockets -------------------------------------------------------------------------------


async def test_a_websocket_to_a_server_inside_is_passed_on(service: E2bService) -> None:
    sandbox = await service.create()
    taken: list[Any] = []

    async def ports(scope: Scope, receive: Receive, send: Send) -> None:
        taken.append(scope["headrace.port"])
        await receive()
        await send({"type": "websocket.accept"})

    app = E2bApp(E2bAccess(service.engine), service.engine, ports, SECRET)
    conversation = await open_socket(app, e2b_sandbox_id=sandbox.id, e2b_sandbox_port="3000")

    assert conversation.is_accepted
    assert taken == [3000]


async def test_a_websocket_that_cannot_be_is_refused(service: E2bService) -> None:
    body = {"templateID": "base", "network": {"allowPublicTraffic": False}}
    closed = (await service.client.post("/v2/sandboxes", body)).json()["sandboxID"]

    for headers, status in (
        ({}, 400),
        ({"x_api_key": "e2b_key-of-ours"}, 400),
        ({"e2b_sandbox_id": NEVER, "e2b_sandbox_port": "3000"}, 502),
        ({"e2b_sandbox_id": closed, "e2b_sandbox_port": "3000"}, 403),
        ({"e2b_sandbox_id": closed, "e2b_sandbox_port": "x"}, 400),
    ):
        conversation = await open_socket(service.app, path="/files", **headers)
        assert not conversation.is_accepted
        assert conversation.refusal.status == status
        assert conversation.refusal.json()["code"] == status


# --- debug mode -------------------------------------------------------------------------------


async def test_in_debug_mode_one_sandbox_is_for_everybody(tmp_path: Path) -> None:
    async with open_e2b(tmp_path, settings=E2bSettings(debug=True)) as service:
        agent = to_port(service, DEBUG_SANDBOX, "49983", **{"content-type": "application/json"})

        assert (await agent.get("/health")).status == 204
        assert (await agent.post("/process.Process/List", {})).status == 200
        (first,) = service.engine.list()
        await first.kill()
        assert (await agent.post("/process.Process/List", {})).status == 200
        (second,) = service.engine.list()
        await second.pause()
        assert (await agent.post("/process.Process/List", {})).status == 200

        assert second.state is SandboxState.RUNNING
        # Nothing else is open because of that.
        other = await service.create()
        agent = to_port(service, other.id, "49983", **{"content-type": "application/json"})
        assert (await agent.post("/process.Process/List", {})).status == 401
        assert (await service.nobody.get("/sandboxes")).status == 401


# --- defects ----------------------------------------------------------------------------------


async def fail_at_once(scope: Scope, receive: Receive, send: Send) -> None:
    del scope, receive, send
    raise KeyError("hidden")


async def test_a_defect_is_logged_and_tells_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_fake_engine(tmp_path) as (engine, _):
        app = E2bApp(E2bAccess(engine), engine, fail_at_once, SECRET)
        service = E2bService(app, engine, _, [])
        sandbox = await service.create()
        with caplog.at_level(logging.ERROR):
            reply = await to_port(service, sandbox.id, "3000").get("/")

    assert (reply.status, reply.json()["code"]) == (500, 500)
    assert "hidden" not in reply.body.decode()
    assert "hidden" in caplog.text


async def test_a_client_that_leaves_before_its_request_is_complete_is_no_failure(
    service: E2bService, caplog: pytest.LogCaptureFixture
) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": "/v2/sandboxes",
        "raw_path": b"/v2/sandboxes",
        "query_string": b"",
        "headers": [(b"x-api-key", b"e2b_key-of-ours")],
    }
    with caplog.at_level(logging.ERROR):
        await service.app(scope, receive, send)

    assert sent == []
    assert caplog.text == ""
    assert service.engine.list() == []
