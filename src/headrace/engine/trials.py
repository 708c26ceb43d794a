"""Attempts at what isolation needs, each in a forked child, so that it leaves no trace.

A function named ``try_…`` does something to its own process, gives a short answer for people and
raises if the kernel refuses; `in_child` is how it is run. The caller must have one thread.
"""

import contextlib
import ctypes
import errno
import os
import platform
import select
import signal
import struct
from collections.abc import Callable
from pathlib import Path

from headrace_guest import linux

FIRST_ID = 2_000_000_000
RANGE = 65_536

_TIMEOUT_MS = 10_000
_ORDINARY_ID = 65_534
_SCRATCH = "/tmp"  # noqa: S108 - covered by a tmpfs that only the child sees


class TrialError(Exception):
    """A trial was refused by the machine; the message says how."""


def in_child(trial: Callable[[], str], timeout_ms: int = _TIMEOUT_MS) -> str:
    """Run ``trial`` in a forked child and give what it returned; raises TrialError if it failed."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _be_trial(trial, write_end)
    os.close(write_end)
    poll = select.poll()
    poll.register(read_end, select.POLLIN)
    try:
        is_done = bool(poll.poll(timeout_ms))
        answer = os.read(read_end, 4096).decode("utf-8", "replace") if is_done else "-no answer"
    finally:
        os.close(read_end)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    if not answer.startswith("+"):
        raise TrialError(answer[1:] or "the trial's process died")
    return answer[1:]


def _be_trial(trial: Callable[[], str], answers: int) -> None:
    try:
        answer = f"+{trial()}"
    except OSError as error:
        # The functions of `linux` put the whole call into the message, which is too long here.
        answer = f"-{os.strerror(error.errno) if error.errno else error}"
    except TrialError as error:
        answer = f"-{error}"
    except BaseException as error:  # noqa: BLE001 - nothing may return into the caller's code
        answer = f"-{type(error).__name__}: {error}"
    with contextlib.suppress(OSError):
        os.write(answers, answer.encode("utf-8", "replace")[:4096])
    os._exit(0)


NAMESPACES = {
    "mount": linux.CLONE_NEWNS,
    "pid": linux.CLONE_NEWPID,
    "network": linux.CLONE_NEWNET,
    "ipc": linux.CLONE_NEWIPC,
    "uts": linux.CLONE_NEWUTS,
    "cgroup": linux.CLONE_NEWCGROUP,
    "user": linux.CLONE_NEWUSER,
}


def try_namespace(flag: int) -> str:
    """Make a namespace of that kind, as an ordinary user inside a new user namespace."""
    if os.geteuid() != 0 and flag != linux.CLONE_NEWUSER:
        enter_user_namespace()
    linux.unshare(flag)
    if flag == linux.CLONE_NEWNET:
        linux.bring_loopback_up()
    if flag == linux.CLONE_NEWPID:
        _check_pid_namespace()
    return "yes"


def _check_pid_namespace() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0 if os.getpid() == 1 else 1)
    if os.waitpid(pid, 0)[1] != 0:
        raise TrialError("the first process of a new pid namespace is not number 1")


def enter_user_namespace(flags: int = 0) -> None:
    """Become root of a new user namespace; root becomes an ordinary user first."""
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(_ORDINARY_ID, _ORDINARY_ID, _ORDINARY_ID)
        os.setresuid(_ORDINARY_ID, _ORDINARY_ID, _ORDINARY_ID)
        # Changing ids took away the right to write our own maps.
        linux.prctl(linux.PR_SET_DUMPABLE, 1)
    uid, gid = os.getuid(), os.getgid()
    linux.unshare(linux.CLONE_NEWUSER | flags)
    linux.write_file("/proc/self/setgroups", "deny")
    linux.write_file("/proc/self/uid_map", f"0 {uid} 1")
    linux.write_file("/proc/self/gid_map", f"0 {gid} 1")


def try_user_namespace() -> str:
    """Make a user namespace as an ordinary user, and another one in it."""
    enter_user_namespace()
    linux.unshare(linux.CLONE_NEWUSER)
    return "yes, nested"


def try_overlay() -> str:
    """Mount an overlay over /usr as an ordinary user."""
    enter_user_namespace(linux.CLONE_NEWNS)
    _mount_overlay("/usr", ",userxattr")
    return "yes"


def try_proc() -> str:
    """Mount a /proc of a new pid namespace as an ordinary user."""
    enter_user_namespace(linux.CLONE_NEWNS | linux.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        flags = linux.MS_NOSUID | linux.MS_NODEV | linux.MS_NOEXEC
        try:
            linux.mount("proc", "/proc", "proc", flags)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code != 0:
        raise OSError(code, "mount of /proc")
    return "yes"


def _mount_overlay(lower: str, options: str) -> None:
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    linux.mount("tmpfs", _SCRATCH, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV)
    for name in ("upper", "work", "merged"):
        Path(_SCRATCH, name).mkdir()
    data = f"lowerdir={lower},upperdir={_SCRATCH}/upper,workdir={_SCRATCH}/work{options}"
    linux.mount("overlay", f"{_SCRATCH}/merged", "overlay", 0, data)
    Path(_SCRATCH, "merged", "probe").write_text("x")


def try_idmapped_overlay() -> str:
    """Show /usr with mapped ids below an overlay, as root."""
    namespace = _make_mapped_namespace()
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount(None, "/", None, linux.MS_REC | linux.MS_PRIVATE)
    tree = linux.open_tree("/usr", is_recursive=False)
    linux.mount_setattr(tree, linux.MOUNT_ATTR_IDMAP, namespace)
    linux.move_mount(tree, "/mnt")
    owner = Path("/mnt").stat().st_uid
    if owner != FIRST_ID:
        raise TrialError(f"uid 0 is shown as {owner}")
    _mount_overlay("/mnt", "")
    return "yes, below an overlay"


def _make_mapped_namespace() -> int:
    ready_read, ready_write = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            linux.unshare(linux.CLONE_NEWUSER)
            os.write(ready_write, b"x")
            signal.pause()
        finally:
            os._exit(1)
    os.close(ready_write)
    try:
        if not os.read(ready_read, 1):
            raise TrialError("no user namespace can be made")
        linux.write_file(f"/proc/{pid}/uid_map", f"0 {FIRST_ID} {RANGE}")
        linux.write_file(f"/proc/{pid}/gid_map", f"0 {FIRST_ID} {RANGE}")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def try_no_new_privs() -> str:
    """Set no_new_privs, for good."""
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if linux.prctl(linux.PR_GET_NO_NEW_PRIVS) != 1:
        raise TrialError("the flag does not stay")
    return "yes"


_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SCHED_YIELD = {"x86_64": 24, "aarch64": 124}


def try_seccomp() -> str:
    """Install a filter that refuses one harmless call, and see that it does."""
    machine = platform.machine()
    if machine not in _SCHED_YIELD:
        raise TrialError(f"no filter was made for {machine}; known are {', '.join(_SCHED_YIELD)}")
    program = [
        (0x20, 0, 0, 0),  # load the call's number
        (0x15, 0, 1, _SCHED_YIELD[machine]),
        (0x06, 0, 0, 0x00050000 | errno.EDOM),
        (0x06, 0, 0, 0x7FFF0000),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in program))
    fprog = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", 4, ctypes.addressof(code)))
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    linux.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.addressof(fprog))
    try:
        os.sched_yield()
    except OSError as error:
        if error.errno == errno.EDOM:
            return f"yes, {machine}"
        raise
    raise TrialError("a filter was installed and had no effect")
