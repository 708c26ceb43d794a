"""The system calls that code in a sandbox may make, and the filter that holds it to them.

An allow-list: tables and rules, which pure functions compile into a classic BPF program for
seccomp(2). A balanced tree over ranges of numbers finds a call's answer; a few calls are judged
by their arguments. An unknown call gets ENOSYS, so that programs fall back to an older one.
"""

import ctypes
import errno
import platform
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headrace_guest import linux

ALLOW = 0x7FFF0000
KILL = 0x80000000


def fail_with(error: int) -> int:
    """Give the verdict that makes a call fail with this errno; 0 pretends that it worked."""
    return 0x00050000 | error


UNKNOWN = fail_with(errno.ENOSYS)
REFUSED = fail_with(errno.EPERM)


# --- the calls, as name:x86_64:aarch64, one number if both have the same, - if there is none ---

_FILES = """
    read:0:63 write:1:64 open:2:- openat:257:56 openat2:437 creat:85:- close:3:57
    close_range:436 lseek:8:62 pread64:17:67 pwrite64:18:68 readv:19:65 writev:20:66
    preadv:295:69 pwritev:296:70 preadv2:327:286 pwritev2:328:287 sendfile:40:71 splice:275:76
    tee:276:77 copy_file_range:326:285 readahead:187:213 fadvise64:221:223 stat:4:- fstat:5:80
    lstat:6:- newfstatat:262:79 statx:332:291 access:21:- faccessat:269:48 faccessat2:439
    readlink:89:- readlinkat:267:78 getdents:78:- getdents64:217:61 getcwd:79:17 chdir:80:49
    fchdir:81:50 statfs:137:43 fstatfs:138:44 mkdir:83:- mkdirat:258:34 rmdir:84:- rename:82:-
    renameat:264:38 renameat2:316:276 link:86:- linkat:265:37 unlink:87:- unlinkat:263:35
    symlink:88:- symlinkat:266:36 mknod:133:- mknodat:259:33 truncate:76:45 ftruncate:77:46
    fallocate:285:47 chmod:90:- fchmod:91:52 fchmodat:268:53 fchmodat2:452 chown:92:-
    fchown:93:55 lchown:94:- fchownat:260:54 umask:95:166 utime:132:- utimes:235:-
    utimensat:280:88 futimesat:261:- setxattr:188:5 lsetxattr:189:6 fsetxattr:190:7
    getxattr:191:8 lgetxattr:192:9 fgetxattr:193:10 listxattr:194:11 llistxattr:195:12
    flistxattr:196:13 removexattr:197:14 lremovexattr:198:15 fremovexattr:199:16
    setxattrat:463 getxattrat:464 listxattrat:465 removexattrat:466 fsync:74:82
    fdatasync:75:83 syncfs:306:267 sync_file_range:277:84 flock:73:32 fcntl:72:25 dup:32:23
    dup2:33:- dup3:292:24 pipe:22:- pipe2:293:59 inotify_init:253:- inotify_init1:294:26
    inotify_add_watch:254:27 inotify_rm_watch:255:28
"""

_WAITING = """
    select:23:- pselect6:270:72 poll:7:- ppoll:271:73 epoll_create:213:- epoll_create1:291:20
    epoll_ctl:233:21 epoll_wait:232:- epoll_pwait:281:22 epoll_pwait2:441 eventfd:284:-
    eventfd2:290:19 signalfd:282:- signalfd4:289:74 timerfd_create:283:85
    timerfd_settime:286:86 timerfd_gettime:287:87 futex:202:98 futex_waitv:449 futex_wake:454
    futex_wait:455 futex_requeue:456 set_robust_list:273:99 get_robust_list:274:100
    nanosleep:35:101 clock_nanosleep:230:115 clock_gettime:228:113 clock_getres:229:114
    gettimeofday:96:169 time:201:- alarm:37:- getitimer:36:102 setitimer:38:103
    timer_create:222:107 timer_settime:223:110 timer_gettime:224:108 timer_getoverrun:225:109
    timer_delete:226:111 pause:34:-
"""

