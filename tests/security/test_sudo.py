"""sudo: what asks for root inside gains nothing beyond it, and holds nobody up."""

import os
import socket
import subprocess
import time
from pathlib import Path

from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from tests.security.prelude import attempt, pids, status_of
from tests.security.probes import Place, Probe, probe_in
from tests.support.modes import Mode
from tests.support.running import run_process

SOCKET = "/run/sudo/agent"


def find_socket(path: str) -> list[str]:
    """Say whether there is a way to the agent, and whether it can be taken away."""
    return [
        "there" if Path(path).exists() else "not there",
        attempt(os.unlink, path),
        attempt(os.rename, "/run/sudo", "/run/mine"),
    ]


async def test_the_socket_is_roots_and_only_where_there_is_a_root(
    kernel_probe: Probe, mode: Mode
) -> None:
    """Threat: the user puts a socket of its own in the place, or finds one that serves nobody."""
    found = await kernel_probe(find_socket, SOCKET)
    if mode is Mode.ROOT:
        assert found == ["there", "EACCES", "EACCES"]
    else:
        assert found[0] == "not there"


def flood(path: str) -> dict[str, object]:
    """Send garbage, half a conversation and more connections than anybody serves."""
    held = []
    for number in range(400):
        client = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client.setblocking(False)
        try:
            client.connect(path)
            if number % 2:
                socket.send_fds(client, [os.urandom(1 + number * 100)], [client.fileno()] * 3)
        except OSError:
            client.close()
            continue
        held.append(client)
    return {"held": len(held), "processes": len(pids())}


async def test_a_flood_in_sandbox_root_by_sudo_is_bounded(sandbox: Sandbox) -> None:
    """Threat: a client without end or with garbage keeps the agent from the engine."""
    verdict = await probe_in(sandbox, Place.KERNEL, flood, SOCKET)
    # The flooding kernel, the agent, and a monitor for each that was accepted.
    assert verdict["held"] > 8
    assert verdict["processes"] <= 2 + 32 + 4
    await sandbox.files.write("after", b"x")
    done = await run_process(sandbox, "sudo", "id", "-u")
    assert (done.stdout, done.stderr) == ("0\n", "")


def list_descriptors() -> list[str]:
    """List what a command has open, by the kinds of what is behind."""
    import contextlib

    found = []
    for path in sorted(Path("/proc/self/fd").iterdir(), key=lambda path: int(path.name)):
        # The one by which the directory is read is gone by now.
        with contextlib.suppress(OSError):
            found.append(f"{path.name}:{str(path.readlink()).partition(':')[0]}")
    return found


async def test_a_command_in_sandbox_root_by_sudo_has_its_streams_only(sandbox: Sandbox) -> None:
    """Threat: a descriptor of the agent, or of the monitor, reaches a command."""
    found = await probe_in(sandbox, Place.SUDO, list_descriptors)
    assert [each for each in found if int(each.split(":")[0]) > 2] == []
    assert len(found) == 3


def look_at_monitor() -> dict[str, object]:
    """As root inside, try to get at the process that started this one."""
    monitor = os.getppid()
    return {
        "is ours": monitor > 1,
        "uid": status_of(monitor)["Uid"].split(),
        "mem": attempt(os.open, f"/proc/{monitor}/mem", os.O_RDWR),
        "fds": attempt(os.listdir, f"/proc/{monitor}/fd"),
        "environ": attempt(os.open, f"/proc/{monitor}/environ", os.O_RDONLY),
    }


async def test_the_monitor_is_closed_to_in_sandbox_root_by_sudo(sandbox: Sandbox) -> None:
    """Threat: a copy of the agent that can be read or written is a way into the agent."""
    assert await probe_in(sandbox, Place.SUDO, look_at_monitor) == {
        "is ours": True,
        "uid": ["0"] * 4,
        "mem": "EACCES",
        "fds": "EACCES",
        "environ": "EACCES",
    }


def kill_monitors() -> int:
    """As root inside, kill the parents of commands; gives how many commands were started."""
    started = 0
    for _ in range(40):
        command = ["sudo", "sh", "-c", "kill -9 $PPID; exec sleep 1000 >/dev/null 2>&1"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        started += done.stderr == "sudo: the agent went away\n"
    return started


async def test_killed_monitors_in_sandbox_root_by_sudo_are_made_up_for(sandbox: Sandbox) -> None:
    """Threat: who kills monitors uses up their number, or leaves commands that nobody can end."""
    assert await probe_in(sandbox, Place.KERNEL, kill_monitors) == 40
    assert (await run_process(sandbox, "sudo", "id", "-u")).stdout == "0\n"
    begun = time.monotonic()
    await sandbox.kill()
    assert time.monotonic() - begun < 20


def fork_by_sudo() -> str:
    """Start commands as root until no more can be had."""
    command = [
        "sudo",
        "sh",
        "-c",
        "for i in $(seq 1000); do sleep 1000 >/dev/null 2>&1 & done; echo made",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=25)
    return done.stdout + done.stderr


async def test_processes_of_in_sandbox_root_by_sudo_count(sandbox: Sandbox) -> None:
    """Threat (32): a fork bomb as root is not under the sandbox's limit."""
    said = await probe_in(sandbox, Place.KERNEL, fork_by_sudo)
    assert "fork" in said.lower(), said
    done = await run_process(sandbox, "sh", "-c", "ls -d /proc/[0-9]* | wc -l", user="root")
    if done.exited.reason is FinishReason.OK:
        assert int(done.stdout) <= sandbox.spec.limits.processes + 64
