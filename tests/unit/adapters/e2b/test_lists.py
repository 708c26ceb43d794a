"""Lists of sandboxes: which, in which order, by page."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.specs import SandboxSpec
from tests.support.e2b import E2bService, open_e2b
from tests.support.fakes import FakeClock
from tests.support.native import KEYS, OURS, THEIRS, Reply

V2 = "/v2/sandboxes"


@dataclass
class TimedService(E2bService):
    """A service whose time stands until a test moves it."""

    clock: FakeClock


@pytest.fixture
async def service(tmp_path: Path) -> AsyncIterator[TimedService]:
    """A service of its own for each test."""
    clock = FakeClock(1_700_000_000.0)
    async with open_e2b(tmp_path, clock=clock) as service:
        yield TimedService(**vars(service), clock=clock)


async def make(service: TimedService, tenant: str = OURS, **fields: Any) -> Sandbox:
    """Make a sandbox a second after the one before."""
    sandbox = await service.engine.create(SandboxSpec(tenant=KEYS[tenant], **fields))
    service.clock.advance(1.0)
    return sandbox


def ids(reply: Reply) -> list[str]:
    assert reply.status == 200, reply
    return [each["sandboxID"] for each in reply.json()]


async def test_a_listed_sandbox_has_no_token(service: TimedService) -> None:
    sandbox = await make(service, template="base", metadata={"a": "b"})

    (listed,) = (await service.client.get(V2)).json()

    assert listed == {
        "sandboxID": sandbox.id,
        "templateID": "base",
        "alias": "base",
        "clientID": sandbox.id[:4],
        "envdVersion": "0.6.13",
        "cpuCount": 1,
        "memoryMB": 1024,
        "diskSizeMB": 512,
        "startedAt": "2023-11-14T22:13:20.000Z",
        "endAt": "2023-11-14T23:13:20.000Z",
        "state": "running",
        "metadata": {"a": "b"},
    }


async def test_everybody_sees_their_own(service: TimedService) -> None:
    ours, theirs = await make(service), await make(service, THEIRS)

    for path in (V2, "/sandboxes"):
        assert ids(await service.client.get(path)) == [ours.id]
        assert ids(await service.stranger.get(path)) == [theirs.id]


async def test_the_newest_come_first_unless_asked_otherwise(service: TimedService) -> None:
    made = [(await make(service)).id for _ in range(3)]

    assert ids(await service.client.get(V2)) == made[::-1]
    assert ids(await service.client.get("/sandboxes")) == made[::-1]
    assert ids(await service.client.get(f"{V2}?order=desc")) == made[::-1]
    assert ids(await service.client.get(f"{V2}?order=asc")) == made


async def test_a_state_is_chosen(service: TimedService) -> None:
    paused, running = await make(service), await make(service)
    await paused.pause(stops_lifetime=True)
    dead = await make(service)
    await dead.kill()

    for query, expected in (
        ("", [running, paused]),
        ("?state=", [running, paused]),
        ("?state=running", [running]),
        ("?state=paused", [paused]),
        ("?state=paused,running", [running, paused]),
        ("?state=paused%2Crunning", [running, paused]),
    ):
        assert ids(await service.client.get(V2 + query)) == [each.id for each in expected]
    assert ids(await service.client.get("/sandboxes")) == [running.id]


def as_the_sdks_do(**metadata: str) -> str:
    """Escape a filter as the SDKs do: each part, then the form, then the query."""
    form = "&".join(
        f"{quote(quote(name, safe=''))}={quote(quote(value, safe=''))}"
        for name, value in metadata.items()
    )
    return "metadata=" + quote(form, safe="")


async def test_metadata_is_unescaped_three_times() -> None:
    assert as_the_sdks_do(k="v v") == "metadata=k%3Dv%252520v"


@pytest.mark.parametrize("path", [V2, "/sandboxes"])
async def test_all_the_metadata_must_match(service: TimedService, path: str) -> None:
    wild = {"k &=%+": "v v%20&=+ü☃"}
    both = await make(service, metadata={"a": "1", **wild})
    one = await make(service, metadata={"a": "1"})

    for query, expected in (
        (as_the_sdks_do(a="1"), [one.id, both.id]),
        (as_the_sdks_do(**wild), [both.id]),
        (as_the_sdks_do(a="1", **wild), [both.id]),
        (as_the_sdks_do(a="2"), []),
        (as_the_sdks_do(a=""), []),
        ("metadata=", [one.id, both.id]),
        ("metadata=a%3D1", [one.id, both.id]),
    ):
        assert ids(await service.client.get(f"{path}?{query}")) == expected


async def test_a_template_is_chosen_by_the_name_that_was_asked_for(service: TimedService) -> None:
    base = await make(service, template="base")
    await make(service, template="code-interpreter")

    for name in ("base", "base:latest"):
        assert ids(await service.client.get(f"{V2}?template={name}")) == [base.id]
    assert ids(await service.client.get(f"{V2}?template=nope")) == []


async def test_only_what_started_later_is_listed(service: TimedService) -> None:
    _, second, third = [await make(service) for _ in range(3)]

    for time in ("2023-11-14T22:13:20Z", "2023-11-14T22%3A13%3A20.500%2B00%3A00"):
        found = ids(await service.client.get(f"{V2}?startedAfter={time}"))
        assert found == [third.id, second.id]
    assert ids(await service.client.get(f"{V2}?startedAfter=2023-11-14T22:13:22")) == []


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_pages_follow_each_other_whatever_ends_meanwhile(
    service: TimedService, order: str
) -> None:
    made = [(await make(service)).id for _ in range(5)]
    wanted = made if order == "asc" else made[::-1]
    path = f"{V2}?order={order}&limit=2"

    first = await service.client.get(path)
    assert ids(first) == wanted[:2]
    await service.engine.kill(wanted[1])
    second = await service.client.get(f"{path}&nextToken={first.headers['x-next-token']}")
    assert ids(second) == wanted[2:4]
    third = await service.client.get(f"{path}&nextToken={second.headers['x-next-token']}")
    assert ids(third) == wanted[4:]
    assert "x-next-token" not in third.headers


async def test_sandboxes_of_the_same_time_are_on_one_page_each(tmp_path: Path) -> None:
    async with open_e2b(tmp_path, clock=FakeClock()) as service:
        made = {(await service.create()).id for _ in range(3)}
        seen, token = [], ""
        for _ in range(3):
            reply = await service.client.get(f"{V2}?limit=1&nextToken={token}")
            seen += ids(reply)
            token = reply.headers.get("x-next-token", "")

    assert len(seen) == 3
    assert {*seen} == made
    assert token == ""


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("state=dead", "state"),
        ("state=running,", "state"),
        ("order=up", "order"),
        ("limit=0", "limit"),
        ("limit=-1", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("startedAfter=yesterday", "startedAfter"),
        ("nextToken=x", "nextToken"),
        ("nextToken=%C3%BC", "nextToken"),
        ("nextToken=" + "A" * 300, "nextToken"),
        ("metadata=novalue", "metadata"),
        ("metadata=a%3D%25FF", "metadata"),
        ("metadata=a%3D%2525FF", "metadata"),
        ("metadata=" + "a%3D1%26" * 200, "metadata"),
        ("metadata=%FF", "query"),
        ("&".join(f"a{number}=1" for number in range(200)), "query"),
    ],
)
async def test_a_query_that_cannot_be_is_refused(
    service: TimedService, query: str, name: str
) -> None:
    reply = await service.client.get(f"{V2}?{query}")

    assert reply.status == 400, reply
    assert name in reply.json()["message"]


async def test_unknown_fields_of_a_query_are_passed_over(service: TimedService) -> None:
    sandbox = await make(service)

    assert ids(await service.client.get(f"{V2}?teamID=x&limit=5")) == [sandbox.id]
