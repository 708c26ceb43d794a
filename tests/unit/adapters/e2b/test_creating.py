"""What sandboxes can be made over the control plane, and which requests make none."""

from pathlib import Path
from typing import Any

import pytest

from headrace.adapters.e2b.access import Purpose
from headrace.adapters.e2b.schemas.control import MAX_NETWORK
from headrace.adapters.e2b.settings import E2bSettings
from headrace.model.ids import is_sandbox_id
from headrace.model.specs import Limits, TimeoutAction
from tests.support.e2b import TOKENS, E2bService, open_e2b
from tests.support.e2b_control import (
    V2,
    assert_lives_for,
    assert_refused,
    create,
    detail_of,
    make,
)


def headers(**values: object) -> dict[str, Any]:
    return {"transform": {"headers": values}}


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
        ({"mcp": {"server": {}}}, "Failed to start MCP gateway: mcp is not supported yet"),
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
