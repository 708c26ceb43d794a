"""The templates that there are, and what this version does not have."""

from datetime import datetime
from typing import Any

import pytest

from headrace.engine.sandbox import Sandbox
from tests.support.e2b import E2bService

NAMES = ["code-interpreter", "base"]


async def get(service: E2bService, path: str) -> Any:
    reply = await service.client.get(path)
    assert reply.status == 200, reply
    return reply.json()


@pytest.mark.parametrize("path", ["/templates", "/v2/templates", "/templates?teamID=x"])
async def test_the_templates_are_listed(service: E2bService, path: str) -> None:
    (template,) = await get(service, path)

    assert datetime.fromisoformat(template.pop("createdAt")).tzinfo is not None
    assert template.pop("updatedAt") is not None
    assert template == {
        "templateID": "code-interpreter",
        "buildID": "00000000-0000-0000-0000-000000000000",
        "cpuCount": 1,
        "memoryMB": 1024,
        "diskSizeMB": 512,
        "public": True,
        "isDefault": True,
        "aliases": NAMES,
        "names": NAMES,
        "createdBy": None,
        "lastSpawnedAt": None,
        "spawnCount": 0,
        "buildCount": 0,
        "envdVersion": "0.6.13",
        "buildStatus": "ready",
    }


@pytest.mark.parametrize("name", [*NAMES, "base:latest", "base%3Alatest"])
async def test_a_template_is_shown_by_any_of_its_names(service: E2bService, name: str) -> None:
    template = await get(service, f"/templates/{name}")

    assert (template["templateID"], template["builds"]) == ("code-interpreter", [])


async def test_an_alias_leads_to_its_template(service: E2bService) -> None:
    for name in NAMES:
        assert await get(service, f"/templates/aliases/{name}") == {
            "templateID": "code-interpreter",
            "public": True,
        }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/templates/nope"),
        ("GET", "/templates/aliases/nope"),
        ("GET", "/templates/nope/tags"),
        ("GET", f"/templates/{'x' * 5000}"),
        ("DELETE", "/templates/nope"),
        ("DELETE", "/templates/snapshot%3Adefault"),
        ("GET", "/templates/base/builds/1/status"),
        ("GET", "/templates/base/builds/1/logs"),
        ("GET", "/volumes/nope"),
        ("DELETE", "/volumes/nope"),
        ("GET", "/secrets/nope"),
        ("POST", "/secrets/nope"),
        ("DELETE", f"/secrets/{'x' * 5000}"),
    ],
)
async def test_what_is_not_there_is_404(service: E2bService, method: str, path: str) -> None:
    reply = await service.client.request(method, path)

    assert (reply.status, reply.json()["code"]) == (404, 404)
    assert len(reply.json()["message"]) < 500


async def test_the_template_of_the_service_cannot_be_deleted(service: E2bService) -> None:
    reply = await service.client.request("DELETE", "/templates/base")

    assert (reply.status, reply.json()["code"]) == (403, 403)


async def test_what_cannot_be_made_is_in_no_list(service: E2bService) -> None:
    for path in ("/snapshots?limit=5", "/volumes", "/secrets", "/templates/base/tags"):
        assert await get(service, path) == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/sandboxes/{id}/snapshots"),
        ("POST", "/sandboxes/{id}/fork"),
        ("POST", "/volumes"),
        ("POST", "/secrets"),
        ("POST", "/templates"),
        ("POST", "/v2/templates"),
        ("POST", "/v3/templates"),
        ("POST", "/templates/base"),
        ("PATCH", "/templates/base"),
        ("PATCH", "/v2/templates/base"),
        ("GET", "/templates/base/files/0123"),
        ("POST", "/templates/base/builds/1"),
        ("POST", "/v2/templates/base/builds/1"),
        ("POST", "/templates/tags"),
        ("DELETE", "/templates/tags"),
    ],
)
async def test_what_this_version_does_not_have_is_said_once_and_for_all(
    service: E2bService, sandbox: Sandbox, method: str, path: str
) -> None:
    reply = await service.client.request(method, path.replace("{id}", sandbox.id), {})

    assert reply.status == 501
    body = reply.json()
    assert (body["code"], {*body}) == (501, {"code", "message"})
    assert body["message"].endswith("not supported yet")
