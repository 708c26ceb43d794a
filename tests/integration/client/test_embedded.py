"""The private server of a process: started once, shared, and gone with the process."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.integration.client.conftest import Service

PATIENCE = 50.0

SHOW = """
import json, os, sys
from headrace.client._embedded import PRIVATE_SERVER
def show(**facts):
    running = PRIVATE_SERVER._running
    server = running and {"pid": running.process.pid, "directory": str(running.directory)}
    print(json.dumps({"server": server, **facts}), flush=True)
"""


@contextmanager
def program(code: str, **env: str) -> Iterator["subprocess.Popen[str]"]:
    """Run a program that uses the SDK and has ``show`` to tell us things."""
    surroundings = {k: v for k, v in os.environ.items() if not k.startswith("HEADRACE_")}
    process = subprocess.Popen(
        [sys.executable, "-c", SHOW + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=surroundings | env,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=PATIENCE)


def facts(process: "subprocess.Popen[str]") -> dict[str, Any]:
    """Give what the program shows next."""
    assert process.stdout is not None
    said = process.stdout.readline()
    try:
        found: dict[str, Any] = json.loads(said)
    except ValueError:
        raise AssertionError(said + process.stdout.read()) from None
    return found


def run(code: str, **env: str) -> str:
    """Run a program to its end and give what it said."""
    with program(code, **env) as process:
        said, _ = process.communicate(timeout=PATIENCE)
    return said


def is_gone(server: dict[str, Any]) -> bool:
    """Wait until nothing is left of a server: no process, no directory."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if (
            not Path("/proc", str(server["pid"])).exists()
            and not Path(server["directory"]).exists()
        ):
            return True
        time.sleep(0.05)
    return False


def test_a_server_is_started_when_it_is_needed_and_ends_with_the_program() -> None:
    code = """
from headrace import Sandbox
show()
with Sandbox.create() as sandbox:
    show(text=sandbox.run_code("6 * 7").text, mode=os.stat(os.path.dirname(
        sandbox._connection.endpoint.socket)).st_mode & 0o777)
"""
    with program(code) as process:
        assert facts(process)["server"] is None
        shown = facts(process)
        assert process.wait(PATIENCE) == 0

    # At once: the program waits for the end of its server.
    assert not Path("/proc", str(shown["server"]["pid"])).exists()
    assert not Path(shown["server"]["directory"]).exists()
    assert shown["text"] == "42"
    assert shown["mode"] == 0o700


def test_nothing_is_left_of_the_server_of_a_program_that_was_killed() -> None:
    code = """
from headrace import Sandbox
sandbox = Sandbox.create()
sandbox.start_code("while True: pass")
show()
sys.stdin.read()
"""
    with program(code) as process:
        shown = facts(process)
        os.kill(process.pid, signal.SIGKILL)

        assert is_gone(shown["server"])


def test_two_threads_that_start_at_once_share_one_server() -> None:
    code = """
from concurrent.futures import ThreadPoolExecutor
from headrace import Sandbox
def use():
    with Sandbox.create() as sandbox:
        return sandbox._connection.endpoint.socket, sandbox.run_code("1 + 1").text
with ThreadPoolExecutor(4) as threads:
    found = [each.result() for each in [threads.submit(use) for _ in range(4)]]
show(sockets=len({socket for socket, _ in found}), texts=[text for _, text in found])
"""
    with program(code) as process:
        shown = facts(process)

    assert shown["sockets"] == 1
    assert shown["texts"] == ["2"] * 4


def test_two_tasks_that_start_at_once_share_one_server() -> None:
    code = """
import asyncio
from headrace import AsyncSandbox
async def use():
    async with await AsyncSandbox.create() as sandbox:
        return sandbox._connection.endpoint.socket
async def main():
    return await asyncio.gather(use(), use())
show(sockets=len(set(asyncio.run(main()))))
"""
    with program(code) as process:
        assert facts(process)["sockets"] == 1


