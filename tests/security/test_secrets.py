"""What a sandbox can learn of the service, of its keys and of other sandboxes: nothing."""

import os
import secrets
import sys
from pathlib import Path

import pytest

from headrace.engine.engine import Engine
from headrace.engine.sandbox import Sandbox
from headrace.model.specs import SandboxSpec
from tests.security.prelude import pids
from tests.security.probes import Place, Probe, outside, probe_in
from tests.support.running import CANARY, run_process, run_python


def environments() -> dict[str, object]:
    """Read the environment of every process that allows it, and our own."""
    texts = {}
    for pid in pids():
        try:
            texts[str(pid)] = Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        except OSError as error:
            texts[str(pid)] = type(error).__name__
    return {"own": dict(os.environ), "processes": texts}


async def test_the_environment_of_the_service_is_not_passed_on(probe: Probe) -> None:
    """Threat: keys, registry passwords and settings of the service in os.environ or /proc."""
    verdict = await probe(environments)
    everything = str(verdict)
    assert CANARY not in everything
    names = set(verdict["own"])
    assert not {n for n in names if n.startswith(("HEADRACE", "PIP_", "AWS_", "PYTEST", "GITHUB"))}
    assert {"PATH", "HOME"} <= names
    assert verdict["processes"]["1"] == "PermissionError"


def search_memory(backwards: list[str]) -> dict[str, object]:
    """Look for texts in all that this process may write to.

    They come backwards and are looked for letter by letter, so that the search does not find
    its own question.
    """
    import re

    patterns = [
        re.compile(b"".join(b"[%c]" % letter for letter in reversed(text.encode())))
        for text in backwards
    ]
    found: set[str] = set()
    searched = 0
    fd = os.open("/proc/self/mem", os.O_RDONLY)
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, access = line.split()[:2]
        if not access.startswith("rw"):
            continue
        start, end = (int(word, 16) for word in span.split("-"))
        for at in range(start, end, 2**24):
            try:
                data = os.pread(fd, min(end - at, 2**24 + 1024), at)
            except OSError:
                continue  # a page that was unmapped meanwhile
            searched += len(data)
            found |= {backwards[n] for n, p in enumerate(patterns) if p.search(data)}
    os.close(fd)
    return {"found": sorted(found), "searched": searched}


async def found_in_memory(sandbox: Sandbox, place: Place, *texts: str) -> set[str]:
    """Give those texts that are somewhere in the memory of a process of the sandbox."""
    verdict = await probe_in(sandbox, place, search_memory, [text[::-1] for text in texts])
    assert verdict["searched"] > 1_000_000
    return {text[::-1] for text in verdict["found"]}


async def test_the_memory_of_a_kernel_holds_no_secret_of_the_service(
    sandbox: Sandbox, place: Place, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Threat: a kernel is a fork; it inherits all that its fork server ever had in memory."""
    home = "/home/user"  # the control: it is in every process's environment
    if place in (Place.ROOT, Place.SUDO):
        home = "/usr/lib"
    state = str(tmp_path_factory.getbasetemp())
    assert await found_in_memory(sandbox, place, CANARY, state, home) == {home}


async def test_the_memory_of_a_kernel_holds_nothing_of_another_sandbox(engine: Engine) -> None:
    """Threat: the fork server saw the code, the environment or the files of another tenant."""
    code_secret, env_secret, file_secret = (secrets.token_hex(16) for _ in range(3))
    first = await engine.create(SandboxSpec(env={"TOKEN": env_secret}))
    await run_python(first, f"kept = {code_secret!r} * 100", env={"MINE": env_secret})
    await first.files.write("/home/user/secret", file_secret.encode() * 100)
    await run_process(first, "/bin/echo", code_secret, env={"TOKEN": env_secret})
    known = await found_in_memory(first, Place.KERNEL, code_secret, env_secret)
    assert known == {code_secret, env_secret}
    await engine.kill(first.id)
    second = await engine.create(SandboxSpec())
    try:
        wanted = (code_secret, env_secret, file_secret)
        assert await found_in_memory(second, Place.KERNEL, *wanted) == set()
        assert await found_in_memory(second, Place.PROCESS, *wanted) == set()
    finally:
        await engine.kill(second.id)


def import_ours() -> dict[str, object]:
    """Import the service, and look for its metadata and its files."""
    import importlib.metadata
    import importlib.util

    names = sorted(d.metadata["Name"] for d in importlib.metadata.distributions())
    found: list[str] = []
    for top, directories, files in os.walk("/"):
        if top == "/":
            directories[:] = [name for name in directories if name not in ("proc", "sys")]
        found += [f"{top}/{name}" for name in (*directories, *files) if "headrace" in name.lower()]
    # Where the Python prefix lies is no secret.
    found = [path for path in found if not sys.prefix.startswith(path.replace("//", "/"))]
    return {
        "spec": importlib.util.find_spec("headrace") is not None,
        "metadata": [name for name in names if name and "headrace" in name.lower()],
        "others": len(names) > 5,
        "files": found,
    }


async def test_the_service_cannot_be_imported_or_found(probe: Probe) -> None:
    """Threat: the service's sources and settings help whoever looks for a way out."""
    assert await probe(import_ours) == {
        "spec": False,
        "metadata": [],
        "others": True,
        "files": [],
    }


def who_am_i() -> dict[str, str]:
    """Give the names by which a machine is known."""
    import socket

    names = ("machine-id", "hostname")
    found = {name: Path("/etc", name) for name in names}
    return {
        "uname": os.uname().nodename,
        "socket": socket.gethostname(),
        **{name: path.read_text().strip() if path.exists() else "" for name, path in found.items()},
    }


async def test_the_name_of_the_host_is_not_told(probe: Probe) -> None:
    """Threat: host names tell whose machine it is."""
    verdict = await probe(who_am_i)
    assert os.uname().nodename not in verdict.values()
    assert verdict["machine-id"] in ("", "uninitialized")
    assert set(outside(who_am_i).values()) & {os.uname().nodename}


async def test_command_lines_tell_nothing_of_the_service(sandbox: Sandbox) -> None:
    """Threat (40): the command line of a fork of the service is the service's own."""
    await run_python(sandbox, "1")
    verdict = await probe_in(sandbox, Place.KERNEL, own_command_line)
    shown = verdict.replace(sys.prefix, "").replace(sys.base_prefix, "")
    for secret in ("pytest", "launcher", "state", "runtime", str(Path.home())):
        assert secret not in shown, shown


def own_command_line() -> str:
    """Give the command line that this process shows."""
    return Path("/proc/self/cmdline").read_text(errors="replace").replace("\0", " ")


async def test_a_dead_sandbox_leaves_nothing_for_the_next_one(engine: Engine) -> None:
    """Threat: ids, directories and mounts are used again, with what was in them."""
    names = [f"/{top}/left-behind" for top in ("tmp", "home/user", "workspace", "dev/shm")]
    for _ in range(3):
        sandbox = await engine.create(SandboxSpec())
        code = f"import os\nfor n in {names!r}:\n    assert not os.path.exists(n)\n    open(n, 'w')"
        outcome = await run_python(sandbox, code)
        await engine.kill(sandbox.id)
        assert not outcome.errors
