"""What the probes share. This file's text runs inside the sandbox, ahead of each probe.

Standard library only. System calls are made raw: Python's file objects swallow errors when they
are closed, and C libraries try other calls instead.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import signal
import socket
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

OK = "ok"
MACHINE = platform.machine()

_X86_64 = """
 ptrace:101 syslog:103 mknod:133 uselib:134 personality:135 vhangup:153 modify_ldt:154
 pivot_root:155 adjtimex:159 chroot:161 acct:163 settimeofday:164 mount:165 umount2:166
 swapon:167 swapoff:168 reboot:169 sethostname:170 setdomainname:171 iopl:172 ioperm:173
 init_module:175 delete_module:176 quotactl:179 nfsservctl:180 lookup_dcookie:212
 clock_settime:227 mbind:237 set_mempolicy:238 get_mempolicy:239 kexec_load:246 add_key:248
 request_key:249 keyctl:250 migrate_pages:256 unshare:272 vmsplice:278 move_pages:279
 perf_event_open:298 fanotify_init:300 fanotify_mark:301 prlimit64:302 name_to_handle_at:303
 open_by_handle_at:304 clock_adjtime:305 setns:308 process_vm_readv:310 process_vm_writev:311
 kcmp:312 finit_module:313 kexec_file_load:320 bpf:321 userfaultfd:323 clone:56 getppid:110
 clock_gettime:228
"""
_AARCH64 = """
 ptrace:117 syslog:116 personality:92 vhangup:58 pivot_root:41 adjtimex:171 chroot:51 acct:89
 settimeofday:170 mount:40 umount2:39 swapon:224 swapoff:225 reboot:142 sethostname:161
 setdomainname:162 init_module:105 delete_module:106 quotactl:60 nfsservctl:42
 lookup_dcookie:18 clock_settime:112 mbind:235 set_mempolicy:237 get_mempolicy:236
 kexec_load:104 add_key:217 request_key:218 keyctl:219 migrate_pages:238 unshare:97 vmsplice:75
 move_pages:239 perf_event_open:241 fanotify_init:262 fanotify_mark:263 prlimit64:261
 name_to_handle_at:264 open_by_handle_at:265 clock_adjtime:266 setns:268 process_vm_readv:270
 process_vm_writev:271 kcmp:272 finit_module:273 kexec_file_load:294 bpf:280 userfaultfd:282
 clone:220 getppid:173 clock_gettime:113
"""
_EVERYWHERE = """
 pidfd_send_signal:424 io_uring_setup:425 io_uring_enter:426 io_uring_register:427 open_tree:428
 move_mount:429 fsopen:430 fsconfig:431 fsmount:432 fspick:433 pidfd_open:434 clone3:435
 pidfd_getfd:438 process_madvise:440 mount_setattr:442 quotactl_fd:443 memfd_secret:447
 statmount:457 listmount:458 lsm_set_self_attr:460 open_tree_attr:467
"""


def _read_numbers(*tables: str) -> dict[str, int]:
    pairs = (entry.split(":") for table in tables for entry in table.split())
    return {name: int(number) for name, number in pairs}


NUMBERS = _read_numbers(_AARCH64 if MACHINE == "aarch64" else _X86_64, _EVERYWHERE)
"""System call numbers of this machine."""


def name_of(number: int) -> str:
    """Give the name of an error number."""
    return errno.errorcode.get(number, str(number))


def raw(number: int, *arguments: int | bytes | object) -> tuple[int, str]:
    """Make a system call by number; gives its value and "ok" or the name of the error."""
    ctypes.set_errno(0)
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    value = libc.syscall(ctypes.c_long(number), *words)
    return value, OK if value >= 0 else name_of(ctypes.get_errno())


def call(name: str, *arguments: int | bytes | object) -> str:
    """Make a system call; gives "ok" or the name of the error."""
    return raw(NUMBERS[name], *arguments)[1]


def attempt(action: Callable[..., object], *arguments: Any) -> str:
    """Do something; gives "ok" or the name of the error."""
    try:
        value = action(*arguments)
    except OSError as error:
        return name_of(error.errno or 0)
    if isinstance(value, socket.socket):
        value.close()
    return OK


def read_path(path: str, size: int = 4096) -> str:
    """Open and read a file; gives "ok", the name of the error, or "empty"."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        return name_of(error.errno or 0)
    try:
        return OK if os.read(fd, size) else "empty"
    except OSError as error:
        return name_of(error.errno or 0)
    finally:
        os.close(fd)


def write_path(path: str, data: bytes) -> str:
    """Open a file and write with one system call; gives "ok" or the name of the error."""
    try:
        fd = os.open(path, os.O_WRONLY)
    except OSError as error:
        return name_of(error.errno or 0)
    try:
        os.write(fd, data)
    except OSError as error:
        return name_of(error.errno or 0)
    finally:
        os.close(fd)
    return OK


def in_child(action: Callable[[], object]) -> int:
    """Do something in a forked child; gives its wait status, for what may be fatal."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        status = 99
        try:
            status = int(bool(action()))
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1]


def pids() -> list[int]:
    """List the processes that /proc shows."""
    return sorted(int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def status_of(pid: int | str = "self") -> dict[str, str]:
    """Read /proc/PID/status."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def each(names: Iterable[str], probe: Callable[[str], object]) -> dict[str, object]:
    """Probe each name and give what came of it."""
    return {name: probe(name) for name in names}
