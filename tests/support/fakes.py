"""A launcher, agents and kernels that speak the real protocol over real sockets, in-process.

A fake kernel runs a little language, one word with its argument per line (see `FakeKernel`), a
fake agent has a few commands and files in memory. Nothing here needs privileges.
"""

import fcntl
import json
import os
import signal
import socket
import sys
import termios
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from headrace.engine.config import EngineConfig
from headrace.engine.engine import Collaborators, Engine
from headrace.engine.expiry import SystemClock
from headrace.engine.meter import Meter, NoMeter
from headrace.engine.pipes import PipeClosedError, PipeReader, PipeWriter
from headrace_guest.protocol import MAX_HOST_FRAME, FrameReader, decode_body, encode_frame

REPORT = {
    "mode": "root",
    "enforced": ["namespaces", "seccomp", "processes"],
    "memory": "cgroup",
    "python": {"prefix": "/opt/python", "version": "3.11.0", "missing": []},
}
PATIENCE = 10.0


NO_DIRECTORY = "/it's/not"
"""The one directory that a fake sandbox does not have."""


class Channel:
    """The guest's end of a socket: frames in both directions."""

    def __init__(self, fd: int) -> None:
        self.sock = socket.socket(fileno=fd)
        self.sock.setblocking(False)
        self._frames = FrameReader(MAX_HOST_FRAME)
        self._bodies: list[bytes] = []
        self.fds: list[int] = []

    async def send(self, message: Mapping[str, Any]) -> None:
        """Send a frame."""
        await self.send_bytes(encode_frame(message))

    async def send_bytes(self, data: bytes) -> None:
        """Send anything, be it a frame or not; the host may have hung up."""
        view = memoryview(data)
        try:
            while view:
                try:
                    view = view[self.sock.send(view) :]
                except BlockingIOError:
                    await anyio.wait_writable(self.sock)
        except OSError:
            return

    async def receive(self) -> dict[str, Any] | None:
        """Give the next frame, or None at the end; descriptors are kept in ``fds``."""
        while not self._bodies:
            try:
                data, fds, _flags, _address = socket.recv_fds(self.sock, 65536, 8)
            except BlockingIOError:
                await anyio.wait_readable(self.sock)
                continue
            except OSError:
                return None
            if not data:
                return None
            self.fds += fds
            self._bodies += self._frames.feed(data)
        return decode_body(self._bodies.pop(0))

    def close(self) -> None:
        """Close the socket and the descriptors that nobody took."""
        self.sock.close()
        while self.fds:
            os.close(self.fds.pop())


class Died(BaseException):
    """Ends a fake process like an exit or a signal does."""

    def __init__(
        self, exit_code: int | None = None, number: int | None = None, *, oom: bool = False
    ) -> None:
        super().__init__(exit_code, number)
        self.exit_code, self.number, self.oom = exit_code, number, oom


