"""The launcher: parent of the fork servers, holder of cgroups and ids, a closed list of verbs.

It is the only part of a running Headrace with privileges on the host. It reads no path and no
code from anybody, checks every verb's arguments, and never enters a sandbox's root. It ends, and
every sandbox with it, when the engine's socket closes.

Request: ``{"id", "verb", ...}`` in one SEQPACKET datagram, descriptors beside it. Answer:
``{"id", "ok", ...}``. Notices: ``{"notice": "ready" | "failed" | "exit" | "oom", ...}``.
"""

import contextlib
import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Mapping
from typing import Any

from headrace_guest import cgroups, idranges, languages, linux, skeleton, startup, watchdog
from headrace_guest.forkserver import ForkServerGoneError
from headrace_guest.guestlist import Guest, Guests, RefusedError, read_limits, take_name
from headrace_guest.pausing import Pauser

MAX_MESSAGE = 64 * 1024
MAX_FDS = 8
REMOVE_RETRY = 0.01
VICTIM_TIME = 5.0
"""How many seconds a process that the watchdog killed may take until its kernel has ended."""
PIDFD_SIGNAL_PROCESS_GROUP = 4
_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGKILL, signal.SIGHUP, signal.SIGUSR1})
_FAMILIES = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}

Reply = Callable[..., None]

_START_ERRORS = (
    OSError,
    ValueError,
    KeyError,
    startup.StartupError,
    skeleton.SkeletonError,
    idranges.NoRangeError,
    ForkServerGoneError,
)


def main(control_fd: int) -> None:
    """Run the launcher on the socket of that number until the engine closes it."""
    control = socket.socket(fileno=control_fd)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    try:
        config = json.loads(control.recv(MAX_MESSAGE))
        machine = startup.prepare(config, control)
        launcher = Launcher(control, machine)
    except _START_ERRORS as error:
        detail = str(error) or type(error).__name__
        _send(control, {"notice": "failed", "detail": detail})
        return
    with contextlib.closing(launcher):
        _send(control, {"notice": "ready", "report": machine.report})
        launcher.serve()


