"""Everything that the launcher sets up once: mode, layers, ids, cgroups and the fork servers."""

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headrace_guest import cgroups, idranges, isolate, linux, skeleton
from headrace_guest.forkserver import ForkServer, StartPlan

START_TIMEOUT = 120.0
_OVERLAY_ON_IDMAP = (5, 19)
_PROGRAMS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class StartupError(Exception):
    """This machine, or this configuration, cannot carry sandboxes; the message says why."""


@dataclass
class Machine:
    """What the launcher works with, and closes at its end."""

    backend: cgroups.CgroupBackend
    agents: ForkServer
    kernels: ForkServer
    drivers: ForkServer
    report: Mapping[str, Any]
    is_mapped: bool
    uses_watchdog: bool
    block: idranges.Block | None
    namespaces: idranges.NamespacePool | None

    @property
    def servers(self) -> tuple[ForkServer, ...]:
        """All fork servers."""
        return (self.agents, self.kernels, self.drivers)

    def close(self) -> None:
        """End the fork servers, wait for all children (bounded), give everything back."""
        for server in self.servers:
            server.close()
        _reap_all(5.0)
        if self.namespaces is not None:
            self.namespaces.close()
        self.backend.close()
        if self.block is not None:
            self.block.close()


def prepare(config: Mapping[str, Any], control: socket.socket) -> Machine:
    """Set everything up as the engine's first datagram asks."""
    mode = _choose_mode(config["mode"])
    if mode == "rootless":
        _enter_outer_namespaces(control)
    else:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    os.umask(0o022)
    state, runtime = Path(config["state_dir"]), Path(config["runtime_dir"])
    prefix = _read_prefix(config["python_prefix"])
    shown = {prefix.path, prefix.base}
    python = f"{prefix.path}/bin/python3"
    is_rootless = mode == "rootless"
    layers = skeleton.build(state / "templates", shown, python, is_rootless=is_rootless)
    block = idranges.Block.claim() if mode == "root" else None
    name = block.name if block is not None else f"r{os.urandom(6).hex()}"
    if block is not None:
        # The block is ours now, so what carries its name was left by somebody who crashed.
        cgroups.clean_leftovers(lambda other: other != name and idranges.is_alive(other))
    # The engine's process started this one, so a service manager has put both into one group.
    # In rootless mode it is beyond our pid namespace.
    backend = cgroups.detect(name, companions=[os.getppid()] if block is not None else [])
    is_mapped = block is not None and _can_map_ids(layers)
    namespaces = _make_namespaces(block, layers)
    boot = _plan_boot(prefix, layers, state, runtime)
    machine = Machine(
        backend=backend,
        agents=_start_fork_server("agent", boot, prefix, mode),
        kernels=_start_fork_server("kernel", boot, prefix, mode),
        drivers=_start_fork_server("driver", boot, prefix, mode),
        report={},
        is_mapped=is_mapped,
        uses_watchdog="memory" not in backend.enforced,
        block=block,
        namespaces=namespaces,
    )
    _await_ready(machine.servers)
    machine.report = _report(mode, machine, prefix)
    return machine


def _choose_mode(wanted: str) -> str:
    if wanted not in ("auto", "root", "rootless"):
        raise StartupError(f"mode must be auto, root or rootless, got {wanted!r}")
    if wanted == "root" and os.geteuid() != 0:
        raise StartupError(f"mode root needs uid 0, this process has uid {os.geteuid()}")
    if wanted == "auto":
        return "root" if os.geteuid() == 0 else "rootless"
    return wanted


def _enter_outer_namespaces(control: socket.socket) -> None:
    """Become root of a user namespace of our own, and PID 1 of a pid namespace in it.

    The process that the engine started stays behind, waits, and passes the exit status on.
    """
    uid, gid = os.getuid(), os.getgid()
    try:
        linux.unshare(linux.CLONE_NEWUSER | linux.CLONE_NEWNS)
    except OSError as error:
        raise StartupError(
            f"an ordinary user may not make a user namespace here ({error}); see "
            "user.max_user_namespaces, kernel.unprivileged_userns_clone and "
            "kernel.apparmor_restrict_unprivileged_userns, or run as root"
        ) from error
    linux.write_file("/proc/self/setgroups", "deny")
    linux.write_file("/proc/self/uid_map", f"0 {uid} 1")
    linux.write_file("/proc/self/gid_map", f"0 {gid} 1")
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS | linux.CLONE_NEWNET)
    pid = os.fork()
    if pid:
        control.close()
        _status = os.waitpid(pid, 0)[1]
        os._exit(max(0, os.waitstatus_to_exitcode(_status)))
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    linux.mount(None, "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", "/proc", "proc", flags)


@dataclass(frozen=True)
class _Prefix:
    path: str
    base: str
    python: str
    version: str


