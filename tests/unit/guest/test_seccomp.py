"""The filter's decisions, judged by a small BPF evaluator, and the filter in force."""

import errno
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import headrace_guest
from headrace_guest import seccomp
from headrace_guest.seccomp import ALLOW, KILL, REFUSED, UNKNOWN, Check, FilterSpec, fail_with

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
I386 = 0x40000003
HIGH = 0xFFFFFFFF_00000000
SOURCES = str(Path(headrace_guest.__file__).parents[1])


# --- deciding ---------------------------------------------------------------------------------


def evaluate(program: bytes, number: int, args: tuple[int, ...], audit_arch: int) -> int:
    """Run a program as the kernel does (seccomp(2)) and give its verdict."""
    padded = (*args, 0, 0, 0, 0, 0, 0)[:6]
    data = struct.pack("<II7Q", number, audit_arch, 0, *(arg % 2**64 for arg in padded))
    code = list(struct.iter_unpack("<HBBI", program))
    accumulator, at = 0, 0
    for _step in range(4096):
        operation, if_true, if_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                accumulator = struct.unpack_from("<I", data, operand)[0]
            case 0x54:
                accumulator &= operand
            case 0x05:
                at += operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x06:
                return int(operand)
            case _:
                raise AssertionError(f"instruction {operation:#x}")
    raise AssertionError("the program does not end")


