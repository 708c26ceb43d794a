"""The three fork servers: warm, single-threaded processes that sandboxes are forked from.

The agent fork server makes PID 1 of each sandbox. The kernel fork server has imported what user
code wants and makes Python kernels, which join a sandbox. The driver fork server makes the kernels
of the other languages; a fork takes the longer the more its parent has in memory, so it and the
first one stay small. All take orders from the launcher over one SEQPACKET socket, hold no secret
and no path of the host, and reap their children as they end, in any order: killing a PID 1 waits
until the kernels in its namespace are reaped.

Order: ``{"key", ...}`` with descriptors. Answer: ``{"key", "pid"}`` with a pidfd, or
``{"key", "error"}``. Notice: ``{"exited": pid, "status": wait status}``.
"""

import contextlib
import fcntl
import gc
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from headrace_guest import agent, isolate, linux, mounts, seccomp, sudo
from headrace_guest.entry import read_layer
from headrace_guest.protocol import encode_frame
from headrace_guest.skeleton import Layer

MAX_MESSAGE = 64 * 1024
MAX_FDS = 8
_HUGE_PAGE = 2 * 1024 * 1024
_CHILD_FD = 200
"""Where a child parks its descriptors before they get their final numbers."""


class Forkable(Protocol):
    """What a fork server makes: how its children begin.

    ``facts`` is what the launcher is told when the fork server is ready.
    """

    facts: Mapping[str, object]

    def pid_namespace(self, fds: list[int]) -> int | None:
        """Give the descriptor whose pid namespace the child enters; None for a new one."""

    def run(self, order: Mapping[str, Any], fds: list[int]) -> NoReturn:
        """Be the child; ``fds`` are those of the order."""


@dataclass(frozen=True)
class Boot:
    """What a fork server knows: no path of the host."""

    role: str
    layers: tuple[Layer, ...]
    is_rootless: bool
    path_prefix: str

    @classmethod
    def read(cls, fd: int) -> "Boot":
        """Read what `headrace_guest.entry` left in that file, and close it."""
        with os.fdopen(fd, "rb") as file:
            message = json.load(file)
        layers = tuple(read_layer(fields) for fields in message["layers"])
        return cls(**{**message, "layers": layers})


def main(control_fd: int, boot_fd: int) -> None:
    """Run a fork server, inside its root, until the launcher closes the socket."""
    control = socket.socket(fileno=control_fd)
    boot = Boot.read(boot_fd)
    program = seccomp.build_filter()
    kinds: Mapping[str, Callable[[Boot, bytes], Forkable]] = {
        "agent": _AgentServer,
        "kernel": _KernelServer,
        "driver": _DriverServer,
    }
    server = kinds[boot.role](boot, program)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        _serve(control, server, boot)


def _serve(control: socket.socket, server: Forkable, boot: Boot) -> None:
    threads = linux.count_threads()
    if threads != 1:
        raise RuntimeError(f"a fork server must have one thread, this one has {threads}")
    linux.set_command_line(boot.role)
    own_namespace = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    gc.collect()
    gc.freeze()
    _collapse_heap()
    if not boot.is_rootless:
        # It shows the host's processes. A rootless one stays: without a whole /proc in sight the
        # kernel refuses to mount another one in a user namespace.
        linux.umount("/proc")
        linux.limit_bounding_set(isolate.FORK_SERVER_CAPS)
        linux.set_capabilities(isolate.FORK_SERVER_CAPS, isolate.FORK_SERVER_CAPS)
    wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    control.send(json.dumps({"ready": os.getpid(), "facts": server.facts}).encode())
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    while True:
        ready = {fd for fd, _event in poll.poll()}
        if wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(wake_read, 4096)
            _reap(control)
        if control.fileno() in ready and not _answer(control, server, own_namespace):
            return


def _reap(control: socket.socket) -> None:
    while True:
        try:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if ended is None:
            return
        # Its pid is not given away before it is reaped, so the group is surely its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(ended.si_pid, signal.SIGKILL)
        pid, status = os.waitpid(ended.si_pid, 0)
        control.send(json.dumps({"exited": pid, "status": status}).encode())


