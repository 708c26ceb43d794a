"""How a service ends: asked to, killed, with the process that it belongs to."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from tests.support.agent_host import wait_until
from tests.support.leaks import find_process
from tests.support.serving import (
    COMMAND,
    PATIENCE,
    ServiceProcess,
    clean_environment,
    create_sandbox,
    execute,
    flags_for,
    run_headrace,
    started_service,
)

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]

WAITING = "import time\nprint('begun')\ntime.sleep(600)"


# --- ends -------------------------------------------------------------------------------------


def read_events(lines: Iterator[str], wanted: str) -> dict[str, object]:
    for line in lines:
        if line and wanted in (event := json.loads(line))["type"]:
            return dict(event)
    raise AssertionError(f"the stream ended without {wanted}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_every_stream_with_its_last_event_and_leaves_nothing(
    tmp_path: Path, number: int
) -> None:
    path = tmp_path / "runtime" / "own" / "s.sock"
    with started_service(tmp_path, "--socket", str(path)) as service, service.client() as client:
        family = tree(service.process.pid)
        sandbox = create_sandbox(client)
        request = client.build_request(
            "POST",
            f"/v1/sandboxes/{sandbox}/executions",
            json={"code": WAITING},
            headers={"accept": "application/x-ndjson"},
        )
        answer = client.send(request, stream=True)
        lines = answer.iter_lines()
        read_events(lines, "stdout")
        family |= tree(service.process.pid)

        service.signal(number)
        finished = read_events(lines, "finished")
        answer.close()

        assert finished["reason"] == "killed"
        assert finished["detail"] == "the service is shutting down"
        assert service.wait() == 0
        assert not path.exists()
        discovery = service.runtime / "server.json"
        assert not discovery.exists() or discovery.read_text() == ""
        assert list((service.runtime / "logs").iterdir()) == []
        wait_until(lambda: not any(find_process(pid) for pid in family))


def tree(pid: int) -> set[int]:
    """Give the process and all below it."""
    found = {pid}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in task.read_text().split():
            found |= tree(int(child))
    return found


def test_a_websocket_gets_its_last_event_and_is_told_that_the_service_goes(tmp_path: Path) -> None:
    with started_service(tmp_path) as service:
        with service.client() as client:
            sandbox = create_sandbox(client)
        url = f"{service.url.replace('http', 'ws')}/v1/sandboxes/{sandbox}/stream"
        headers = {"authorization": f"Bearer {service.key}"}
        with connect(url, additional_headers=headers, open_timeout=PATIENCE) as websocket:
            websocket.send(json.dumps({"type": "execute", "request": "r", "code": WAITING}))
            while json.loads(websocket.recv(PATIENCE))["type"] != "stdout":
                pass
            service.signal(signal.SIGTERM)
            while (event := json.loads(websocket.recv(PATIENCE)))["type"] != "finished":
                pass
            assert event["reason"] == "killed"
            with pytest.raises(ConnectionClosed) as caught:
                websocket.recv(PATIENCE)
            assert caught.value.rcvd is not None
            assert caught.value.rcvd.code == 1012
        assert service.wait() == 0


def test_a_service_whose_launcher_dies_says_so_and_ends(tmp_path: Path) -> None:
    with started_service(tmp_path) as service, service.client() as client:
        create_sandbox(client)
        launcher = min(tree(service.process.pid) - {service.process.pid})

        os.kill(launcher, signal.SIGKILL)

        assert service.wait() == 125
        assert "the launcher has ended" in service.errors


def test_a_second_signal_does_not_wait_for_slow_readers(tmp_path: Path) -> None:
    with started_service(tmp_path) as service, service.client() as client:
        sandbox = create_sandbox(client)
        with slow_reader(service, sandbox):
            service.signal(signal.SIGTERM)
            wait_until(lambda: "service stops" in service.errors)
            time.sleep(0.5)
            assert service.process.poll() is None
            service.signal(signal.SIGTERM)
            assert service.wait() == 0


def test_slow_readers_are_cut_when_their_time_is_over(tmp_path: Path) -> None:
    flags = ["--set", "server.graceful_shutdown=0.5"]
    with (
        started_service(tmp_path, *flags) as service,
        service.client() as client,
        slow_reader(service, create_sandbox(client)),
    ):
        service.signal(signal.SIGTERM)
        assert service.wait() == 0


class slow_reader:  # noqa: N801 - used like a function
    """A client that asks for much and reads nothing of it."""

    def __init__(self, service: ServiceProcess, sandbox: str) -> None:
        body = json.dumps({"code": "print('x' * 50_000_000)\nimport time\ntime.sleep(600)"})
        port = httpx.URL(service.url).port
        self._sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
        self._sock.sendall(
            f"POST /v1/sandboxes/{sandbox}/executions HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {service.key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )

    def __enter__(self) -> None:
        assert self._sock.recv(100).startswith(b"HTTP/1.1 200")
        time.sleep(1)

    def __exit__(self, *_: object) -> None:
        self._sock.close()


def test_after_a_kill_nothing_runs_on_and_a_second_start_removes_what_is_left(
    tmp_path: Path,
) -> None:
    path = tmp_path / "runtime" / "own" / "s.sock"
    flags = ["--socket", str(path)]
    with started_service(tmp_path, *flags) as first, first.client() as client:
        key = first.key
        sandbox = create_sandbox(client)
        execution = client.post(
            f"/v1/sandboxes/{sandbox}/executions", json={"code": WAITING, "background": True}
        ).json()["id"]
        events = f"/v1/executions/{execution}/events"
        wait_until(lambda: client.get(events, headers=AS_JSON).json()["last_seq"] >= 2)
        family = tree(first.process.pid)
        assert len(family) > 3

        first.signal(signal.SIGKILL)
        assert first.wait() == -signal.SIGKILL
        wait_until(lambda: not any(is_running(pid) for pid in family))
        assert path.exists()
        assert first.record["pid"] == first.process.pid

    with started_service(tmp_path, *flags) as second, second.client() as client:
        assert second.key == key
        assert second.record["pid"] == second.process.pid
        assert client.get(f"/v1/sandboxes/{sandbox}").status_code == 404
        assert client.get(events, headers=AS_JSON).status_code == 404
        assert not list(second.runtime.glob("logs/*/*"))
        assert execute(client, create_sandbox(client), "1 + 1").json()["results"][0]["text"] == "2"


AS_JSON = {"accept": "application/json"}


def is_running(pid: int) -> bool:
    """Say whether a process lives; one that nobody reaps does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_service_on_the_same_directories_is_refused_and_harms_nothing(
    tmp_path: Path,
) -> None:
    with started_service(tmp_path) as service, service.client() as client:
        sandbox = create_sandbox(client)
        done = run_headrace("serve", "--port", "0", *flags_for(service.directory))

        assert done.returncode != 0
        assert f"another server (process {service.process.pid})" in done.stderr
        assert execute(client, sandbox, "1 + 1").json()["results"][0]["text"] == "2"
        assert service.record["pid"] == service.process.pid
        client.delete(f"/v1/sandboxes/{sandbox}")


