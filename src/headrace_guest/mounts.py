"""The mount plan of a sandbox: built by a pure function from a spec, applied by a thin loop.

All paths of a plan are relative to the build directory, so that mountinfo inside a sandbox
shows short neutral names (``upperdir=u/root``) and no path of the host.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

from headrace_guest import linux
from headrace_guest.skeleton import USER_ID, Layer

MIB = 1024 * 1024
SHM_SIZE = 64 * MIB
TTY_GROUP = 5
MAX_TERMINALS = 64
LOWERS = "/l"
"""Where the fork server's root holds the layers, by their names."""

_PROC_READ_ONLY = ("sys", "irq", "bus", "fs", "sysrq-trigger", "mtrr")
_PROC_HIDDEN = (
    "acpi asound kcore keys key-users kmsg kallsyms latency_stats sched_debug scsi"
    " sysrq-trigger timer_list timer_stats vmallocinfo slabinfo pagetypeinfo"
)
_TMP = "/tmp"  # noqa: S108 - the sandbox's own
_SAFE = linux.MS_NOSUID | linux.MS_NODEV


@dataclass(frozen=True)
class MakeDirectory:
    """Make a directory; ``owner`` is a host uid and gid."""

    path: str
    mode: int = 0o755
    owner: tuple[int, int] | None = None


@dataclass(frozen=True)
class MountFilesystem:
    """Mount a new instance of a file system."""

    kind: str
    path: str
    flags: int = _SAFE
    data: str = ""
    source: str = "none"


@dataclass(frozen=True)
class BindPath:
    """Show a directory tree or file at a second place."""

    source: str
    path: str


@dataclass(frozen=True)
class BindIdMapped:
    """Show a layer with its ids mapped by a user namespace: the sandbox's or its user's."""

    source: str
    path: str
    to_user: bool


@dataclass(frozen=True)
class MakeReadOnly:
    """Make a path of /proc read-only by binding it to itself; nothing if it is not there."""

    path: str


@dataclass(frozen=True)
class HidePath:
    """Cover a path of /proc: a file by /dev/null, a directory by an empty one."""

    path: str


@dataclass(frozen=True)
class WriteFile:
    """Write a kernel setting."""

    path: str
    text: str


Step = (
    MakeDirectory | MountFilesystem | BindPath | BindIdMapped | MakeReadOnly | HidePath | WriteFile
)


@dataclass(frozen=True)
class RootSpec:
    """What a sandbox's root is made from.

    ``base`` is the host id of the sandbox's root user, or None in rootless mode, where there is
    one id only. ``is_mapped`` says whether layers are shown through id-mapped mounts.
    """

    layers: Sequence[Layer]
    disk: int
    inodes: int
    base: int | None
    is_mapped: bool


def plan_root(spec: RootSpec) -> list[Step]:
    """List the steps that build a sandbox's root at ``m`` of an empty build directory."""
    data = f"size={spec.disk},nr_inodes={spec.inodes},mode=755"
    steps: list[Step] = [MountFilesystem("tmpfs", ".", data=data), MakeDirectory("m")]
    steps += [MakeDirectory(name) for name in ("u", "w", "l")]
    below_tmp = [layer for layer in spec.layers if layer.target.startswith(f"{_TMP}/")]
    for layer in spec.layers:
        if layer not in below_tmp:
            steps += _plan_layer(spec, layer)
    steps += _plan_writable(spec)
    for layer in below_tmp:
        steps += [MakeDirectory(path) for path in _parents("m", layer.target)]
        steps += _plan_layer(spec, layer)
    return steps + _plan_devices(spec) + _plan_proc()


def _root_owner(spec: RootSpec) -> tuple[int, int] | None:
    return None if spec.base is None else (spec.base, spec.base)


def _user_owner(spec: RootSpec) -> tuple[int, int] | None:
    return None if spec.base is None else (spec.base + USER_ID, spec.base + USER_ID)


def _plan_layer(spec: RootSpec, layer: Layer) -> list[Step]:
    owner = _user_owner(spec) if layer.owner else _root_owner(spec)
    upper, work = f"u/{layer.name}", f"w/{layer.name}"
    steps: list[Step] = [MakeDirectory(upper, owner=owner), MakeDirectory(work, owner=owner)]
    names = [layer.name] if layer.mask is None else [f"{layer.name}.mask", layer.name]
    lowers = [f"{LOWERS}/{name}" for name in names]
    if spec.is_mapped:
        for name in names:
            steps.append(MakeDirectory(f"l/{name}"))
            steps.append(BindIdMapped(f"{LOWERS}/{name}", f"l/{name}", layer.owner is not None))
        lowers = [f"l/{name}" for name in names]
    elif layer.target == "/" and spec.base is not None:
        # Without mapped ids the skeleton's owners mean nothing inside; the users' own
        # directories are made anew in the upper layer.
        steps += _plan_unmapped_home(spec, upper)
    elif layer.target == "/usr" and spec.base is None:
        # There is one id only, so the directory that has our sudo besides the host's programs
        # would be the user's to write to. It is the user's, but closed.
        steps.append(MakeDirectory(f"{upper}/bin", 0o555))
    # A rootless overlay keeps its marks in user.* attributes; a root one need not survive a crash.
    option = "userxattr" if spec.base is None else "volatile"
    data = f"lowerdir={':'.join(lowers)},upperdir={upper},workdir={work},{option}"
    target = "m" if layer.target == "/" else f"m{layer.target}"
    steps.append(MountFilesystem("overlay", target, data=data, source="overlay"))
    return steps


