"""System calls that sandboxes must not have, at each place where hostile code may run."""

import ctypes
import os
import signal
import socket
import subprocess
import threading

from tests.security.prelude import (
    NUMBERS,
    attempt,
    call,
    each,
    in_child,
    libc,
    name_of,
    raw,
)
from tests.security.probes import Probe, outside

BAD = -1
"""An argument that is neither a descriptor, a pid, a pointer nor a set of flags."""


def with_bad_arguments(names: list[str]) -> dict[str, object]:
    """Make each system call with arguments that do no harm where it is allowed."""
    return each(
        [name for name in names if name in NUMBERS],
        lambda name: call(name, -1, -1, -1, -1, -1, -1),
    )


async def refuse(probe: Probe, *names: str) -> None:
    """Assert that each of these system calls is refused before its arguments are looked at."""
    verdict = await probe(with_bad_arguments, list(names))
    assert set(verdict) == {name for name in names if name in NUMBERS}
    assert verdict == dict.fromkeys(verdict, "EPERM")


def control(*names: str) -> None:
    """Assert that outside the same calls get as far as their bad arguments."""
    verdict = outside(with_bad_arguments, list(names))
    assert "EPERM" not in verdict.values(), verdict


async def test_mounts_and_roots_cannot_be_changed(probe: Probe) -> None:
    """Threat (9): mount, unmount, remount, chroot or pivot_root to get out or to unmask."""
    await refuse(probe, "mount", "umount2", "pivot_root", "chroot")


def real_mounts() -> dict[str, str]:
    """Try changes of mounts with arguments that root of a namespace may use."""
    tmp, proc = b"/tmp", b"/proc"
    remount, bind, detach = 32, 4096, 2
    return {
        "tmpfs": call("mount", b"none", tmp, b"tmpfs", 0, 0),
        "bind": call("mount", b"/proc", tmp, 0, bind, 0),
        "remount": call("mount", 0, tmp, 0, remount | bind, 0),
        "umount": call("umount2", tmp, detach),
        "chroot": call("chroot", proc),
    }


async def test_a_mount_that_works_outside_is_refused_inside(probe: Probe) -> None:
    """Threat (9): the refusal above was about the arguments only."""
    assert set((await probe(real_mounts)).values()) == {"EPERM"}
    assert set(outside(real_mounts, in_namespaces=True).values()) == {"ok"}


async def test_the_new_mount_calls_are_refused(probe: Probe) -> None:
    """Threat (10): the mount interface that older filters do not know."""
    names = ("fsopen", "fsconfig", "fsmount", "fspick", "move_mount", "open_tree", "mount_setattr")
    await refuse(probe, *names)


def newest_calls() -> dict[str, object]:
    """Call what a filter written today may not know yet."""
    names = ("open_tree_attr", "statmount", "listmount", "lsm_set_self_attr")
    named = each(names, lambda name: call(name, -1, -1, -1, -1, -1, -1))
    later = {raw(number, -1, -1, -1, -1, -1, -1)[1] for number in range(468, 700)}
    return {**named, "later": sorted(later)}


async def test_calls_that_the_filter_does_not_know_do_not_exist(probe: Probe) -> None:
    """Threat (20): a kernel newer than the filter brings a new way out."""
    verdict = await probe(newest_calls)
    assert verdict.pop("later") == ["ENOSYS"]
    assert set(verdict.values()) <= {"ENOSYS", "EPERM"}, verdict


def x32_calls() -> list[str]:
    """Call getppid and mount through the x32 table."""
    bit = 0x40000000
    numbers = (NUMBERS["getppid"], NUMBERS["mount"], NUMBERS["ptrace"], 521)
    return [raw(bit | number, -1, -1, -1, -1, -1)[1] for number in numbers]


async def test_the_x32_table_is_closed(probe: Probe) -> None:
    """Threat (20): numbers of the x32 table mean other calls than the filter thinks."""
    assert await probe(x32_calls) == ["ENOSYS"] * 4


def int_0x80() -> list[int]:
    """Call getpid through the 32-bit gate, in a child: its exit code and signal."""
    import mmap

    code = b"\xb8\x14\x00\x00\x00\xcd\x80\xc3"  # mov eax, 20; int 0x80; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    function = ctypes.CFUNCTYPE(ctypes.c_int)(address)
    status = in_child(lambda: function() == os.getpid())
    return [os.waitstatus_to_exitcode(status)]


async def test_32_bit_system_calls_are_fatal(probe: Probe) -> None:
    """Threat (21): the 32-bit table has other numbers, which the filter would misread."""
    # Outside 1: the child got its own pid. A kernel without 32-bit calls raises SIGSEGV.
    native = outside(int_0x80)
    expected = [-signal.SIGSYS] if native == [1] else native
    assert await probe(int_0x80) == expected
    assert native in ([1], [-signal.SIGSEGV])


