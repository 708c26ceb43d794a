"""Whatever a client sends to E2B's process service: it is answered, and nothing of ours breaks."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.adapters.e2b.envd.processes import METHODS
from headrace.adapters.e2b.envd.rpc import Unary
from tests.support.e2b import E2bService, envelope, open_e2b, open_envelopes
from tests.support.e2b_processes import Caller
from tests.support.native import Reply

STREAM = "application/connect+json"

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["echo", "sleep", "SIGNAL_SIGKILL", "eA==", "101", "/tmp", "~"])
    | st.sampled_from([101, 102, 9, 15])
)
NAMES = st.sampled_from(
    [
        *("process", "cmd", "args", "envs", "cwd", "pty", "size", "cols", "rows", "tag", "stdin"),
        *("pid", "input", "signal", "start", "data", "keepalive", "unknown"),
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)
SELECTORS = st.fixed_dictionaries({"pid": st.sampled_from([101, 102])}) | VALUES
INPUTS = st.fixed_dictionaries({"stdin": st.sampled_from(["eA==", "", "!"])}) | VALUES
REQUESTS = (
    st.fixed_dictionaries({"process": SELECTORS, "input": INPUTS, "signal": SCALARS, "pty": VALUES})
    | st.fixed_dictionaries({"start": st.fixed_dictionaries({"process": SELECTORS})})
    | st.fixed_dictionaries({"data": st.fixed_dictionaries({"input": INPUTS})})
    | st.fixed_dictionaries(
        {"process": st.fixed_dictionaries({"cmd": st.just("echo"), "args": VALUES, "envs": VALUES})}
    )
    | VALUES
)
# What a call with a good request may fail with: an input that was closed, a signal there is not.
CODES = {
    "invalid_argument",
    "not_found",
    "internal",
    "unimplemented",
    "deadline_exceeded",
    "resource_exhausted",
}


class World:
    """A sandbox with two processes that run, and a loop that serves it."""

    def __init__(self, portal: BlockingPortal, service: E2bService) -> None:
        self._portal = portal
        self._service = service
        self.caller = Caller(service, portal.call(service.create))

    def ask(self, method: str, pieces: list[bytes]) -> Reply:
        """Make a call that takes at most 50 ms."""
        is_unary = isinstance(METHODS[method], Unary)
        headers = {"connect-timeout-ms": "50"}
        if not is_unary:
            headers["content-type"] = STREAM
        client = self._service.agent(self.caller.sandbox, **headers)
        return self._portal.call(lambda: client.request("POST", method, content=pieces or [b""]))

    def refresh(self) -> None:
        """See to it that something runs."""
        if len(self.caller.sandbox.processes) < 2:
            self._portal.call(self.caller.run_on, "sleep")

    def check(self, method: str, reply: Reply) -> None:
        """Assert that it was answered in the form of its method, and not by a defect."""
        assert reply.is_complete
        if reply.headers["content-type"] == STREAM:
            messages = open_envelopes(reply.body)
            assert [flags for flags, _ in messages] == [0] * (len(messages) - 1) + [2]
            error: Any = messages[-1][1].get("error")
        else:
            assert isinstance(METHODS[method], Unary)
            error = None if reply.status == 200 else reply.json()
        if error is not None:
            assert error["code"] in CODES
            assert "internal failure" not in error["message"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A world for all examples."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(open_e2b(tmp_path_factory.mktemp("e2b"))) as service,
    ):
        yield World(portal, service)


RELAXED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@RELAXED
@given(st.sampled_from(sorted(METHODS)), st.lists(REQUESTS, min_size=1, max_size=3))
def test_every_message_is_answered(world: World, method: str, messages: list[object]) -> None:
    world.refresh()
    if isinstance(METHODS[method], Unary):
        pieces = [json.dumps(messages[0]).encode()]
    else:
        pieces = [envelope(message) for message in messages]

    world.check(method, world.ask(method, pieces))


@RELAXED
@given(st.sampled_from(sorted(METHODS)), st.lists(st.binary(max_size=20), max_size=4))
def test_all_bytes_are_answered(world: World, method: str, pieces: list[bytes]) -> None:
    world.check(method, world.ask(method, pieces))
