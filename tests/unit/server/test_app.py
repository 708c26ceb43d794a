"""The whole service on a fake launcher: what is answered beside the native API."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from headrace.model.errors import InvalidRequestError
from headrace.server.app import is_private, make_rules
from headrace.server.settings import ServerTopic, Settings
from tests.support.serving import InProcessServer, open_server

PATIENCE = 20.0


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[InProcessServer]:
    async with open_server(tmp_path, fake=True) as server:
        yield server


@pytest.fixture
async def client(server: InProcessServer) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        yield client


async def test_the_state_says_what_is_enforced(client: httpx.AsyncClient) -> None:
    answer = await client.get("/health")

    assert answer.status_code == 200
    assert answer.json()["status"] == "healthy"
    assert answer.json()["isolation"] == {
        "mode": "root",
        "enforced": ["namespaces", "processes", "seccomp"],
        "memory": "cgroup",
    }


async def test_the_state_on_the_way_down_is_draining(
    server: InProcessServer, client: httpx.AsyncClient
) -> None:
    server.phase.is_draining = True

    answer = await client.get("/health")

    assert (answer.status_code, answer.json()["status"]) == (503, "draining")


@pytest.mark.parametrize("path", ["/health", "/metrics"])
async def test_what_can_only_be_read_refuses_other_methods(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.post(path)

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/", "web page"),
        ("/hopx/v1/x", "HopX"),
        ("/cloudflare/x", "Cloudflare"),
        ("/agb", "AGB"),
        ("/mcp", "MCP"),
        ("/elsewhere", "nothing at this path"),
    ],
)
async def test_what_is_not_there_yet_is_named(
    client: httpx.AsyncClient, path: str, said: str
) -> None:
    answer = await client.get(path)

    assert answer.status_code == 404
    assert said in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "server",
    [{"host": "0.0.0.0"}, {"public_url": "https://a.example"}, {"trusted_proxies": "unix"}],
)
def test_debug_mode_is_refused_where_others_can_reach_the_service(server: dict[str, str]) -> None:
    settings = Settings.model_validate({"server": server, "e2b": {"debug": True}})

    with pytest.raises(InvalidRequestError, match=r"e2b\.debug"):
        make_rules(settings)
    make_rules(Settings.model_validate({"e2b": {"debug": True}}))


# --- figures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"x-forwarded-for": "1.2.3.4"},
        {"forwarded": "for=1.2.3.4"},
        {"authorization": f"Bearer {'0' * 40}", "x-forwarded-proto": "https"},
    ],
)
async def test_figures_are_open_to_this_machine_but_not_through_a_proxy(
    server: InProcessServer, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await client.get("/metrics")).status_code == 200
    assert (await client.get("/metrics", headers=headers)).status_code == 401
    with_key = {**headers, **server.headers}
    assert (await client.get("/metrics", headers=with_key)).status_code == 200


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, True),
        ({"host": "::1"}, True),
        ({"tcp": False, "socket": "/s", "host": "0.0.0.0"}, True),
        ({"host": "0.0.0.0"}, False),
        ({"host": "10.0.0.1"}, False),
        ({"public_url": "https://a.example"}, False),
        ({"trusted_proxies": "127.0.0.1"}, False),
    ],
)
def test_a_service_that_others_may_reach_is_not_private(
    settings: dict[str, object], expected: bool
) -> None:
    assert is_private(ServerTopic.model_validate(settings)) is expected


# --- host names of sandboxes ------------------------------------------------------------------


async def test_how_a_sandbox_ended_is_not_told_to_those_who_guess_names(
    server: InProcessServer, client: httpx.AsyncClient
) -> None:
    sandbox = (await client.post("/v1/sandboxes", headers=server.headers)).json()["id"]
    at = f"/v1/sandboxes/{sandbox}"
    await client.delete(at, headers=server.headers)

    guessed = await client.get("/", headers={"host": f"80-{sandbox}.localhost"})

    assert guessed.status_code == 404
    assert guessed.json()["error"]["message"] == f"there is no sandbox {sandbox!r}"
    own = (await client.get(at, headers=server.headers)).json()["error"]["message"]
    assert own != guessed.json()["error"]["message"]