def _send(control: socket.socket, message: Mapping[str, Any], fds: list[int] | None = None) -> None:
    """Send a datagram; an engine that is gone is noticed by the read that follows."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        socket.send_fds(control, [json.dumps(message).encode("ascii")], fds or [])


class Launcher:
    """The verbs, on one select loop."""

    def __init__(self, control: socket.socket, machine: "startup.Machine") -> None:
        self._control = control
        self._machine = machine
        self._guests = Guests()
        self._pauser = Pauser(can_freeze="freeze" in machine.backend.enforced)
        self._removals: list[tuple[float, Guest]] = []
        self._next_watch = 0.0
        self._own_network = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._verbs: dict[str, Callable[[Mapping[str, Any], list[int], Reply], None]] = {
            "create": self._create,
            "kernel": self._kernel,
            "signal": self._signal,
            "kill_kernel": self._kill_kernel,
            "freeze": self._freeze,
            "thaw": self._thaw,
            "kill": self._kill,
            "socket": self._socket,
            "stats": self._stats,
        }

    # --- loop ---------------------------------------------------------------------------------

    def serve(self) -> None:
        """Carry verbs out until the engine's end closes."""
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._reap()
        while True:
            sources = {self._control.fileno(): None, wake_read: None}
            servers = {server.fileno(): server for server in self._machine.servers}
            ready = _poll([*sources, *servers], self._timeout())
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self._reap()
            for fd, server in servers.items():
                if fd in ready:
                    server.read(self._on_exit)
            if self._control.fileno() in ready and not self._read_request():
                return
            self._work_when_idle(is_idle=not ready)

    def _timeout(self) -> float:
        pool = self._machine.namespaces
        if pool is not None and not pool.is_full:
            return 0.0
        deadlines = [when for when, _guest in self._removals]
        if self._machine.uses_watchdog and len(self._guests):
            deadlines.append(self._next_watch)
        if (next_look := self._pauser.next_look) is not None:
            deadlines.append(next_look)
        if not deadlines:
            return 3600.0
        return max(0.0, min(deadlines) - time.monotonic())

    def _work_when_idle(self, *, is_idle: bool) -> None:
        now = time.monotonic()
        due = [guest for when, guest in self._removals if when <= now]
        self._removals = [(when, guest) for when, guest in self._removals if when > now]
        for guest in due:
            self._release(guest)
        self._pauser.work()
        if self._machine.uses_watchdog and now >= self._next_watch:
            self._next_watch = now + watchdog.INTERVAL
            self._watch_memory()
        pool = self._machine.namespaces
        if is_idle and pool is not None and not pool.is_full:
            pool.prepare()

    def _read_request(self) -> bool:
        try:
            message, fds, _flags, _address = socket.recv_fds(self._control, MAX_MESSAGE, MAX_FDS)
        except ConnectionResetError:
            # The engine went with answers of ours unread.
            return False
        if not message:
            return False
        try:
            self._dispatch(message, fds)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _dispatch(self, message: bytes, fds: list[int]) -> None:
        try:
            request = json.loads(message)
            number = request["id"]
            verb = self._verbs[request["verb"]]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            _send(self._control, {"notice": "refused", "detail": f"not a request: {error}"})
            return

        def reply(fds: list[int] | None = None, **fields: object) -> None:
            _send(self._control, {"id": number, "ok": "error" not in fields, **fields}, fds)

        try:
            verb(request, fds, reply)
        except RefusedError as error:
            reply(error=error.code, detail=str(error))
        except (OSError, idranges.NoRangeError, ForkServerGoneError) as error:
            reply(error="failed", detail=str(error))

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            # Orphans of a fork server that died come here, and the fork servers themselves.
            self._on_exit(pid, status)

    # --- verbs --------------------------------------------------------------------------------

    def _create(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        name = take_name(request, "sandbox")
        limits = read_limits(request.get("limits"))
        _expect_fds(fds, 1)
        guest = self._guests.add(name, limits)
        try:
            self._fork_agent(guest, fds[0], reply)
        except BaseException:
            self._release(guest)
            raise

    def _fork_agent(self, guest: Guest, control: int, reply: Reply) -> None:
        namespaces: list[int] = []
        if self._machine.namespaces is not None:
            guest.base, *namespaces = self._machine.namespaces.take()
        guest.cgroup = self._machine.backend.create(guest.name, guest.limits.for_cgroup())
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        order = {
            "disk": guest.limits.disk,
            "inodes": guest.limits.inodes,
            "processes": guest.limits.processes,
            "open_files": guest.limits.open_files,
            "base": guest.base,
            "is_mapped": self._machine.is_mapped,
        }

        def forked(pid: int, pidfd: int) -> None:
            self._guests.own(guest, pid, pidfd, None)
            self._admit(guest, pid, go_write)
            reply(report=self._machine.report)

        def failed(detail: str) -> None:
            os.close(go_write)
            self._release(guest)
            reply(error="failed", detail=detail)

        try:
            self._machine.agents.fork(order, [control, go_read, *namespaces], forked, failed)
        except BaseException:
            os.close(go_write)
            raise
        finally:
            for fd in (go_read, *namespaces):
                os.close(fd)

    def _kernel(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        guest = self._guests.find(take_name(request, "sandbox"))
        name = take_name(request, "kernel")
        _expect_fds(fds, 3)
        agent = guest.agent
        if agent is None or guest.is_ending:
            raise RefusedError("wrong_state", f"sandbox {guest.name} is not running")
        if name in guest.kernels:
            raise RefusedError("already_exists", f"sandbox {guest.name} has a kernel {name}")
        language = self._take_language(request)
        is_python = language == languages.PYTHON
        server = self._machine.kernels if is_python else self._machine.drivers
        go_read, go_write = os.pipe2(os.O_CLOEXEC)
        order = {
            "language": language,
            "processes": guest.limits.processes,
            "open_files": guest.limits.open_files,
        }
        guest.forking += 1

        def forked(pid: int, pidfd: int) -> None:
            guest.forking -= 1
            self._guests.own(guest, pid, pidfd, name)
            self._admit(guest, pid, go_write)
            if guest.is_ending:
                _signal_group(pid, pidfd, signal.SIGKILL)
            reply()

        def failed(detail: str) -> None:
            guest.forking -= 1
            os.close(go_write)
            reply(error="failed", detail=detail)
            self._finish_if_gone(guest)

        try:
            server.fork(order, [agent.pidfd, *fds, go_read], forked, failed)
        except BaseException:
            guest.forking -= 1
            os.close(go_write)
            raise
        finally:
            os.close(go_read)
        if guest.cgroup is not None and not _poll([agent.pidfd], 0.0):
            # The pid is the agent's as long as it lives.
            guest.cgroup.expect_add(agent.pid)

    def _take_language(self, request: Mapping[str, Any]) -> str:
        """Give the language of a new kernel; refuses one that cannot run here."""
        language = request.get("language", languages.PYTHON)
        if language not in languages.LANGUAGES:
            known = ", ".join(languages.LANGUAGES)
            raise RefusedError("invalid", f"language must be one of {known}, got {language!r}")
        found = self._machine.drivers.facts.get("languages", {}).get(language, {})
        if problem := found.get("problem"):
            raise RefusedError("unavailable", f"{language}: {problem}")
        return str(language)

    def _admit(self, guest: Guest, pid: int, go: int) -> None:
        """Put a new process into its cgroup, then let it go on."""
        with contextlib.closing(os.fdopen(go, "wb", buffering=0)) as pipe:
            try:
                if guest.cgroup is not None:
                    guest.cgroup.add(pid)
            except ProcessLookupError:
                return
            with contextlib.suppress(BrokenPipeError):
                pipe.write(b"g")

    def _signal(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        number = request.get("signal")
        if number not in _SIGNALS:
            raise RefusedError("invalid", f"signal {number!r} is not one that may be sent")
        self._signal_kernel(request, fds, int(number))
        reply()

    def _kill_kernel(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        self._signal_kernel(request, fds, signal.SIGKILL)
        reply()

    def _signal_kernel(self, request: Mapping[str, Any], fds: list[int], number: int) -> None:
        _expect_fds(fds, 0)
        guest = self._guests.find(take_name(request, "sandbox"))
        name = take_name(request, "kernel")
        kernel = guest.kernels.get(name)
        if kernel is None:
            raise RefusedError("not_found", f"sandbox {guest.name} has no kernel {name}")
        _signal_group(kernel.pid, kernel.pidfd, number)

    def _freeze(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        _expect_fds(fds, 0)
        self._pauser.pause(self._guests.find(take_name(request, "sandbox")), reply)

    def _thaw(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        _expect_fds(fds, 0)
        self._pauser.resume(self._guests.find(take_name(request, "sandbox")))
        reply()

    def _kill(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        _expect_fds(fds, 0)
        name = take_name(request, "sandbox")
        guest = self._guests.get(name)
        if guest is None:
            reply()
            return
        guest.waiting.append(reply)
        self._end(guest)

    def _socket(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        _expect_fds(fds, 0)
        guest = self._guests.find(take_name(request, "sandbox"))
        family = _FAMILIES.get(str(request.get("family")))
        if family is None:
            raise RefusedError("invalid", f"family must be one of {', '.join(_FAMILIES)}")
        if guest.agent is None:
            raise RefusedError("wrong_state", f"sandbox {guest.name} is not running")
        linux.setns(guest.agent.pidfd, linux.CLONE_NEWNET)
        try:
            made = socket.socket(family, socket.SOCK_STREAM)
        finally:
            linux.setns(self._own_network, linux.CLONE_NEWNET)
        with made:
            reply([made.fileno()])

    def _stats(self, request: Mapping[str, Any], fds: list[int], reply: Reply) -> None:
        _expect_fds(fds, 0)
        guest = self._guests.find(take_name(request, "sandbox"))
        stats = guest.cgroup.stats() if guest.cgroup is not None else cgroups.Stats()
        processes, memory = stats.processes, stats.memory
        if guest.agent is not None and (processes is None or memory is None):
            namespace = watchdog.namespace_of(guest.agent.pid)
            pids = watchdog.pids_by_namespace().get(namespace or "", [])
            processes = len(pids) if processes is None else processes
            memory = sum(map(watchdog.proportional_size, pids)) if memory is None else memory
        reply(
            memory=memory,
            memory_peak=stats.memory_peak,
            cpu_seconds=stats.cpu_seconds,
            processes=processes,
            oom_kills=stats.oom_kills if stats.oom_kills is not None else guest.watchdog_kills,
        )

    # --- ends ---------------------------------------------------------------------------------

    def _end(self, guest: Guest) -> None:
        """Kill everything in a sandbox; safe to run twice."""
        guest.is_ending = True
        for process in guest.processes():
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(process.pidfd, signal.SIGKILL)
        if guest.cgroup is not None:
            guest.cgroup.kill()
        self._pauser.release(guest)
        self._finish_if_gone(guest)

    def _on_exit(self, pid: int, status: int) -> None:
        owned = self._guests.disown(pid)
        if owned is None:
            return
        guest, kernel = owned
        code = os.waitstatus_to_exitcode(status)
        notice = {
            "notice": "exit",
            "sandbox": guest.name,
            "kernel": kernel,
            "exit_code": code if code >= 0 else None,
            "signal": -code if code < 0 else None,
            "oom": code == -signal.SIGKILL and self._ran_out_of_memory(guest, pid),
        }
        _send(self._control, notice)
        if kernel is None:
            guest.is_ending = True
        self._finish_if_gone(guest)

    def _ran_out_of_memory(self, guest: Guest, pid: int) -> bool:
        """Tell from the counters, never from the signal alone."""
        killed_at = guest.watchdog_victims.get(pid, float("-inf"))
        if time.monotonic() - killed_at < VICTIM_TIME:
            return True
        if guest.cgroup is None:
            return False
        count = guest.cgroup.stats().oom_kills or 0
        is_new = count > guest.oom_seen
        guest.oom_seen = count
        return is_new

    def _watch_memory(self) -> None:
        by_agent = {guest.agent.pid: guest for guest in self._guests if guest.agent is not None}
        watched = (watchdog.Watched(pid, g.limits.memory) for pid, g in by_agent.items())
        for agent, victim, group in watchdog.kill_over_limit(watched):
            guest = by_agent[agent]
            guest.watchdog_kills += 1
            guest.watchdog_victims = dict.fromkeys((victim, group), time.monotonic())
            _send(self._control, {"notice": "oom", "sandbox": guest.name})

    def _finish_if_gone(self, guest: Guest) -> None:
        if guest.is_ending and not guest.forking and not guest.processes():
            self._release(guest)

    def _release(self, guest: Guest) -> None:
        """Give everything back that a sandbox without processes still holds."""
        if guest.cgroup is not None and not guest.cgroup.remove():
            # The kernel still counts a process that has ended; it is a matter of milliseconds.
            self._removals.append((time.monotonic() + REMOVE_RETRY, guest))
            return
        guest.cgroup = None
        if guest.base is not None and self._machine.namespaces is not None:
            self._machine.namespaces.give_back(guest.base)
            guest.base = None
        self._guests.remove(guest)
        self._pauser.forget(guest)
        for reply in guest.waiting:
            reply()
        guest.waiting.clear()

    def close(self) -> None:
        """Kill every sandbox and fork server, wait for them (bounded), give everything back."""
        for guest in list(self._guests):
            self._end(guest)
        deadline = time.monotonic() + 10.0
        while len(self._guests) and time.monotonic() < deadline:
            servers = {server.fileno(): server for server in self._machine.servers}
            for fd in _poll([*servers], 0.02):
                servers[fd].read(self._on_exit)
            self._reap()
            self._work_when_idle(is_idle=False)
        self._machine.close()


def _poll(fds: list[int], timeout: float) -> set[int]:
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return {fd for fd, _event in poll.poll(timeout * 1000)}


def _expect_fds(fds: list[int], count: int) -> None:
    if len(fds) != count:
        raise RefusedError("invalid", f"expected {count} descriptors, got {len(fds)}")


def _signal_group(pid: int, pidfd: int, number: int) -> None:
    """Signal a process group by its leader's pidfd, so that a reused pid cannot be hit."""
    with contextlib.suppress(ProcessLookupError):
        try:
            signal.pidfd_send_signal(pidfd, number, None, PIDFD_SIGNAL_PROCESS_GROUP)
        except OSError as error:
            if isinstance(error, ProcessLookupError):
                raise
            # Before Linux 6.9 there is no such flag; the pid is safe while the leader lives.
            if not _poll([pidfd], 0.0):
                os.killpg(pid, number)
