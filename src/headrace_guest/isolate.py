"""What a forked child does to itself before it may run anything: namespaces, mounts, ids, limits.

Two modes share one path. In root mode every namespace but the user namespace belongs to the
host's, and the sandbox's own user namespace is entered last, so that even root inside can
neither mount nor unmask nor rename. In rootless mode the fork servers are root of an outer user
namespace, and agent and kernels share one nested below it, with a single id.
"""

import contextlib
import os
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from headrace_guest import linux, mounts, seccomp
from headrace_guest.skeleton import HOME, USER_ID, Layer

GUEST_PATH = "/run/hr/guest"
CACHE_PATH = "/run/hr/cache"
BUILD_PATH = "/run/hr/build"
ROOT_CAPS = (
    linux.CAP_CHOWN,
    linux.CAP_DAC_OVERRIDE,
    linux.CAP_FOWNER,
    linux.CAP_FSETID,
    linux.CAP_KILL,
    linux.CAP_SETGID,
    linux.CAP_SETUID,
    linux.CAP_SETPCAP,
    linux.CAP_NET_BIND_SERVICE,
    linux.CAP_AUDIT_WRITE,
    linux.CAP_SETFCAP,
)
"""What in-sandbox root may do, and only to what its user namespace owns."""

FORK_SERVER_CAPS = (
    *ROOT_CAPS,
    linux.CAP_NET_ADMIN,
    linux.CAP_SYS_CHROOT,
    linux.CAP_SYS_PTRACE,
    linux.CAP_SYS_ADMIN,
)
_FILE_CAPS = (linux.CAP_DAC_OVERRIDE, linux.CAP_FOWNER)
"""What work on files needs so that no file's owner or mode is in its way."""
_JOINED = (
    linux.CLONE_NEWNS
    | linux.CLONE_NEWNET
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWCGROUP
    | linux.CLONE_NEWUSER
)
_OOM_SCORE = "500"
_ROOTLESS_INOTIFY = "24"
"""Of the 128 instances that a user usually has and that all its sandboxes share."""
QUEUE_BYTES = 819_200
ROOTLESS_QUEUE_BYTES = 200_000
"""Two POSIX message queues of the default size; all sandboxes of a user share 819,200 bytes."""

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}


@dataclass(frozen=True)
class ProcessLimits:
    """The rlimits of each process of a sandbox."""

    processes: int
    open_files: int
    queue_bytes: int

    def apply(self) -> None:
        """Set them for this process and its children; only ever lowers the hard limits."""
        _lower(resource.RLIMIT_MSGQUEUE, self.queue_bytes)
        _lower(resource.RLIMIT_NPROC, self.processes)
        _lower(resource.RLIMIT_NOFILE, self.open_files)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _lower(kind: int, value: int) -> None:
    hard = resource.getrlimit(kind)[1]
    chosen = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(kind, (chosen, chosen))


@dataclass(frozen=True)
class Identity:
    """The ids that the agent's children may take, for good.

    ``is_rootless`` says that there is only the user. The agent holds it; each child that it
    forks calls `become` before it does anything for a caller.
    """

    is_rootless: bool
    limits: ProcessLimits

    def become(self, user: str, *, is_privileged: bool = False) -> None:
        """Take the ids and capabilities of ``user``; PermissionError if there is no such.

        With ``is_privileged`` the user's files are made, but root's rights count, if there is a
        root. That is for our own work on files: a program that it ran would be root.
        """
        if user == "root" and self.is_rootless:
            raise PermissionError("user 'root' needs root mode; this sandbox has one user only")
        if user == "root":
            linux.set_capabilities(ROOT_CAPS, ROOT_CAPS)
        elif is_privileged and not self.is_rootless:
            os.setgroups([])
            linux.set_file_ids(USER_ID, USER_ID)
            linux.set_capabilities(_FILE_CAPS, _FILE_CAPS)
        else:
            _become_user(is_rootless=self.is_rootless)

    def limit(self) -> None:
        """Take the rlimits of a sandbox's processes."""
        self.limits.apply()