class FakeKernel:
    """A kernel for this language, one statement per line.

    - ``out TEXT``, ``err TEXT`` print; ``hex HEX``, ``flood N`` write bytes to stdout
    - ``result TEXT``, ``main TEXT`` display; ``error NAME VALUE`` raises and ends the code
    - ``exit N`` is sys.exit; ``die N``, ``signal N``, ``oom`` end the process
    - ``wait`` waits for an interrupt and ends, ``handle`` waits for one and goes on,
      ``stubborn`` ignores it
    - ``input PROMPT`` asks and prints the answer; ``env NAME``, ``cwd`` print what was set
    - ``frame JSON``, ``bytes HEX`` send anything (``$`` is the execution's id)
    - ``hang-up`` closes the event socket and waits
    """

    def __init__(self, name: str, channel: Channel, stdout: int, stderr: int) -> None:
        self.name = name
        self.channel = channel
        self.env: dict[str, str] = {}
        self.cwd: str | None = None
        self.frames: list[dict[str, Any]] = []
        self.execution = ""
        self.interrupted = anyio.Event()
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self._pipes = {"out": PipeWriter(stdout), "err": PipeWriter(stderr)}
        self._unread = {stdout: termios.FIONREAD, stderr: termios.FIONREAD}

    async def run(self) -> Died:
        """Live until something ends it; says what."""
        try:
            with self.scope:
                await self.serve()
                return Died(0)
            return Died(number=signal.SIGKILL)
        except Died as end:
            return end
        finally:
            self.channel.close()
            for pipe in self._pipes.values():
                pipe.close()

    async def serve(self) -> None:
        """Say ready and run what comes."""
        await self.channel.send({"type": "ready"})
        while (frame := await self.channel.receive()) is not None:
            self.frames.append(frame)
            if frame["type"] == "configure":
                self.env.update(frame["env"])
                self.cwd = frame["cwd"]
            elif frame["type"] == "execute":
                await self.execute(frame)

    async def execute(self, frame: Mapping[str, Any]) -> None:
        """Run the lines of one execution."""
        self.execution = frame["execution"]
        self.interrupted = anyio.Event()
        status: tuple[str, int | None] | None = None
        env = {**self.env, **frame["env"]}
        for line in frame["code"].splitlines():
            word, _, argument = line.partition(" ")
            if word == "env":
                await self.print("out", env.get(argument, "(none)"))
            elif word == "cwd":
                await self.print("out", str(frame["cwd"] or self.cwd))
            else:
                status = await self.step(word, argument)
            if status is not None:
                break
        name, exit_code = status or ("ok", None)
        await self.say({"type": "done", "status": name, "exit_code": exit_code})

    async def step(self, word: str, argument: str) -> tuple[str, int | None] | None:
        """Run one line; gives status and exit code if it ends the code."""
        run = getattr(self, "do_" + word.replace("-", "_"))
        result: tuple[str, int | None] | None = await run(argument)
        return result

    async def say(self, message: Mapping[str, Any]) -> None:
        """Send a frame of this execution."""
        await self._fence(self._unread)
        await self.channel.send({"execution": self.execution, **message})

    async def print(self, stream: str, text: str) -> None:
        """Write a line, and wait until it was read, as the real fence does."""
        await self.write(stream, text.encode() + b"\n")

    async def write(self, stream: str, data: bytes) -> None:
        """Write bytes to a pipe; the host may have closed it."""
        if self.channel.sock.fileno() >= 0:
            await self._fence({self.channel.sock.fileno(): termios.TIOCOUTQ})
        try:
            await self._pipes[stream].write(data, timeout=PATIENCE)
        except PipeClosedError:
            return

    async def _fence(self, channels: Mapping[int, int]) -> None:
        """Wait until the host has read these, as a real kernel does to keep the order."""
        for _ in range(100):
            if not any(
                int.from_bytes(fcntl.ioctl(fd, request, bytes(4)), sys.byteorder)
                for fd, request in channels.items()
            ):
                return
            await anyio.lowlevel.checkpoint()

    async def do_out(self, text: str) -> None:
        await self.print("out", text)

    async def do_err(self, text: str) -> None:
        await self.print("err", text)

    async def do_hex(self, text: str) -> None:
        await self.write("out", bytes.fromhex(text))

    async def do_flood(self, count: str) -> None:
        await self.write("out", b"x" * int(count))

    async def do_result(self, text: str) -> None:
        await self._show(text, is_main=False)

    async def do_main(self, text: str) -> None:
        await self._show(text, is_main=True)

    async def _show(self, text: str, *, is_main: bool) -> None:
        await self.say(
            {
                "type": "result",
                "bundle": {"text/plain": text},
                "is_main": is_main,
                "omitted": {},
                "display_id": None,
                "is_update": False,
            }
        )

    async def do_error(self, text: str) -> tuple[str, int | None]:
        name, _, value = text.partition(" ")
        await self.say({"type": "error", "name": name, "value": value, "traceback": text})
        return "error", None

    async def do_exit(self, code: str) -> tuple[str, int | None]:
        await self.say(
            {"type": "error", "name": "SystemExit", "value": code, "traceback": "SystemExit"}
        )
        return ("ok" if code == "0" else "error"), int(code)

    async def do_die(self, code: str) -> None:
        raise Died(int(code))

    async def do_signal(self, number: str) -> None:
        raise Died(number=int(number))

    async def do_oom(self, _text: str) -> None:
        raise Died(number=signal.SIGKILL, oom=True)

    async def do_wait(self, _text: str) -> tuple[str, int | None]:
        await self.interrupted.wait()
        await self.say({"type": "error", "name": "KeyboardInterrupt", "value": "", "traceback": ""})
        return "interrupted", None

    async def do_handle(self, _text: str) -> None:
        await self.interrupted.wait()

    async def do_stubborn(self, _text: str) -> None:
        await anyio.sleep_forever()

    async def do_input(self, prompt: str) -> None:
        await self.say({"type": "input", "prompt": prompt, "is_password": False})
        answer = await self.channel.receive()
        if answer is not None:
            await self.print("out", str(answer["text"]))

    async def do_frame(self, text: str) -> None:
        await self.channel.send(json.loads(text.replace("$", self.execution)))

    async def do_bytes(self, text: str) -> None:
        await self.channel.send_bytes(bytes.fromhex(text))

    async def do_hang_up(self, _text: str) -> None:
        self.channel.sock.shutdown(socket.SHUT_RDWR)
        await anyio.sleep_forever()


