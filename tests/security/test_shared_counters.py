"""What the kernel counts per user or for the whole machine: one sandbox must not use it up.

Some of these counters are shared by everything that one user owns, and a rootless service and
all its sandboxes have the same one; others by all user namespaces of one owner, or by the host.
"""

import ctypes
import os
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.events import FinishReason, OutputWritten, WatchStarted
from headrace.model.specs import MIB, Limits, ProcessRequest, PtySize, SandboxSpec
from tests.security.prelude import libc, name_of
from tests.security.probes import Place, Probe, outside, probe_in
from tests.support.running import open_engine, run_process, run_python


def use_up_inotify(count: int) -> list[object]:
    """Make inotify instances until it is refused."""
    made = 0
    while made < count:
        ctypes.set_errno(0)
        if libc.inotify_init1(0) < 0:
            return [name_of(ctypes.get_errno()), made]
        made += 1
    return ["none", made]


async def test_one_sandbox_does_not_use_up_all_inotify_instances(
    sandbox: Sandbox, other: Sandbox
) -> None:
    """Threat: 128 instances are all that the owner of the user namespaces has."""
    before = outside(use_up_inotify, 1)
    refusal, _made = await probe_in(sandbox, Place.KERNEL, use_up_inotify, 2000)
    assert refusal == "EMFILE"
    assert await probe_in(other, Place.KERNEL, use_up_inotify, 1) == ["none", 1]
    watch = await other.files.watch("/home/user")
    assert isinstance(await anext(watch.events()), WatchStarted)
    await watch.close()
    assert outside(use_up_inotify, 1) == before


HOLD_TERMINALS = """
import os, time
children = []
for _ in range(12):
    ready, done = os.pipe()
    if os.fork() == 0:
        try:
            while True:
                os.openpty()
        except OSError:
            pass
        os.write(done, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
print("held")
"""


async def test_one_sandbox_does_not_use_up_all_terminals(sandbox: Sandbox, other: Sandbox) -> None:
    """Threat: the number of pseudo-terminals is one limit for the whole machine."""
    assert (await run_python(sandbox, HOLD_TERMINALS)).stdout == "held\n"
    request = ProcessRequest(("/usr/bin/tty",), pty=PtySize(), timeout=20)
    process = await other.start_process(request)
    events = [event async for event in process.events()]
    text = b"".join(event.data for event in events if isinstance(event, OutputWritten))
    assert text.startswith(b"/dev/pts/"), text


HOLD_DESCRIPTORS_IN_FLIGHT = """
import os, socket, time
def hold():
    pairs = []
    try:
        while True:
            pairs.append(socket.socketpair())
            socket.send_fds(pairs[-1][0], [b"x"], [0] * 250)
    except OSError:
        pass
    return pairs
kept = hold()
for _ in range(4):
    ready, done = os.pipe()
    if os.fork() == 0:
        more = hold()
        os.write(done, b"x")
        time.sleep(60)
        os._exit(0)
    os.read(ready, 1)
print("held")
"""


