"""The life of a sandbox over the control plane."""

import time
from datetime import datetime

import anyio
import pytest

from headrace.adapters.e2b.access import Purpose
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import WrongStateError
from headrace.model.specs import MIB, Limits, TimeoutAction
from tests.support.e2b import TOKENS, E2bService
from tests.support.e2b_control import (
    V2,
    assert_lives_for,
    assert_refused,
    detail_of,
    make,
)

NEVER = "abcdefghijklmnopqrstuvwxyz"


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