def _plan_unmapped_home(spec: RootSpec, upper: str) -> list[Step]:
    user, root = _user_owner(spec), _root_owner(spec)
    return [
        MakeDirectory(f"{upper}/home", owner=root),
        MakeDirectory(f"{upper}/home/user", owner=user),
        MakeDirectory(f"{upper}/workspace", owner=user),
        MakeDirectory(f"{upper}/root", 0o700, owner=root),
        MakeDirectory(f"{upper}/run", owner=root),
        MakeDirectory(f"{upper}/run/sudo", owner=root),
    ]


def _plan_writable(spec: RootSpec) -> list[Step]:
    """Give /tmp its share of the disk, and the host's /usr/local an empty stand-in.

    A host's /usr/local may hold private tools, so it is shown only where it is a prefix.
    """
    steps: list[Step] = [MakeDirectory("t", 0o1777, _root_owner(spec)), BindPath("t", f"m{_TMP}")]
    if any(layer.target.startswith("/usr/local") for layer in spec.layers):
        return steps
    owner = _root_owner(spec)
    steps.append(MakeDirectory("local", owner=owner))
    steps += [MakeDirectory(f"local/{name}", owner=owner) for name in ("bin", "lib", "sbin")]
    return [*steps, MakeDirectory("m/usr/local"), BindPath("local", "m/usr/local")]


def _plan_devices(spec: RootSpec) -> list[Step]:
    group = "" if spec.base is None else f",gid={spec.base + TTY_GROUP}"
    # The number of terminals is one limit for the whole machine.
    pts = f"newinstance,ptmxmode=0666,mode=0620,max={MAX_TERMINALS}{group}"
    shm = f"size={SHM_SIZE},nr_inodes=10000,mode=1777"
    noexec = linux.MS_NOSUID | linux.MS_NOEXEC
    return [
        BindPath("/dev", "m/dev"),
        MountFilesystem("tmpfs", "m/dev/shm", data=shm),
        MountFilesystem("devpts", "m/dev/pts", noexec, pts),
    ]


def _plan_proc() -> list[Step]:
    steps: list[Step] = [
        MountFilesystem("proc", "m/proc", _SAFE | linux.MS_NOEXEC, source="proc"),
        # Nothing outside can reach this network, so its low ports need no privilege.
        WriteFile("m/proc/sys/net/ipv4/ip_unprivileged_port_start", "0"),
    ]
    steps += [MakeReadOnly(f"m/proc/{name}") for name in _PROC_READ_ONLY]
    steps += [HidePath(f"m/proc/{name}") for name in _PROC_HIDDEN.split()]
    return steps


def _parents(root: str, target: str) -> list[str]:
    parts = target.strip("/").split("/")
    return [f"{root}/" + "/".join(parts[: end + 1]) for end in range(1, len(parts))]


def apply(steps: Iterable[Step], sandbox_ns: int | None, user_ns: int | None) -> None:
    """Carry a plan out in the current directory.

    ``sandbox_ns`` and ``user_ns`` are descriptors of the user namespaces whose maps id-mapped
    mounts use; rootless plans need none.
    """
    for step in steps:
        match step:
            case MakeDirectory():
                _make_directory(step)
            case MountFilesystem():
                _mount(step)
            case BindPath():
                linux.mount(step.source, step.path, flags=linux.MS_BIND | linux.MS_REC)
            case BindIdMapped():
                namespace = user_ns if step.to_user else sandbox_ns
                _bind_mapped(step, -1 if namespace is None else namespace)
            case MakeReadOnly():
                if os.path.lexists(step.path):
                    bind_read_only(step.path, step.path)
            case HidePath():
                _hide(step.path)
            case WriteFile():
                linux.write_file(step.path, step.text)
            case _:
                assert_never(step)


def bind_read_only(source: str, target: str) -> None:
    """Show a tree at ``target``, read-only and without setuid; submounts come along.

    Attributes are added to those that the mount has, because a user namespace may not take any
    of them away.
    """
    fd = linux.open_tree(source, is_recursive=True)
    try:
        attributes = linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NOSUID
        linux.mount_setattr(fd, attributes)
        linux.move_mount(fd, target)
    finally:
        os.close(fd)


def _make_directory(step: MakeDirectory) -> None:
    try:
        os.mkdir(step.path, step.mode)  # noqa: PTH102 - hot path, plain calls
    except FileExistsError:
        return
    if step.mode & 0o1000:
        os.chmod(step.path, step.mode)  # noqa: PTH101 - mkdir leaves the sticky bit to the umask
    if step.owner is not None:
        os.chown(step.path, *step.owner)


def _mount(step: MountFilesystem) -> None:
    linux.mount(step.source, step.path, step.kind, step.flags, step.data)
    if step.path == ".":
        # The current directory is still the one below the new mount.
        os.chdir(os.getcwd())  # noqa: PTH109 - hot path, plain calls


def _bind_mapped(step: BindIdMapped, namespace: int) -> None:
    fd = linux.open_tree(step.source, is_recursive=False)
    try:
        attributes = linux.MOUNT_ATTR_IDMAP | linux.MOUNT_ATTR_RDONLY | linux.MOUNT_ATTR_NODEV
        linux.mount_setattr(fd, attributes, namespace)
        linux.move_mount(fd, step.path)
    finally:
        os.close(fd)


def _hide(path: str) -> None:
    if not os.path.lexists(path):
        return
    if os.path.isdir(path):  # noqa: PTH112 - hot path, plain calls
        data = "size=0,nr_inodes=1,mode=555"
        linux.mount("none", path, "tmpfs", _SAFE | linux.MS_RDONLY, data)
    else:
        linux.mount("/dev/null", path, flags=linux.MS_BIND)