_MEMORY = """
    brk:12:214 munmap:11:215 mremap:25:216 mprotect:10:226 msync:26:227 mincore:27:232
    mlock:149:228 mlock2:325:284 munlock:150:229 mlockall:151:230 munlockall:152:231
    membarrier:324:283 mseal:462 pkey_alloc:330:289 pkey_free:331:290 pkey_mprotect:329:288
    map_shadow_stack:453 shmget:29:194 shmat:30:196 shmdt:67:197 shmctl:31:195 semget:64:190
    semop:65:193 semtimedop:220:192 semctl:66:191 msgget:68:186 msgsnd:69:189 msgrcv:70:188
    msgctl:71:187 mq_open:240:180 mq_unlink:241:181 mq_timedsend:242:182
    mq_timedreceive:243:183 mq_notify:244:184 mq_getsetattr:245:185
"""

_PROCESSES = """
    fork:57:- vfork:58:- execve:59:221 execveat:322:281 exit:60:93 exit_group:231:94
    wait4:61:260 waitid:247:95 arch_prctl:158:- set_tid_address:218:96 rseq:334:293
    restart_syscall:219:128 kill:62:129 tkill:200:130 tgkill:234:131 rt_sigaction:13:134
    rt_sigprocmask:14:135 rt_sigreturn:15:139 rt_sigpending:127:136 rt_sigsuspend:130:133
    rt_sigtimedwait:128:137 rt_sigqueueinfo:129:138 rt_tgsigqueueinfo:297:240
    sigaltstack:131:132 pidfd_open:434 pidfd_send_signal:424 getpid:39:172 getppid:110:173
    gettid:186:178 getpgid:121:155 setpgid:109:154 getpgrp:111:- getsid:124:156 setsid:112:157
    getuid:102:174 geteuid:107:175 getgid:104:176 getegid:108:177 getgroups:115:158
    setgroups:116:159 setuid:105:146 setgid:106:144 setreuid:113:145 setregid:114:143
    getresuid:118:148 setresuid:117:147 getresgid:120:150 setresgid:119:149 setfsuid:122:151
    setfsgid:123:152 capget:125:90 capset:126:91 getrlimit:97:163 setrlimit:160:164
    getrusage:98:165 times:100:153 getpriority:140:141 setpriority:141:140 ioprio_get:252:31
    ioprio_set:251:30 sched_yield:24:124 sched_getaffinity:204:123 sched_setaffinity:203:122
    sched_getattr:315:275 sched_setattr:314:274 sched_getparam:143:121 sched_setparam:142:118
    sched_getscheduler:145:120 sched_setscheduler:144:119 sched_get_priority_max:146:125
    sched_get_priority_min:147:126 sched_rr_get_interval:148:127 getcpu:309:168
    getrandom:318:278 uname:63:160 sysinfo:99:179 seccomp:317:277 landlock_create_ruleset:444
    landlock_add_rule:445 landlock_restrict_self:446
"""

_SOCKETS = """
    bind:49:200 listen:50:201 accept:43:202 accept4:288:242 connect:42:203 shutdown:48:210
    getsockname:51:204 getpeername:52:205 getsockopt:55:209 sendto:44:206 recvfrom:45:207
    sendmsg:46:211 recvmsg:47:212 sendmmsg:307:269 recvmmsg:299:243
"""

_ALLOWED = (_FILES, _WAITING, _MEMORY, _PROCESSES, _SOCKETS)

# What reaches beyond the sandbox, or into another process, or has a long record of holes. EPERM
# and not ENOSYS, because programs know it as what an ordinary user gets.
_DANGEROUS = """
    mount:165:40 umount2:166:39 pivot_root:155:41 chroot:161:51 open_tree:428
    open_tree_attr:467 move_mount:429 fsopen:430 fsconfig:431 fsmount:432 fspick:433
    mount_setattr:442 swapon:167:224 swapoff:168:225 quotactl:179:60 quotactl_fd:443
    acct:163:89 vhangup:153:58 unshare:272:97 setns:308:268 sethostname:170:161
    setdomainname:171:162 ptrace:101:117 process_vm_readv:310:270 process_vm_writev:311:271
    process_madvise:440 pidfd_getfd:438 kcmp:312:272 add_key:248:217 request_key:249:218
    keyctl:250:219 bpf:321:280 perf_event_open:298:241 userfaultfd:323:282 io_uring_setup:425
    io_uring_enter:426 io_uring_register:427 init_module:175:105 finit_module:313:273
    delete_module:176:106 kexec_load:246:104 kexec_file_load:320:294 reboot:169:142
    syslog:103:116 iopl:172:- ioperm:173:- modify_ldt:154:- vmsplice:278:75
    settimeofday:164:170 clock_settime:227:112 clock_adjtime:305:266 adjtimex:159:171
    name_to_handle_at:303:264 open_by_handle_at:304:265 fanotify_init:300:262
    fanotify_mark:301:263
"""