def test_a_forked_process_starts_a_server_of_its_own_and_leaves_the_other_alone() -> None:
    code = """
from headrace import Sandbox
sandbox = Sandbox.create()
sandbox.run_code("x = 1")
show()
child = os.fork()
if child == 0:
    with Sandbox.create() as own:
        show(text=own.run_code("2").text, inherited=sandbox.run_code("x").text)
    sys.exit(0)
os.waitpid(child, 0)
show(text=sandbox.run_code("x").text)
sandbox.kill()
"""
    with program(code) as process:
        parent, child, after = facts(process), facts(process), facts(process)
        assert process.wait(PATIENCE) == 0

    assert child["server"]["pid"] != parent["server"]["pid"]
    assert (child["text"], child["inherited"], after["text"]) == ("2", "1", "1")
    assert is_gone(child["server"])
    assert is_gone(parent["server"])


def test_a_server_that_died_is_replaced() -> None:
    code = """
import signal
from headrace import ConnectionFailedError, Sandbox
sandbox = Sandbox.create()
show()
os.kill(PRIVATE_SERVER._running.process.pid, signal.SIGKILL)
PRIVATE_SERVER._running.process.wait()
try:
    sandbox.info()
except ConnectionFailedError as error:
    show(error=str(error))
with Sandbox.create() as sandbox:
    show(text=sandbox.run_code("3").text)
"""
    with program(code) as process:
        first, error, second = facts(process), facts(process), facts(process)

    assert "is the service running?" in error["error"]
    assert second["text"] == "3"
    assert is_gone(first["server"])


def test_a_server_that_does_not_start_says_why() -> None:
    said = run("from headrace import Sandbox; Sandbox.create()", HEADRACE_PORT="many")

    assert "ConnectionFailedError: the private server ended with status" in said
    assert "port" in said.rpartition("ConnectionFailedError")[2]


def test_what_is_missing_is_named_with_what_to_install() -> None:
    code = """
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name == "uvicorn" else real(name, *more)
from headrace import Sandbox
Sandbox.create()
"""
    said = run(code)

    assert "because uvicorn is not installed" in said
    assert "pip install 'headrace[server,kernel]'" in said


def test_a_service_in_the_environment_is_used_instead(service: Service) -> None:
    code = """
from headrace import Sandbox
with Sandbox.create() as sandbox:
    show(text=sandbox.run_code("4").text)
"""
    with program(code, HEADRACE_URL=service["url"], HEADRACE_API_KEY=service["api_key"]) as process:
        shown = facts(process)

    assert shown == {"server": None, "text": "4"}


def test_a_client_that_was_killed_finds_its_execution_again(service: Service) -> None:
    begin = """
from headrace import Sandbox
sandbox = Sandbox.create()
started = sandbox.start_code('''
import time
for i in range(40):
    print(i)
    time.sleep(0.05)
''')
for event in started.events():
    if event.seq == 5:
        show(sandbox=sandbox.id, execution=started.id, seq=event.seq)
"""
    go_on = """
from headrace import Sandbox
with Sandbox.connect(sys.argv[1]) as sandbox:
    seqs = [event.seq for event in sandbox.execution(sys.argv[2]).events(after=5)]
    show(seqs=seqs, stdout=sandbox.execution(sys.argv[2]).wait().stdout)
    sandbox.kill()
"""
    place = {"HEADRACE_URL": service["url"], "HEADRACE_API_KEY": service["api_key"]}
    with program(begin, **place) as process:
        shown = facts(process)
        process.kill()
    arguments = f"sys.argv[1:] = [{shown['sandbox']!r}, {shown['execution']!r}]\n"
    with program(arguments + go_on, **place) as process:
        again = facts(process)

    assert again["stdout"] == "".join(f"{i}\n" for i in range(40))
    assert again["seqs"] == list(range(6, again["seqs"][-1] + 1))