def _read_prefix(path: str) -> _Prefix:
    """Ask a Python prefix's interpreter where it and its standard library are."""
    python = f"{path}/bin/python3"
    question = "import sys; print(sys.prefix, sys.base_prefix, sys.version.split()[0], sep='\\n')"
    try:
        answer = subprocess.run(  # noqa: S603 - the operator's own interpreter
            [python, "-I", "-c", question],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
            env={"PATH": _PROGRAMS},
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise StartupError(f"the Python prefix {path} does not run: {error}") from error
    prefix, base, version = answer.stdout.splitlines()
    if os.path.realpath(prefix) != os.path.realpath(path):
        raise StartupError(f"{python} is the interpreter of {prefix}, not of {path}")
    return _Prefix(os.path.realpath(prefix), os.path.realpath(base), python, version)


def _can_map_ids(layers: Iterable[skeleton.Layer]) -> bool:
    """Say whether every layer's file system can show mapped ids below an overlay."""
    release = tuple(int(part) for part in os.uname().release.split("-")[0].split(".")[:2])
    if release < _OVERLAY_ON_IDMAP:
        return False
    namespace = idranges.make_user_namespace("0 0 1", "0 0 1")
    try:
        for layer in layers:
            fd = linux.open_tree(layer.source, is_recursive=False)
            try:
                linux.mount_setattr(fd, linux.MOUNT_ATTR_IDMAP, namespace)
            finally:
                os.close(fd)
    except OSError:
        return False
    finally:
        os.close(namespace)
    return True


def _make_namespaces(
    block: idranges.Block | None, layers: Iterable[skeleton.Layer]
) -> idranges.NamespacePool | None:
    if block is None:
        return None
    owners = [layer.owner for layer in layers if layer.owner is not None]
    return idranges.NamespacePool(block, owners[0] if owners else (0, 0))


def _plan_boot(
    prefix: _Prefix, layers: list[skeleton.Layer], state: Path, runtime: Path
) -> dict[str, Any]:
    at, cache = runtime / "root", state / "cache"
    for path in (at, cache):
        path.mkdir(mode=0o755, parents=True, exist_ok=True)
    return {
        "at": str(at),
        "layers": [asdict(layer) for layer in layers],
        "guest": str(Path(__file__).resolve().parent.parent),
        "cache": str(cache),
        "path_prefix": f"{prefix.path}/bin",
    }


def _start_fork_server(
    role: str, boot: Mapping[str, Any], prefix: _Prefix, mode: str
) -> ForkServer:
    """Start one by the prefix's own interpreter: what it imports is what sandboxes have."""
    env = {
        "PATH": f"{prefix.path}/bin:{_PROGRAMS}",
        "HOME": skeleton.HOME,
        "LANG": "C.UTF-8",
        # One thread: what others hold at a fork stays locked in the child for ever.
        "OPENBLAS_NUM_THREADS": "1",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "MPLCONFIGDIR": f"{isolate.CACHE_PATH}/matplotlib",
        "IPYTHONDIR": f"{isolate.CACHE_PATH}/ipython",
    }
    told = {**boot, "role": role, "is_rootless": mode == "rootless"}
    return ForkServer(StartPlan(prefix.python, env, told))


def _await_ready(servers: Iterable[ForkServer]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    for server in servers:
        while not server.is_ready:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([server], [], [], left)[0]:
                raise StartupError(f"a fork server was not ready within {START_TIMEOUT:g} s")
            server.read(lambda _pid, _status: None)


def _report(mode: str, machine: Machine, prefix: _Prefix) -> dict[str, Any]:
    """Say what is really enforced, in the words that ``--require`` takes."""
    enforced = {"namespaces", "seccomp", "no_new_privs", "disk"}
    enforced |= machine.backend.enforced & {"memory", "cpu", "processes"}
    # The rlimit counts processes of one id in one user namespace, which is one sandbox.
    enforced.add("processes")
    if machine.block is not None:
        enforced.add("id_ranges")
    if machine.is_mapped:
        enforced.add("idmapped_mounts")
    block = machine.block
    return {
        "mode": mode,
        "enforced": sorted(enforced),
        "memory": "watchdog" if machine.uses_watchdog else "cgroup",
        "cgroup": {
            "version": machine.backend.version,
            "controllers": sorted(machine.backend.enforced),
        },
        "ids": None if block is None else {"first": block.first, "ranges": idranges.SLOTS},
        "disk": "tmpfs",
        "python": {
            "prefix": prefix.path,
            "version": prefix.version,
            "missing": machine.kernels.facts.get("missing", []),
        },
        "languages": machine.drivers.facts.get("languages", {}),
        "service_python": sys.prefix,
    }


def _reap_all(timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            pid, _status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            with contextlib.suppress(InterruptedError):
                time.sleep(0.002)
