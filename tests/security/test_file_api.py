"""File operations that a client asks for, on paths that hostile code prepared."""

import contextlib
import secrets
import tempfile
from collections.abc import Awaitable, Iterator
from pathlib import Path

import anyio
import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import HeadraceError, PermissionDeniedError
from headrace.model.specs import ProcessRequest
from tests.security.prelude import pids
from tests.security.probes import PYTHON, Place, probe_in
from tests.security.test_agent import list_descriptors, memory_of
from tests.support.modes import Mode
from tests.support.running import run_python

SECRET = secrets.token_bytes(24)


@pytest.fixture
def host_file() -> Iterator[str]:
    """A file of the host that everybody may read and write, in a directory of everybody's."""
    with tempfile.TemporaryDirectory(dir="/tmp") as directory:
        Path(directory).chmod(0o777)
        path = Path(directory, "secret")
        path.write_bytes(SECRET)
        path.chmod(0o666)
        yield str(path)
        assert path.read_bytes() == SECRET
        assert [entry.name for entry in Path(directory).iterdir()] == ["secret"]


RACE = """
import os
target = {target!r}
os.makedirs('/home/user/race/dir' + os.path.dirname(target), exist_ok=True)
os.makedirs('/home/user/race/real', exist_ok=True)
ways = ['real', '/', '/proc/1/root', '/proc/self/root', '/proc/self/cwd', '../../../../../..',
        'real', os.path.dirname(target), '/proc/1/cwd', '/dev/fd']
while not os.path.exists('/home/user/stop'):
    for way in ways:
        try:
            open('/home/user/race/real/secret', 'w').write('mine')
            os.symlink(way, '/home/user/race/new')
            os.rename('/home/user/race/new', '/home/user/race/link')
        except OSError:
            pass
"""


async def test_no_race_of_links_leads_to_a_file_of_the_host(
    sandbox: Sandbox, host_file: str
) -> None:
    """Threat (41): a link that changes between the check and the use of a path."""
    code = RACE.format(target=host_file)
    racer = await sandbox.start_process(ProcessRequest((PYTHON, "-Ic", code)))
    seen: set[bytes] = set()
    paths = [f"/home/user/race/link{host_file}", "/home/user/race/link/secret"]
    ways = [(path, files) for path in paths for files in (sandbox.files, sandbox.files.privileged)]
    for path, files in ways * 50:
        with contextlib.suppress(HeadraceError):
            seen.add(await files.read_bytes(path, limit=100))
        await _ignore(files.write(path, b"overwritten"))
        await _ignore(files.set_mode(path, 0o777))
        await _ignore(files.move(path, f"{path}.moved"))
        await _ignore(files.remove(path))
        await _ignore(files.list("/home/user/race/link"))
        await _ignore(files.make_dir(f"{path}.dir"))
    await sandbox.files.write("/home/user/stop", b"")
    await racer.wait()
    assert SECRET not in seen
    assert seen, "no read ever succeeded, so nothing was tried"


async def _ignore(operation: Awaitable[object]) -> None:
    try:
        await operation
    except HeadraceError:
        return


async def test_links_to_the_outside_lead_nowhere(sandbox: Sandbox, host_file: str) -> None:
    """Threat (41): a plain link to an absolute path of the host."""
    code = (
        "import os\n"
        f"os.symlink({host_file!r}, '/home/user/link')\n"
        "os.symlink('/proc/1/root/etc/shadow', '/home/user/agent')\n"
        "os.symlink('/proc/1/environ', '/home/user/environ')\n"
    )
    await run_python(sandbox, code)
    for name in ("link", "agent", "environ"):
        for files in (sandbox.files, sandbox.files.privileged):
            with pytest.raises(HeadraceError):
                await files.read_bytes(f"/home/user/{name}", limit=100)


async def test_file_operations_have_the_rights_of_the_user_only(
    sandbox: Sandbox, mode: Mode
) -> None:
    """Threat (41): the agent, which is root inside, reads what its user may not."""
    unreadable = ["/proc/1/environ", "/proc/1/mem", "/proc/1/maps"]
    fixed = ["/usr/bin/env", "/proc/sys/kernel/core_pattern", "/dev/full"]
    if mode is Mode.ROOT:  # elsewhere the sandbox's own /etc belongs to its one user
        unreadable.append("/etc/shadow")
        fixed.append("/etc/passwd")
    for path in unreadable:
        with pytest.raises(PermissionDeniedError):
            await sandbox.files.read_bytes(path, limit=100)
    for path in fixed:
        with pytest.raises(HeadraceError):
            await sandbox.files.write(path, b"x", append=True)
    with pytest.raises(HeadraceError):
        await sandbox.files.set_mode("/usr/bin/env", 0o4777)


