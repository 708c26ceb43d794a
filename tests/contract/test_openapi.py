"""The service does what its OpenAPI document says, whatever is sent to it."""

import threading
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks, not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from headrace.adapters.native.app import ROUTES
from headrace.adapters.native.openapi import make_document
from tests.support.fakes import FakeKernel
from tests.support.native import FileAgent
from tests.support.serving import KEY, InProcessServer, open_server

load_all_checks()
schema = schemathesis.openapi.from_dict(make_document(ROUTES))
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    negative_data_rejection,
]
EXAMPLES = 15
PATIENCE = 20.0


class TolerantKernel(FakeKernel):
    """Prints the lines that it does not understand."""

    async def step(self, word: str, argument: str) -> tuple[str, int | None] | None:
        """Run one line."""
        if not hasattr(self, "do_" + word.replace("-", "_")):
            word, argument = "out", f"{word} {argument}"
        return await super().step(word, argument)


@dataclass
class World:
    """A service, and things in it that exist."""

    url: str
    ids: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Send a request."""
        headers = {"authorization": f"Bearer {KEY}", "accept": "application/json"}
        return requests.request(
            method, self.url + path, json=body, headers=headers, timeout=PATIENCE
        )

    def real_ids(self) -> dict[str, str]:
        """Give the ids of things that exist now; a case before may have ended the last ones."""
        for _ in range(10):
            sandbox = self.ids.get("sandbox_id", "none")
            state = self.ask("GET", f"/v1/sandboxes/{sandbox}").json().get("state")
            if state == "paused":
                self.ask("POST", f"/v1/sandboxes/{sandbox}/resume")
            elif state != "running":
                self._make()
            found = self.ask("GET", f"/v1/sandboxes/{self.ids['sandbox_id']}/contexts").json()
            if found.get("contexts"):
                self.ids["context_id"] = found["contexts"][-1]["id"]
                return self.ids
            self.ask("POST", f"/v1/sandboxes/{self.ids['sandbox_id']}/contexts", {})
        raise AssertionError("no sandbox lives long enough")

    def _make(self) -> None:
        sandbox = self.ask("POST", "/v1/sandboxes", {}).json()["id"]
        base = f"/v1/sandboxes/{sandbox}"
        execution = self.ask("POST", f"{base}/executions", {"code": "out hi\nmain 2\nhex ff"})
        process = self.ask("POST", f"{base}/processes", {"argv": ["echo", "hi"]})
        watch = self.ask("POST", f"{base}/watches", {"path": "/removed"})
        self.ids = {
            "sandbox_id": sandbox,
            "execution_id": execution.json()["id"],
            "process_id": process.json()["id"],
            "watch_id": watch.json()["id"],
            "context_id": execution.json()["context_id"],
        }


def serve(
    directory: Path, begun: Callable[[InProcessServer], None], ending: threading.Event
) -> None:
    """Run a service until it is told to end."""

    async def run() -> None:
        limits = {"max_sandboxes": 2000}
        async with open_server(directory, fake=True, engine_settings=limits) as server:
            assert server.launcher is not None
            server.launcher.make_kernel = TolerantKernel
            server.launcher.make_agent = FileAgent
            begun(server)
            await anyio.to_thread.run_sync(ending.wait)

    anyio.run(run)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service in a thread of its own, since Schemathesis does not know of event loops."""
    found: list[World] = []
    ready, ending = threading.Event(), threading.Event()

    def begun(server: InProcessServer) -> None:
        found.append(World(server.url))
        ready.set()

    directory = tmp_path_factory.mktemp("contract")
    thread = threading.Thread(target=serve, args=(directory, begun, ending))
    thread.start()
    try:
        assert ready.wait(PATIENCE)
        yield found[0]
    finally:
        ending.set()
        thread.join(PATIENCE)


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_the_service_keeps_to_its_document(case: schemathesis.Case[Any], world: World) -> None:
    # Most cases are about things that exist, some about things that do not.
    if zlib.crc32(repr((case.query, case.body)).encode("utf-8", "replace")) % 5:
        real = world.real_ids()
        case.path_parameters = {name: real[name] for name in case.path_parameters or {}}

    response = case.call(
        base_url=world.url, headers={"authorization": f"Bearer {KEY}"}, timeout=PATIENCE
    )

    case.validate_response(response, checks=CHECKS)


def test_the_service_serves_the_document_that_was_tested(world: World) -> None:
    served: Any = requests.get(f"{world.url}/v1/openapi.json", timeout=PATIENCE).json()

    assert served["paths"].keys() == {route.path for route in ROUTES}
