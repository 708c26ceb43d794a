"""Thin calls into the Linux kernel that Python 3.11 does not offer itself.

Each function is one system call, raises OSError that names the call and its arguments, and says
in its docstring which manual page has the facts. Nothing here decides anything.
"""

import ctypes
import fcntl
import os
import platform
import socket
import struct
from collections.abc import Iterable
from pathlib import Path

CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19

MNT_DETACH = 2

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_IDMAP = 0x100000

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_GET_NO_NEW_PRIVS = 39
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4

MADV_COLLAPSE = 25

# capabilities(7)
CAP_CHOWN = 0
CAP_DAC_OVERRIDE = 1
CAP_FOWNER = 3
CAP_FSETID = 4
CAP_KILL = 5
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SETPCAP = 8
CAP_NET_BIND_SERVICE = 10
CAP_NET_ADMIN = 12
CAP_SYS_CHROOT = 18
CAP_SYS_PTRACE = 19
CAP_SYS_ADMIN = 21
CAP_MKNOD = 27
CAP_AUDIT_WRITE = 29
CAP_SETFCAP = 31

_CAPABILITY_VERSION_3 = 0x20080522
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_AT_RECURSIVE = 0x8000
_OPEN_TREE_CLONE = 1
_OPEN_TREE_CLOEXEC = 0x80000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_SIOCSIFFLAGS = 0x8914
_IFF_UP_RUNNING = 0x1 | 0x40

# The new mount calls have the same number on every architecture; pivot_root does not.
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_CLOSE_RANGE = 436
_NR_MOUNT_SETATTR = 442
_NR_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
_libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    )


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def syscall(number: int, *args: object, what: str = "") -> int:
    """Make a raw system call (syscall(2)); arguments are passed to ctypes as they are."""
    return _check(_libc.syscall(ctypes.c_long(number), *args), what or f"syscall {number}")


def unshare(flags: int) -> None:
    """Leave the named namespaces for new ones; unshare(2)."""
    _check(_libc.unshare(ctypes.c_int(flags)), f"unshare {flags:#x}")


def setns(fd: int, flags: int) -> None:
    """Enter the namespaces of a pidfd or of a namespace's descriptor; setns(2)."""
    _check(_libc.setns(ctypes.c_int(fd), ctypes.c_int(flags)), f"setns {flags:#x}")


def mount(
    source: str | None, target: str, kind: str | None = None, flags: int = 0, data: str = ""
) -> None:
    """Mount, bind or remount; mount(2)."""
    encoded = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    result = _libc.mount(*encoded, flags, os.fsencode(data) or None)
    _check(result, f"mount {source} on {target} ({kind}, {flags:#x}, {data!r})")


def umount(target: str, flags: int = MNT_DETACH) -> None:
    """Unmount, by default lazily; umount2(2)."""
    _check(_libc.umount2(os.fsencode(target), ctypes.c_int(flags)), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    """Change the root mount; pivot_root(2)."""
    number = _NR_PIVOT_ROOT[platform.machine()]
    syscall(number, os.fsencode(new_root), os.fsencode(put_old), what=f"pivot_root {new_root}")


def open_tree(path: str, *, is_recursive: bool) -> int:
    """Give a detached copy of the mount at ``path``; open_tree(2). The caller closes it.

    In a user namespace submounts must come along, because it may not uncover what they hide.
    """
    chosen = _AT_RECURSIVE if is_recursive else 0
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | chosen)
    at = ctypes.c_int(_AT_FDCWD)
    return syscall(_NR_OPEN_TREE, at, os.fsencode(path), flags, what=f"open_tree {path}")


def mount_setattr(fd: int, attributes: int, userns_fd: int = 0) -> None:
    """Change a detached tree of mounts, for instance map its ids; mount_setattr(2)."""
    attr = _MountAttr(attributes, 0, 0, userns_fd)
    syscall(
        _NR_MOUNT_SETATTR,
        ctypes.c_int(fd),
        b"",
        ctypes.c_uint(_AT_EMPTY_PATH | _AT_RECURSIVE),
        ctypes.byref(attr),
        ctypes.c_size_t(ctypes.sizeof(attr)),
        what=f"mount_setattr {attributes:#x}",
    )


