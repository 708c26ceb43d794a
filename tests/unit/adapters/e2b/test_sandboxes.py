"""The life of a sandbox over the control plane."""

import time
from datetime import datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from headrace.adapters.e2b.access import Purpose
from headrace.adapters.e2b.schemas.control import MAX_NETWORK
from headrace.adapters.e2b.settings import E2bSettings
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import WrongStateError
from headrace.model.ids import is_sandbox_id
from headrace.model.specs import MIB, Limits, TimeoutAction
from tests.support.e2b import TOKENS, E2bService, open_e2b
from tests.support.native import Client, Reply

V2 = "/v2/sandboxes"
NEVER = "abcdefghijklmnopqrstuvwxyz"


async def create(client: Client, path: str = V2, **fields: Any) -> Any:
    reply = await client.post(path, {"templateID": "base", **fields})
    assert reply.status == 201, reply
    return reply.json()


def headers(**values: object) -> dict[str, Any]:
    return {"transform": {"headers": values}}


async def make(service: E2bService, **fields: Any) -> Sandbox:
    return service.engine.find((await create(service.client, **fields))["sandboxID"])


async def detail_of(service: E2bService, sandbox: Sandbox) -> Any:
    reply = await service.client.get(f"/sandboxes/{sandbox.id}")
    assert reply.status == 200, reply
    return reply.json()


def assert_lives_for(sandbox: Sandbox, seconds: float) -> None:
    assert sandbox.deadline - time.time() == pytest.approx(seconds, abs=5)


def assert_refused(reply: Reply, status: int, text: str) -> None:
    assert reply.status == status, reply
    body = reply.json()
    assert {*body} == {"code", "message"}
    assert body["code"] == status
    assert text in body["message"]


# --- making -----------------------------------------------------------------------------------


async def test_a_sandbox_is_made_and_answered_with_what_opens_it(service: E2bService) -> None:
    shape = await create(service.client, timeout=60, envVars={"A": "1"}, metadata={"job": "7"})

    sandbox_id = shape["sandboxID"]
    assert is_sandbox_id(sandbox_id)
    assert shape == {
        "sandboxID": sandbox_id,
        "templateID": "base",
        "alias": "base",
        "clientID": sandbox_id[:4],
        "envdVersion": "0.6.13",
        "envdAccessToken": TOKENS.make(Purpose.AGENT, sandbox_id),
        "trafficAccessToken": TOKENS.make(Purpose.TRAFFIC, sandbox_id),
        "domain": "headrace.test:8000",
    }
    spec = service.engine.find(sandbox_id).spec
    assert (spec.env, spec.metadata, spec.tenant) == ({"A": "1"}, {"job": "7"}, "ours")
    assert (spec.limits.lifetime, spec.on_timeout, spec.auto_resume) == (
        60,
        TimeoutAction.KILL,
        False,
    )


@pytest.mark.parametrize(("path", "seconds"), [(V2, 300), ("/sandboxes", 15)])
async def test_who_asks_for_no_time_gets_that_of_its_version(
    service: E2bService, path: str, seconds: float
) -> None:
    shape = await create(service.client, path, secure=True, fieldOfTheFuture=[1])

    assert_lives_for(service.engine.find(shape["sandboxID"]), seconds)


async def test_null_is_the_same_as_nothing(service: E2bService) -> None:
    names = ("timeout", "metadata", "envVars", "network", "mcp", "iam", "volumeMounts", "autoPause")
    nothing: dict[str, Any] = dict.fromkeys(names)

    shape = await create(service.client, **nothing)

    assert service.engine.find(shape["sandboxID"]).spec.metadata == {}


@pytest.mark.parametrize("template", ["base", "code-interpreter", "base:latest", "base:default"])
async def test_a_template_has_several_names(service: E2bService, template: str) -> None:
    shape = await create(service.client, templateID=template)

    assert shape["templateID"] == template.partition(":")[0]


