"""The HTTP half of ``headrace bench``: a private service, measured by the SDK and by a bare client.

The bare client sends prepared bytes and looks for the end of the answer, so it shows what the
service takes; the rest of what the SDK shows is the SDK.
"""

import json
import re
import socket
import time
from collections.abc import Callable
from contextlib import closing
from typing import TypeVar

from headrace.client._embedded import PRIVATE_SERVER
from headrace.client._shared.endpoint import Endpoint
from headrace.client._sync.sandbox import Sandbox
from headrace.model.events import OutputWritten

_DELAYS = "import time\nfor _ in range({count}):\n    print(time.time()); time.sleep(0.002)"
_PATIENCE = 60.0
_REFILL = 0.2
"""Seconds in which the pool is refilled, so that this does not run into the next sample."""
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_PRINTED = re.compile(rb'"type":"stdout".*?"text":"([\d.\\n]*)"')

Samples = dict[str, list[float]]
T = TypeVar("T")


def measure(rounds: int) -> Samples:
    """Give samples in seconds, by name; the two clients take turns on the same machine."""
    endpoint = PRIVATE_SERVER.ensure_started()
    samples: Samples = {}

    def time_it(name: str, action: Callable[[], T]) -> T:
        start = time.perf_counter()
        outcome = action()
        samples.setdefault(name, []).append(time.perf_counter() - start)
        return outcome

    with Sandbox.create() as sandbox, closing(BareClient(endpoint)) as bare:
        for _ in range(rounds):
            time_it("create over HTTP, SDK", Sandbox.create).kill()
            time.sleep(_REFILL)
            bare.kill(time_it("create over HTTP, bare client", bare.create))
            time.sleep(_REFILL)
        for _ in range(rounds * 10):
            time_it("1+1 over HTTP, SDK", lambda: sandbox.run_code("1+1"))
            time_it("1+1 over HTTP, bare client", lambda: bare.run(sandbox.id, "1+1"))
        code = _DELAYS.format(count=rounds * 10)
        samples["print to callback, SDK"] = _delays_of_sdk(sandbox, code)
        samples["print to event, bare client"] = bare.delays(sandbox.id, code)
    return samples


def _delays_of_sdk(sandbox: Sandbox, code: str) -> list[float]:
    """Compare the guest's clock at the print with ours at the callback: it is the same clock."""
    delays: list[float] = []

    def hear(event: OutputWritten) -> None:
        now = time.time()
        delays.extend(now - float(line) for line in event.text.splitlines())

    sandbox.run_code(code, on_stdout=hear)
    return delays


class BareClient:
    """HTTP over one kept connection to a unix socket; close it."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._key = endpoint.key
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(_PATIENCE)
        self._socket.connect(endpoint.socket or "")

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()

    def create(self) -> str:
        """Create a sandbox and give its id."""
        self._send("POST", "/v1/sandboxes", {})
        made: str = json.loads(self._receive_body())["id"]
        return made

    def kill(self, sandbox_id: str) -> None:
        """End a sandbox."""
        self._send("DELETE", f"/v1/sandboxes/{sandbox_id}")
        self._receive_body()

    def run(self, sandbox_id: str, code: str) -> None:
        """Run code and wait for the outcome."""
        self._send("POST", f"/v1/sandboxes/{sandbox_id}/executions", {"code": code})
        self._receive_body()

    def delays(self, sandbox_id: str, code: str) -> list[float]:
        """Give the times from prints to their events here."""
        path = f"/v1/sandboxes/{sandbox_id}/executions"
        self._send("POST", path, {"code": code}, "application/x-ndjson")
        delays: list[float] = []
        rest = b""
        while b'"type":"finished"' not in rest:
            data = rest + self._receive()
            now = time.time()
            for printed in _PRINTED.findall(data):
                times = printed.decode().split("\\n")
                delays += [now - float(each) for each in times if each]
            rest = data.rpartition(b"\n")[2] if b'"type":"finished"' not in data else data
        return delays

    def _send(
        self, method: str, path: str, body: object = None, accept: str = "application/json"
    ) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {self._key}\r\n"
            f"Accept: {accept}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(content)}\r\n\r\n"
        )
        self._socket.sendall(head.encode() + content)

    def _receive_body(self) -> bytes:
        """Give the body of an answer that says how long it is."""
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, body = data.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 2"):
            raise ConnectionError(f"the service answered {head[:60]!r} {body[:200]!r}")
        found = _LENGTH.search(head)
        length = int(found[1]) if found else 0
        while len(body) < length:
            body += self._receive()
        return body

    def _receive(self) -> bytes:
        data = self._socket.recv(65536)
        if not data:
            raise ConnectionError("the service closed the connection")
        return data
