"""Our end of a kernel: its event socket and its two output pipes, read in one loop.

A kernel shares its process with the user's code, so everything that it sends may be forged. It is
checked here, in the callback in which it was read, and given to the listener at once: the guest
waits for prompt reads to keep the order of output and events. A kernel that breaks the protocol
is ended; its listener hears why.

    starting ──ready──▶ idle ──begin──▶ running ──done──▶ idle
        └────────────────┴───────┬────────┘
          exit, end of file, violation ──▶ ended
"""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import anyio

from headrace.engine.event_log import EventLog
from headrace.engine.launcher import ExitNotice, Launcher
from headrace.engine.output import OutputPump
from headrace.engine.pipes import drain
from headrace.engine.share import Share
from headrace.model.errors import HeadraceError, KernelDiedError
from headrace.model.events import ExecutionEvent, Stream
from headrace.model.specs import Language
from headrace_guest.protocol import (
    MAX_GUEST_FRAME,
    FrameReader,
    KernelDone,
    KernelMessage,
    KernelReady,
    ProtocolError,
    encode_frame,
    parse_kernel_message,
)

_CHUNK = 32 * 1024
_LAST_READS = 64
_REMEMBERED = 1024
_EXIT_WAIT = 1.0
_KILL_WAIT = 5.0
_ROOM_RETRY = 0.05
_ROOM_TRIES = 400

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class KernelEnd:
    """Why a kernel is no more. ``exit_code`` and ``signal`` are None if it was not seen to exit."""

    detail: str
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False
    has_exited: bool = False

    @classmethod
    def from_notice(cls, notice: ExitNotice) -> "KernelEnd":
        """Put the launcher's notice into words."""
        if notice.oom:
            detail = "the kernel was killed because the sandbox ran out of memory"
        elif notice.signal is not None:
            detail = f"the kernel was ended by signal {notice.signal} ({name_of(notice.signal)})"
        else:
            detail = f"the kernel exited with status {notice.exit_code}"
        return cls(detail, notice.exit_code, notice.signal, notice.oom, has_exited=True)


def name_of(number: int) -> str:
    """Give a signal's name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"


class KernelListener(Protocol):
    """Who wants to hear what a kernel says; called from its reader, so be quick."""

    def kernel_said(self, message: KernelMessage) -> None:
        """A message of the running execution came; may raise ProtocolError to end the kernel."""

    def kernel_ended(self) -> None:
        """The kernel is no more, see `Kernel.end`."""


class KernelControl(Protocol):
    """How the process of one kernel is started and signalled; one class per way of starting."""

    name: str
    """What the launcher's notices call it; no other kernel of the sandbox ever had it."""
    takes_interrupts: bool
    """Whether it wants interrupts as frames that name the execution, and not as signals."""

    async def launch(self, fds: Sequence[int]) -> None:
        """Start the kernel; ``fds`` are the guest's event socket, stdout and stderr."""

    async def interrupt(self) -> None:
        """Send SIGINT to the kernel's process group."""

    async def kill(self) -> None:
        """Send SIGKILL to the kernel's process group."""


KernelStarter = Callable[[], KernelControl]
"""Gives the control of a new kernel; there is one starter per sandbox and language."""


