"""What sandboxes use, and what happened to them, over the control plane."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from headrace.engine.sandbox import Sandbox
from headrace.engine.usage import INTERVAL
from headrace.model.specs import MIB, Limits, ProcessRequest
from tests.support.e2b import E2bService, open_e2b
from tests.support.fakes import FakeClock

START = 1_700_000_000.0


@dataclass
class Timed:
    """A service whose time the test moves."""

    service: E2bService
    clock: FakeClock

    async def get(self, path: str) -> Any:
        """Get a JSON value as the first tenant."""
        reply = await self.service.client.get(path)
        assert reply.status == 200, reply
        return reply.json()


@pytest.fixture
async def timed(tmp_path: Path) -> AsyncIterator[Timed]:
    """A service of its own for each test."""
    clock = FakeClock(START)
    async with open_e2b(tmp_path, clock=clock) as service:
        yield Timed(service, clock)


@pytest.fixture
async def sandbox(timed: Timed) -> Sandbox:
    """A sandbox of the first tenant."""
    return await timed.service.create(limits=Limits(cpus=1.5, disk=1 * MIB, lifetime=100_000))


# --- use --------------------------------------------------------------------------------------


async def test_what_a_sandbox_uses_is_told_in_bytes(timed: Timed, sandbox: Sandbox) -> None:
    assert await timed.get(f"/sandboxes/{sandbox.id}/metrics") == [
        {
            "timestamp": "2023-11-14T22:13:20.000Z",
            "timestampUnix": 1_700_000_000,
            "cpuCount": 2,
            "cpuUsedPct": 0.0,
            "memUsed": 0,
            "memTotal": 1024 * MIB,
            "memCache": 1,
            "diskUsed": 60,
            "diskTotal": 1 * MIB,
        }
    ]


async def test_processors_are_per_cent_of_all_that_there_are(
    timed: Timed, sandbox: Sandbox
) -> None:
    path = f"/sandboxes/{sandbox.id}/metrics"
    await timed.get(path)
    shares = []
    for seconds in (0.5, INTERVAL, 100.0):
        timed.service.launcher.cpu_seconds += seconds
        timed.clock.advance(INTERVAL)
        shares.append((await timed.get(path))[-1]["cpuUsedPct"])

    assert shares == [5.0, 50.0, 100.0]


async def test_a_range_has_its_first_and_its_last_second(timed: Timed, sandbox: Sandbox) -> None:
    path = f"/sandboxes/{sandbox.id}/metrics"
    for _ in range(3):
        await timed.get(path)
        timed.clock.advance(10.5)
    # So that asking does not measure once more.
    await sandbox.pause()
    first = int(START)

    for query, expected in (
        ("", [0, 10, 21]),
        (f"?start={first}", [0, 10, 21]),
        (f"?start={first + 1}", [10, 21]),
        (f"?end={first + 10}", [0, 10]),
        (f"?end={first + 9}", [0]),
        (f"?start={first + 10}&end={first + 10}", [10]),
        (f"?start={first + 30}", []),
        (f"?end={first - 1}", []),
    ):
        found = await timed.get(path + query)
        assert [each["timestampUnix"] - first for each in found] == expected, query


@pytest.mark.parametrize("query", ["start=x", "start=-1", "end=1.5", "start=2&end=1", "end=1" * 9])
async def test_a_range_that_cannot_be_is_refused(
    timed: Timed, sandbox: Sandbox, query: str
) -> None:
    reply = await timed.service.client.get(f"/sandboxes/{sandbox.id}/metrics?{query}")

    assert (reply.status, reply.json()["code"]) == (400, 400)


async def test_a_sandbox_that_was_never_measured_and_is_paused_has_no_metrics(
    timed: Timed, sandbox: Sandbox
) -> None:
    await sandbox.pause()

    assert await timed.get(f"/sandboxes/{sandbox.id}/metrics") == []


async def test_several_sandboxes_tell_the_newest_of_each(timed: Timed, sandbox: Sandbox) -> None:
    other, _, paused = [await timed.service.create() for _ in range(3)]
    theirs = await timed.service.stranger.post("/v2/sandboxes", {"templateID": "base"})
    await paused.pause()
    wanted = [sandbox.id, other.id, paused.id, theirs.json()["sandboxID"], "nothing"]
    await timed.get(f"/sandboxes/{sandbox.id}/metrics")
    timed.clock.advance(INTERVAL)

    answer = await timed.get(f"/sandboxes/metrics?sandbox_ids={','.join(wanted)}")

    assert {*answer} == {"sandboxes"}
    assert {*answer["sandboxes"]} == {sandbox.id, other.id}
    assert answer["sandboxes"][sandbox.id]["timestampUnix"] == int(START + INTERVAL)


@pytest.mark.parametrize("ids", ["", ",", ",".join(f"id{number}" for number in range(101))])
async def test_too_few_and_too_many_sandboxes_are_refused(timed: Timed, ids: str) -> None:
    reply = await timed.service.client.get(f"/sandboxes/metrics?sandbox_ids={ids}")

    assert reply.status == 400
    assert "1 to 100" in reply.json()["message"]


# --- history ----------------------------------------------------------------------------------


@pytest.fixture
async def lived(timed: Timed, sandbox: Sandbox) -> Sandbox:
    """A sandbox in which something happened each second."""
    timed.clock.advance(1)
    process = await sandbox.start_process(ProcessRequest(("echo", "hidden")))
    await process.wait()
    timed.clock.advance(1)
    await sandbox.pause()
    timed.clock.advance(1)
    await sandbox.resume()
    return sandbox


MESSAGES = [
    "sandbox created",
    "process started",
    "process ended",
    "sandbox paused",
    "sandbox resumed",
]


async def test_the_logs_tell_what_happened(timed: Timed, lived: Sandbox) -> None:
    answer = await timed.get(f"/v2/sandboxes/{lived.id}/logs")

    assert {*answer} == {"logs"}
    assert [each["message"] for each in answer["logs"]] == MESSAGES
    assert answer["logs"][0] == {
        "timestamp": "2023-11-14T22:13:20.000Z",
        "level": "info",
        "message": "sandbox created",
        "fields": {"template": "code-interpreter", "timeout": "100000"},
    }
    assert "hidden" not in json.dumps(answer)


async def test_the_old_logs_have_lines_as_well(timed: Timed, lived: Sandbox) -> None:
    answer = await timed.get(f"/sandboxes/{lived.id}/logs?limit=2&start=1700000000001")

    assert {*answer} == {"logs", "logEntries"}
    assert [each["message"] for each in answer["logEntries"]] == MESSAGES[1:3]
    line = answer["logs"][0]
    assert {*line} == {"timestamp", "line"}
    assert line["timestamp"] == "2023-11-14T22:13:21.000Z"
    told = json.loads(line["line"])
    assert (told["level"], told["message"], told["program"]) == ("info", "process started", "echo")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("limit=0", []),
        ("limit=1", MESSAGES[:1]),
        ("direction=forward&cursor=1700000001000", MESSAGES[1:]),
        ("direction=backward", MESSAGES[::-1]),
        ("direction=backward&limit=1", MESSAGES[-1:]),
        ("direction=backward&cursor=1700000001000", MESSAGES[:1]),
        ("search=sandbox", [MESSAGES[0], *MESSAGES[3:]]),
        ("search=Sandbox", []),
        ("level=debug", MESSAGES),
        ("level=info", MESSAGES),
        ("level=warn", []),
    ],
)
async def test_logs_can_be_searched(
    timed: Timed, lived: Sandbox, query: str, expected: list[str]
) -> None:
    answer = await timed.get(f"/v2/sandboxes/{lived.id}/logs?{query}")

    assert [each["message"] for each in answer["logs"]] == expected


@pytest.mark.parametrize(
    "query",
    ["limit=1001", "limit=-1", "cursor=x", "direction=up", "level=loud", "search=" + "x" * 257],
)
async def test_a_search_that_cannot_be_is_refused(
    timed: Timed, sandbox: Sandbox, query: str
) -> None:
    reply = await timed.service.client.get(f"/v2/sandboxes/{sandbox.id}/logs?{query}")

    assert (reply.status, reply.json()["code"]) == (400, 400)