# Judged by argument, see _RULES.
_JUDGED = """
    clone:56:220 clone3:435 socket:41:198 socketpair:53:199 setsockopt:54:208 ioctl:16:29
    mmap:9:222 madvise:28:233 memfd_create:319:279 prctl:157:167 prlimit64:302:261
    personality:135:92 sync:162:81
"""

# On purpose in no table, hence ENOSYS:
# - aio (io_setup(2) and the others): its number of events is one limit for the whole host, so
#   that one sandbox could use up everybody's;
# - NUMA placement (mbind, set_mempolicy, get_mempolicy, move_pages, migrate_pages): libnuma takes
#   ENOSYS for a machine without NUMA, but warns on EPERM;
# - cachestat: some kernels tell by it what others read from shared files (CVE-2025-21691);
# - statmount, listmount, lsm_*, file_setattr, process_mrelease, memfd_secret, remap_file_pages
#   and what is obsolete: nothing needs them.


# --- rules ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """One question about one argument of a call.

    It looks at 32 bits of the argument (the upper half if ``is_high``) under ``mask``. If they
    are one of ``values``, or with ``is_match`` False if they are none of them, the verdict is
    given; otherwise the next check is made, and after the last one the call is allowed.
    """

    argument: int
    values: tuple[int, ...]
    verdict: int
    is_match: bool
    mask: int = 0xFFFFFFFF
    is_high: bool = False


def _when(argument: int, values: tuple[int, ...], error: int, *, mask: int = 0xFFFFFFFF) -> Check:
    return Check(argument, values, fail_with(error), is_match=True, mask=mask)


def _unless(argument: int, values: tuple[int, ...], error: int, *, mask: int = 0xFFFFFFFF) -> Check:
    return Check(argument, values, fail_with(error), is_match=False, mask=mask)


def _allow_when(argument: int, values: tuple[int, ...]) -> Check:
    return Check(argument, values, ALLOW, is_match=True)


def _allow_unless(argument: int, values: tuple[int, ...]) -> Check:
    return Check(argument, values, ALLOW, is_match=False)


Rule = tuple[Check, ...]
Answer = int | Rule

_CLONE_PARENT = 0x00008000
_CLONE_REFUSED = (
    _CLONE_PARENT
    | linux.CLONE_NEWNS
    | linux.CLONE_NEWCGROUP
    | linux.CLONE_NEWUTS
    | linux.CLONE_NEWIPC
    | linux.CLONE_NEWUSER
    | linux.CLONE_NEWPID
    | linux.CLONE_NEWNET
)
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_SOCK_STREAM, _SOCK_DGRAM, _SOCK_RAW = 1, 2, 3
_SOCK_TYPE_MASK = 0xF
_IPPROTO_ICMP, _IPPROTO_TCP, _IPPROTO_UDP, _IPPROTO_ICMPV6 = 1, 6, 17, 58
_SOL_TCP, _TCP_ULP = 6, 31
_TIOCSTI, _TIOCLINUX, _TIOCSETD = 0x5412, 0x541C, 0x5423
_MAP_HUGETLB, _MFD_HUGETLB = 0x40000, 4
_MADV_MERGEABLE = 12
_PR_SCHED_CORE = 62
_PER_LINUX, _ADDR_NO_RANDOMIZE, _PERSONALITY_QUERY = 0, 0x0040000, 0xFFFFFFFF

# An argument that the kernel takes as a 32-bit int is compared by its lower half only: the
# kernel ignores the upper one, so a rule that looked at it could be walked around.
_RULES: Mapping[str, Answer] = {
    # clone(2): no new namespace. And no CLONE_PARENT: the child would be one of the fork server's,
    # outside the sandbox, which does not know it; until it is reaped the sandbox's PID 1, though
    # killed, cannot end.
    "clone": (_unless(0, (0,), errno.EPERM, mask=_CLONE_REFUSED),),
    # clone3(2): its flags are in memory, where a filter cannot look; libc falls back to clone.
    "clone3": UNKNOWN,
    # socket(2): vsock(7) is in no namespace and reaches a hypervisor, AF_ALG, packet(7) and the
    # others have a long record of holes; of netlink(7) only NETLINK_ROUTE, which is 0. Of ip(7)
    # no type or protocol that makes the kernel load a module (SCTP, DCCP, L2TP), nor the old
    # SOCK_PACKET, which is AF_PACKET by another name. Raw sockets need a capability anyway.
    "socket": (
        _allow_when(0, (_AF_UNIX,)),
        _unless(0, (_AF_INET, _AF_INET6, _AF_NETLINK), errno.EAFNOSUPPORT),
        _unless(
            1,
            (_SOCK_STREAM, _SOCK_DGRAM, _SOCK_RAW),
            errno.ESOCKTNOSUPPORT,
            mask=_SOCK_TYPE_MASK,
        ),
        _allow_when(2, (0,)),
        _when(0, (_AF_NETLINK,), errno.EAFNOSUPPORT),
        _unless(
            2,
            (_IPPROTO_ICMP, _IPPROTO_TCP, _IPPROTO_UDP, _IPPROTO_ICMPV6),
            errno.EPROTONOSUPPORT,
        ),
    ),
    # socketpair(2): only unix(7) has pairs that anybody uses.
    "socketpair": (_unless(0, (_AF_UNIX,), errno.EAFNOSUPPORT),),
    # tcp(7): upper layer protocols (kernel TLS) have a record of holes; ENOENT is "not loaded".
    "setsockopt": (_allow_unless(1, (_SOL_TCP,)), _when(2, (_TCP_ULP,), errno.ENOENT)),
    # ioctl_tty(2): TIOCSTI and TIOCLINUX type into a terminal, whose other end is outside.
    # TIOCSETD loads line disciplines (n_gsm, n_hdlc), which have a record of holes.
    "ioctl": (_when(1, (_TIOCSTI, _TIOCLINUX, _TIOCSETD), errno.EPERM),),
    # mmap(2), memfd_create(2): huge pages that the operator set aside belong to the whole host
    # and no memory limit counts them.
    "mmap": (_unless(3, (0,), errno.ENOMEM, mask=_MAP_HUGETLB),),
    "memfd_create": (_unless(1, (0,), errno.ENOSYS, mask=_MFD_HUGETLB),),
    # madvise(2): merged pages tell by timing what others, for instance virtual machines on the
    # same host, have in memory. EINVAL is a kernel without KSM.
    "madvise": (_when(2, (_MADV_MERGEABLE,), errno.EINVAL),),
    # prctl(2): a core scheduling cookie forces the sibling hyperthreads of others to idle.
    # EINVAL is a kernel without it.
    "prctl": (_when(0, (_PR_SCHED_CORE,), errno.EINVAL),),
    # getrlimit(2): prlimit64 could take the last descriptor from the agent. Limits of other
    # processes may be read (new_limit, a pointer, is NULL in both halves); pid 0 is the caller.
    "prlimit64": (
        _allow_when(0, (0,)),
        _unless(2, (0,), errno.EPERM),
        Check(2, (0,), REFUSED, is_match=False, is_high=True),
    ),
    # personality(2): the others change how memory is protected and laid out.
    "personality": (_unless(0, (_PER_LINUX, _ADDR_NO_RANDOMIZE, _PERSONALITY_QUERY), errno.EPERM),),
    # sync(2) would write out the disks of the whole host. A sandbox's own files do not outlive
    # it, so nothing is lost when it only seems to work; fsync and syncfs are real.
    "sync": fail_with(0),
}


# --- the spec -------------------------------------------------------------------------------

# AUDIT_ARCH_* of linux/audit.h and the number of seccomp(2).
_ARCHITECTURES = {"x86_64": (0xC000003E, 317), "aarch64": (0xC00000B7, 277)}


@dataclass(frozen=True)
class FilterSpec:
    """What a filter answers: a verdict or a rule for each number, `UNKNOWN` for all others."""

    audit_arch: int
    answers: Mapping[int, Answer]


def syscall_numbers(arch: str, tables: Sequence[str] | None = None) -> dict[str, int]:
    """Read the tables (all by default): the number of every call that the architecture has."""
    column = list(_ARCHITECTURES).index(arch)
    chosen = (*_ALLOWED, _DANGEROUS, _JUDGED) if tables is None else tables
    numbers = {}
    for entry in " ".join(chosen).split():
        name, *fields = entry.split(":")
        number = fields[min(column, len(fields) - 1)]
        if number != "-":
            numbers[name] = int(number)
    return numbers


def sandbox_spec(arch: str) -> FilterSpec:
    """Say what every sandbox may do; raises ValueError for an unknown architecture."""
    if arch not in _ARCHITECTURES:
        known = ", ".join(_ARCHITECTURES)
        raise ValueError(
            f"no system call filter for architecture {arch!r}; there is one for {known}"
        )
    answers: dict[int, Answer] = {}
    answers |= dict.fromkeys(syscall_numbers(arch, _ALLOWED).values(), ALLOW)
    answers |= dict.fromkeys(syscall_numbers(arch, [_DANGEROUS]).values(), REFUSED)
    judged = syscall_numbers(arch, [_JUDGED])
    answers |= {number: _RULES[name] for name, number in judged.items()}
    return FilterSpec(_ARCHITECTURES[arch][0], answers)


# --- the program ----------------------------------------------------------------------------

# struct seccomp_data: int nr; u32 arch; u64 instruction_pointer; u64 args[6].
_NR, _ARCH, _ARGS = 0, 4, 16
# linux/bpf_common.h
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_JUMP, _JUMP_EQUAL, _JUMP_NOT_LESS = 0x05, 0x15, 0x35
_LONGEST_JUMP = 255

Instruction = tuple[int, int, int, int]
"""Code, how many instructions to skip if true and if false, operand."""


def build_filter(arch: str | None = None) -> bytes:
    """Compile the filter of every sandbox, by default for this machine's architecture."""
    return assemble(sandbox_spec(arch or platform.machine()))