class Kernel:
    """One kernel process. It owns its socket and pumps, and closes them in `aclose`."""

    def __init__(self, control: KernelControl, listener: KernelListener) -> None:
        self.name = control.name
        self.end: KernelEnd | None = None
        self.is_configured = False
        self.was_killed = False
        self._control = control
        self._listener = listener
        self._frames = FrameReader(MAX_GUEST_FRAME)
        self._outgoing = bytearray()
        self._execution: str | None = None
        self._log: EventLog[ExecutionEvent] | None = None
        self._past: deque[str] = deque(maxlen=_REMEMBERED)
        self._waits_for_room = 0
        self._is_launched = False
        self._is_ready = False
        self._is_reading = True
        self._is_at_eof = False
        self._was_interrupted = False
        self._is_closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._ready = anyio.Event()
        self._exited = anyio.Event()
        self._loop = asyncio.get_running_loop()
        self._share = Share(self._loop.time())
        self._sock, self._guest_ends, self._pumps = _open_channels()
        self._loop.add_reader(self._sock, self._on_readable)

    # --- for the context ----------------------------------------------------------------------

    async def launch(self) -> None:
        """Start the process; the guest's ends of the channels are gone from here afterwards."""
        try:
            await self._control.launch(self._guest_ends)
            self._is_launched = True
        finally:
            self._close_guest_ends()

    async def await_ready(self) -> None:
        """Wait until code can be sent; raises KernelDiedError if it does not come to that."""
        await self._ready.wait()
        if self.end is not None:
            raise KernelDiedError(f"a new kernel did not come up: {self.end.detail}")

    @property
    def is_lost(self) -> bool:
        """Say whether nothing can come of this kernel any more, even if it was not seen to end."""
        return self.end is not None or self._is_at_eof

    def listen(self, listener: KernelListener) -> None:
        """Tell somebody else from now on; for a kernel that has run nothing."""
        self._listener = listener

    def configure(self, env: Mapping[str, str], cwd: str) -> None:
        """Tell the kernel its environment and directory; once, before the first code."""
        self.is_configured = True
        self._send({"type": "configure", "env": dict(env), "cwd": cwd})

    def warm_up(self) -> None:
        """Let the kernel take the usual first steps ahead, while nobody waits for it.

        A driver starts its interpreter; it must have been configured.
        """
        self._send({"type": "warm"})

    def begin(
        self, execution: str, log: EventLog[ExecutionEvent], order: Mapping[str, Any]
    ) -> None:
        """Hand code over; what it prints goes to ``log`` until `finish`."""
        self._log = log
        for _fd, pump in self._pumps:
            pump.attach(log)
        self._execution = execution
        message = {"type": "execute", "execution": execution, **order}
        if self._was_interrupted:
            # The signal may reach Python only now.
            message["discard_interrupt"] = True
            self._was_interrupted = False
        self._send(message)

    def send_input(self, execution: str, text: str | None) -> None:
        """Answer the code's ``input()``; None is the end of the file."""
        self._send({"type": "input", "execution": execution, "text": text})

    async def drain(self) -> None:
        """Bring what is in the pipes now into the log, or note that it is lost."""
        if self._log is not None:
            await drain(self._pumps, self._log)

    def finish(self) -> None:
        """Let go of the execution's log; what comes later of it is dropped."""
        self._log = None
        for _fd, pump in self._pumps:
            pump.detach()
        self._forget_execution()

    async def interrupt(self) -> None:
        """Interrupt what runs; returns when that has been sent."""
        if self._control.takes_interrupts:
            if self._execution is not None:
                self._send({"type": "interrupt", "execution": self._execution})
            return
        self._was_interrupted = True
        await self._control.interrupt()

    async def kill(self) -> None:
        """Kill the kernel's processes and wait, within a bound, for its exit."""
        if not self._is_launched or (self.end is not None and self.end.has_exited):
            return
        self.was_killed = True
        try:
            with anyio.move_on_after(_KILL_WAIT):
                await self._control.kill()
                await self._exited.wait()
        except HeadraceError as error:
            # The launcher is gone or stuck, and the sandbox with it.
            _logger.warning("kernel not killed: %s", error.message)
        if self.end is None:
            self._set_end(KernelEnd("the kernel was killed but was not seen to end"))

    def process_exited(self, notice: ExitNotice) -> None:
        """Take the launcher's word that the kernel's process is gone."""
        for _ in range(_LAST_READS):
            self._pull()
            if not self._is_reading or not self._read():
                break
        known = self.end
        if known is None or not known.has_exited:
            end = KernelEnd.from_notice(notice)
            if known is not None:
                end = KernelEnd(known.detail, end.exit_code, end.signal, end.oom, has_exited=True)
            self._set_end(end)
        self._exited.set()

    async def aclose(self) -> None:
        """Close everything; safe to call twice. The process is not waited for."""
        if self._is_closed:
            return
        self._is_closed = True
        self._stop_reading()
        if self._timer is not None:
            self._timer.cancel()
        self._loop.remove_writer(self._sock)
        self._sock.close()
        self._close_guest_ends()
        for _fd, pump in self._pumps:
            await pump.aclose()

    # --- reading ------------------------------------------------------------------------------

    def _on_readable(self) -> None:
        """Read messages, after the output that was written before them.

        The guest's fence empties the pipes before it sends a message, and writes no output until
        the socket is empty again. So what is in the pipes at this moment came before what is in
        the socket; once the socket has been read that is no longer so.
        """
        if self._pull() or self._waits_for_room >= _ROOM_TRIES:
            self._waits_for_room = 0
            began = self._loop.time()
            self._read()
            # What it sends may take more time than one guest may have of all the others.
            self._pause(self._share.spend(began, self._loop.time()))
        else:
            # The log's disk has no room for the output.
            self._waits_for_room += 1
            self._pause(_ROOM_RETRY)

    def _pause(self, seconds: float) -> None:
        if seconds and self._is_reading:
            self._loop.remove_reader(self._sock)
            self._later(seconds, self._read_again)

    def _read_again(self) -> None:
        if self._is_reading:
            self._loop.add_reader(self._sock, self._on_readable)

    def _pull(self) -> bool:
        """Bring what is in the pipes into the log; says whether all of it found room."""
        found_room = True
        for _fd, pump in self._pumps:
            found_room = pump.pull() and found_room
        return found_room

    def _read(self) -> bool:
        """Take one piece from the socket; says whether there may be more."""
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._is_at_eof = True
            self._stop_reading()
            self._later(_EXIT_WAIT, self._note_silent_end)
            return False
        with self._ending_on_violation():
            for body in self._frames.feed(data):
                if self.end is None:
                    self._dispatch(parse_kernel_message(body))
        return self._is_reading

    @contextlib.contextmanager
    def _ending_on_violation(self) -> Iterator[None]:
        try:
            yield
        except ProtocolError as error:
            self._violate(str(error))
        except Exception:
            # The loop would call again for ever, and one kernel's trouble must stay its own.
            _logger.exception("a kernel's message could not be handled")
            self._violate("internal failure of the engine")

    def _dispatch(self, message: KernelMessage) -> None:
        if isinstance(message, KernelReady):
            if self._is_ready:
                raise ProtocolError("ready came twice")
            self._is_ready = True
            self._ready.set()
            return
        if message.execution != self._execution:
            if message.execution not in self._past or isinstance(message, KernelDone):
                raise ProtocolError(
                    f"a message of an execution that does not run: {message!r:.200}"
                )
            # A thread of former code still displays something.
            return
        if isinstance(message, KernelDone):
            self._forget_execution()
        self._listener.kernel_said(message)

    def _forget_execution(self) -> None:
        if self._execution is not None:
            self._past.append(self._execution)
            self._execution = None

    # --- ends ---------------------------------------------------------------------------------

    def _violate(self, detail: str) -> None:
        self._stop_reading()
        self._set_end(KernelEnd(f"the kernel broke the protocol: {detail}"))

    def _note_silent_end(self) -> None:
        if self.end is None:
            self._set_end(KernelEnd("the kernel closed its event socket"))

    def _set_end(self, end: KernelEnd) -> None:
        is_first = self.end is None
        self.end = end
        self._stop_reading()
        self._ready.set()
        if is_first:
            self._listener.kernel_ended()

    def _stop_reading(self) -> None:
        if self._is_reading:
            self._is_reading = False
            self._loop.remove_reader(self._sock)

    def _close_guest_ends(self) -> None:
        _close_all(self._guest_ends)

    def _later(self, delay: float, what: Any) -> None:  # noqa: ANN401 - a callback
        if self._timer is not None:
            self._timer.cancel()
        if not self._is_closed:
            self._timer = self._loop.call_later(delay, what)

    # --- writing ------------------------------------------------------------------------------

    def _send(self, message: Mapping[str, Any]) -> None:
        frame = encode_frame(message)
        if not self._outgoing:
            frame = frame[self._send_some(frame) :]
            if frame:
                self._loop.add_writer(self._sock, self._on_writable)
        self._outgoing += frame

    def _on_writable(self) -> None:
        count = self._send_some(self._outgoing)
        del self._outgoing[:count]
        if not self._outgoing:
            self._loop.remove_writer(self._sock)

    def _send_some(self, data: bytes | bytearray) -> int:
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            # Its end will be noticed by the reader.
            return len(data)