def _become_user(*, is_rootless: bool) -> None:
    """Take the sandbox user's ids and give every capability up."""
    if not is_rootless:
        os.setgroups([])
        # Before the ids: dropping from the bounding set needs a capability that goes with them.
        linux.limit_bounding_set()
        os.setresgid(USER_ID, USER_ID, USER_ID)
        os.setresuid(USER_ID, USER_ID, USER_ID)
    linux.set_capabilities((), ())


# --- the fork servers' own root -------------------------------------------------------------


@dataclass(frozen=True)
class ForkServerRoot:
    """What a fork server may see: the layers and our own guest package, read-only.

    ``at`` is an empty directory of the host to build on, ``guest`` the directory that holds the
    package, ``cache`` a directory that may be written (matplotlib's list of fonts).
    """

    at: str
    layers: Sequence[Layer]
    guest: str
    cache: str


def enter_fork_server_root(root: ForkServerRoot, *, is_rootless: bool) -> None:
    """Leave the host's file system for one that holds nothing but what sandboxes are made of."""
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
    linux.mount(None, "/", flags=linux.MS_REC | linux.MS_PRIVATE)
    linux.unshare(linux.CLONE_NEWNET)
    linux.mount("none", root.at, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "mode=755,size=16m")
    at = Path(root.at)
    skeleton = Path(root.layers[0].source)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        if (skeleton / name).is_symlink():
            (at / name).symlink_to((skeleton / name).readlink())
    for layer in root.layers:
        _show_layer(at, layer, is_rootless=is_rootless)
    _show(at, str(skeleton / "etc"), "/etc")
    _show(at, f"{root.guest}/headrace_guest", f"{GUEST_PATH}/headrace_guest")
    for path in (CACHE_PATH, BUILD_PATH, "/tmp", "/proc", "/home/user"):  # noqa: S108 - its own
        (at / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
    linux.mount(root.cache, f"{root.at}{CACHE_PATH}", flags=linux.MS_BIND)
    _make_devices(at / "dev")
    flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
    linux.mount("proc", f"{root.at}/proc", "proc", flags)
    pivot_into(root.at)


def _show_layer(at: Path, layer: Layer, *, is_rootless: bool) -> None:
    """Put a layer where the mount plan looks for it, and in its place as far as it is a tree."""
    if layer.target != "/":
        _show(at, layer.source, layer.target)
    places = [(layer.source, f"{mounts.LOWERS}/{layer.name}")]
    if layer.mask is not None:
        places.append((layer.mask, f"{mounts.LOWERS}/{layer.name}.mask"))
    for source, place in places:
        target = at / place.lstrip("/")
        target.mkdir(parents=True)
        deep = linux.MS_REC if is_rootless else 0
        linux.mount(source, str(target), flags=linux.MS_BIND | deep)


def _show(at: Path, source: str, target: str) -> None:
    place = at / target.lstrip("/")
    place.mkdir(parents=True, exist_ok=True)
    mounts.bind_read_only(source, str(place))


def _make_devices(dev: Path) -> None:
    """Make the one /dev of all sandboxes: harmless devices, read-only as a directory."""
    dev.mkdir()
    linux.mount("none", str(dev), "tmpfs", linux.MS_NOSUID, "mode=755,size=64k")
    for name in _DEVICES:
        (dev / name).touch()
        linux.mount(f"/dev/{name}", str(dev / name), flags=linux.MS_BIND)
    for name in ("shm", "pts"):
        (dev / name).mkdir()
    for name, target in _DEVICE_LINKS.items():
        (dev / name).symlink_to(target)
    # The directory is shared by all sandboxes and, in rootless mode, belongs to their user.
    flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID
    linux.mount(None, str(dev), flags=flags)


def pivot_into(path: str) -> None:
    """Make ``path`` the root and let go of the old one; pivot_root(2), "pivot_root(., .)"."""
    os.chdir(path)
    linux.pivot_root(".", ".")
    linux.umount(".")
    os.chdir("/")


# --- agent ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class SandboxSpec:
    """All that the agent fork server knows of a new sandbox."""

    root: mounts.RootSpec
    limits: ProcessLimits

    @property
    def is_rootless(self) -> bool:
        """Say whether there is one id only."""
        return self.root.base is None


def build_sandbox(spec: SandboxSpec, sandbox_ns: int | None, user_ns: int | None) -> None:
    """Make the namespaces and the root of a sandbox around this process, its PID 1."""
    os.setsid()
    os.umask(0o022)
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS)
    linux.unshare(linux.CLONE_NEWNET)
    linux.bring_loopback_up()
    os.chdir(BUILD_PATH)
    mounts.apply(mounts.plan_root(spec.root), sandbox_ns, user_ns)
    pivot_into(f"{BUILD_PATH}/m")
    socket.sethostname("sandbox")