@dataclass
class FakeProcess:
    """A command that a fake agent runs."""

    pid: int
    scope: anyio.CancelScope
    ended_by: int | None = None


class FakeAgent:
    """PID 1 of a fake sandbox.

    Its commands are ``echo WORDS``, ``cat`` (stdin to stdout), ``sleep`` (until a signal),
    ``exit N`` and ``flood N``; everything else is not found. Its files are in ``files``. A command
    runs for ``tells_after`` seconds before its start is told.
    """

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.files: dict[str, bytes] = {}
        self.disk: tuple[int, int] | None = (100, 40)
        self.requests: list[dict[str, Any]] = []
        self.ignored: set[str] = set()
        self.processes: dict[int, FakeProcess] = {}
        self.tells_after = 0.0
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self._operations: dict[int, anyio.CancelScope] = {}
        self._next_pid = 100

    async def run(self) -> Died:
        """Live until the socket closes or something ends it; says what."""
        try:
            with self.scope:
                async with anyio.create_task_group() as tasks:
                    await self.serve(tasks)
                    tasks.cancel_scope.cancel()
                return Died(0)
            return Died(number=signal.SIGKILL)
        finally:
            self.channel.close()

    async def serve(self, tasks: TaskGroup) -> None:
        """Say ready and do what comes."""
        await self.channel.send({"type": "ready"})
        while (request := await self.channel.receive()) is not None:
            self.requests.append(request)
            count = request["fds"]
            fds, self.channel.fds = self.channel.fds[:count], self.channel.fds[count:]
            if request["op"] in self.ignored:
                for fd in fds:
                    os.close(fd)
            elif request["op"] == "file":
                # From here on it can be cancelled, as with the real agent.
                self._operations[request["request"]] = anyio.CancelScope()
                tasks.start_soon(self._file, request, fds)
            else:
                await getattr(self, "_" + request["op"])(request, fds, tasks)

    async def reply(self, request: Mapping[str, Any], **value: Any) -> None:
        """Answer a request."""
        await self._answer(request, value, None, "")

    async def refuse(self, request: Mapping[str, Any], code: str, detail: str) -> None:
        """Answer that it cannot be done."""
        await self._answer(request, {}, code, detail)

    async def _answer(
        self, request: Mapping[str, Any], value: Mapping[str, Any], code: str | None, detail: str
    ) -> None:
        fields = {"value": value, "error": code, "detail": detail}
        await self.channel.send({"type": "reply", "request": request["request"], **fields})

    # --- processes ----------------------------------------------------------------------------

    async def _spawn(self, request: Mapping[str, Any], fds: list[int], tasks: TaskGroup) -> None:
        command, cwd = request["argv"][0], request["cwd"]
        is_command = command in ("echo", "cat", "sleep", "exit", "flood")
        if not is_command or cwd == NO_DIRECTORY:
            for fd in fds:
                os.close(fd)
            code, what = ("not_found", command) if not is_command else ("no_directory", cwd)
            await self.refuse(request, code, f"{what}: no such file or directory")
            return
        self._next_pid += 1
        process = FakeProcess(self._next_pid, anyio.CancelScope())
        self.processes[process.pid] = process
        if self.tells_after:
            tasks.start_soon(self._run_process, process, request["argv"], fds)
            await anyio.sleep(self.tells_after)
        await self.reply(request, pid=process.pid)
        if not self.tells_after:
            tasks.start_soon(self._run_process, process, request["argv"], fds)

    async def _run_process(self, process: FakeProcess, argv: list[str], fds: list[int]) -> None:
        stdin, stdout = PipeReader(fds[0]), PipeWriter(fds[1])
        exit_code = 0
        try:
            with process.scope:
                exit_code = await self._run_command(argv, stdin, stdout)
        except PipeClosedError:
            process.ended_by = signal.SIGPIPE
        finally:
            stdin.close()
            stdout.close()
            _close(fds[2:])
        del self.processes[process.pid]
        number = process.ended_by
        ending = {"exit_code": None if number else exit_code, "signal": number}
        await self.channel.send({"type": "exit", "pid": process.pid, **ending})

    async def _run_command(self, argv: list[str], stdin: PipeReader, stdout: PipeWriter) -> int:
        match argv:
            case ["echo", *words]:
                await stdout.write(" ".join(words).encode() + b"\n", timeout=PATIENCE)
            case ["cat"]:
                while data := await stdin.read(timeout=PATIENCE):
                    await stdout.write(data, timeout=PATIENCE)
            case ["sleep"]:
                await anyio.sleep_forever()
            case ["exit", code]:
                return int(code)
            case ["flood", count]:
                await stdout.write(b"x" * int(count), timeout=PATIENCE)
            case _:
                return 2
        return 0

    async def _signal(self, request: Mapping[str, Any], _fds: list[int], _tasks: TaskGroup) -> None:
        process = self.processes.get(request["pid"])
        if process is None:
            await self.refuse(request, "not_found", f"no process {request['pid']}")
            return
        process.ended_by = request["signal"]
        process.scope.cancel()
        await self.reply(request)

    async def _resize(self, request: Mapping[str, Any], _fds: list[int], _tasks: TaskGroup) -> None:
        await self.reply(request)

    async def _cancel(self, request: Mapping[str, Any], _fds: list[int], _tasks: TaskGroup) -> None:
        scope = self._operations.get(request["target"])
        if scope is not None:
            scope.cancel()
        await self.reply(request, cancelled=scope is not None)

    # --- files --------------------------------------------------------------------------------

    async def _file(self, request: Mapping[str, Any], fds: list[int]) -> None:
        scope = self._operations[request["request"]]
        action = getattr(self, "_" + request["action"])
        try:
            with scope:
                await action(request, *fds)
                return
            await self.refuse(request, "failed", "the file operation was cancelled")
        finally:
            del self._operations[request["request"]]

    async def _read(self, request: Mapping[str, Any], fd: int) -> None:
        pipe = PipeWriter(fd)
        try:
            content = self.files.get(request["path"])
            if content is None:
                await self.refuse(request, "not_found", f"{request['path']}: not found")
                return
            start, length = request["offset"], request["length"]
            part = content[start:] if length is None else content[start : start + length]
            await pipe.write(part, timeout=PATIENCE)
            pipe.close()
            await self.reply(request, size=len(content), sent=len(part))
        except PipeClosedError:
            await self.refuse(request, "failed", "the reader went away")
        finally:
            pipe.close()

    async def _write(self, request: Mapping[str, Any], fd: int) -> None:
        pipe = PipeReader(fd)
        content = b""
        try:
            if request["path"].startswith("/full"):
                await self.refuse(request, "no_space", f"{request['path']}: no space left")
                return
            while data := await pipe.read(timeout=PATIENCE):
                content += data
        finally:
            pipe.close()
        self.files[request["path"]] = content
        await self.reply(request, size=len(content))

    async def _list(self, request: Mapping[str, Any], fd: int) -> None:
        pipe = PipeWriter(fd)
        try:
            for path in sorted(self.files):
                line = json.dumps(self.entry(path)).encode() + b"\n"
                await pipe.write(line, timeout=PATIENCE)
        finally:
            pipe.close()
        await self.reply(request, count=len(self.files))

    async def _stat(self, request: Mapping[str, Any]) -> None:
        if request["path"] not in self.files:
            await self.refuse(request, "not_found", f"{request['path']}: not found")
            return
        await self.reply(request, entry=self.entry(request["path"]))

    async def _set_attributes(self, request: Mapping[str, Any]) -> None:
        attributes = request["attributes"]["values"]
        await self.reply(request, entry={**self.entry(request["path"]), "attributes": attributes})

    async def _disk_usage(self, request: Mapping[str, Any]) -> None:
        if self.disk is None:
            await self.refuse(request, "failed", "it cannot be counted")
            return
        total, free = self.disk
        await self.reply(request, total=total, free=free, inodes=10, inodes_free=7)

    async def _remove(self, request: Mapping[str, Any]) -> None:
        found = self.files.pop(request["path"], None)
        await self.reply(request, removed=found is not None)

    async def _watch(self, request: Mapping[str, Any], fd: int) -> None:
        pipe = PipeWriter(fd)
        try:
            if request["path"] == "/missing":
                await self.refuse(request, "not_found", "/missing: not found")
                return
            for line in (
                {"started": True},
                {"change": "created", "path": "a"},
                {"overflow": True},
            ):
                await pipe.write(json.dumps(line).encode() + b"\n", timeout=PATIENCE)
            if request["path"] == "/removed":
                pipe.close()
                await self.reply(request, ended="removed")
                return
            await anyio.sleep_forever()
        finally:
            pipe.close()

    def entry(self, path: str) -> dict[str, Any]:
        """Describe a file."""
        return {
            "path": path,
            "name": path.rpartition("/")[2],
            "type": "directory" if path.endswith(".d") else "file",
            "size": len(self.files[path]),
            "mode": 0o644,
            "owner": "user",
            "group": "user",
            "modified": 1_700_000_000.0,
            "target": None,
            "target_type": None,
        }