def assemble(spec: FilterSpec) -> bytes:
    """Compile a spec into an array of struct sock_filter.

    A call of another architecture (on x86-64 the 32-bit gate ``int 0x80``) has other numbers
    and kills the process. The x32 calls have numbers of their own from 0x40000000, which are
    unknown like all above the last one in the tables.
    """
    program: list[Instruction] = [
        (_LOAD, 0, 0, _ARCH),
        (_JUMP_EQUAL, 1, 0, spec.audit_arch),
        (_RETURN, 0, 0, KILL),
        (_LOAD, 0, 0, _NR),
        *_compile_tree(list(_find_ranges(spec.answers))),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)


def _find_ranges(answers: Mapping[int, Answer]) -> Iterator[tuple[int, Answer]]:
    """Give the first number of every run of equal answers, in order."""
    last: Answer | None = None
    for number in range(max(answers, default=-1) + 2):
        answer = answers.get(number, UNKNOWN)
        if answer != last:
            yield number, answer
        last = answer


def _compile_tree(ranges: list[tuple[int, Answer]]) -> list[Instruction]:
    if len(ranges) == 1:
        answer = ranges[0][1]
        return [(_RETURN, 0, 0, answer)] if isinstance(answer, int) else _compile_rule(answer)
    middle = len(ranges) // 2
    first = ranges[middle][0]
    below, above = _compile_tree(ranges[:middle]), _compile_tree(ranges[middle:])
    if len(below) <= _LONGEST_JUMP:
        return [(_JUMP_NOT_LESS, len(below), 0, first), *below, *above]
    return [(_JUMP_NOT_LESS, 0, 1, first), (_JUMP, 0, 0, len(below)), *below, *above]