def open_user_settings() -> int:
    """Open the settings of user namespaces while they may still be written.

    What is looked up in it belongs to the user namespace of the one who looks, at that time.
    """
    return os.open("/proc/sys/user", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _limit_inotify(settings: int) -> None:
    fd = os.open("max_inotify_instances", os.O_WRONLY | os.O_CLOEXEC, dir_fd=settings)
    try:
        os.write(fd, _ROOTLESS_INOTIFY.encode())
    finally:
        os.close(fd)


def lock_agent(
    spec: SandboxSpec, sandbox_ns: int | None, program: bytes, settings: int | None = None
) -> Identity:
    """Give the agent its ids and take everything else away; call it in its own cgroup.

    The cgroup namespace is made here because its root is the cgroup of that moment. One
    capability that no process of a sandbox ever has stays in the permitted set: it makes the
    agent's set no subset of theirs, and ptrace(2) then refuses even root inside.
    """
    linux.unshare(linux.CLONE_NEWCGROUP)
    if spec.is_rootless:
        linux.unshare(linux.CLONE_NEWUSER)
        linux.write_file("/proc/self/setgroups", "deny")
        linux.write_file("/proc/self/uid_map", f"{USER_ID} 0 1")
        linux.write_file("/proc/self/gid_map", f"{USER_ID} 0 1")
        if settings is not None:
            _limit_inotify(settings)
            os.close(settings)
        linux.limit_bounding_set()
        linux.set_capabilities((linux.CAP_SYS_PTRACE,), ())
    else:
        if sandbox_ns is None:
            raise ValueError("root mode needs the sandbox's user namespace")
        linux.setns(sandbox_ns, linux.CLONE_NEWUSER)
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        linux.limit_bounding_set(ROOT_CAPS)
        linux.set_capabilities((*ROOT_CAPS, linux.CAP_SYS_PTRACE), ROOT_CAPS)
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(program)
    return Identity(spec.is_rootless, spec.limits)


def base_environment(path_prefix: str) -> dict[str, str]:
    """Give the environment that every process of the sandbox's user starts from."""
    return {
        "PATH": f"{path_prefix}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": HOME,
        "USER": "user",
        "LOGNAME": "user",
        "SHELL": "/bin/bash",
        "LANG": "C.UTF-8",
        "TERM": "dumb",
    }


# --- kernel ---------------------------------------------------------------------------------


def join_sandbox(agent_pidfd: int) -> None:
    """Enter all namespaces of a sandbox but the pid namespace, which came with the fork."""
    linux.setns(agent_pidfd, _JOINED)
    os.setsid()
    os.umask(0o022)
    os.chdir(HOME)


def lock_kernel(limits: ProcessLimits, program: bytes, *, is_rootless: bool) -> None:
    """Take the user's ids for good and give everything else up."""
    with contextlib.suppress(OSError):
        # If it is refused, the killer may choose the agent; the sandbox ends and that is noticed.
        linux.write_file("/proc/self/oom_score_adj", _OOM_SCORE)
    if is_rootless:
        linux.limit_bounding_set()
    _become_user(is_rootless=is_rootless)
    limits.apply()
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    seccomp.install(program)
    # Taking other ids made this process undumpable, and /proc/self then belongs to root.
    linux.prctl(linux.PR_SET_DUMPABLE, 1)