@pytest.mark.parametrize("template", ["nope", "base:v2", "team/base", "../base", " base"])
async def test_an_unknown_template_is_404(service: E2bService, template: str) -> None:
    reply = await service.client.post(V2, {"templateID": template})

    assert_refused(reply, 404, "template")


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"templateID": 7}, "templateID"),
        ({"templateID": ""}, "templateID"),
        ({"templateID": "x" * 257}, "templateID"),
        ({"templateID": None}, "templateID"),
        ({"timeout": "60"}, "timeout"),
        ({"timeout": True}, "timeout"),
        ({"timeout": 0}, "timeout must be from 1 to"),
        ({"timeout": 0.5}, "timeout must be from 1 to"),
        ({"timeout": -1}, "timeout must be from 1 to"),
        ({"timeout": 10**9}, "timeout must be from 1 to 2592000 seconds here, got 1000000000"),
        ({"metadata": []}, "metadata"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"metadata": {"a": "x" * 300_000}}, "metadata"),
        ({"envVars": {"1A": "x"}}, "1A"),
        ({"envVars": {"A": "\0"}}, "NUL"),
        ({"envVars": {"A": None}}, "envVars"),
        ({"autoPause": "yes"}, "autoPause"),
        ({"autoResume": True}, "autoResume"),
        ({"network": []}, "network"),
        ({"network": {"denyOut": ["example.com"]}}, "network.denyOut"),
        ({"network": {"allowOut": [7]}}, "network.allowOut"),
        ({"network": {"dnsServers": ["::1"]}}, "network.dnsServers"),
        ({"network": {"httpsPorts": [0]}}, "network.httpsPorts"),
        ({"network": {"httpsPorts": [49983]}}, "network.httpsPorts"),
        ({"network": {"allowPublicTraffic": "no"}}, "network.allowPublicTraffic"),
        ({"network": {"egressProxy": {}}}, "network.egressProxy.address"),
        ({"network": {"rules": {"a": [{"transform": 7}]}}}, "network.rules.a.0.transform"),
        ({"network": {"rules": {"a": [headers(b=7)]}}}, "transform.headers.b"),
        ({"network": {"rules": {"a": [headers(b="c" * MAX_NETWORK)]}}}, "network has"),
        ({"mcp": {"server": {}}}, "mcp is not supported yet"),
        ({"iam": {"tokens": {"a": {}}}}, "iam is not supported yet"),
        ({"volumeMounts": [{"name": "a", "path": "/b"}]}, "volumeMounts is not supported yet"),
    ],
)
async def test_what_cannot_be_is_refused_and_makes_no_sandbox(
    service: E2bService, fields: dict[str, Any], text: str
) -> None:
    before = len(service.engine.list())

    reply = await service.client.post(V2, {"templateID": "base", **fields})

    assert_refused(reply, 400, text)
    assert len(service.engine.list()) == before


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"7", b'"x"', b"\xff", b'{"templateID": "\\ud800"}', b"NaN"]
)
async def test_a_body_that_is_no_such_object_is_400(service: E2bService, body: bytes) -> None:
    reply = await service.client.request("POST", V2, content=body)

    assert_refused(reply, 400, "")


async def test_a_huge_body_is_413(tmp_path: Path) -> None:
    async with open_e2b(tmp_path, settings=E2bSettings(max_body=1000)) as service:
        reply = await service.client.request("POST", V2, content=[b" " * 600, b" " * 600])

        assert_refused(reply, 413, "1000")


async def test_empty_forms_of_what_is_not_supported_are_fine(service: E2bService) -> None:
    await create(service.client, mcp={}, iam={"tokens": {}}, volumeMounts=[])


async def test_too_many_sandboxes_are_429_and_no_reason_to_try_again(tmp_path: Path) -> None:
    async with open_e2b(tmp_path, max_sandboxes=1) as service:
        await create(service.client)

        reply = await service.client.post(V2, {"templateID": "base"})

        assert_refused(reply, 429, "1 sandboxes")
        assert reply.headers["should-retry"] == "false"