def _compile_rule(rule: Rule) -> list[Instruction]:
    checks = [instruction for check in rule for instruction in _compile_check(check)]
    return [*checks, (_RETURN, 0, 0, ALLOW)]


def _compile_check(check: Check) -> Iterator[Instruction]:
    yield (_LOAD, 0, 0, _ARGS + 8 * check.argument + 4 * check.is_high)
    if check.mask != 0xFFFFFFFF:
        yield (_AND, 0, 0, check.mask)
    last = len(check.values) - 1
    for index, value in enumerate(check.values):
        if check.is_match:
            # A hit goes to the return below; only the last miss has to step over it.
            yield (_JUMP_EQUAL, last - index, int(index == last), value)
        else:
            yield (_JUMP_EQUAL, last - index + 1, 0, value)
    yield (_RETURN, 0, 0, check.verdict)


# --- putting it in force --------------------------------------------------------------------

_SECCOMP_SET_MODE_FILTER = 1


class _SockFprog(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def install(program: bytes) -> None:
    """Put this thread, and all that it will start, under a filter for good; seccomp(2).

    The caller has set no_new_privs, or holds CAP_SYS_ADMIN in its user namespace.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    header = _SockFprog(len(program) // 8, ctypes.addressof(buffer))
    number = _ARCHITECTURES[platform.machine()][1]
    mode, flags = ctypes.c_uint(_SECCOMP_SET_MODE_FILTER), ctypes.c_uint(0)
    linux.syscall(number, mode, flags, ctypes.byref(header), what="seccomp")
