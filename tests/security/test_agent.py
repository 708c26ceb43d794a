"""The agent, PID 1 of a sandbox: user code can neither read, change, limit nor stop it."""

import ctypes
import os
import signal
from pathlib import Path

import pytest

from headrace.engine.sandbox import Sandbox
from headrace.model.errors import HeadraceError
from headrace.model.specs import ProcessRequest
from tests.security.prelude import (
    NUMBERS,
    attempt,
    call,
    each,
    libc,
    name_of,
    raw,
    read_path,
    write_path,
)
from tests.security.probes import Place, Probe, outside, probe_in
from tests.support.modes import Mode
from tests.support.running import run_process, run_python


async def assert_agent_works(sandbox: Sandbox) -> None:
    """Have the agent do one of everything."""
    done = await run_process(sandbox, "/bin/echo", "alive")
    assert done.stdout == "alive\n"
    await sandbox.files.write("/home/user/alive", b"yes")
    assert await sandbox.files.read_bytes("/home/user/alive", limit=100) == b"yes"
    await sandbox.files.remove("/home/user/alive")


def memory_of(pid: int) -> dict[str, str]:
    """Open the memory, environment and maps of a process, and what else /proc has."""
    names = ("environ", "maps", "smaps", "stack", "syscall", "auxv", "io", "pagemap", "personality")
    found = each(names, lambda name: read_path(f"/proc/{pid}/{name}"))
    return {
        **{name: str(answer) for name, answer in found.items()},
        "mem": attempt(os.open, f"/proc/{pid}/mem", os.O_RDONLY),
        "mem rw": attempt(os.open, f"/proc/{pid}/mem", os.O_RDWR),
        "root": attempt(os.listdir, f"/proc/{pid}/root"),
        "cwd": attempt(os.listdir, f"/proc/{pid}/cwd"),
        "exe": attempt(os.readlink, f"/proc/{pid}/exe"),
        "map_files": attempt(os.listdir, f"/proc/{pid}/map_files"),
        "ns": attempt(os.readlink, f"/proc/{pid}/ns/mnt"),
        "ns user": attempt(os.open, f"/proc/{pid}/ns/user", os.O_RDONLY),
    }


async def test_the_memory_of_the_agent_cannot_be_read_or_written(probe: Probe) -> None:
    """Threat (14): whoever writes to the agent's memory is the agent, with all its sockets."""
    verdict = await probe(memory_of, 1)
    assert set(verdict.values()) <= {"EACCES", "EPERM"}, verdict
    assert outside(memory_of, os.getpid())["mem"] == "ok"


def trace(pid: int) -> dict[str, str]:
    """Attach to a process in every way that there is."""
    attach, seize, tracer = 16, 0x4206, NUMBERS["ptrace"]
    buffer = ctypes.create_string_buffer(16)
    vector = (ctypes.c_ulong * 2)(ctypes.addressof(buffer), 16)
    pidfd = libc.syscall(NUMBERS["pidfd_open"], pid, 0)
    return {
        "attach": raw(tracer, attach, pid, 0, 0)[1],
        "seize": raw(tracer, seize, pid, 0, 0)[1],
        "readv": call("process_vm_readv", pid, ctypes.byref(vector), 1, ctypes.byref(vector), 1, 0),
        "writev": call(
            "process_vm_writev", pid, ctypes.byref(vector), 1, ctypes.byref(vector), 1, 0
        ),
        "getfd": call("pidfd_getfd", pidfd, 0, 0),
        "kcmp": call("kcmp", pid, pid, 0, 0, 0),
        "madvise": call("process_madvise", pidfd, ctypes.byref(vector), 1, 20, 0),
    }


async def test_the_agent_cannot_be_traced(probe: Probe) -> None:
    """Threats (13, 14): a debugger attached to PID 1."""
    assert set((await probe(trace, 1)).values()) == {"EPERM"}


def list_descriptors(pid: int) -> dict[str, object]:
    """List a process's descriptors, and try to open what is behind each number."""
    opened = {
        str(number): attempt(os.open, f"/proc/{pid}/fd/{number}", os.O_RDONLY | os.O_NONBLOCK)
        for number in range(40)
    }
    links = {str(n): attempt(os.readlink, f"/proc/{pid}/fd/{n}") for n in range(40)}
    return {"opened": opened, "links": links, "list": attempt(os.listdir, f"/proc/{pid}/fd")}


