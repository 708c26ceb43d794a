"""Bombs: each is stopped at its limit, and siblings notice nothing."""

import contextlib
import os
import time
from collections.abc import AsyncIterator

import anyio
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import SandboxNotFoundError
from headrace.model.events import FinishReason, ProcessExited
from headrace.model.specs import MIB, Limits, ProcessRequest, SandboxSpec
from tests.security.prelude import name_of
from tests.security.probes import PYTHON, Place, probe_in
from tests.security.siblings import unharmed
from tests.support.modes import Mode
from tests.support.running import run_process, run_python

SMALL = Limits(memory=256 * MIB, disk=32 * MIB, inodes=2000, processes=64, open_files=128)


@pytest.fixture
async def small(engine: Engine) -> AsyncIterator[Sandbox]:
    """A sandbox with low limits, so that bombs are quick."""
    sandbox = await engine.create(SandboxSpec(limits=SMALL))
    try:
        yield sandbox
    finally:
        with contextlib.suppress(SandboxNotFoundError):
            await engine.kill(sandbox.id)


def fork_bomb() -> dict[str, object]:
    """Fork until it is refused; the children sleep."""
    import signal
    import time

    children: list[int] = []
    refusal = "none"
    while len(children) < 5000:
        try:
            pid = os.fork()
        except OSError as error:
            refusal = name_of(error.errno or 0)
            break
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return {"children": len(children), "refusal": refusal}


async def test_a_fork_bomb_stops_at_the_limit(small: Sandbox, other: Sandbox) -> None:
    """Threats (32, 33): processes without end; with one user id for all, siblings starve."""
    async with unharmed(other):
        verdict = await probe_in(small, Place.KERNEL, fork_bomb)
    assert verdict["refusal"] == "EAGAIN"
    assert 32 <= verdict["children"] <= SMALL.processes