async def test_the_service_may_allow_less_time(tmp_path: Path) -> None:
    limits = Limits(lifetime=100)
    async with open_e2b(tmp_path, default_limits=limits, max_limits=limits) as service:
        assert_refused(
            await service.client.post(V2, {"templateID": "base", "timeout": 101}),
            400,
            "timeout must be from 1 to 100 seconds here, got 101",
        )
        assert_lives_for(await make(service), 100)


async def test_the_same_key_gives_the_same_sandbox(service: E2bService) -> None:
    body = {"templateID": "base", "network": {"allowPublicTraffic": False}}
    first = await service.client.post(V2, body, idempotency_key="a-1")
    again = await service.client.post(V2, {"templateID": "base"}, idempotency_key="a-1")
    theirs = await service.stranger.post(V2, body, idempotency_key="a-1")

    assert (first.status, again.status, theirs.status) == (201, 201, 201)
    assert again.json() == first.json()
    assert theirs.json()["sandboxID"] != first.json()["sandboxID"]
    # The second request has not changed what the first one said.
    sandbox = service.engine.find(first.json()["sandboxID"])
    assert (await detail_of(service, sandbox))["network"] == {"allowPublicTraffic": False}


async def test_a_key_of_another_form_is_refused(service: E2bService) -> None:
    reply = await service.client.post(V2, {"templateID": "base"}, idempotency_key="A_1")

    assert_refused(reply, 400, "Idempotency-Key")


# --- looking ----------------------------------------------------------------------------------


async def test_a_sandbox_is_described_to_its_owner(service: E2bService) -> None:
    sandbox = await make(service, timeout=60, metadata={"job": "7"}, allow_internet_access=True)

    detail = await detail_of(service, sandbox)

    started, ended = (datetime.fromisoformat(detail.pop(name)) for name in ("startedAt", "endAt"))
    assert started.timestamp() == pytest.approx(sandbox.created_at, abs=0.01)
    assert (ended - started).total_seconds() == pytest.approx(60, abs=1)
    assert detail == {
        "sandboxID": sandbox.id,
        "templateID": "base",
        "alias": "base",
        "clientID": sandbox.id[:4],
        "envdVersion": "0.6.13",
        "envdAccessToken": TOKENS.make(Purpose.AGENT, sandbox.id),
        "domain": "headrace.test:8000",
        "state": "running",
        "metadata": {"job": "7"},
        "cpuCount": 1,
        "memoryMB": 1024,
        "diskSizeMB": 512,
        # There is none in a sandbox of this version, whatever was asked for.
        "allowInternetAccess": False,
        "lifecycle": {"onTimeout": "kill", "autoResume": False},
    }


async def test_a_sandbox_that_was_made_elsewhere_is_described_too(service: E2bService) -> None:
    sandbox = await service.create(limits=Limits(cpus=1.5, memory=256 * MIB))

    detail = await detail_of(service, sandbox)

    assert (detail["templateID"], detail["cpuCount"], detail["memoryMB"]) == (
        "code-interpreter",
        2,
        256,
    )


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "", None),
        ("DELETE", "", None),
        ("POST", "/timeout", {"timeout": 5}),
        ("POST", "/refreshes", {"duration": 5}),
        ("POST", "/pause", {}),
        ("POST", "/connect", {"timeout": 5}),
        ("POST", "/resume", {}),
        ("PUT", "/network", {}),
        ("GET", "/metrics", None),
        ("GET", "/logs", None),
        ("POST", "/snapshots", {}),
        ("POST", "/fork", {}),
    ],
)
async def test_foreign_and_dead_sandboxes_answer_like_those_that_never_were(
    service: E2bService, method: str, path: str, body: object
) -> None:
    theirs = await make(service)
    dead = await make(service)
    await dead.kill()
    replies = []
    for sandbox_id in (theirs.id, NEVER):
        reply = await service.stranger.request(method, f"/sandboxes/{sandbox_id}{path}", body)
        assert_refused(reply, 404, f"there is no sandbox '{sandbox_id}'")
        replies.append(reply.json()["message"].replace(sandbox_id, ""))

    assert replies[0] == replies[1]
    assert_refused(
        await service.client.request(method, f"/sandboxes/{dead.id}{path}", body), 404, dead.id
    )
    assert_refused(
        await service.client.request(method, f"/sandboxes/{'x' * 5000}{path}", body), 404, "x'"
    )
    assert theirs.is_alive