def move_mount(fd: int, target: str) -> None:
    """Attach a detached mount at ``target``; move_mount(2)."""
    syscall(
        _NR_MOVE_MOUNT,
        ctypes.c_int(fd),
        b"",
        ctypes.c_int(_AT_FDCWD),
        os.fsencode(target),
        ctypes.c_uint(_MOVE_MOUNT_F_EMPTY_PATH),
        what=f"move_mount {target}",
    )


def prctl(option: int, *args: int) -> int:
    """Operate on this process; prctl(2)."""
    padded = [*args, 0, 0, 0, 0][:4]
    return _check(_libc.prctl(option, *padded), f"prctl {option} {args}")


def close_range(first: int, last: int = 0xFFFFFFFF) -> None:
    """Close every descriptor from ``first`` to ``last``; close_range(2)."""
    numbers = (ctypes.c_uint(first), ctypes.c_uint(last), ctypes.c_uint(0))
    syscall(_NR_CLOSE_RANGE, *numbers, what=f"close_range {first} {last}")


def set_capabilities(permitted: Iterable[int], effective: Iterable[int]) -> None:
    """Set this thread's capability sets, none of them inheritable; capset(2)."""
    data = (_CapData * 2)()
    for cap in permitted:
        data[cap >> 5].permitted |= 1 << (cap & 31)
    for cap in effective:
        data[cap >> 5].effective |= 1 << (cap & 31)
    header = _CapHeader(_CAPABILITY_VERSION_3, 0)
    _check(_libc.capset(ctypes.byref(header), ctypes.byref(data)), "capset")


def set_file_ids(user: int, group: int) -> None:
    """Act on files as this user and group: what is made belongs to them; setfsuid(2).

    Leaving 0 takes the capabilities that concern files out of the effective set.
    """
    _libc.setfsgid(group)
    _libc.setfsuid(user)
    # They give the former id, whatever happens; only a second call tells whether it is another.
    if (_libc.setfsuid(-1), _libc.setfsgid(-1)) != (user, group):
        raise PermissionError(f"the ids {user} and {group} for files are refused")


def limit_bounding_set(keep: Iterable[int] = ()) -> None:
    """Drop every capability but ``keep`` from the bounding set, and all ambient ones.

    Needs CAP_SETPCAP, so it must come before the ids change: afterwards the call fails, and a
    failure here is raised, never passed over.
    """
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL)
    kept = set(keep)
    cap = 0
    while (is_in_set := _libc.prctl(PR_CAPBSET_READ, cap, 0, 0, 0)) >= 0:
        if is_in_set and cap not in kept:
            _check(_libc.prctl(PR_CAPBSET_DROP, cap, 0, 0, 0), "prctl PR_CAPBSET_DROP")
        cap += 1


def bring_loopback_up() -> None:
    """Set the interface ``lo`` of this network namespace up; netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        request = struct.pack("16sH14s", b"lo", _IFF_UP_RUNNING, b"")
        fcntl.ioctl(sock, _SIOCSIFFLAGS, request)


def collapse(address: int, length: int) -> None:
    """Ask for huge pages behind an aligned range; madvise(2), MADV_COLLAPSE."""
    result = _libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(length), MADV_COLLAPSE)
    _check(result, "madvise MADV_COLLAPSE")


def write_file(path: str, text: str) -> None:
    """Write a file of /proc or /sys with one system call, so that its refusal is seen."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def set_command_line(name: str) -> None:
    """Replace what /proc/PID/cmdline and environ show of this process; proc_pid_stat(5).

    The memory that they show is this process's own, from arg_start to env_end, and is written
    over. Nothing reads it again: Python copied both at its start.
    """
    stat = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    # Fields 48 to 51 of the whole line; the split begins with field 3.
    arg_start, arg_end, env_start, env_end = (int(text) for text in stat[45:49])
    text = name.encode()[: arg_end - arg_start - 1]
    ctypes.memset(arg_start, 0, arg_end - arg_start)
    ctypes.memmove(arg_start, text, len(text))
    ctypes.memset(env_start, 0, env_end - env_start)
    buffer = ctypes.create_string_buffer(text[:15])
    prctl(PR_SET_NAME, ctypes.addressof(buffer))


def count_threads() -> int:
    """Count the threads of this process, as the kernel does; not only Python's."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("Threads:"):
            return int(line.split()[1])
    raise RuntimeError("/proc/self/status has no line about threads")