def _answer(control: socket.socket, server: Forkable, own_namespace: int) -> bool:
    """Carry one order out; False when the launcher is gone."""
    message, fds, _flags, _address = socket.recv_fds(control, MAX_MESSAGE, MAX_FDS)
    if not message:
        return False
    order = json.loads(message)
    try:
        pid = _fork(server, order, fds, own_namespace)
    except OSError as error:
        control.send(json.dumps({"key": order["key"], "error": str(error)}).encode())
        return True
    finally:
        for fd in fds:
            os.close(fd)
    pidfd = os.pidfd_open(pid)
    try:
        answer = json.dumps({"key": order["key"], "pid": pid}).encode()
        socket.send_fds(control, [answer], [pidfd])
    except OSError as error:
        if isinstance(error, BrokenPipeError | ConnectionResetError):
            raise
        # Too many descriptors of this user are on their way (unix(7), ETOOMANYREFS).
        os.kill(pid, signal.SIGKILL)
        control.send(json.dumps({"key": order["key"], "error": str(error)}).encode())
    finally:
        os.close(pidfd)
    return True


def _fork(server: Forkable, order: Mapping[str, Any], fds: list[int], own_namespace: int) -> int:
    """Fork a child into a new pid namespace, or into that of the sandbox it is to join.

    os.fork, not a raw clone, so that the C library's and Python's fork handlers run. The pid
    namespace for children is set back at once: a second unshare without that is refused.
    """
    target = server.pid_namespace(fds)
    if target is None:
        linux.unshare(linux.CLONE_NEWPID)
    else:
        linux.setns(target, linux.CLONE_NEWPID)
    try:
        pid = os.fork()
        if pid == 0:
            _be_child(server, order, fds)
    finally:
        linux.setns(own_namespace, linux.CLONE_NEWPID)
    return pid


def _be_child(server: Forkable, order: Mapping[str, Any], fds: list[int]) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        server.run(order, fds)
    except BaseException:  # noqa: BLE001 - nothing may return into the fork server's loop
        with contextlib.suppress(OSError):
            os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(1)


def _arrange(fds: list[int], first: int) -> list[int]:
    """Give the descriptors the numbers from ``first`` on and close everything else above."""
    parked = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _CHILD_FD) for fd in fds]
    numbers = list(range(first, first + len(parked)))
    for source, number in zip(parked, numbers, strict=True):
        os.dup2(source, number, inheritable=False)
    linux.close_range(first + len(parked))
    return numbers


def _await_go(go: int) -> None:
    """Wait until the launcher has put this process into its cgroup; it closes without if not."""
    if os.read(go, 1) != b"g":
        os._exit(1)
    os.close(go)


class _AgentServer:
    """Makes PID 1 of new sandboxes. Descriptors: control socket, go pipe, user namespaces."""

    facts: Mapping[str, object] = {}

    def __init__(self, boot: Boot, program: bytes) -> None:
        self._boot = boot
        self._program = program

    def pid_namespace(self, fds: list[int]) -> int | None:
        return None

    def run(self, order: Mapping[str, Any], fds: list[int]) -> NoReturn:
        _null_streams()
        control, go, *namespaces = _arrange(fds, 3)
        sandbox_ns, user_ns = namespaces or (None, None)
        sock = socket.socket(fileno=control)
        spec = self._read_spec(order)
        settings = isolate.open_user_settings() if spec.is_rootless else None
        try:
            isolate.build_sandbox(spec, sandbox_ns, user_ns)
            _await_go(go)
            identity = isolate.lock_agent(spec, sandbox_ns, self._program, settings)
            for namespace in namespaces:
                os.close(namespace)
            # Now, before there is anybody who could have put something else there.
            asking = None if spec.is_rootless else sudo.listen()
        except (OSError, ValueError) as error:
            sock.sendall(encode_frame({"type": "failed", "detail": str(error)}))
            os._exit(1)
        sys.path.clear()
        os.environ.clear()
        agent.serve(sock, identity, path_prefix=self._boot.path_prefix, sudo_socket=asking)
        os._exit(0)

    def _read_spec(self, order: Mapping[str, Any]) -> isolate.SandboxSpec:
        root = mounts.RootSpec(
            layers=self._boot.layers,
            disk=order["disk"],
            inodes=order["inodes"],
            base=order["base"],
            is_mapped=order["is_mapped"],
        )
        limits = _read_limits(order, is_rootless=self._boot.is_rootless)
        return isolate.SandboxSpec(root, limits)


