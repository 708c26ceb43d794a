"""Ids, capabilities, limits and devices: what code in a sandbox has, and cannot gain."""

import ctypes
import os
import resource
import socket
import subprocess
from pathlib import Path

from headrace.engine.sandbox import Sandbox
from tests.security.prelude import (
    MACHINE,
    attempt,
    call,
    libc,
    name_of,
    raw,
    status_of,
    write_path,
)
from tests.security.probes import Place, Probe, outside, probe_in
from tests.support.modes import Mode


def credentials() -> dict[str, str]:
    """Give what the kernel says of this process's privileges."""
    names = ("NoNewPrivs", "Seccomp", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
    status = status_of()
    return {name: status[name] for name in names}


async def test_the_user_has_no_capability_and_cannot_gain_one(kernel_probe: Probe) -> None:
    """Threat: a capability left over opens one of the doors below."""
    assert await kernel_probe(credentials) == {
        "NoNewPrivs": "1",
        "Seccomp": "2",
        **dict.fromkeys(("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"), "0" * 16),
    }


async def test_every_place_has_the_filter_and_no_new_privileges(probe: Probe, mode: Mode) -> None:
    """Threat: one way to start code in a sandbox forgets the filter."""
    verdict = await probe(credentials)
    assert (verdict["NoNewPrivs"], verdict["Seccomp"]) == ("1", "2")
    # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID SETPCAP NET_BIND AUDIT_WRITE SETFCAP
    most = sum(1 << bit for bit in (0, 1, 3, 4, 5, 6, 7, 8, 10, 29, 31))
    for name in ("CapPrm", "CapEff", "CapBnd", "CapInh", "CapAmb"):
        assert int(verdict[name], 16) & ~most == 0, name
    assert outside(credentials)["Seccomp"] == "0", mode


def change_ids() -> dict[str, object]:
    """Try to become root, and to run a setuid program."""
    su = subprocess.run(
        ["su", "root", "-c", "id -u"],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    return {
        "before": [os.getuid() == 0, os.geteuid() == 0],
        "setuid": attempt(os.setuid, 0),
        "setresuid": attempt(os.setresuid, 0, 0, 0),
        "setgid": attempt(os.setgid, 0),
        "setgroups": attempt(os.setgroups, [0]),
        "su": [su.returncode != 0, su.stdout],
        "after": [os.getuid() == 0, os.geteuid() == 0],
    }


async def test_the_user_cannot_become_root(kernel_probe: Probe, mode: Mode) -> None:
    """Threat (29): setuid programs of the host's /usr, or the calls themselves."""
    verdict = await kernel_probe(change_ids)
    refusals = {verdict[name] for name in ("setuid", "setresuid", "setgid", "setgroups")}
    # Where 0 is not mapped at all, the id itself is invalid.
    assert refusals <= ({"EPERM"} if mode is Mode.ROOT else {"EPERM", "EINVAL"})
    assert verdict["before"] == verdict["after"] == [False, False]
    assert verdict["su"] == [True, ""]


def copy_with_setuid() -> None:
    """Make a program that runs with its owner's rights: root's."""
    import shutil

    shutil.copyfile("/usr/bin/id", "/tmp/rooted")
    Path("/tmp/rooted").chmod(0o4755)


def run_setuid_copy() -> list[object]:
    """Have that program say whose rights it got, and whether it has the bit."""
    done = subprocess.run(["/tmp/rooted", "-u"], capture_output=True, text=True, check=False)
    info = Path("/tmp/rooted").stat()
    return [done.stdout.strip(), info.st_uid, oct(info.st_mode & 0o7777)]


async def test_a_setuid_program_made_by_in_sandbox_root_gives_the_user_nothing(
    sandbox: Sandbox,
) -> None:
    """Threat (29): a root command of the sandbox leaves a way to root for user code."""
    await probe_in(sandbox, Place.ROOT, copy_with_setuid)
    assert await probe_in(sandbox, Place.PROCESS, run_setuid_copy) == ["1000", 0, "0o4755"]


def drop_into_mount() -> dict[str, str]:
    """Try, as in-sandbox root, what would loosen the sandbox around it."""
    return {
        "hostname": attempt(socket.sethostname, "mine"),
        "unmask": call("umount2", b"/proc/kcore", 2),
        "unmask sys": call("mount", 0, b"/proc/sys", 0, 32 | 4096, 0),
        "chroot": attempt(os.chroot, "/tmp"),
        "low port": attempt(socket.create_server, ("127.0.0.1", 80)),
    }


def link_settings() -> list[object]:
    """Try to change the loopback interface with ioctl."""
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        down = struct.pack("16sH14s", b"lo", 0, b"")
        return [attempt(fcntl.ioctl, sock, 0x8914, down)]


async def test_in_sandbox_root_is_no_root_of_its_namespaces(sandbox: Sandbox) -> None:
    """Threat: root inside unmasks /proc, renames the machine or opens the network."""
    verdict = await probe_in(sandbox, Place.ROOT, drop_into_mount)
    assert verdict.pop("low port") == "ok"
    assert set(verdict.values()) == {"EPERM"}
    assert await probe_in(sandbox, Place.ROOT, link_settings) == ["EPERM"]


def sudo_says() -> list[str]:
    """Become root the way that people are used to, and look at the privileges then."""
    script = (
        "id -u; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status; umount /proc/kcore && echo out"
    )
    command = ["/bin/sh", "-c", 'sudo -n /bin/sh -c "$0"', script]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
    )
    return done.stdout.split()


async def test_sudo_gives_no_more_than_in_sandbox_root(kernel_probe: Probe, mode: Mode) -> None:
    """Threat: sudo needs setuid programs, and with them every other one would work, too."""
    output = await kernel_probe(sudo_says)
    as_root = ["0", "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert output in ([[], as_root] if mode is Mode.ROOT else [[]])


def make_devices() -> dict[str, str]:
    """Make device nodes: a disk, and the kernel's memory."""
    import stat

    block, char = stat.S_IFBLK | 0o666, stat.S_IFCHR | 0o666
    return {
        "disk": attempt(os.mknod, "/tmp/disk", block, os.makedev(254, 0)),
        "old disk": attempt(os.mknod, "/tmp/sda", block, os.makedev(8, 0)),
        "memory": attempt(os.mknod, "/tmp/mem", char, os.makedev(1, 1)),
        "null": attempt(os.mknod, "/tmp/null", char, os.makedev(1, 3)),
    }


async def test_no_device_can_be_made(probe: Probe) -> None:
    """Threat (30): a node of the host's disk reads every file of the host."""
    assert set((await probe(make_devices)).values()) == {"EPERM"}


def resource_grabs() -> dict[str, str]:
    """Try to get more of the machine than one's share."""
    rtprio = ctypes.byref(ctypes.c_int(50))
    higher = resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1
    libc.mmap.restype = ctypes.c_void_p
    size = 100 * 1024 * 1024
    area = libc.mmap(None, ctypes.c_size_t(size), 3, 0x22, -1, ctypes.c_long(0))
    ctypes.set_errno(0)
    locked = libc.mlock(ctypes.c_void_p(area), ctypes.c_size_t(size))
    lock = "ok" if locked == 0 else name_of(ctypes.get_errno())
    ctypes.set_errno(0)
    fifo = libc.sched_setscheduler(0, 1, rtprio)
    scheduler = "ok" if fifo == 0 else name_of(ctypes.get_errno())
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (higher, higher))
        raised = "ok"
    except (ValueError, OSError):
        raised = "refused"
    return {
        "mlock": lock,
        "fifo": scheduler,
        "rlimit": raised,
        "nice": attempt(os.setpriority, os.PRIO_PROCESS, 0, -20),
        "oom_score_adj": write_path("/proc/self/oom_score_adj", b"-1000"),
    }


async def test_nobody_takes_more_than_a_share(probe: Probe) -> None:
    """Threat (38): lock memory, raise limits, dodge the out-of-memory killer, starve others."""
    verdict = await probe(resource_grabs)
    assert verdict["mlock"] in ("ENOMEM", "EPERM")
    assert verdict["fifo"] == "EPERM"
    assert verdict["rlimit"] == "refused"
    assert verdict["nice"] in ("EACCES", "EPERM")
    assert verdict["oom_score_adj"] in ("EACCES", "EPERM")


def limit_another(pid: int) -> dict[str, str]:
    """Read and set limits of another process, and our own."""
    new = (ctypes.c_ulong * 2)(3, 3)
    old = (ctypes.c_ulong * 2)()
    pointer = ctypes.byref(new)
    return {
        "nofile": call("prlimit64", pid, 7, pointer, 0),
        "cpu": call("prlimit64", pid, 0, pointer, 0),
        "both": call("prlimit64", pid, 7, pointer, ctypes.byref(old)),
        "own": call("prlimit64", 0, 4, ctypes.byref((ctypes.c_ulong * 2)(0, 0)), 0),
    }


async def test_limits_of_another_process_cannot_be_set(probe: Probe) -> None:
    """Threat: prlimit(1, NOFILE=3) disables the agent; one's own limits stay adjustable."""
    verdict = await probe(limit_another, 1)
    assert verdict == {"nofile": "EPERM", "cpu": "EPERM", "both": "EPERM", "own": "ok"}


def filter_cannot_be_undone() -> dict[str, str]:
    """Install a filter that allows everything, then call what was refused."""
    program = (ctypes.c_ulonglong * 1)(0x7FFF000000000006)  # return ALLOW
    header = (ctypes.c_ulonglong * 2)(1, ctypes.addressof(program))
    number = 277 if MACHINE == "aarch64" else 317
    installed = raw(number, 1, 0, ctypes.byref(header))[1]
    return {"installed": installed, "mount": call("mount", -1, -1, -1, -1, -1)}


async def test_a_second_filter_does_not_undo_the_first(kernel_probe: Probe) -> None:
    """Threat: a permissive filter, which anybody may install, loosens ours."""
    verdict = await kernel_probe(filter_cannot_be_undone)
    assert verdict["mount"] == "EPERM"