# --- time -------------------------------------------------------------------------------------


async def test_a_timeout_may_be_shortened(service: E2bService) -> None:
    sandbox = await make(service, timeout=300)

    reply = await service.client.post(f"/sandboxes/{sandbox.id}/timeout", {"timeout": 60})

    assert (reply.status, reply.body) == (204, b"")
    assert_lives_for(sandbox, 60)


@pytest.mark.parametrize("body", [{}, {"timeout": -1}, {"timeout": 10**9}, {"timeout": "5"}])
async def test_a_timeout_that_cannot_be_is_refused(service: E2bService, body: object) -> None:
    sandbox = await make(service)

    reply = await service.client.post(f"/sandboxes/{sandbox.id}/timeout", body)

    assert_refused(reply, 400, "timeout")
    assert_lives_for(sandbox, 300)


async def test_no_time_at_all_is_the_end(service: E2bService) -> None:
    killed, paused = await make(service), await make(service, autoPause=True)

    for sandbox in (killed, paused):
        reply = await service.client.post(f"/sandboxes/{sandbox.id}/timeout", {"timeout": 0})
        assert reply.status == 204

    assert killed.state is SandboxState.KILLED
    assert paused.state is SandboxState.PAUSED


async def test_a_refresh_only_extends(service: E2bService) -> None:
    sandbox = await make(service, timeout=100)
    path = f"/sandboxes/{sandbox.id}/refreshes"

    for body, seconds in (({}, 100), ({"duration": 0}, 100), ({"duration": 200}, 200)):
        assert (await service.client.post(path, body)).status == 204
        assert_lives_for(sandbox, seconds)


# --- pausing and waking -----------------------------------------------------------------------


@pytest.mark.parametrize("body", [None, {}, {"memory": True}, {"memory": False}])
async def test_a_pause_keeps_everything_and_says_so(service: E2bService, body: object) -> None:
    sandbox = await make(service, timeout=60)

    reply = await service.client.post(f"/sandboxes/{sandbox.id}/pause", body)

    assert (reply.status, reply.body) == (204, b"")
    assert sandbox.state is SandboxState.PAUSED
    detail = await detail_of(service, sandbox)
    assert (detail["state"], detail["pauseMode"]) == ("paused", "full")
    # Its time does not go on.
    assert sandbox.deadline - time.time() > 10_000


async def test_a_second_pause_is_a_conflict(service: E2bService) -> None:
    sandbox = await make(service)
    path = f"/sandboxes/{sandbox.id}/pause"
    await service.client.post(path, {})

    assert_refused(await service.client.post(path, {}), 409, "paused already")