async def test_privileged_file_operations_stay_in_the_sandbox(sandbox: Sandbox) -> None:
    """Threat (41): what no right of the sandbox holds up reaches the agent or the host."""
    files = sandbox.files.privileged
    for path in ("/proc/1/environ", "/proc/1/mem", "/proc/1/maps"):
        with pytest.raises(PermissionDeniedError):
            await files.read_bytes(path, limit=100)
    for path in ("/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"):
        with pytest.raises(HeadraceError):
            await files.write(path, b"x", append=True)
        with pytest.raises(HeadraceError):
            await files.set_mode(path, 0o4777)
    await files.write("/home/user/tool", b"#!/bin/sh\n", mode=0o6755)
    info = await files.stat("/home/user/tool")
    assert (info.owner, info.group) == ("user", "user")


async def test_a_setuid_bit_does_not_survive_as_root(sandbox: Sandbox) -> None:
    """Threat (41): a file operation makes a setuid file that belongs to root."""
    await sandbox.files.write("/home/user/tool", b"#!/bin/sh\n", mode=0o4755)
    info = await sandbox.files.stat("/home/user/tool")
    assert info.owner == "user"


SPECIAL = """
import os, socket
os.mkfifo('/home/user/fifo')
s = socket.socket(socket.AF_UNIX); s.bind('/home/user/socket')
os.symlink('loop', '/home/user/loop')
os.symlink('/dev/zero', '/home/user/zero')
os.symlink('/proc/self/fd/0', '/home/user/stdin')
"""


@pytest.mark.parametrize("name", ["fifo", "socket", "loop", "zero", "stdin"])
async def test_what_is_no_file_does_not_block_the_agent(sandbox: Sandbox, name: str) -> None:
    """Threat (41): a FIFO that nobody writes to, or a device without end, hangs a reader."""
    await run_python(sandbox, SPECIAL)
    with anyio.move_on_after(3):
        await _ignore(sandbox.files.read_bytes(f"/home/user/{name}", limit=1000))
    with anyio.move_on_after(3):
        await _ignore(sandbox.files.write(f"/home/user/{name}", b"x"))
    with anyio.fail_after(10):
        await sandbox.files.write("/home/user/other", b"works")
        assert await sandbox.files.read_bytes("/home/user/other", limit=10) == b"works"


async def test_a_name_that_is_not_text_is_listed(sandbox: Sandbox) -> None:
    """Threat (42): names with control characters, quotes or broken UTF-8 forge entries."""
    code = (
        "import os\n"
        "os.mkdir('/home/user/odd'); os.chdir(b'/home/user/odd')\n"
        "names = [b'\\xff\\xfe', b'new\\nline', b'quote\"', b'{\"path\":\"x\"}', b'\\x1b[2J']\n"
        "names.append(b'x' * 255)\n"
        "for name in names: open(name, 'w').close()\n"
    )
    outcome = await run_python(sandbox, code)
    assert not outcome.errors
    entries = await sandbox.files.list("/home/user/odd")
    assert len(entries) == 6
    assert all(entry.path.startswith("/home/user/odd/") for entry in entries)
    assert {'{"path":"x"}', "new\nline", 'quote"'} <= {entry.name for entry in entries}


async def test_a_huge_directory_is_refused_not_swallowed(sandbox: Sandbox) -> None:
    """Threat (42): a listing without end fills the engine's memory."""
    code = "import os\nos.mkdir('/tmp/many')\nfor n in range(50_000): os.mkdir(f'/tmp/many/{n}')"
    assert not (await run_python(sandbox, code, timeout=50)).errors
    assert len(await sandbox.files.list("/tmp/many")) == 50_000
    with anyio.fail_after(10):
        assert (await run_python(sandbox, "1")).finished.reason.value == "ok"


async def test_a_running_file_operation_cannot_be_taken_over(sandbox: Sandbox) -> None:
    """Threat (14): the child that works for a client has the user's id, and our pipes."""
    await run_python(sandbox, "open('/home/user/large', 'wb').write(bytes(20_000_000))")
    before = set(await probe_in(sandbox, Place.KERNEL, pids))
    async with sandbox.files.read("/home/user/large") as reader:
        stream = aiter(reader)
        await anext(stream)
        (worker,) = set(await probe_in(sandbox, Place.KERNEL, pids)) - before
        memory = await probe_in(sandbox, Place.KERNEL, memory_of, worker)
        assert set(memory.values()) <= {"EACCES", "EPERM"}, memory
        descriptors = await probe_in(sandbox, Place.KERNEL, list_descriptors, worker)
        assert set(descriptors["opened"].values()) <= {"EACCES", "EPERM", "ENOENT"}