def namespace_calls() -> dict[str, object]:
    """Try every way to make or enter a namespace."""
    kinds = {
        "mnt": 0x00020000,
        "cgroup": 0x02000000,
        "uts": 0x04000000,
        "ipc": 0x08000000,
        "user": 0x10000000,
        "pid": 0x20000000,
        "net": 0x40000000,
    }

    def unshare(kind: str) -> str:
        status = in_child(lambda: call("unshare", kinds[kind]) == "EPERM")
        return "EPERM" if os.waitstatus_to_exitcode(status) == 1 else "ok"

    def clone(kind: str) -> str:
        # A child, if there is one, returns here as well: 0 to it, its pid to us.
        value, name = raw(NUMBERS["clone"], kinds[kind] | signal.SIGCHLD, 0, 0, 0, 0)
        if value == 0:
            os._exit(0)
        return name

    def enter(kind: str) -> str:
        fd = os.open(f"/proc/self/ns/{kind}", os.O_RDONLY)
        try:
            return call("setns", fd, 0)
        finally:
            os.close(fd)

    return {way.__name__: each(kinds, way) for way in (unshare, clone, enter)}


async def test_no_namespace_can_be_made_or_entered(probe: Probe) -> None:
    """Threat (11): a user namespace gives all capabilities and with them most kernel bugs."""
    verdict = await probe(namespace_calls)
    for way in ("unshare", "clone", "enter"):
        assert set(verdict[way].values()) == {"EPERM"}, way
    assert outside(namespace_calls)["unshare"]["user"] == "ok"


def clone3_and_children() -> dict[str, object]:
    """Call clone3, whose flags a filter cannot see, then start children the ordinary ways."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append("thread"))
    thread.start()
    thread.join()
    echo = subprocess.run(["/bin/echo", "child"], capture_output=True, text=True, check=True)
    forked = os.waitstatus_to_exitcode(in_child(lambda: True))
    return {
        "clone3": call("clone3", 0, 0),
        "works": [*answers, echo.stdout.strip(), forked],
    }


async def test_clone3_does_not_exist_and_children_start_anyway(probe: Probe) -> None:
    """Threat (12): clone3 makes namespaces with flags that no filter can read."""
    verdict = await probe(clone3_and_children)
    assert verdict == {"clone3": "ENOSYS", "works": ["thread", "child", 1]}
    assert outside(clone3_and_children)["clone3"] == "EINVAL"


async def test_other_processes_cannot_be_traced_or_read(probe: Probe) -> None:
    """Threat (13): read or rewrite the agent, or another kernel of the same user."""
    names = ("ptrace", "process_vm_readv", "process_vm_writev", "pidfd_getfd", "kcmp")
    await refuse(probe, *names, "process_madvise")
    control(*names)


async def test_keyrings_are_closed(probe: Probe) -> None:
    """Threat (15): keys are not namespaced, so they join sandboxes of one user id."""
    await refuse(probe, "keyctl", "add_key", "request_key")
    control("keyctl", "add_key", "request_key")


async def test_bpf_perf_and_userfaultfd_are_closed(probe: Probe) -> None:
    """Threat (16): the parts of the kernel that exploits are made of."""
    await refuse(probe, "bpf", "perf_event_open", "userfaultfd")


async def test_io_uring_is_closed(probe: Probe) -> None:
    """Threat (17): io_uring makes system calls that the filter never sees."""
    await refuse(probe, "io_uring_setup", "io_uring_enter", "io_uring_register")
    control("io_uring_enter")


async def test_modules_kexec_and_reboot_are_closed(probe: Probe) -> None:
    """Threat (18): replace or stop the kernel."""
    await refuse(probe, "init_module", "finit_module", "delete_module")
    await refuse(probe, "kexec_load", "kexec_file_load", "reboot")


async def test_clocks_names_and_the_kernel_log_are_closed(probe: Probe) -> None:
    """Threat (19): change what the whole machine shares, or read other people's messages."""
    await refuse(probe, "clock_settime", "settimeofday", "clock_adjtime", "adjtimex")
    await refuse(probe, "sethostname", "setdomainname", "syslog")


async def test_file_handles_are_closed(probe: Probe) -> None:
    """Threat (22): open a file of the host by its inode number ("shocker")."""
    await refuse(probe, "open_by_handle_at", "name_to_handle_at")
    control("name_to_handle_at")


async def test_the_rest_of_administration_is_closed(probe: Probe) -> None:
    """Threat: swap, quota, accounting, ports, NUMA placement and other relics."""
    names = """swapon swapoff acct quotactl quotactl_fd iopl ioperm vhangup fanotify_init
        fanotify_mark nfsservctl lookup_dcookie move_pages migrate_pages mbind set_mempolicy
        get_mempolicy modify_ldt uselib memfd_secret vmsplice"""
    verdict = await probe(with_bad_arguments, names.split())
    assert set(verdict.values()) <= {"EPERM", "ENOSYS"}, verdict