async def test_one_that_cannot_be_paused_now_does_not_count_as_paused(
    service: E2bService, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await make(service)

    async def refuse(**_options: object) -> None:
        raise WrongStateError("a kernel is being started")

    monkeypatch.setattr(sandbox, "pause", refuse)

    reply = await service.client.post(f"/sandboxes/{sandbox.id}/pause", {})

    assert_refused(reply, 503, "a kernel is being started")


@pytest.mark.parametrize("path", ["/sandboxes", "/v2/sandboxes"])
async def test_connecting_wakes_a_paused_sandbox(service: E2bService, path: str) -> None:
    sandbox = await make(service)
    await sandbox.pause(stops_lifetime=True)

    reply = await service.client.post(f"{path}/{sandbox.id}/connect", {"timeout": 50})

    assert reply.status == 201
    assert reply.json()["envdAccessToken"] == TOKENS.make(Purpose.AGENT, sandbox.id)
    assert sandbox.state is SandboxState.RUNNING
    assert_lives_for(sandbox, 50)


@pytest.mark.parametrize("path", ["/sandboxes", "/v2/sandboxes"])
async def test_connecting_to_a_running_sandbox_only_extends_it(
    service: E2bService, path: str
) -> None:
    sandbox = await make(service, timeout=100)

    for asked, expected in ((10, 100), (200, 200)):
        reply = await service.client.post(f"{path}/{sandbox.id}/connect", {"timeout": asked})
        assert reply.status == 200
        assert reply.json()["sandboxID"] == sandbox.id
        assert_lives_for(sandbox, expected)


async def test_only_the_new_connect_has_a_default(service: E2bService) -> None:
    sandbox = await make(service, timeout=100)

    assert_refused(
        await service.client.post(f"/sandboxes/{sandbox.id}/connect", {}), 400, "timeout"
    )
    assert (await service.client.post(f"/v2/sandboxes/{sandbox.id}/connect", {})).status == 200
    assert_lives_for(sandbox, 300)


async def test_of_several_that_connect_one_wakes_the_sandbox(service: E2bService) -> None:
    sandbox = await make(service)
    await sandbox.pause(stops_lifetime=True)
    before = service.launcher.verbs.count("thaw")
    statuses = []

    async def connect() -> None:
        reply = await service.client.post(f"/v2/sandboxes/{sandbox.id}/connect", {})
        statuses.append(reply.status)

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(connect)

    assert sorted(statuses) == [200, 200, 200, 200, 201]
    assert service.launcher.verbs.count("thaw") == before + 1


async def test_a_sandbox_is_not_booted_in_place_of_being_woken(service: E2bService) -> None:
    sandbox = await make(service)
    path = f"/v2/sandboxes/{sandbox.id}/connect"
    assert (await service.client.post(path, {"memory": False})).status == 200
    await sandbox.pause(stops_lifetime=True)

    assert_refused(await service.client.post(path, {"memory": False}), 400, "not supported yet")
    assert sandbox.state is SandboxState.PAUSED


async def test_the_old_resume_wakes_once(service: E2bService) -> None:
    sandbox = await make(service)
    path = f"/sandboxes/{sandbox.id}/resume"
    await sandbox.pause(stops_lifetime=True)

    assert (await service.client.post(path, {"autoPause": True})).status == 201
    assert_lives_for(sandbox, 15)
    assert sandbox.spec.on_timeout is TimeoutAction.PAUSE
    assert_refused(await service.client.post(path, {}), 409, "running already")


@pytest.mark.parametrize("path", ["timeout", "refreshes"])
async def test_a_paused_sandbox_has_no_end_to_be_moved(service: E2bService, path: str) -> None:
    sandbox = await make(service)
    await sandbox.pause(stops_lifetime=True)

    reply = await service.client.post(f"/sandboxes/{sandbox.id}/{path}", {"timeout": 5})

    assert_refused(reply, 404, "is paused; connect wakes it")


async def test_what_happens_at_the_end_is_as_asked(service: E2bService) -> None:
    sandbox = await make(
        service, autoPause=True, autoPauseMemory=False, autoResume={"enabled": True}
    )

    assert sandbox.spec.on_timeout is TimeoutAction.PAUSE
    assert sandbox.spec.auto_resume
    assert (await detail_of(service, sandbox))["lifecycle"] == {
        "onTimeout": "pause",
        "autoResume": True,
    }


async def test_traffic_wakes_a_sandbox_for_as_long_as_was_last_asked_for(
    service: E2bService,
) -> None:
    sandbox = await make(service, timeout=60, autoResume={"enabled": True})
    path = f"/sandboxes/{sandbox.id}"

    for change, body, seconds in (
        (None, None, 60),
        (f"{path}/timeout", {"timeout": 70}, 70),
        (f"/v2{path}/connect", {"timeout": 80}, 80),
    ):
        if change is not None:
            await service.client.post(change, body)
        await service.client.post(f"{path}/pause", {})
        assert (await service.agent(sandbox).get("/health")).status == 204
        assert_lives_for(sandbox, seconds)


# --- networks ---------------------------------------------------------------------------------

NETWORK = {
    "allowOut": ["*.example.com", "10.0.0.0/8", "1.1.1.1"],
    "denyOut": ["0.0.0.0/0", "10.1.2.3/8"],
    "dnsServers": [],
    "egressProxy": {"address": "proxy:1080", "username": "u"},
    "rules": {"example.com": [headers(a="b"), {}]},
    "allowPublicTraffic": False,
    "maskRequestHost": "localhost:${PORT}",
    "httpsPorts": [443],
}


async def test_a_network_is_given_back_as_it_came_but_for_the_password(
    service: E2bService,
) -> None:
    proxy = {**NETWORK["egressProxy"], "password": "hidden"}  # type: ignore[dict-item]  # an object
    sandbox = await make(service, network={**NETWORK, "egressProxy": proxy, "unknown": 1})

    assert (await detail_of(service, sandbox))["network"] == NETWORK


async def test_an_update_replaces_what_goes_out_and_keeps_what_comes_in(
    service: E2bService,
) -> None:
    sandbox = await make(service, network=NETWORK)
    body = {"denyOut": ["10.0.0.0/8"], "allow_internet_access": False, "httpsPorts": [1]}

    reply = await service.client.request("PUT", f"/sandboxes/{sandbox.id}/network", body)

    assert (reply.status, reply.body) == (204, b"")
    assert (await detail_of(service, sandbox))["network"] == {
        "denyOut": ["10.0.0.0/8"],
        "allowPublicTraffic": False,
        "maskRequestHost": "localhost:${PORT}",
        "httpsPorts": [443],
    }


# --- the end ----------------------------------------------------------------------------------


async def test_a_kill_leaves_nothing(service: E2bService) -> None:
    sandbox = await make(service)
    path = f"/sandboxes/{sandbox.id}"

    reply = await service.client.request("DELETE", path)

    assert (reply.status, reply.body) == (204, b"")
    assert sandbox.state is SandboxState.KILLED
    assert_refused(await service.client.request("DELETE", path), 404, "the sandbox was killed")


async def test_one_that_is_being_ended_is_not_found(
    service: E2bService, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await make(service)
    monkeypatch.setattr(sandbox, "state", SandboxState.KILLING)

    assert_refused(await service.client.get(f"/sandboxes/{sandbox.id}"), 404, "is killing")
    listed = (await service.client.get(V2)).json()
    assert sandbox.id not in [each["sandboxID"] for each in listed]


async def test_one_that_ends_while_it_is_asked_for_something_is_not_found(
    service: E2bService, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = await make(service)
    original = sandbox.extend

    async def die(seconds: float) -> None:
        await sandbox.kill()
        await original(seconds)

    monkeypatch.setattr(sandbox, "extend", die)

    reply = await service.client.post(f"/v2/sandboxes/{sandbox.id}/connect", {})

    assert_refused(reply, 404, sandbox.id)


# --- keys and paths ---------------------------------------------------------------------------


async def test_a_key_is_needed(service: E2bService) -> None:
    for method, path in (("POST", V2), ("GET", "/sandboxes"), ("GET", "/nothing")):
        assert_refused(await service.nobody.request(method, path), 401, "key")


async def test_a_key_may_come_as_a_bearer(service: E2bService) -> None:
    key = service.client.lasting["x-api-key"]

    assert (await service.nobody.get(V2, authorization=f"Bearer {key}")).status == 200
    assert (await service.nobody.get(V2, authorization=f"Basic {key}")).status == 401


async def test_other_methods_and_paths_are_refused(service: E2bService) -> None:
    reply = await service.client.request("PUT", V2)

    assert_refused(reply, 405, "PUT is not possible here")
    assert reply.headers["allow"] == "GET, POST"
    for path in ("/", "/sandboxes/", f"{V2}/x/y", "/v1/sandboxes"):
        assert_refused(await service.client.get(path), 404, "nothing at this path")