def thread_bomb() -> dict[str, object]:
    """Start threads until it is refused."""
    import threading

    stop = threading.Event()
    threads: list[threading.Thread] = []
    try:
        while len(threads) < 5000:
            thread = threading.Thread(target=stop.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        return {"threads": len(threads), "refused": True}
    finally:
        stop.set()
    return {"threads": len(threads), "refused": False}


async def test_a_thread_bomb_stops_at_the_limit(small: Sandbox, other: Sandbox) -> None:
    """Threat (32): threads count as processes do."""
    async with unharmed(other):
        verdict = await probe_in(small, Place.KERNEL, thread_bomb)
    assert verdict["refused"]
    assert verdict["threads"] <= SMALL.processes


LIVE_BOMB = """
import os
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


async def test_a_live_fork_bomb_can_be_killed(small: Sandbox, other: Sandbox) -> None:
    """Threat (32): children that fork as fast as they are killed."""
    process = await small.start_process(ProcessRequest((PYTHON, "-Ic", LIVE_BOMB)))
    async with unharmed(other):
        await anyio.sleep(1)
        with anyio.fail_after(20):
            await small.kill()
    last = [event async for event in process.events()][-1]
    assert isinstance(last, ProcessExited)
    assert last.reason is FinishReason.KILLED


MEMORY_BOMB = "hog = []\nwhile True:\n    hog.append(bytearray(b'x') * (8 * 1024 * 1024))\n"


async def test_a_memory_bomb_is_killed_and_named(small: Sandbox, other: Sandbox) -> None:
    """Threat (34): all memory of the machine."""
    async with unharmed(other):
        outcome = await run_python(small, MEMORY_BOMB, timeout=50)
    assert outcome.finished.reason is FinishReason.OOM, outcome.finished
    assert outcome.finished.state_lost
    assert outcome.finished.limit_value is not None
    assert (await run_python(small, "print('again')")).stdout == "again\n"


async def test_a_memory_bomb_in_a_process_is_killed(small: Sandbox, other: Sandbox) -> None:
    """Threat (34): the same, where no kernel is concerned."""
    async with unharmed(other):
        done = await run_process(small, PYTHON, "-Ic", MEMORY_BOMB, timeout=50)
    assert done.exited.reason is FinishReason.OOM, done.exited
    assert (await run_python(small, "print('still here')")).stdout == "still here\n"


FILL_MEMORY_FILE = """
import os
fd = os.memfd_create("hog")
for _ in range(400):
    os.write(fd, b"x" * 2**20)
"""


async def test_memory_files_count_as_memory(small: Sandbox, other: Sandbox) -> None:
    """Threat (34): memfd has no owner that an rlimit could bound.

    Only a memory cgroup bounds it. Without one the report must say so; then that is the known
    gap, and the watchdog still bounds what is mapped.
    """
    async with unharmed(other):
        outcome = await run_python(small, FILL_MEMORY_FILE, timeout=50)
    if small.report.memory == "cgroup":
        assert outcome.finished.reason is FinishReason.OOM, outcome.finished
    else:
        assert small.report.memory == "watchdog"
        assert "memory" not in small.report.enforced


def fill_disk(directory: str, limit_mib: int) -> list[object]:
    """Write to a file until the disk is full, then make room again."""
    path = f"{directory}/fill"
    fd = os.open(path, os.O_CREAT | os.O_WRONLY)
    block = b"x" * (1024 * 1024)
    refusal, written = "none", 0
    try:
        while written < limit_mib * 4 * len(block):
            written += os.write(fd, block)
    except OSError as error:
        refusal = name_of(error.errno or 0)
    os.close(fd)
    os.unlink(path)  # noqa: PTH108 - like the calls above
    return [refusal, written // len(block)]


@pytest.mark.parametrize("directory", ["/tmp", "/home/user", "/workspace", "/dev/shm", "/var/tmp"])
async def test_a_disk_that_is_full_says_so(small: Sandbox, other: Sandbox, directory: str) -> None:
    """Threat (35): fill the host's disk or memory with files."""
    async with unharmed(other):
        refusal, written = await probe_in(
            small, Place.KERNEL, fill_disk, directory, SMALL.disk // MIB
        )
    assert refusal == "ENOSPC"
    assert written <= max(SMALL.disk // MIB, 64)


def fill_inodes(directory: str) -> list[object]:
    """Make empty files until it is refused."""
    made = 0
    try:
        while made < 400_000:
            os.close(os.open(f"{directory}/file{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        return [name_of(error.errno or 0), made]
    return ["none", made]


@pytest.mark.parametrize("directory", ["/tmp", "/home/user", "/dev/shm"])
async def test_inodes_run_out(small: Sandbox, other: Sandbox, directory: str) -> None:
    """Threat (36): 300,000 empty files are memory of the kernel that nobody counts."""
    async with unharmed(other):
        refusal, made = await probe_in(small, Place.KERNEL, fill_inodes, directory)
    assert refusal == "ENOSPC"
    assert made <= max(SMALL.inodes, 10_000)


def exhaust_descriptors() -> list[object]:
    """Open until it is refused."""
    opened: list[int] = []
    try:
        while len(opened) < 100_000:
            opened.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return [name_of(error.errno or 0), len(opened)]
    finally:
        for fd in opened:
            os.close(fd)
    return ["none", len(opened)]


async def test_descriptors_run_out(small: Sandbox) -> None:
    """Threat (37): descriptors are the whole machine's."""
    refusal, opened = await probe_in(small, Place.KERNEL, exhaust_descriptors)
    assert refusal == "EMFILE"
    assert opened < SMALL.open_files


async def test_a_busy_sandbox_leaves_the_processor_to_others(
    small: Sandbox, other: Sandbox, mode: Mode
) -> None:
    """Threat: endless loops in as many processes as are allowed."""
    spin = "import os\nfor _ in range(20):\n    if os.fork() == 0:\n        while True: pass\n"
    await small.start_process(ProcessRequest((PYTHON, "-Ic", spin)))
    async with unharmed(other):
        started = time.monotonic()
        assert (await run_python(other, "print(1)")).stdout == "1\n"
        assert time.monotonic() - started < 20, mode


def deep_directories() -> list[object]:
    """Nest directories far beyond what a path can name."""
    depth = 0
    os.chdir("/tmp")
    try:
        while depth < 3000:
            os.mkdir("d")  # noqa: PTH102 - relative, on purpose
            os.chdir("d")
            depth += 1
    except OSError as error:
        return [name_of(error.errno or 0), depth]
    finally:
        os.chdir("/")
    return ["none", depth]


async def test_endlessly_deep_directories_do_not_hinder_the_end(engine: Engine) -> None:
    """Threat: a tree that cannot be listed or removed by its path."""
    sandbox = await engine.create(SandboxSpec())
    await probe_in(sandbox, Place.KERNEL, deep_directories)
    entries = await sandbox.files.list("/tmp", depth=3)
    assert entries
    with anyio.fail_after(10):
        await engine.kill(sandbox.id)