def personalities() -> dict[str, str]:
    """Ask for personalities that make a program weaker or change its table of calls."""
    wanted = {"read implies exec": 0x0400000, "32 bit": 0x0800000}

    def refused_in_child(name: str) -> str:
        status = in_child(lambda: call("personality", wanted[name]) == "EPERM")
        return "EPERM" if os.waitstatus_to_exitcode(status) == 1 else "ok"

    return {name: refused_in_child(name) for name in wanted}


async def test_personalities_that_weaken_a_program_are_refused(probe: Probe) -> None:
    """Threat: READ_IMPLIES_EXEC or a 32-bit personality makes an exploit easier."""
    assert set((await probe(personalities)).values()) == {"EPERM"}
    assert outside(personalities)["read implies exec"] == "ok"


def terminal_injection() -> dict[str, str]:
    """Push a character into a terminal of our own, the plain way and with high bits set."""
    import tty

    requests = {"sti": 0x5412, "high": 0x5412 | 1 << 32, "linux": 0x541C, "other": 0x541C | 1 << 40}
    main, side = os.openpty()
    tty.setraw(side)
    if os.fork() == 0:
        os.setsid()
        libc.ioctl(side, ctypes.c_ulong(0x540E), 0)  # TIOCSCTTY
        for name, request in requests.items():
            ctypes.set_errno(0)
            done = libc.ioctl(side, ctypes.c_ulong(request), b"x")
            answer = "ok" if done == 0 else name_of(ctypes.get_errno())
            os.write(side, f"{name} {answer} ".encode())
        os._exit(0)
    os.wait()
    words = os.read(main, 1000).decode().split()
    return dict(zip(words[::2], words[1::2], strict=True))


async def test_nothing_can_be_typed_into_a_terminal(probe: Probe) -> None:
    """Threat (28): TIOCSTI types commands into the terminal of whoever started the sandbox."""
    verdict = await probe(terminal_injection)
    assert verdict == dict.fromkeys(("sti", "high", "linux", "other"), "EPERM")
    # Kernels may refuse it themselves since 6.2, with EIO.
    assert outside(terminal_injection)["sti"] in ("ok", "EIO")


def sockets_by_family() -> dict[str, object]:
    """Make a socket of each family, and of each netlink protocol."""
    kinds = (1, 2, 3, 5)

    def best(family: int, protocol: int, maker: str) -> str:
        answers = set()
        for kind in kinds:
            ctypes.set_errno(0)
            pair = (ctypes.c_int * 2)(-1, -1)
            extra = (pair,) if maker == "socketpair" else ()
            fd = getattr(libc, maker)(family, kind, protocol, *extra)
            answers.add("ok" if fd >= 0 else name_of(ctypes.get_errno()))
            if fd >= 0:
                for made in pair if maker == "socketpair" else [fd]:
                    os.close(made)
        return "ok" if "ok" in answers else ",".join(sorted(answers))

    families = {str(n): best(n, 0, "socket") for n in range(64) if n != socket.AF_NETLINK}
    netlink = {str(n): best(socket.AF_NETLINK, n, "socket") for n in range(32)}
    pairs = {str(n): best(n, 0, "socketpair") for n in range(64)}
    return {"families": families, "netlink": netlink, "pairs": pairs}


async def test_only_unix_inet_and_route_sockets_exist(probe: Probe) -> None:
    """Threats (23, 24): vsock reaches a hypervisor; packet, alg and netlink reach kernel bugs."""
    verdict = await probe(sockets_by_family)
    open_families = {name for name, answer in verdict["families"].items() if answer == "ok"}
    assert open_families == {str(int(f)) for f in (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6)}
    answers = {answer for table in verdict.values() for answer in table.values()} - {"ok"}
    refusals = {word for answer in answers for word in answer.split(",")}
    assert refusals <= {"EAFNOSUPPORT", "ESOCKTNOSUPPORT"}
    assert verdict["families"]["40"] == "EAFNOSUPPORT"  # AF_VSOCK
    assert {name for name, answer in verdict["netlink"].items() if answer == "ok"} == {"0"}
    assert {name for name, answer in verdict["pairs"].items() if answer == "ok"} == {"1"}
    control = outside(sockets_by_family)
    assert len([answer for answer in control["netlink"].values() if answer == "ok"]) > 1


def raw_sockets() -> dict[str, str]:
    """Make raw sockets."""
    tcp, icmp, icmp6 = 6, 1, 58
    return {
        "icmp": attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, icmp),
        "tcp": attempt(socket.socket, socket.AF_INET, socket.SOCK_RAW, tcp),
        "icmp6": attempt(socket.socket, socket.AF_INET6, socket.SOCK_RAW, icmp6),
    }


async def test_raw_sockets_are_refused(probe: Probe) -> None:
    """Threat (25): forge packets."""
    assert set((await probe(raw_sockets)).values()) == {"EPERM"}
    assert set(outside(raw_sockets, in_namespaces=True).values()) == {"ok"}
