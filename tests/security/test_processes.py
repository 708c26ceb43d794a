"""Other processes: those of the host, of sibling sandboxes, and of the sandbox itself."""

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason
from headrace.model.specs import ProcessRequest, PtySize
from tests.security.prelude import NUMBERS, OK, attempt, libc, name_of, pids
from tests.security.probes import PYTHON, Place, Probe, outside, probe_in
from tests.support.running import ProcessOutcome, run_process, run_python


def visible_processes() -> dict[str, object]:
    """List the processes that can be seen, and who our parent is."""
    parents = set()
    for pid in pids():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended meanwhile
        parents.add(int(fields[1]))
    return {
        "pids": pids(),
        "parents": sorted(parents),
        "self": os.getpid(),
        "parent": os.getppid(),
    }


async def test_only_processes_of_the_sandbox_are_visible(probe: Probe, place: Place) -> None:
    """Threat (2): command lines and environments of the host's processes."""
    verdict = await probe(visible_processes)
    assert 1 in verdict["pids"]
    assert verdict["self"] in verdict["pids"]
    assert len(verdict["pids"]) <= 8
    # 0 is the parent of what was started from outside: the agent and the kernels.
    assert set(verdict["parents"]) <= {0, 1, verdict["self"], verdict["parent"]}
    # What sudo runs is a child of its monitor, which is a child of the agent.
    assert verdict["parent"] in (0, 1) or place is Place.SUDO
    assert len(outside(visible_processes)["pids"]) > len(verdict["pids"])


def signal_others() -> dict[str, object]:
    """Send the null signal to every pid that a small host has, and to its groups."""
    own = {*pids(), os.getpid()}
    reached = [
        pid for pid in range(2, 5000) if pid not in own and attempt(os.kill, pid, 0) != "ESRCH"
    ]
    groups = [
        pid for pid in range(2, 1000) if pid not in own and attempt(os.killpg, pid, 0) == "ok"
    ]
    return {"reached": reached, "groups": [g for g in groups if g not in own]}


async def test_no_process_outside_can_be_signalled(probe: Probe) -> None:
    """Threat (3): kill processes of the host or of a sibling."""
    assert await probe(signal_others) == {"reached": [], "groups": []}
    assert outside(signal_others)["reached"]


