"""The real command: what it opens, who may use it, and what it refuses to be."""

import json
import os
import ssl
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.agent_host import wait_until
from tests.support.modes import Mode, current_mode
from tests.support.serving import (
    PATIENCE,
    ServiceProcess,
    create_sandbox,
    execute,
    flags_for,
    run_headrace,
    started_service,
)

pytestmark = [pytest.mark.sandbox, pytest.mark.timeout(180)]

WAITING = "import time\nprint('begun')\ntime.sleep(600)"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One service, talkative, for all tests that leave it as it is."""
    directory = tmp_path_factory.mktemp("service")
    path = str(directory / "runtime" / "own" / "s.sock")
    with started_service(directory, "--log-level", "debug", "--socket", path) as service:
        yield service


# --- use --------------------------------------------------------------------------------------


def test_code_runs_with_the_key_that_the_service_made(service: ServiceProcess) -> None:
    with service.client() as client:
        sandbox = create_sandbox(client)
        outcome = execute(client, sandbox, "print('hello'); 1 + 1").json()
        assert client.delete(f"/v1/sandboxes/{sandbox}").status_code == 204

    assert outcome["stdout"] == "hello\n"
    assert outcome["results"][0]["text"] == "2"


def test_the_banner_says_where_the_service_and_its_key_are_and_what_is_enforced(
    service: ServiceProcess,
) -> None:
    assert f"url            {service.url}" in service.output
    assert f"socket         {service.record['socket']}" in service.output
    assert f"key            in {service.state / 'key'}" in service.output
    assert f"isolation      {current_mode()} mode, enforced: namespaces, seccomp" in service.output


def test_the_state_can_be_asked_without_a_key(service: ServiceProcess) -> None:
    answer = httpx.get(f"{service.url}/health", timeout=PATIENCE).json()

    assert answer["status"] == "healthy"
    assert answer["isolation"]["mode"] == current_mode()
    assert "namespaces" in answer["isolation"]["enforced"]


def test_the_figures_can_be_asked_from_this_machine_without_a_key(service: ServiceProcess) -> None:
    assert "headrace_" in httpx.get(f"{service.url}/metrics", timeout=PATIENCE).text
    forwarded = httpx.get(
        f"{service.url}/metrics", headers={"x-forwarded-for": "1.2.3.4"}, timeout=PATIENCE
    )
    assert forwarded.status_code == 401


def test_the_socket_serves_too_and_only_its_owner_may_use_it(service: ServiceProcess) -> None:
    path = Path(service.record["socket"])
    transport = httpx.HTTPTransport(uds=str(path))

    with httpx.Client(transport=transport, timeout=PATIENCE) as client:
        assert client.get("http://anything/health").json()["status"] == "healthy"
        assert client.get("http://anything/v1/sandboxes").status_code == 401

    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_files_with_keys_can_be_read_by_nobody_else(service: ServiceProcess) -> None:
    found = (service.state / "key").stat()

    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()


def test_the_service_is_not_root(service: ServiceProcess) -> None:
    text = Path(f"/proc/{service.process.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)

    assert "0" not in fields["Uid"].split()
    if current_mode() is Mode.ROOT:
        assert int(fields["CapBnd"], 16) == 0
        assert fields["NoNewPrivs"] == "1"


# --- who may ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer 0123456789abcdef0123456789abcdef01234567"},
        {"authorization": "Basic eDp5"},
    ],
)
def test_without_a_good_key_there_is_nothing(
    service: ServiceProcess, headers: dict[str, str]
) -> None:
    answer = httpx.get(f"{service.url}/v1/sandboxes", headers=headers, timeout=PATIENCE)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


def test_a_web_page_that_took_our_address_reaches_nothing(service: ServiceProcess) -> None:
    for path in ("/health", "/metrics", "/v1/sandboxes"):
        with service.client() as client:
            answer = client.get(path, headers={"host": "evil.example"})
        assert answer.status_code == 403
        assert "evil.example" in answer.json()["error"]["message"]


def test_keys_come_and_go_while_the_service_runs(service: ServiceProcess) -> None:
    flags = ["--config", str(write_config(service.directory))]
    added = run_headrace("keys", "add", "--tenant", "late", "--json", *flags)
    assert added.returncode == 0, added.stderr
    record = json.loads(added.stdout)

    with service.client(record["key"]) as client:
        wait_until(lambda: client.get("/v1/sandboxes").status_code == 200)
        sandbox = create_sandbox(client)
        with service.client() as other:
            assert other.get(f"/v1/sandboxes/{sandbox}").status_code == 404
        assert client.delete(f"/v1/sandboxes/{sandbox}").status_code == 204
        assert record["id"] in run_headrace("keys", "list", *flags).stdout
        assert run_headrace("keys", "revoke", record["id"], *flags).returncode == 0
        wait_until(lambda: client.get("/v1/sandboxes").status_code == 401)

    assert record["key"] not in (service.state / "keys.json").read_text()
    assert run_headrace("keys", "revoke", record["id"], *flags).returncode != 0


def write_config(directory: Path) -> Path:
    path = directory / "keys-config.toml"
    path.write_text(
        f'[engine]\nmode = "{current_mode()}"\n'
        f'state_dir = "{directory / "state"}"\nruntime_dir = "{directory / "runtime"}"\n'
    )
    return path


def test_neither_keys_nor_code_nor_output_are_in_the_log(service: ServiceProcess) -> None:
    wrong = "feedfacefeedfacefeedfacefeedfacefeedface"
    with service.client() as client:
        sandbox = create_sandbox(client)
        execute(client, sandbox, "print('canary-' + 'output'); 'canary-code'")
        client.get(f"/v1/sandboxes/{sandbox}/ports/81/canary-path?x=canary-query")
        client.get("/v1/sandboxes?after=canary-query")
        client.get("/files?signature=canary-signature")
        client.delete(f"/v1/sandboxes/{sandbox}")
    httpx.get(f"{service.url}/v1/sandboxes", headers={"authorization": f"Bearer e2b_{wrong}"})

    log = service.errors
    assert "request answered" in log
    assert sandbox in log
    for secret in (service.key, wrong, "canary"):
        assert secret not in log
        assert secret not in service.output


def test_a_server_in_a_sandbox_has_a_host_name_of_its_own(service: ServiceProcess) -> None:
    with service.client() as client:
        sandbox = create_sandbox(client)
        command = ["python3", "-m", "http.server", "8123", "--bind", "127.0.0.1"]
        client.post(
            f"/v1/sandboxes/{sandbox}/processes", json={"argv": command, "background": True}
        )

        def ask(sandbox: str) -> httpx.Response:
            # Without a key: whoever knows the name may connect.
            headers = {"host": f"8123-{sandbox}.localhost"}
            return httpx.get(f"{service.url}/", headers=headers, timeout=PATIENCE)

        wait_until(lambda: ask(sandbox).status_code == 200)
        assert "Directory listing" in ask(sandbox).text
        client.delete(f"/v1/sandboxes/{sandbox}")
        gone = ask(sandbox)
        assert gone.status_code == 404
        assert gone.json()["error"]["message"] == f"there is no sandbox {sandbox!r}"


# --- settings ---------------------------------------------------------------------------------


def test_keys_of_the_environment_are_the_only_ones(tmp_path: Path) -> None:
    key = "abcdefabcdefabcdefabcdefabcdefabcdefabcd"
    with started_service(tmp_path, HEADRACE_API_KEYS=f"team:{key},other_key_of_somebody") as one:
        assert not (one.state / "key").exists()
        assert "given by server.api_keys" in one.output
        for presented in (key, f"e2b_{key}", "other_key_of_somebody"):
            with one.client(presented) as client:
                assert client.get("/v1/sandboxes").status_code == 200
        assert key not in one.output + one.errors


def test_a_certificate_makes_it_https(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "1", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
        timeout=PATIENCE,
    )
    key.chmod(0o600)
    flags = ["--tls-cert", str(certificate), "--tls-key", str(key)]
    with started_service(tmp_path, *flags) as service:
        assert service.url.startswith("https://127.0.0.1:")
        trusted = ssl.create_default_context(cafile=certificate)
        with service.client(verify=trusted) as client:
            sandbox = create_sandbox(client)
            ports = client.get(f"/v1/sandboxes/{sandbox}").json()["ports_url"]
            assert ports.startswith("https://")
            assert execute(client, sandbox, "1 + 1").json()["results"][0]["text"] == "2"
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{service.url}/health", timeout=PATIENCE)
        with pytest.raises(httpx.RemoteProtocolError):
            httpx.get(service.url.replace("https", "http"), timeout=PATIENCE)


def test_the_settings_are_shown_with_their_origins_and_without_keys(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[server]\nhost = '10.0.0.1'\n")
    key = "abcdefabcdefabcdefabcdefabcdefabcdefabcd"
    flags = ["--config", str(path), "--port", "1", "--set", "logs.format=json"]

    done = run_headrace("config", "show", "--json", *flags, HEADRACE_API_KEYS=key)

    rows = {
        row["name"]: (row["value"], row["origin"]) for row in json.loads(done.stdout)["settings"]
    }
    assert rows["server.host"] == ("10.0.0.1", str(path))
    assert rows["server.port"] == (1, "flag")
    assert rows["logs.format"] == ("json", "flag")
    assert rows["server.api_keys"] == ("1 set, not shown", "HEADRACE_API_KEYS")
    assert rows["server.heartbeat"] == (15.0, "default")
    plain = run_headrace("config", "show", *flags, HEADRACE_API_KEYS=key).stdout
    assert key not in done.stdout + plain
    assert any(line.split() == ["server.port", "1", "flag"] for line in plain.splitlines())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--port", "x"], "server.port"),
        (["--set", "server.prot=1"], "did you mean server.port?"),
        (["--set", "server.port"], "--set needs NAME=VALUE"),
        (["--config", "/nonexistent.toml"], "no configuration file /nonexistent.toml"),
        (["--require", "magic"], "unknown requirement 'magic'"),
        (["--public-url", "example.com"], "server.public_url must be like"),
        (["--tls-cert", "/nonexistent", "--tls-key", "/x"], "/nonexistent cannot be read"),
        (["--host", "192.0.2.1"], "192.0.2.1 port"),
        (["--no-tcp"], "nothing to listen on"),
        (["--exit-with", "999999999"], "there is no process 999999999"),
        (["--ready-fd", "77"], "descriptor 77 is not open"),
        (["--set", "server.api_keys=short"], "key 1 must be 16 to 128 characters"),
    ],
)
def test_a_service_that_cannot_be_says_why_in_one_line(
    tmp_path: Path, flags: list[str], said: str
) -> None:
    done = run_headrace("serve", "--port", "0", *flags_for(tmp_path), *flags)

    assert done.returncode != 0
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


# --- many at once -----------------------------------------------------------------------------


def test_keys_added_by_many_commands_at_once_are_all_good(tmp_path: Path) -> None:
    path = write_config(tmp_path)
    outcomes: list[str] = []

    def add() -> None:
        outcomes.append(run_headrace("keys", "add", "--config", str(path)).stdout.strip())

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)

    assert len(set(outcomes)) == 4
    assert len(run_headrace("keys", "list", "--config", str(path)).stdout.splitlines()) == 4