@dataclass
class FakeSandbox:
    """What a fake launcher knows of one sandbox."""

    agent: FakeAgent
    kernels: dict[str, FakeKernel] = field(default_factory=dict)
    is_frozen: bool = False


class FakeLauncher:
    """The launcher's end of its socket; use it with `open_fake_engine`, or `run` it yourself.

    ``refusals`` maps a verb to the code and detail with which it is refused, ``hanging`` names
    verbs that are never answered. ``verbs`` lists the verbs that came.
    """

    def __init__(self, report: Mapping[str, Any] = REPORT) -> None:
        self.sock, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._theirs.setblocking(False)
        self.report = report
        self.sandboxes: dict[str, FakeSandbox] = {}
        self.verbs: list[str] = []
        self.refusals: dict[str, tuple[str, str]] = {}
        self.hanging: set[str] = set()
        self.make_agent: Callable[[Channel], FakeAgent] = FakeAgent
        self.make_kernel: Callable[..., FakeKernel] = FakeKernel
        self.kernel_starts = 0
        self.oom_kills = 0
        self.cpu_seconds = 0.5
        self.family: str | None = None
        self._ended = anyio.Event()

    async def aclose(self) -> None:
        """Be the engine's link: close its end and wait until we noticed."""
        self.sock.close()
        with anyio.move_on_after(PATIENCE):
            await self._ended.wait()

    async def run(self) -> None:
        """Serve until the engine closes its end."""
        try:
            async with anyio.create_task_group() as tasks:
                await self.notify({"notice": "ready", "report": dict(self.report)})
                while await self._serve_one(tasks):
                    pass
                tasks.cancel_scope.cancel()
        finally:
            self._theirs.close()
            self._ended.set()

    def crash(self) -> None:
        """End like a launcher that was killed."""
        self._theirs.shutdown(socket.SHUT_RDWR)

    async def notify(self, message: Mapping[str, Any], fds: tuple[int, ...] = ()) -> None:
        """Send a datagram."""
        try:
            socket.send_fds(self._theirs, [json.dumps(message).encode()], list(fds))
        except OSError:
            return

    async def _serve_one(self, tasks: TaskGroup) -> bool:
        try:
            data, fds, _flags, _address = socket.recv_fds(self._theirs, 65536, 8)
        except BlockingIOError:
            await anyio.wait_readable(self._theirs)
            return True
        except OSError:
            return False
        if not data:
            return False
        request = json.loads(data)
        verb = request["verb"]
        self.verbs.append(verb)
        if verb in self.refusals:
            code, detail = self.refusals[verb]
            _close(fds)
            await self._reply(request, ok=False, error=code, detail=detail)
        elif verb in self.hanging:
            _close(fds)
        else:
            await getattr(self, "_" + verb)(request, fds, tasks)
        return True

    async def _reply(self, request: Mapping[str, Any], **fields: Any) -> None:
        await self.notify({"id": request["id"], "ok": True, **fields})

    async def _create(self, request: Mapping[str, Any], fds: list[int], tasks: TaskGroup) -> None:
        agent = self.make_agent(Channel(fds[0]))
        self.sandboxes[request["sandbox"]] = FakeSandbox(agent)
        await self._reply(request, report=dict(self.report))
        tasks.start_soon(self._live, request["sandbox"], None, agent)

    async def _kernel(self, request: Mapping[str, Any], fds: list[int], tasks: TaskGroup) -> None:
        self.kernel_starts += 1
        name = request["kernel"]
        kernel = self.make_kernel(name, Channel(fds[0]), fds[1], fds[2])
        self.sandboxes[request["sandbox"]].kernels[name] = kernel
        await self._reply(request)
        tasks.start_soon(self._live, request["sandbox"], name, kernel)

    async def _live(self, sandbox: str, name: str | None, process: FakeAgent | FakeKernel) -> None:
        end = await process.run()
        if name is not None:
            self.sandboxes[sandbox].kernels.pop(name, None)
        else:
            for kernel in list(self.sandboxes[sandbox].kernels.values()):
                kernel.scope.cancel()
        await self.notify(
            {
                "notice": "exit",
                "sandbox": sandbox,
                "kernel": name,
                "exit_code": end.exit_code,
                "signal": end.number,
                "oom": end.oom,
            }
        )
        process.ended.set()

    async def _signal(self, request: Mapping[str, Any], _fds: list[int], _t: TaskGroup) -> None:
        kernel = self.sandboxes[request["sandbox"]].kernels.get(request["kernel"])
        if kernel is None:
            await self._reply(request, ok=False, error="not_found", detail="no such kernel")
            return
        kernel.interrupted.set()
        await self._reply(request)

    async def _kill_kernel(self, request: Mapping[str, Any], fds: list[int], _t: TaskGroup) -> None:
        kernel = self.sandboxes[request["sandbox"]].kernels.get(request["kernel"])
        if kernel is None:
            await self._reply(request, ok=False, error="not_found", detail="no such kernel")
            return
        kernel.scope.cancel()
        await self._reply(request)

    async def _freeze(self, request: Mapping[str, Any], _fds: list[int], _t: TaskGroup) -> None:
        self.sandboxes[request["sandbox"]].is_frozen = True
        await self._reply(request)

    async def _thaw(self, request: Mapping[str, Any], _fds: list[int], _t: TaskGroup) -> None:
        self.sandboxes[request["sandbox"]].is_frozen = False
        await self._reply(request)

    async def _kill(self, request: Mapping[str, Any], _fds: list[int], tasks: TaskGroup) -> None:
        tasks.start_soon(self._kill_all, request)

    async def _kill_all(self, request: Mapping[str, Any]) -> None:
        sandbox = self.sandboxes.get(request["sandbox"])
        if sandbox is not None:
            processes: list[FakeAgent | FakeKernel] = [sandbox.agent, *sandbox.kernels.values()]
            for process in processes:
                process.scope.cancel()
            for process in processes:
                await process.ended.wait()
            del self.sandboxes[request["sandbox"]]
        await self._reply(request)

    async def _socket(self, request: Mapping[str, Any], _fds: list[int], _t: TaskGroup) -> None:
        family = {"inet": socket.AF_INET, "inet6": socket.AF_INET6}[request["family"]]
        with socket.socket(family, socket.SOCK_STREAM) as made:
            await self.notify({"id": request["id"], "ok": True}, (made.fileno(),))

    async def _stats(self, request: Mapping[str, Any], _fds: list[int], _t: TaskGroup) -> None:
        await self._reply(
            request,
            memory=1,
            memory_peak=2,
            cpu_seconds=self.cpu_seconds,
            processes=3,
            oom_kills=self.oom_kills,
        )