async def test_descriptors_of_the_agent_cannot_be_opened(probe: Probe, mode: Mode) -> None:
    """Threat: open /proc/1/fd/N and get the pipe or file of another process, or of the host."""
    verdict = await probe(list_descriptors, 1)
    assert set(verdict["opened"].values()) <= {"EACCES", "EPERM", "ENOENT"}
    assert set(verdict["links"].values()) <= {"EACCES", "EPERM", "ENOENT"}
    # With one id for all, the numbers can be listed, not what is behind them.
    listing = {"EACCES"} if mode is Mode.ROOT else {"EACCES", "ok"}
    assert verdict["list"] in listing


def signals_to(pid: int) -> dict[str, str]:
    """Send everything that stops, kills or confuses a process."""
    numbers = [signal.SIGSTOP, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1]
    numbers += [signal.SIGSEGV, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM, signal.SIGKILL]
    numbers += [signal.SIGRTMIN, signal.SIGQUIT, signal.SIGBUS, signal.SIGIO, signal.SIGSYS]
    pidfd = libc.syscall(NUMBERS["pidfd_open"], pid, 0)
    answers = {number.name: attempt(os.kill, pid, number) for number in numbers}
    answers["pidfd"] = call("pidfd_send_signal", pidfd, signal.SIGKILL, 0, 0)
    return answers


async def test_signals_do_not_stop_the_agent(sandbox: Sandbox, place: Place, mode: Mode) -> None:
    """Threat: kill, stop or interrupt PID 1."""
    verdict = await probe_in(sandbox, place, signals_to, 1)
    if mode is Mode.ROOT and place not in (Place.ROOT, Place.SUDO):
        assert set(verdict.values()) == {"EPERM"}
    await assert_agent_works(sandbox)


def schedule(pid: int) -> dict[str, str]:
    """Change how the kernel schedules and limits a process."""
    mask = (ctypes.c_ulong * 16)(1)
    limit = (ctypes.c_ulong * 2)(3, 3)
    priority = ctypes.byref(ctypes.c_int(0))

    def ask(function: str, *arguments: object) -> str:
        ctypes.set_errno(0)
        done = getattr(libc, function)(*arguments)
        return "ok" if done == 0 else name_of(ctypes.get_errno())

    return {
        "nice": attempt(os.setpriority, os.PRIO_PROCESS, pid, 19),
        "affinity": ask("sched_setaffinity", pid, 128, ctypes.byref(mask)),
        "scheduler": ask("sched_setscheduler", pid, 5, priority),  # SCHED_IDLE
        "nofile": call("prlimit64", pid, 7, ctypes.byref(limit), 0),
        "cpu": call("prlimit64", pid, 0, ctypes.byref(limit), 0),
        "fsize": call("prlimit64", pid, 1, ctypes.byref(limit), 0),
        "autogroup": write_path(f"/proc/{pid}/autogroup", b"19"),
    }


async def test_the_agent_cannot_be_slowed_or_limited(
    sandbox: Sandbox, place: Place, mode: Mode
) -> None:
    """Threat: prlimit(1, NOFILE=3) leaves the agent unable to answer; so does SCHED_IDLE."""
    verdict = await probe_in(sandbox, place, schedule, 1)
    group = verdict.pop("autogroup")
    # With one id for all, a sandbox may make its own agent wait behind its other processes.
    assert mode is Mode.ROOTLESS or group in ("EPERM", "EACCES", "ENOENT")
    assert set(verdict.values()) <= {"EPERM", "EACCES", "ENOENT"}, verdict
    await assert_agent_works(sandbox)


def offer_to_killer(pid: int) -> list[str]:
    """Ask the out-of-memory killer to take a process first."""
    return [write_path(f"/proc/{pid}/oom_score_adj", b"1000")]