def signal_host_pid(pid: int) -> list[str]:
    """Send a signal to a pid of the host in every way that there is."""
    value = libc.syscall(NUMBERS["pidfd_open"], pid, 0)
    pidfd = OK if value >= 0 else name_of(ctypes.get_errno())
    return [attempt(os.kill, pid, signal.SIGKILL), pidfd]


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host that the service's user could kill."""
    process = subprocess.Popen([sys.executable, "-Ic", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


async def test_a_process_of_the_host_cannot_be_named(
    sandbox: Sandbox, victim: "subprocess.Popen[bytes]"
) -> None:
    """Threat (3): the number of a process of the host means something inside."""
    assert victim.pid > 100  # small numbers exist inside, too
    verdict = await probe_in(sandbox, Place.KERNEL, signal_host_pid, victim.pid)
    assert verdict == ["ESRCH", "ESRCH"]
    assert victim.poll() is None


async def test_killing_everything_kills_only_the_sandbox(sandbox: Sandbox, other: Sandbox) -> None:
    """Threat (3): kill(-1, SIGKILL) reaches a sibling or the service."""
    await run_python(other, "x = 41")
    code = (
        "import os, signal, subprocess\n"
        "subprocess.Popen(['sleep', '60'])\n"
        "os.kill(-1, signal.SIGKILL)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    outcome = await run_python(sandbox, code)
    assert outcome.finished.reason is FinishReason.KERNEL_DIED
    assert outcome.finished.state_lost
    assert (await run_python(sandbox, "print(1)")).stdout == "1\n"
    assert (await run_python(other, "print(x + 1)")).stdout == "42\n"


async def test_sibling_sandboxes_do_not_see_each_other(sandbox: Sandbox, other: Sandbox) -> None:
    """Threat: read the command line, or kill the process, of another tenant."""
    marker = "sibling-marker-57"
    sleeper = f"import time; print('{marker}', flush=True); time.sleep(60)"
    process = await other.start_process(ProcessRequest((PYTHON, "-Ic", sleeper)))
    async for event in process.events():
        if getattr(event, "data", b"").startswith(marker.encode()):
            break
    seen = await probe_in(sandbox, Place.KERNEL, command_lines)
    assert not [line for line in seen if marker in line]
    assert [line for line in await probe_in(other, Place.KERNEL, command_lines) if marker in line]


def command_lines() -> list[str]:
    """Read every command line that can be read."""
    return [Path(f"/proc/{pid}/cmdline").read_text(errors="replace") for pid in pids()]


def shared_memory(key: int) -> dict[str, object]:
    """Attach to, or make, objects of System V and POSIX interprocess communication."""
    libc.shmget.restype = ctypes.c_int
    before = libc.shmget(key, 4096, 0o666)
    made = libc.shmget(key, 4096, 0o1666)
    queue = libc.msgget(key, 0o1666)
    semaphore = libc.semget(key, 1, 0o1666)
    return {
        "found": before >= 0,
        "made": [made >= 0, queue >= 0, semaphore >= 0],
        "named": sorted(entry.name for entry in Path("/dev/shm").iterdir()),
    }


async def test_shared_memory_is_not_shared_between_sandboxes(
    sandbox: Sandbox, other: Sandbox
) -> None:
    """Threat (43): System V keys are numbers that everybody can guess."""
    key = 0x6865616
    first = await probe_in(sandbox, Place.KERNEL, shared_memory, key)
    assert first == {"found": False, "made": [True, True, True], "named": []}
    assert await probe_in(other, Place.KERNEL, shared_memory, key) == first
    again = await probe_in(sandbox, Place.PROCESS, shared_memory, key)
    assert again["found"]


def descriptors() -> dict[str, str]:
    """Say where each open descriptor leads."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        try:
            found[entry.name] = os.readlink(entry)  # noqa: PTH115 - text, not a path
        except OSError:
            continue  # the descriptor of this very listing
    return found


async def test_a_kernel_holds_only_its_own_descriptors(sandbox: Sandbox) -> None:
    """Threat (39): a descriptor of the host's directories, of a sibling or of the launcher."""
    first = await probe_in(sandbox, Place.KERNEL, descriptors)
    assert {"0", "1", "2"} <= set(first)
    kinds = {number: target.partition(":")[0] for number, target in first.items()}
    assert kinds["1"] == kinds["2"] == "pipe"
    sockets = [number for number, kind in kinds.items() if kind == "socket"]
    # The event socket, and the pair of the event loop for top-level await.
    assert len(sockets) <= 4, first
    others = {
        t for t in first.values() if t.partition(":")[0] not in ("pipe", "socket", "anon_inode")
    }
    assert others <= {"/dev/null", "/proc/self/fd"} | {t for t in others if t.endswith("/fd")}, (
        first
    )
    assert len(first) <= 14, first


async def test_a_process_holds_nothing_but_its_three_streams(sandbox: Sandbox) -> None:
    """Threat (39): the agent's sockets, or another process's pipes, are passed on by exec."""
    verdict = await probe_in(sandbox, Place.PROCESS, descriptors)
    assert set(verdict) == {"0", "1", "2"}
    assert verdict["1"].startswith("pipe:")
    assert verdict["2"].startswith("pipe:")
    assert verdict["0"] == "/dev/null" or verdict["0"].startswith("pipe:")


async def test_a_root_process_holds_nothing_but_its_three_streams_in_sandbox_root(
    sandbox: Sandbox,
) -> None:
    """Threat (39): a command of in-sandbox root comes another way and brings more."""
    assert set(await probe_in(sandbox, Place.ROOT, descriptors)) == {"0", "1", "2"}


async def test_a_terminal_holds_nothing_but_itself(sandbox: Sandbox) -> None:
    """Threat (39): the relay of a terminal leaks its own ends."""
    request = ProcessRequest(("/bin/sh", "-c", "ls -l /proc/$$/fd"), pty=PtySize(), timeout=20)
    process = await sandbox.start_process(request)
    outcome = ProcessOutcome(tuple([event async for event in process.events()]))
    text = "".join(e.text for e in outcome.events if hasattr(e, "text"))
    numbers = [line.split()[-3] for line in text.splitlines() if "->" in line]
    # A shell may keep its terminal at 10 or 255 as well.
    assert {"0", "1", "2"} <= set(numbers) <= {"0", "1", "2", "10", "255"}, text
    assert all(
        "/dev/pts/" in line or "/dev/tty" in line for line in text.splitlines() if "->" in line
    )


async def test_a_child_of_a_kernel_does_not_get_the_event_socket(sandbox: Sandbox) -> None:
    """Threat (39): `!command` and subprocess inherit the kernel's channel to the host."""
    code = "import subprocess as s; s.run(['ls', '-l', '/proc/self/fd'], close_fds=False)"
    listing = (await run_python(sandbox, code)).stdout
    assert "socket:" not in listing
    assert "pipe:" in listing


async def test_an_orphan_belongs_to_the_agent(sandbox: Sandbox) -> None:
    """Threat: a daemon that forks twice outlives its sandbox or becomes nobody's child."""
    script = "(sleep 30 & echo $!) | { read pid; sleep 0.3; cut -d' ' -f4 /proc/$pid/stat; }"
    outcome = await run_process(sandbox, "/bin/sh", "-c", script)
    assert outcome.stdout.strip() == "1", outcome