@pytest.fixture(params=ARCHITECTURES)
def arch(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def judge(arch: str, name: str, *args: int) -> int:
    number = seccomp.syscall_numbers(arch)[name]
    return evaluate(seccomp.build_filter(arch), number, args, ARCHITECTURES[arch])


def test_every_number_gets_the_answer_of_the_spec(arch: str) -> None:
    spec = seccomp.sandbox_spec(arch)
    program = seccomp.build_filter(arch)
    for number in range(600):
        answer = spec.answers.get(number, UNKNOWN)
        if isinstance(answer, int):
            assert evaluate(program, number, (), ARCHITECTURES[arch]) == answer, number


def test_no_name_has_two_entries_and_no_number_two_names(arch: str) -> None:
    numbers = seccomp.syscall_numbers(arch)
    assert len(set(numbers.values())) == len(numbers)
    assert len(numbers) == len(seccomp.sandbox_spec(arch).answers)


def test_a_call_of_another_architecture_kills_the_process(arch: str) -> None:
    program = seccomp.build_filter(arch)
    assert evaluate(program, 20, (), I386) == KILL
    other = ARCHITECTURES["aarch64" if arch == "x86_64" else "x86_64"]
    assert evaluate(program, 20, (), other) == KILL


X32 = [0x40000000, 0x40000000 + 39, 0x400001FF, 0x7FFFFFFF, 2**32 - 1]
NOT_JUDGED = [451, 457, 458, 468, 469, 500, 1000]


@pytest.mark.parametrize("number", X32 + NOT_JUDGED)
def test_x32_calls_and_calls_that_nobody_has_judged_are_unknown(arch: str, number: int) -> None:
    assert evaluate(seccomp.build_filter(arch), number, (), ARCHITECTURES[arch]) == UNKNOWN


DANGEROUS = """
    mount umount2 pivot_root chroot open_tree open_tree_attr fsopen move_mount mount_setattr
    unshare setns sethostname ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp
    add_key request_key keyctl bpf perf_event_open userfaultfd vmsplice
    io_uring_setup io_uring_enter io_uring_register init_module finit_module kexec_load
    kexec_file_load reboot syslog clock_settime clock_adjtime swapon acct quotactl_fd
    open_by_handle_at name_to_handle_at fanotify_init
"""


@pytest.mark.parametrize("name", DANGEROUS.split())
def test_a_dangerous_call_is_refused(arch: str, name: str) -> None:
    assert judge(arch, name) == REFUSED


X86_NUMBERS = {"io_setup": 206, "io_submit": 209, "mbind": 237, "get_mempolicy": 239}
X86_NUMBERS |= {"move_pages": 279, "remap_file_pages": 216, "memfd_secret": 447}
X86_NUMBERS |= {"process_mrelease": 448, "uselib": 134, "ustat": 136}


@pytest.mark.parametrize("name", X86_NUMBERS)
def test_a_call_that_nothing_needs_is_unknown(name: str) -> None:
    program = seccomp.build_filter("x86_64")
    assert evaluate(program, X86_NUMBERS[name], (), ARCHITECTURES["x86_64"]) == UNKNOWN


ORDINARY = """
    read openat splice sendfile inotify_add_watch fchmodat2 getxattrat execve wait4 pidfd_open
    pidfd_send_signal seccomp rseq setresuid setgroups capset landlock_restrict_self futex
    mprotect shmget mq_open accept4 sendmsg clock_nanosleep getrandom close_range
"""


@pytest.mark.parametrize("name", ORDINARY.split())
def test_ordinary_work_is_allowed(arch: str, name: str) -> None:
    assert judge(arch, name, *[2**64 - 1] * 6) == ALLOW


def test_the_numbers_that_libraries_rely_on_are_right() -> None:
    x86, arm = seccomp.syscall_numbers("x86_64"), seccomp.syscall_numbers("aarch64")
    assert (x86["read"], x86["clone"], x86["prlimit64"], x86["ioctl"]) == (0, 56, 302, 16)
    assert (arm["read"], arm["clone"], arm["prlimit64"], arm["ioctl"]) == (63, 220, 261, 29)
    assert (x86["prctl"], x86["seccomp"], x86["clone3"]) == (157, 317, 435)
    assert (arm["prctl"], arm["seccomp"], arm["clone3"]) == (167, 277, 435)
    assert "open" in x86
    assert "open" not in arm


def test_clone_makes_threads_and_processes(arch: str) -> None:
    pthread_flags = 0x003D0F00
    assert judge(arch, "clone", pthread_flags) == ALLOW
    assert judge(arch, "clone", 0x01200000 | signal.SIGCHLD) == ALLOW
    assert judge(arch, "clone", 0x00004100 | signal.SIGCHLD) == ALLOW


NAMESPACES = [0x20000, *(1 << bit for bit in range(25, 31))]
PARENT = 0x8000


@pytest.mark.parametrize("flag", [*NAMESPACES, PARENT])
def test_clone_makes_no_namespace_and_no_child_of_the_parent(arch: str, flag: int) -> None:
    assert judge(arch, "clone", flag | signal.SIGCHLD) == REFUSED
    assert judge(arch, "clone", HIGH | flag) == REFUSED


def test_clone3_is_unknown_so_that_libc_falls_back(arch: str) -> None:
    assert judge(arch, "clone3", 0x1234, 88) == UNKNOWN


SOCKETS = [(1, 5, 0), (1, 1 | 0x80000, 1), (2, 1, 0), (2, 1 | 0x80800, 6), (10, 2, 17)]
SOCKETS += [(2, 2, 1), (10, 2, 58), (2, 3, 1), (16, 3 | 0x80000, 0), (HIGH | 2, HIGH | 1, HIGH)]


@pytest.mark.parametrize(("family", "kind", "protocol"), SOCKETS)
def test_sockets_of_the_internet_and_unix_are_allowed(
    arch: str, family: int, kind: int, protocol: int
) -> None:
    assert judge(arch, "socket", family, kind, protocol) == ALLOW


@pytest.mark.parametrize("family", [0, 3, 9, 15, 17, 21, 29, 30, 31, 38, 40, 43, 44, 2**32 - 1])
@pytest.mark.parametrize("high", [0, HIGH, 1 << 32])
def test_sockets_of_other_families_are_refused(arch: str, family: int, high: int) -> None:
    assert judge(arch, "socket", high | family, 1, 0) == fail_with(errno.EAFNOSUPPORT)


@pytest.mark.parametrize("protocol", [1, 2, 4, 6, 9, 12, 15, 16, 17])
def test_netlink_is_only_for_routes(arch: str, protocol: int) -> None:
    assert judge(arch, "socket", 16, 3, protocol) == fail_with(errno.EAFNOSUPPORT)


@pytest.mark.parametrize("kind", [0, 4, 5, 6, 10, 10 | 0x80000])
def test_internet_sockets_of_rare_types_are_refused(arch: str, kind: int) -> None:
    assert judge(arch, "socket", 2, kind, 0) == fail_with(errno.ESOCKTNOSUPPORT)


@pytest.mark.parametrize("protocol", [33, 115, 132, 136, 255, 256, 262])
def test_internet_protocols_that_load_modules_are_refused(arch: str, protocol: int) -> None:
    assert judge(arch, "socket", 10, 1, protocol) == fail_with(errno.EPROTONOSUPPORT)


def test_socket_pairs_are_unix_only(arch: str) -> None:
    assert judge(arch, "socketpair", 1, 5, 0) == ALLOW
    assert judge(arch, "socketpair", HIGH | 30, 1, 0) == fail_with(errno.EAFNOSUPPORT)


def test_socket_options_are_free_but_for_upper_layer_protocols(arch: str) -> None:
    assert judge(arch, "setsockopt", 3, 1, 31) == ALLOW
    assert judge(arch, "setsockopt", 3, 6, 1) == ALLOW
    assert judge(arch, "setsockopt", 3, HIGH | 6, HIGH | 31) == fail_with(errno.ENOENT)


@pytest.mark.parametrize("command", [0x5412, 0x541C, 0x5423])
@pytest.mark.parametrize("high", [0, HIGH, 1 << 32])
def test_nothing_is_typed_into_a_terminal(arch: str, command: int, high: int) -> None:
    assert judge(arch, "ioctl", 0, high | command) == REFUSED


@pytest.mark.parametrize("command", [0x5401, 0x5410, 0x5413, 0x5414, 0x541B, 0x8912])
def test_other_terminal_and_descriptor_commands_are_allowed(arch: str, command: int) -> None:
    assert judge(arch, "ioctl", 0, command) == ALLOW


def test_reserved_huge_pages_are_not_there(arch: str) -> None:
    private_anonymous = 0x22
    assert judge(arch, "mmap", 0, 4096, 3, private_anonymous) == ALLOW
    assert judge(arch, "mmap", 0, 4096, 3, private_anonymous | 0x40000) == fail_with(errno.ENOMEM)
    assert judge(arch, "memfd_create", 1, 3) == ALLOW
    assert judge(arch, "memfd_create", 1, 4) == fail_with(errno.ENOSYS)


def test_pages_are_not_offered_for_merging(arch: str) -> None:
    assert judge(arch, "madvise", 0, 4096, 4) == ALLOW
    assert judge(arch, "madvise", 0, 4096, HIGH | 12) == fail_with(errno.EINVAL)


def test_prctl_is_free_but_for_core_scheduling(arch: str) -> None:
    assert judge(arch, "prctl", 38, 1) == ALLOW
    assert judge(arch, "prctl", 62, 1) == fail_with(errno.EINVAL)


def test_limits_of_other_processes_can_only_be_read(arch: str) -> None:
    pointer = 0x7FFF_1234_5678
    assert judge(arch, "prlimit64", 0, 7, pointer, 0) == ALLOW
    assert judge(arch, "prlimit64", 1, 7, 0, pointer) == ALLOW
    assert judge(arch, "prlimit64", 1, 7, pointer, 0) == REFUSED
    assert judge(arch, "prlimit64", 1, 7, 0xFFFF_FFFF, 0) == REFUSED
    assert judge(arch, "prlimit64", 1, 7, 0x1_0000_0000, 0) == REFUSED
    assert judge(arch, "prlimit64", HIGH | 1, 7, pointer, 0) == REFUSED


def test_personality_turns_nothing_off_but_address_randomisation(arch: str) -> None:
    for persona in (0, 0x40000, 0xFFFFFFFF):
        assert judge(arch, "personality", persona) == ALLOW
    for persona in (0x400000, 0x440000, 8, 0x20000, 1):
        assert judge(arch, "personality", persona) == REFUSED


def test_sync_only_seems_to_work(arch: str) -> None:
    assert judge(arch, "sync") == fail_with(0)
    assert judge(arch, "fsync", 3) == ALLOW


def test_an_unknown_architecture_is_named() -> None:
    with pytest.raises(ValueError, match="'riscv64'"):
        seccomp.build_filter("riscv64")


VERDICTS = st.sampled_from([ALLOW, REFUSED, UNKNOWN, fail_with(errno.EINVAL)])


@given(st.dictionaries(st.integers(0, 1500), VERDICTS, max_size=40))
def test_any_table_of_verdicts_is_compiled_faithfully(answers: Mapping[int, int]) -> None:
    program = seccomp.assemble(FilterSpec(7, answers))
    for number in {0, 1501, *answers, *(number + 1 for number in answers)}:
        assert evaluate(program, number, (), 7) == answers.get(number, UNKNOWN)
        assert evaluate(program, number, (), 8) == KILL


def test_a_tree_too_big_for_short_jumps_is_compiled_faithfully() -> None:
    answers = dict.fromkeys(range(0, 1600, 2), ALLOW)
    program = seccomp.assemble(FilterSpec(7, answers))
    for number in range(1602):
        assert evaluate(program, number, (), 7) == answers.get(number, UNKNOWN)


WORDS = st.integers(0, 2**64 - 1) | st.integers(0, 3)
CHECKS = st.builds(
    Check,
    argument=st.integers(0, 5),
    values=st.lists(st.integers(0, 3), min_size=1, max_size=4).map(tuple),
    verdict=VERDICTS,
    is_match=st.booleans(),
    mask=st.sampled_from([0xFFFFFFFF, 3, 1]),
    is_high=st.booleans(),
)


@given(st.lists(CHECKS, max_size=5), st.tuples(WORDS, WORDS, WORDS, WORDS, WORDS, WORDS))
def test_any_rule_is_compiled_faithfully(rule: list[Check], args: tuple[int, ...]) -> None:
    expected = ALLOW
    for check in rule:
        half = args[check.argument] >> (32 if check.is_high else 0) & 0xFFFFFFFF
        if ((half & check.mask) in check.values) == check.is_match:
            expected = check.verdict
            break
    program = seccomp.assemble(FilterSpec(7, {5: tuple(rule)}))
    assert evaluate(program, 5, args, 7) == expected


# --- in force ---------------------------------------------------------------------------------

PRELUDE = f"""
import ctypes, errno, json, mmap, os, signal, socket, sys
sys.path.insert(0, {SOURCES!r})
from headrace_guest import linux, seccomp
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
numbers = seccomp.syscall_numbers(os.uname().machine)
def attempt(name, *args):
    number = numbers[name] if isinstance(name, str) else name
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_ulong(arg) for arg in args])
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]
linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
seccomp.install(seccomp.build_filter())
"""


def run_filtered(code: str) -> subprocess.CompletedProcess[str]:
    """Run code in a fresh interpreter that has put itself under the filter."""
    command = [sys.executable, "-c", PRELUDE + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def attempts(calls: Mapping[str, str]) -> dict[str, str]:
    """Make calls, written as the arguments of `attempt`, under the filter; give each outcome."""
    lines = "".join(f"outcome[{label!r}] = attempt({call})\n" for label, call in calls.items())
    done = run_filtered("outcome = {}\n" + lines + "print(json.dumps(outcome))")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_dangerous_calls_are_refused_for_real() -> None:
    calls = ["keyctl", "unshare", "mount", "ptrace", "bpf", "setns", "io_uring_setup", "chroot"]
    calls += ["perf_event_open", "userfaultfd", "open_by_handle_at", "init_module", "syslog"]
    assert attempts({name: repr(name) for name in calls}) == dict.fromkeys(calls, "EPERM")


def test_calls_are_judged_by_number_and_argument_for_real() -> None:
    calls = {
        "'clone3', 0, 0": "ENOSYS",
        "'clone', 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0": "EPERM",
        "'clone', 0x8000 | signal.SIGCHLD, 0, 0, 0, 0": "EPERM",
        "'socket', socket.AF_ALG, 5, 0": "EAFNOSUPPORT",
        "'socket', socket.AF_VSOCK, 1, 0": "EAFNOSUPPORT",
        "'socket', socket.AF_PACKET, 3, 0": "EAFNOSUPPORT",
        "'socket', socket.AF_NETLINK, 3, 9": "EAFNOSUPPORT",
        "'socket', socket.AF_INET, 1, socket.IPPROTO_SCTP": "EPROTONOSUPPORT",
        "'mmap', 0, 1 << 21, 3, 0x40022, 2**64 - 1, 0": "ENOMEM",
        "'madvise', 0, 4096, 12": "EINVAL",
        "'ioctl', 0, (1 << 32) | 0x5412, 0": "EPERM",
        "'personality', 0x400000": "EPERM",
        "'prlimit64', os.getppid(), 7, id(bytes(64)), 0": "EPERM",
        "'prlimit64', os.getppid(), 7, 0, 0": "ok",
        "0x40000000 + numbers['getpid']": "ENOSYS",
        "100000": "ENOSYS",
    }
    assert attempts({call: call for call in calls}) == calls


def test_a_call_through_the_32_bit_gate_kills_the_process() -> None:
    if os.uname().machine != "x86_64":
        return  # no other architecture has this gate
    done = run_filtered("""
page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
page.write(bytes.fromhex("b814000000" "cd80" "c3"))  # mov eax, 20 (getpid); int 0x80; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(page))
print("before", flush=True)
ctypes.CFUNCTYPE(ctypes.c_int)(address)()
print("after", flush=True)
""")
    assert done.stdout == "before\n"
    assert done.returncode == -signal.SIGSYS


def test_the_filter_holds_for_programs_that_are_started() -> None:
    done = run_filtered("""
import subprocess
print(open("/proc/self/status").read().count("Seccomp:\\t2"), flush=True)
status = subprocess.run(["unshare", "--user", "true"], capture_output=True).returncode
print(status != 0, flush=True)
print(subprocess.run(["grep", "-c", "Seccomp:.2", "/proc/self/status"]).returncode)
""")
    assert done.stdout.split() == ["1", "True", "1", "0"]


def test_a_filter_without_no_new_privileges_needs_a_privilege() -> None:
    code = PRELUDE.replace("linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)\n", "")
    dropped = "linux.set_capabilities((), ())\nseccomp.install(seccomp.build_filter())"
    code = code.replace("seccomp.install(seccomp.build_filter())", dropped)
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert "PermissionError" in done.stderr
    assert "seccomp" in done.stderr


ORDINARY_WORK = {
    "threads": """
import threading
done = []
threads = [threading.Thread(target=done.append, args=(n,)) for n in range(50)]
[t.start() for t in threads]; [t.join() for t in threads]
assert sorted(done) == list(range(50))
""",
    "programs": """
import subprocess
assert subprocess.check_output(["sh", "-c", "echo $((6*7)) | cat"]) == b"42\\n"
assert subprocess.check_output(["git", "--version"]).startswith(b"git")
assert subprocess.check_output([sys.executable, "-c", "print(7)"]) == b"7\\n"
""",
    "multiprocessing": """
import multiprocessing as mp
from multiprocessing import shared_memory
context = mp.get_context("fork")
gate, queue = context.Semaphore(0), context.SimpleQueue()
def work(): gate.acquire(); queue.put(os.getpid())
child = context.Process(target=work)
child.start(); gate.release(); child.join(10)
assert queue.get() == child.pid
memory = shared_memory.SharedMemory(create=True, size=4096)
memory.close(); memory.unlink()
""",
    "asyncio": """
import asyncio
async def main():
    child = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    out, _ = await child.communicate(b"hello")
    assert out == b"hello"
    async def answer(reader, writer):
        writer.write(await reader.readexactly(2)); await writer.drain(); writer.close()
        await writer.wait_closed()
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.write(b"hi")
    assert await reader.read() == b"hi"
    writer.close(); await writer.wait_closed(); server.close(); await server.wait_closed()
asyncio.run(main())
""",
    "sockets": """
a, b = socket.socketpair()
a.sendall(b"x"); assert b.recv(1) == b"x"
socket.send_fds(a, [b"f"], [0]); [os.close(fd) for fd in socket.recv_fds(b, 1, 1)[1]]
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as s: s.setsockopt(41, 26, 1)
with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0) as s: s.bind((0, 0))
assert socket.if_nameindex() and socket.getaddrinfo("127.0.0.1", 80)
""",
    "terminals": """
import fcntl, pty, struct, termios, time
pid, fd = pty.fork()
if pid == 0: os.execvp("stty", ["stty", "size"])
fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))
out = b""
try:
    while block := os.read(fd, 1000): out += block
except OSError: pass
os.waitpid(pid, 0)
assert len(out.split()) == 2
""",
    "files": """
import select, tempfile, time
with tempfile.TemporaryDirectory() as d:
    inotify = libc.inotify_init1(os.O_CLOEXEC)
    assert libc.inotify_add_watch(inotify, d.encode(), 0x100) > 0
    path = d + "/f"
    with open(path, "wb") as f: f.write(bytes(100_000)); os.fsync(f.fileno())
    assert select.select([inotify], [], [], 5)[0]
    os.sync(); os.mkfifo(d + "/p"); os.symlink("f", d + "/s"); os.chmod(path, 0o600)
    r, w = os.pipe()
    fd = os.open(path, os.O_RDONLY)
    assert os.sendfile(w, fd, 0, 1000) == 1000
    with open(d + "/g", "wb") as out: assert os.splice(r, out.fileno(), 500) == 500
    mmap.mmap(fd, 0, prot=mmap.PROT_READ).madvise(mmap.MADV_WILLNEED)
    os.copy_file_range(fd, os.open(d + "/g", os.O_RDWR), 10)
""",
    "agent": """
child = os.fork()
if child == 0: signal.pause()
handle = os.pidfd_open(child)
signal.pidfd_send_signal(handle, signal.SIGTERM)
info = os.waitid(os.P_PIDFD, handle, os.WEXITED)
assert info.si_status == signal.SIGTERM
linux.prctl(linux.PR_SET_DUMPABLE, 0); os.setpriority(0, 0, 1); os.sched_setaffinity(0, [0])
if os.getuid() == 0: os.setgroups([]); os.setresgid(1, 1, 1); os.setresuid(1, 1, 1)
linux.set_capabilities((), ())
""",
}


@pytest.mark.parametrize("kind", ORDINARY_WORK)
def test_ordinary_work_runs_under_the_filter(kind: str) -> None:
    done = run_filtered(ORDINARY_WORK[kind] + "\nprint('done')")
    assert (done.returncode, done.stdout.split()[-1:]) == (0, ["done"]), done.stderr