class FakeClock:
    """Time that passes only when a test says so."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._moved = anyio.Event()

    def now(self) -> float:
        """Give the time."""
        return self._now

    def monotonic(self) -> float:
        """Give the same time."""
        return self._now

    async def sleep(self, seconds: float) -> None:
        """Wait until the time was moved that far."""
        end = self._now + seconds
        while self._now < end:
            await self._moved.wait()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._now += seconds
        self._moved.set()
        self._moved = anyio.Event()


def make_config(directory: Path, **settings: Any) -> EngineConfig:
    """Give settings for tests: no pool, short grace."""
    chosen: dict[str, Any] = {"pool_size": 0, "interrupt_grace": 0.1, **settings}
    return EngineConfig(state_dir=directory / "state", runtime_dir=directory / "runtime", **chosen)


@asynccontextmanager
async def open_fake_engine(
    directory: Path,
    launcher: FakeLauncher | None = None,
    *,
    clock: FakeClock | None = None,
    meter: Meter | None = None,
    **settings: Any,
) -> AsyncIterator[tuple[Engine, FakeLauncher]]:
    """Open a real engine on a fake launcher."""
    launcher = launcher or FakeLauncher()
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(launcher.run)
        config = make_config(directory, **settings)
        try:
            outside = Collaborators(clock=clock or SystemClock(), meter=meter or NoMeter())
            async with Engine.open(config, link=launcher, outside=outside) as engine:
                yield engine, launcher
        except Exception as error:  # noqa: BLE001 - raised below, not in a group of one
            failure = error
    if failure is not None:
        raise failure


def _close(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
