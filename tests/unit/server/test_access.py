"""Who may do what, over every operation that the native API has."""

import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from headrace.adapters.native.app import ROUTES
from headrace.adapters.native.routing import Route
from tests.support.serving import InProcessServer, open_server

PATIENCE = 20.0
WITHOUT_IDS = {"createSandbox", "listSandboxes"}
BODIES: dict[str, Any] = {
    "ExtendSandbox": {"timeout": 60},
    "Execute": {"code": "out x"},
    "SendInput": {"text": "x"},
    "StartProcess": {"argv": ["sleep"]},
    "SendSignal": {"signal": 15},
    "Resize": {"cols": 1, "rows": 1},
    "SetMode": {"path": "x", "mode": 0o644},
    "MakeDirectory": {"path": "x"},
    "Move": {"source": "x", "destination": "y"},
    "StartWatch": {"path": "x"},
}


@dataclass(frozen=True)
class Owned:
    """What one tenant has, by the names that paths give it."""

    server: InProcessServer
    ids: dict[str, str]

    def request(self, route: Route, **headers: str) -> httpx.Request:
        """Give a request for it that is as it should be, but for the key."""
        required = [name for name, each in fields_of(route.query) if each.is_required()]
        body = BODIES.get(name_of_body(route))
        return httpx.Request(
            route.method,
            self.server.url + route.path.format(**self.ids),
            params=dict.fromkeys(required, "x"),
            json=body,
            headers=headers,
        )


def fields_of(model: Any) -> Iterator[tuple[str, Any]]:
    yield from [] if model is None else model.model_fields.items()


def name_of_body(route: Route) -> str:
    return "" if route.body is None or route.body_is_optional else route.body.__name__


@asynccontextmanager
async def owned(directory: Path) -> AsyncIterator[Owned]:
    """Give a server with a sandbox that runs an execution and a process."""
    async with open_server(directory, fake=True) as server:
        async with httpx.AsyncClient(
            base_url=server.url, headers=server.headers, timeout=PATIENCE
        ) as client:
            sandbox = (await client.post("/v1/sandboxes")).json()["id"]
            at = f"/v1/sandboxes/{sandbox}"
            context = (await client.post(f"{at}/contexts")).json()["id"]
            code = {"code": "stubborn", "background": True}
            execution = (await client.post(f"{at}/executions", json=code)).json()["id"]
            command = {"argv": ["sleep"], "background": True}
            process = (await client.post(f"{at}/processes", json=command)).json()["id"]
        yield Owned(
            server,
            {
                "sandbox_id": sandbox,
                "context_id": context,
                "execution_id": execution,
                "process_id": process,
                "watch_id": f"{sandbox}-aaaaaaaaaaaaaaaa",
            },
        )


async def test_without_a_good_key_every_operation_is_refused(tmp_path: Path) -> None:
    async with owned(tmp_path) as mine, httpx.AsyncClient(timeout=PATIENCE) as client:
        for route in ROUTES:
            for headers in ({}, {"authorization": f"Bearer {'0' * 40}"}):
                answer = await client.send(mine.request(route, **headers))
                assert answer.status_code == 401, (route.name, answer.text)
                assert answer.json()["error"]["code"] == "unauthenticated"


async def test_what_belongs_to_another_tenant_does_not_exist(tmp_path: Path) -> None:
    async with owned(tmp_path) as mine, httpx.AsyncClient(timeout=PATIENCE) as client:
        other = {"authorization": f"Bearer {mine.server.other_key}"}
        for route in ROUTES:
            if route.name in WITHOUT_IDS:
                continue
            answer = await client.send(mine.request(route, **other))
            assert answer.status_code == 404, (route.name, answer.text)
        listed = await client.get(f"{mine.server.url}/v1/sandboxes", headers=other)
        assert listed.json()["sandboxes"] == []
        port = f"{mine.server.url}/v1/sandboxes/{mine.ids['sandbox_id']}/ports/80/"
        assert (await client.get(port, headers=other)).status_code == 404


async def test_its_owner_does_find_it(tmp_path: Path) -> None:
    """Otherwise the tests above would prove nothing."""
    async with owned(tmp_path) as mine, httpx.AsyncClient(timeout=PATIENCE) as client:
        for route in ROUTES:
            if route.method == "GET" and route.name.startswith(("get", "list")):
                accept = {"accept": "application/json", **mine.server.headers}
                if route.name not in ("getFileInfo", "listFiles"):
                    answer = await client.send(mine.request(route, **accept))
                    assert answer.status_code == 200, (route.name, answer.text)


def test_the_tables_here_cover_every_path() -> None:
    names = {name for route in ROUTES for name in re.findall(r"{(\w+)}", route.path)}

    assert names == {"sandbox_id", "context_id", "execution_id", "process_id", "watch_id"}
    assert {name_of_body(route) for route in ROUTES} - {""} == set(BODIES)