async def test_the_agent_is_not_offered_to_the_killer(
    sandbox: Sandbox, place: Place, mode: Mode
) -> None:
    """Threat: make the agent the one that dies when memory is short."""
    verdict = await probe_in(sandbox, place, offer_to_killer, 1)
    # With one id for all this is allowed, and harms only the sandbox that does it.
    allowed = {"EACCES", "EPERM"} if mode is Mode.ROOT else {"EACCES", "EPERM", "ok"}
    assert set(verdict) <= allowed
    await assert_agent_works(sandbox)


def facts_of_the_agent() -> dict[str, object]:
    """Give what everybody may know of PID 1."""
    status = Path("/proc/1/status").read_text()
    fields = dict(line.split(":", 1) for line in status.splitlines())
    return {
        "cmdline": Path("/proc/1/cmdline").read_text(errors="replace"),
        "comm": Path("/proc/1/comm").read_text().strip(),
        "uid": int(fields["Uid"].split()[0]),
        "filter": fields["Seccomp"].strip(),
        "nnp": fields["NoNewPrivs"].strip(),
        "effective": int(fields["CapEff"], 16),
    }


async def test_the_agent_runs_with_another_id_and_under_the_filter(
    kernel_probe: Probe, mode: Mode
) -> None:
    """Threat: an agent of the same user, or without the filter, is a ladder."""
    verdict = await kernel_probe(facts_of_the_agent)
    assert verdict["filter"] == "2"
    assert verdict["nnp"] == "1"
    if mode is Mode.ROOT:
        assert verdict["uid"] == 0
    else:
        assert verdict["effective"] == 0
    forbidden = sum(1 << bit for bit in (12, 18, 19, 21, 27))  # NET_ADMIN ... SYS_ADMIN, MKNOD
    assert verdict["effective"] & forbidden == 0


async def test_the_command_line_of_the_agent_is_neutral(kernel_probe: Probe) -> None:
    """Threat (40): the command line tells the host's paths, ports or keys."""
    verdict = await kernel_probe(facts_of_the_agent)
    for text in (verdict["cmdline"], verdict["comm"]):
        assert "/" not in text.replace("\0", " ").strip().lstrip("/"), text
        assert "launcher" not in text


async def test_root_is_refused_where_there_is_only_one_id(sandbox: Sandbox) -> None:
    """In rootless mode user="root" is an error that says so, and nothing runs."""
    with pytest.raises(HeadraceError, match="root"):
        await sandbox.start_process(ProcessRequest(("id",), user="root"))
    await assert_agent_works(sandbox)


def remove_libraries() -> int:
    """Remove everything that a lazy import could find: the standard library and packages."""
    import shutil
    import sys

    removed = 0
    for top in {Path(path) for path in sys.path if path} | {Path(os.__file__).parent}:
        if top.is_dir() and os.access(top, os.W_OK):
            for entry in top.iterdir():
                if entry.name in ("json", "encodings"):
                    continue
                removed += 1
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    attempt(os.unlink, entry)
    return removed


async def everything_of_the_agent(sandbox: Sandbox) -> None:
    """Use every operation of the agent once."""
    files = sandbox.files
    await files.make_dir("/home/user/d")
    await files.write("/home/user/d/a", b"1")
    assert await files.read_bytes("/home/user/d/a", limit=10) == b"1"
    await files.move("/home/user/d/a", "/home/user/d/b")
    assert [entry.name for entry in await files.list("/home/user/d")] == ["b"]
    assert (await files.stat("/home/user/d/b")).size == 1
    await files.remove("/home/user/d", recursive=True)
    done = await run_process(sandbox, "/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    assert (done.stdout, done.stderr, done.exited.exit_code) == ("out\n", "err\n", 3)


async def test_the_agent_imports_nothing_that_in_sandbox_root_could_replace(
    sandbox: Sandbox,
) -> None:
    """Threat: the agent imports a module late, from a tree that the sandbox can write to."""
    assert await probe_in(sandbox, Place.ROOT, remove_libraries) > 100
    await everything_of_the_agent(sandbox)


async def test_the_agent_imports_nothing_that_the_user_could_replace(sandbox: Sandbox) -> None:
    """Threat: the Python prefix belongs to the sandbox's user, so that pip works."""
    code = "import shutil, site\nfor p in site.getsitepackages(): shutil.rmtree(p, True)"
    await run_python(sandbox, code)
    await everything_of_the_agent(sandbox)
