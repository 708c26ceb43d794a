"""Keys come first, then methods and forms; nothing of another tenant exists."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.adapters.native.app import ROUTES, find_key
from headrace.adapters.native.routing import Route
from tests.support.native import KEYS, OURS, Client, NativeService, Reply, open_native

BODIES: Mapping[str, Any] = {
    "execute": {"code": "out hi"},
    "extendSandbox": {"timeout": 60},
    "sendInput": {"text": "x"},
    "startProcess": {"argv": ["echo"]},
    "signalProcess": {"signal": 15},
    "resizeTerminal": {"cols": 1, "rows": 1},
    "setFileMode": {"path": "a", "mode": 0},
    "makeDirectory": {"path": "a"},
    "moveFile": {"source": "a", "destination": "b"},
    "startWatch": {"path": "a"},
}
QUERIES = {"path": "path=a"}
NAMED = [route for route in ROUTES if "{" in route.path]


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[NativeService]:
    """A service of its own for each test."""
    async with open_native(tmp_path) as service:
        yield service


async def send(client: Client, route: Route, ids: Mapping[str, str]) -> Reply:
    """Send a valid request of that route."""
    path = route.path.format(**ids)
    required = [
        name
        for name, field in (route.query.model_fields if route.query else {}).items()
        if field.is_required()
    ]
    query = "&".join(QUERIES[name] for name in required)
    return await client.request(
        route.method,
        f"{path}?{query}" if query else path,
        BODIES.get(route.name) if route.body is not None else None,
        content=b"x" if route.raw_body else None,
    )


async def make_one_of_each(client: Client) -> dict[str, str]:
    """Give the ids of one thing of each kind."""
    sandbox_id = await client.create()
    base = f"/v1/sandboxes/{sandbox_id}"
    execution = await client.execute(sandbox_id, "wait", background=True)
    process = await client.post(f"{base}/processes", {"argv": ["sleep"], "background": True})
    watch = await client.post(f"{base}/watches", {"path": "/a"})
    contexts = await client.get(f"{base}/contexts")
    return {
        "sandbox_id": sandbox_id,
        "execution_id": execution["id"],
        "process_id": process.json()["id"],
        "watch_id": watch.json()["id"],
        "context_id": contexts.json()["contexts"][0]["id"],
    }


def test_every_body_above_belongs_to_a_route() -> None:
    with_body = {
        route.name for route in ROUTES if route.body is not None and not route.body_is_optional
    }

    assert set(BODIES) == with_body


@pytest.mark.parametrize("key", [None, "Basic wrong", "", "Bearer", "Bearer key-of-ours x"])
async def test_every_route_answers_401_without_a_good_key(
    service: NativeService, key: str | None
) -> None:
    client = Client(service.app, None, {} if key is None else {"authorization": key})

    for route in ROUTES:
        reply = await send(client, route, dict.fromkeys(_parameters(route), "x"))

        assert (reply.status, reply.code) == (401, "unauthenticated"), route.name
        assert reply.headers["www-authenticate"] == "Bearer"


async def test_every_route_with_an_id_hides_what_belongs_to_others(
    service: NativeService,
) -> None:
    ids = await make_one_of_each(service.client)
    never = {name: _another(value) for name, value in ids.items()}

    for route in NAMED:
        foreign = await send(service.stranger, route, ids)
        missing = await send(service.stranger, route, never)

        assert foreign.status == missing.status == 404, route.name
        text = foreign.body.decode()
        for name in sorted(ids, key=lambda name: -len(ids[name])):
            text = text.replace(ids[name], never[name])
        assert text == missing.body.decode(), route.name
    assert (await service.client.get(f"/v1/sandboxes/{ids['sandbox_id']}")).status == 200


def _another(thing_id: str) -> str:
    """Give an id of the same form that was never given."""
    return thing_id.translate(str.maketrans("abcdefgh", "bcdefgha"))


def _parameters(route: Route) -> list[str]:
    return [part[1:-1] for part in route.path.split("/") if part.startswith("{")]


@pytest.mark.parametrize("path", ["/v1", "/v1/", "/v1/nothing", "/", "/v2/sandboxes", "/v1/%FF"])
async def test_unknown_paths_want_a_key_before_they_are_unknown(
    service: NativeService, path: str
) -> None:
    assert (await service.nobody.get(path)).status == 401
    assert (await service.client.get(path)).status == 404


async def test_the_key_is_looked_at_before_the_body(service: NativeService) -> None:
    async with anyio.create_task_group() as tasks:
        # A body that never comes.
        conversation = service.nobody.begin(
            tasks, "POST", "/v1/sandboxes", content=[b"{", b"", b""]
        )
        await conversation.wait_for(b"unauthenticated")


async def test_a_key_may_come_in_two_headers(service: NativeService) -> None:
    client = service.nobody

    assert (await client.get("/v1/sandboxes", x_api_key=OURS)).status == 200
    assert (await client.get("/v1/sandboxes", authorization=f"bearer  {OURS}")).status == 200
    assert (await client.get("/v1/sandboxes", authorization=OURS)).status == 200
    wrong = await client.get("/v1/sandboxes", authorization="Bearer no", x_api_key=OURS)
    assert wrong.status == 401


def test_a_key_among_the_protocols_counts_only_for_the_stream() -> None:
    scope = {"headers": [], "subprotocols": ["headrace", f"headrace.key.{OURS}"]}

    assert find_key(scope) is None
    assert find_key(scope, in_protocol=True) == OURS


async def test_the_document_needs_no_key(service: NativeService) -> None:
    reply = await service.nobody.get("/v1/openapi.json")

    assert reply.status == 200
    assert reply.json()["openapi"] == "3.1.0"
    assert (await service.nobody.request("HEAD", "/v1/openapi.json")).status == 200
    assert (await service.nobody.post("/v1/openapi.json", {})).status == 401


async def test_another_method_is_told_which_there_are(client: Client, sandbox_id: str) -> None:
    reply = await client.request("PUT", f"/v1/sandboxes/{sandbox_id}", {})

    assert (reply.status, reply.code) == (405, "method_not_allowed")
    assert reply.headers["allow"] == "DELETE, GET, HEAD, OPTIONS, PATCH"


async def test_options_says_what_can_be_done(client: Client) -> None:
    reply = await client.request("OPTIONS", "/v1/sandboxes")

    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["allow"] == "GET, HEAD, OPTIONS, POST"
    assert (await client.request("OPTIONS", "/v1/nothing")).status == 404


async def test_head_is_get_without_the_body(client: Client, sandbox_id: str) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/contexts"
    whole = await client.get(path)
    head = await client.request("HEAD", path)

    assert (head.status, head.body) == (200, b"")
    assert head.headers == whole.headers
    assert (await client.request("HEAD", "/v1/sandboxes/none")).status == 404


async def test_head_of_a_stream_does_not_wait_for_its_end(client: Client, sandbox_id: str) -> None:
    execution = await client.execute(sandbox_id, "wait", background=True)

    head = await client.request("HEAD", f"/v1/executions/{execution['id']}/events")

    assert (head.status, head.body, head.is_complete) == (200, b"", True)
    assert head.headers["content-type"] == "text/event-stream; charset=utf-8"


async def test_a_query_that_nobody_expects_is_refused(client: Client) -> None:
    reply = await client.request("POST", "/v1/sandboxes?template=x", {})

    assert (reply.status, reply.code) == (400, "invalid_request")


async def test_what_cannot_be_accepted_is_not_done(client: Client, sandbox_id: str) -> None:
    path = f"/v1/sandboxes/{sandbox_id}/executions"

    reply = await client.post(path, {"code": "out hi"}, accept="image/png")

    assert (reply.status, reply.code) == (406, "not_acceptable")
    assert (await client.get(path)).json() == {"executions": []}


async def test_a_defect_answers_500_and_reveals_nothing(
    service: NativeService, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_self: object) -> None:
        raise ZeroDivisionError("the secret")

    monkeypatch.setattr("headrace.engine.tenancy.TenantEngine.list", fail)

    reply = await service.client.get("/v1/sandboxes")

    assert (reply.status, reply.code) == (500, "internal")
    assert b"secret" not in reply.body
    assert reply.json()["error"]["request_id"] == "request-1"
    assert "the secret" in caplog.text


async def test_a_port_gets_sandbox_number_and_path(service: NativeService) -> None:
    client = service.client
    sandbox_id = await client.create()

    reply = await client.request(
        "PROPFIND", f"/v1/sandboxes/{sandbox_id}/ports/8080/a%2Fb/c%20d?x=%20"
    )

    assert (reply.status, reply.body) == (299, b"from a port")
    (scope,) = service.to_ports
    assert scope["headrace.sandbox"] is service.engine.find(sandbox_id)
    assert scope["headrace.port"] == 8080
    assert scope["headrace.port_path"] == "/a/b/c d"
    assert scope["headrace.port_raw_path"] == b"/a%2Fb/c%20d"
    assert scope["headrace.is_main_origin"] is True
    assert scope["query_string"] == b"x=%20"


@pytest.mark.parametrize(
    ("rest", "raw"), [("80", b"/"), ("80/", b"/"), ("80//x/", b"//x/"), ("80/%2e%2e", b"/%2e%2e")]
)
async def test_the_path_behind_a_port_stays_as_it_was_sent(
    service: NativeService, rest: str, raw: bytes
) -> None:
    sandbox_id = await service.client.create()

    await service.client.get(f"/v1/sandboxes/{sandbox_id}/ports/{rest}")

    assert service.to_ports[0]["headrace.port_raw_path"] == raw


@pytest.mark.parametrize("port", ["0", "65536", "-1", "x", "1e3", "", "٣", "9" * 400])
async def test_what_is_no_port_is_refused(service: NativeService, port: str) -> None:
    sandbox_id = await service.client.create()

    reply = await service.client.get(
        f"/v1/sandboxes/{sandbox_id}/ports/{port.encode().decode('latin-1')}/"
    )

    assert (reply.status, reply.code) == (400, "invalid_request")
    assert service.to_ports == []


async def test_the_ports_of_another_tenant_do_not_exist(service: NativeService) -> None:
    sandbox_id = await service.client.create()

    foreign = await service.stranger.get(f"/v1/sandboxes/{sandbox_id}/ports/80/")
    nobody = await service.nobody.get(f"/v1/sandboxes/{sandbox_id}/ports/80/")

    assert (foreign.status, foreign.code) == (404, "sandbox_not_found")
    assert nobody.status == 401
    assert service.to_ports == []


def test_the_tests_know_both_tenants() -> None:
    assert len(KEYS) == 2