class _JoiningServer:
    """Makes what joins a sandbox. Descriptors: the agent's pidfd, event socket, stdout, stderr, go.

    Its children have the environment that the user's processes have.
    """

    facts: Mapping[str, object]

    def __init__(self, boot: Boot, program: bytes) -> None:
        self._boot = boot
        self._program = program
        os.environ.clear()
        os.environ.update(isolate.base_environment(boot.path_prefix))

    def pid_namespace(self, fds: list[int]) -> int | None:
        return fds[0]

    def run(self, order: Mapping[str, Any], fds: list[int]) -> NoReturn:
        _null_streams()
        agent, events, stdout, stderr, go = _arrange(fds, 3)
        isolate.join_sandbox(agent)
        limits = _read_limits(order, is_rootless=self._boot.is_rootless)
        isolate.lock_kernel(limits, self._program, is_rootless=self._boot.is_rootless)
        os.dup2(stdout, 1)
        os.dup2(stderr, 2)
        _await_go(go)
        for fd in (agent, stdout, stderr):
            os.close(fd)
        self.serve(order["language"], socket.socket(fileno=events))

    def serve(self, language: str, events: socket.socket) -> NoReturn:
        """Be the kernel; takes ``events`` over."""
        raise NotImplementedError


class _KernelServer(_JoiningServer):
    """Makes Python kernels."""

    def __init__(self, boot: Boot, program: bytes) -> None:
        from headrace_guest import python_kernel  # the other fork servers stay small

        self._kernel = python_kernel.prepare()
        self.facts = {"missing": list(self._kernel.missing)}
        # Only now: what was imported looks for its directories in the environment.
        super().__init__(boot, program)

    def serve(self, language: str, events: socket.socket) -> NoReturn:
        del language
        self._kernel.serve(events)


class _DriverServer(_JoiningServer):
    """Makes the kernels of all other languages."""

    def __init__(self, boot: Boot, program: bytes) -> None:
        from headrace_guest import languages
        from headrace_guest.kernels import driver, drivers

        super().__init__(boot, program)
        found = languages.find_programs()
        self.facts = {"languages": {language: asdict(facts) for language, facts in found.items()}}
        self._interpreters = drivers.make_interpreters(found)
        self._serve = driver.serve

    def serve(self, language: str, events: socket.socket) -> NoReturn:
        self._serve(self._interpreters[language], events)


def _read_limits(order: Mapping[str, Any], *, is_rootless: bool) -> isolate.ProcessLimits:
    queue_bytes = isolate.ROOTLESS_QUEUE_BYTES if is_rootless else isolate.QUEUE_BYTES
    return isolate.ProcessLimits(order["processes"], order["open_files"], queue_bytes)


def _null_streams() -> None:
    null = os.open("/dev/null", os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)


def _collapse_heap() -> None:
    """Put the heap behind huge pages, which makes each fork about a quarter faster.

    Not every kernel or range can do it; what it refuses stays as it is.
    """
    for line in Path("/proc/self/maps").read_text().splitlines():
        fields = line.split()
        if fields[1] != "rw-p" or fields[4] != "0" or "[stack]" in line:
            continue
        start, end = (int(text, 16) for text in fields[0].split("-"))
        start = (start + _HUGE_PAGE - 1) & ~(_HUGE_PAGE - 1)
        while start + _HUGE_PAGE <= end:
            with contextlib.suppress(OSError):
                linux.collapse(start, _HUGE_PAGE)
            start += _HUGE_PAGE