def _open_channels() -> tuple[socket.socket, list[int], list[tuple[int, OutputPump]]]:
    """Open the event socket and the pipes; gives our socket, the guest's ends and the pumps."""
    with contextlib.ExitStack() as undo:
        ours, theirs = socket.socketpair()
        undo.callback(ours.close)
        guest_ends = [theirs.detach()]
        pumps = []
        undo.callback(_close_all, guest_ends)
        for stream in (Stream.STDOUT, Stream.STDERR):
            read_end, write_end = os.pipe2(os.O_CLOEXEC)
            guest_ends.append(write_end)
            pumps.append((read_end, OutputPump(read_end, stream)))
        ours.setblocking(False)
        undo.pop_all()
    return ours, guest_ends, pumps


def _close_all(fds: list[int]) -> None:
    while fds:
        os.close(fds.pop())


class LauncherControl:
    """Starts and signals a kernel that the launcher forks, warm, into the sandbox."""

    def __init__(self, launcher: Launcher, sandbox: str, name: str, language: Language) -> None:
        self.name = name
        self._launcher = launcher
        self._sandbox = sandbox
        self._language = language
        self.takes_interrupts = language is not Language.PYTHON

    async def launch(self, fds: Sequence[int]) -> None:
        """Have the kernel forked."""
        await self._launcher.start_kernel(self._sandbox, self.name, self._language, fds)

    async def interrupt(self) -> None:
        """Send SIGINT to the kernel's process group."""
        await self._launcher.signal_kernel(self._sandbox, self.name, signal.SIGINT)

    async def kill(self) -> None:
        """Send SIGKILL to the kernel's process group."""
        await self._launcher.kill_kernel(self._sandbox, self.name)