def test_a_start_that_is_broken_off_ends_quickly_and_quietly(tmp_path: Path) -> None:
    with started_service(tmp_path, is_ready=False) as service:
        wait_until(lambda: (service.runtime / "server.json").exists())
        service.signal(signal.SIGTERM)

        assert service.wait() == 0
        assert "takes requests" not in service.output
        assert "Traceback" not in service.errors


# --- the private server of a process ----------------------------------------------------------

PRIVATE_KEY = "0123456789abcdef0123456789abcdef01234567"


@contextmanager
def process_with_servers(
    directory: Path, count: int
) -> "Iterator[tuple[subprocess.Popen[bytes], list[PrivateServer]]]":
    """Give a process that does nothing, and private servers that belong to it."""
    owner = subprocess.Popen(["sleep", "600"])
    servers: list[PrivateServer] = []
    try:
        servers += [PrivateServer.start(directory, owner.pid) for _ in range(count)]
        yield owner, servers
    finally:
        owner.kill()
        owner.wait()
        for server in servers:
            server.process.kill()
            server.process.wait()
            shutil.rmtree(server.own, ignore_errors=True)


@dataclass
class PrivateServer:
    """A server that belongs to a process, and the line that it said when it was ready."""

    process: "subprocess.Popen[bytes]"
    own: Path
    record: dict[str, object]

    @classmethod
    def start(cls, directory: Path, owner: int) -> Self:
        # Where everybody may make directories, as in the temporary directory of a machine.
        own = Path(tempfile.mkdtemp(prefix="headrace-test-", dir="/tmp"))
        reading, writing = os.pipe()
        command = [str(COMMAND), "serve", "--socket", str(own / "s.sock"), "--no-tcp"]
        command += ["--exit-with", str(owner), "--ready-fd", str(writing), *flags_for(directory)]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            pass_fds=[writing],
            env=clean_environment(HEADRACE_API_KEYS=PRIVATE_KEY),
            start_new_session=True,
        )
        os.close(writing)
        with os.fdopen(reading, "rb") as ready:
            return cls(process, own, json.loads(ready.read()))

    def client(self) -> httpx.Client:
        return httpx.Client(
            transport=httpx.HTTPTransport(uds=str(self.own / "s.sock")),
            base_url="http://localhost",
            headers={"authorization": f"Bearer {PRIVATE_KEY}"},
            timeout=PATIENCE,
        )


def test_a_private_server_ends_with_the_process_that_it_belongs_to(tmp_path: Path) -> None:
    with process_with_servers(tmp_path, 1) as (owner, (server,)):
        with server.client() as client:
            create_sandbox(client)
        assert server.record == {
            "url": None,
            "socket": str(server.own / "s.sock"),
            "pid": server.process.pid,
        }
        assert not (tmp_path / "runtime" / "server.json").exists()
        assert not (tmp_path / "state" / "key").exists()
        family = tree(server.process.pid)

        owner.kill()

        assert server.process.wait(PATIENCE) == 0
        wait_until(lambda: not any(find_process(pid) for pid in family))
        assert not server.own.exists()


def test_private_servers_and_a_service_share_their_directories(tmp_path: Path) -> None:
    with started_service(tmp_path) as service:
        with process_with_servers(tmp_path, 2) as (owner, servers):
            for server in servers:
                with server.client() as client:
                    create_sandbox(client)
            owner.kill()
            assert [server.process.wait(PATIENCE) for server in servers] == [0, 0]
        with service.client() as client:
            outcome = execute(client, create_sandbox(client), "1 + 1").json()

    assert outcome["results"][0]["text"] == "2"


def test_a_private_server_needs_a_key(tmp_path: Path) -> None:
    flags = ["--exit-with", str(os.getpid()), "--no-tcp", "--socket", str(tmp_path / "s.sock")]

    done = run_headrace("serve", *flags, *flags_for(tmp_path))

    assert done.returncode != 0
    assert "a private server needs a key in HEADRACE_API_KEYS" in done.stderr