@pytest.fixture
async def modest_engine(tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine that was started with the limit on open files that is usual for users."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, hard))
    try:
        async with open_engine(tmp_path, pool_size=0) as engine:
            yield engine
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_descriptors_in_flight_do_not_stop_the_engine(modest_engine: Engine) -> None:
    """Threat: a user may have so many descriptors on their way; the engine's have the same user."""
    other = await modest_engine.create(SandboxSpec())
    sandbox = await modest_engine.create(SandboxSpec())
    assert (await run_python(sandbox, HOLD_DESCRIPTORS_IN_FLIGHT)).stdout == "held\n"
    with anyio.fail_after(30):
        assert (await run_process(other, "/bin/echo", "works")).stdout == "works\n"
        await other.files.write("/home/user/file", b"works")
        assert await other.files.read_bytes("/home/user/file", limit=10) == b"works"
        process = await other.start_process(ProcessRequest(("/usr/bin/tty",), pty=PtySize()))
        assert (await process.wait()).exit_code == 0
        third = await modest_engine.create(SandboxSpec())
        assert (await run_python(third, "print(1)")).stdout == "1\n"


FILL_SOCKETS = """
import socket
server = socket.create_server(("127.0.0.1", 0), backlog=400)
held, sent, block = [], 0, b"x" * 65536
for _ in range(200):
    client = socket.create_connection(server.getsockname())
    accepted = server.accept()[0]
    accepted.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**22)
    held += [client, accepted]
    client.setblocking(False)
    try:
        while True:
            sent += client.send(block)
    except BlockingIOError:
        pass
print(sent)
"""


async def test_buffers_of_sockets_count_as_memory(engine: Engine) -> None:
    """Threat (34): what waits in a connection to itself belongs to no process.

    Only a memory cgroup bounds it; without one it is part of the known gap that the report names.
    """
    limits = Limits(memory=256 * MIB, disk=32 * MIB)
    sandbox = await engine.create(SandboxSpec(limits=limits))
    try:
        outcome = await run_python(sandbox, FILL_SOCKETS)
    finally:
        await engine.kill(sandbox.id)
    if sandbox.report.memory == "cgroup":
        is_stopped = outcome.finished.reason is FinishReason.OOM
        assert is_stopped or int(outcome.stdout) < limits.memory + limits.disk, outcome.events
    else:
        assert "memory" not in sandbox.report.enforced


def asynchronous_io() -> list[str]:
    """Set up a context of asynchronous input and output."""
    context = ctypes.c_ulong(0)
    number = 0 if os.uname().machine == "aarch64" else 206
    ctypes.set_errno(0)
    done = libc.syscall(number, 16, ctypes.byref(context))
    return ["ok" if done >= 0 else name_of(ctypes.get_errno())]


async def test_asynchronous_io_is_closed(probe: Probe) -> None:
    """Threat: its number of events (fs.aio-max-nr) is one limit for the whole machine."""
    assert await probe(asynchronous_io) == ["ENOSYS"]
    assert outside(asynchronous_io) == ["ok"]


def message_queues() -> list[str]:
    """Make a message queue, as a program may."""
    number = 180 if os.uname().machine == "aarch64" else 240
    sizes = (ctypes.c_long * 8)(0, 10, 8192)
    flags = os.O_CREAT | os.O_RDWR
    answers = []
    for index in range(200):
        ctypes.set_errno(0)
        fd = libc.syscall(number, b"queue%d" % index, flags, 0o600, ctypes.byref(sizes))
        answers.append("ok" if fd >= 0 else name_of(ctypes.get_errno()))
    return [answers[0], answers[-1]]


async def test_message_queues_of_one_sandbox_leave_room_for_others(
    sandbox: Sandbox, other: Sandbox
) -> None:
    """Threat (43): the bytes in message queues are counted per user."""
    assert (await probe_in(sandbox, Place.KERNEL, message_queues))[0] == "ok"
    assert (await probe_in(other, Place.KERNEL, message_queues))[0] == "ok"


def pending_signals() -> list[object]:
    """Queue real-time signals to ourselves until it is refused."""
    import signal

    signal.pthread_sigmask(signal.SIG_BLOCK, [40])
    queued = 0
    while queued < 200_000:
        ctypes.set_errno(0)
        if libc.sigqueue(os.getpid(), 40, ctypes.c_void_p(1)) < 0:
            return [name_of(ctypes.get_errno()), queued > 0]
        queued += 1
    return ["none", True]


async def test_pending_signals_of_one_sandbox_leave_room_for_others(
    sandbox: Sandbox, other: Sandbox
) -> None:
    """Threat: queued signals are counted per user."""
    assert (await probe_in(sandbox, Place.KERNEL, pending_signals))[1]
    assert (await probe_in(other, Place.KERNEL, pending_signals))[1]
