"""A kernel of another language: speaks with the host, and has an interpreter run the code.

    host ══ event socket ══ driver ── channel, order file ── interpreter (bash, node, ...)
      ╚════════ stdout and stderr: the same pipes for driver and interpreter ═════╝

The interpreter runs user code, so what it says is believed no more than user code is: it is
checked here and again by the host. When it ends, the kernel ends the same way. Both are in one
process group. An interrupt is a frame that names its execution; the driver makes it a SIGINT to
the group, which it ignores itself, as soon as the interpreter has begun with that code.
"""

import contextlib
import os
import resource
import select
import signal
import socket
import time
import traceback
from collections.abc import Mapping
from typing import Any, NoReturn

from headrace_guest import capture, linux
from headrace_guest.event_socket import EventSocket
from headrace_guest.failure import TEXT_LIMITS, shorten_texts
from headrace_guest.kernels.child import Child
from headrace_guest.kernels.interpreter import Interpreter, Order
from headrace_guest.kernels.messages import read_message
from headrace_guest.protocol import MAX_GUEST_FRAME, ProtocolError, encode_frame

_FAILED = 70
"""The exit code of a kernel whose interpreter broke the rules; sysexits.h: EX_SOFTWARE."""


def serve(interpreter: Interpreter, events: socket.socket) -> NoReturn:
    """Be a kernel until the host closes the socket or the interpreter ends; never returns.

    For a forked child with descriptor 0 on /dev/null and pipes at 1 and 2. Takes ``events`` over.
    """
    code = 1
    try:
        _Driver(interpreter, events).run()
        code = 0
    except (EOFError, BrokenPipeError, ConnectionResetError):
        code = 0
    except ProtocolError as error:
        code = _FAILED
        os.write(2, f"headrace: the interpreter was ended: {error}\n".encode("utf-8", "replace"))
    except BaseException:  # noqa: BLE001 - nothing may go on to run the fork server's code
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(code)


class _Driver:
    """The state of one kernel. Leaves no child behind: the fork server ends the whole group."""

    def __init__(self, interpreter: Interpreter, events: socket.socket) -> None:
        self._interpreter = interpreter
        descriptors = capture.StandardDescriptors()
        self._fd = capture.move_high(events.fileno())
        events.close()
        kept = descriptors.kept
        self._fence = capture.Fence(kept(1), kept(2), self._fd)
        self._events = EventSocket(self._fd, self._fence)
        self._child: Child | None = None
        self._directory: str | None = None
        self._execution: str | None = None
        self._begun_at: float | None = None
        self._is_interrupted = False
        self._due: float | None = None
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        # A handler, since what is ignored stays ignored in the interpreter.
        signal.signal(signal.SIGINT, lambda _number, _frame: None)

    # --- the loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the host says exit; raises EOFError when it closes the socket."""
        self._events.send({"type": "ready"})
        while True:
            ready = {fd for fd, _event in self._poll.poll(self._patience())}
            child = self._child
            if child is not None and ready & {child.channel, child.pidfd}:
                self._listen(child)
            if self._fd in ready and not self._obey():
                return
            self._interrupt_if_due()

    def _obey(self) -> bool:
        """Take what the host sent; False when it said exit."""
        frame = self._events.receive()
        while frame is not None:
            kind = frame.get("type")
            if kind == "execute":
                self._execute(frame)
            elif kind == "interrupt" and frame["execution"] == self._execution:
                self._is_interrupted = True
                self._pass_interrupt_on()
            elif kind == "configure":
                os.environ.update(frame["env"])
                self._directory = frame["cwd"]
            elif kind == "warm" and self._child is None:
                with contextlib.suppress(OSError):  # the first execution tries again, and says why
                    self._start()
            elif kind == "exit":
                return False
            # Nobody asks for input.
            frame = self._events.receive() if self._events.has_frame else None
        return True

    def _listen(self, child: Child) -> None:
        """Take what the interpreter said; if it has ended, end the same way."""
        # Asked first: what it wrote before its end is there by then.
        has_ended = child.has_ended
        for line in child.read():
            self._hear(child, read_message(line))
        while has_ended and child.has_ended and (lines := list(child.read())):
            for line in lines:
                self._hear(child, read_message(line))
        if has_ended and child.has_ended:
            _end_like(child.reap())

    # --- one execution ----------------------------------------------------------------------

    def _execute(self, frame: Mapping[str, Any]) -> None:
        self._execution = frame["execution"]
        self._begun_at = self._due = None
        self._is_interrupted = False
        order = Order(frame["code"], frame["env"], frame["cwd"])
        try:
            child = self._child or self._start()
            if order.cwd is not None:
                os.chdir(order.cwd)  # as the interpreter will do: if it may not, it is told here
        except OSError as error:
            self._fail(error)
            return
        child.hand_over(self._interpreter.encode(order))

    def _start(self) -> Child:
        """Start the interpreter in the context's directory; raises OSError that names it."""
        if self._directory is not None:
            os.chdir(self._directory)
        self._child = child = Child(self._interpreter)
        self._poll.register(child.channel, select.POLLIN)
        self._poll.register(child.pidfd, select.POLLIN)
        return child

    def _fail(self, error: OSError) -> None:
        """End the execution with an error of the surroundings that it asked for."""
        name, value = type(error).__name__, str(error)
        self._send({"type": "error", "name": name, "value": value, "traceback": f"{name}: {value}"})
        self._finish({"type": "done", "status": "error", "exit_code": None})

    def _hear(self, child: Child, message: dict[str, Any]) -> None:
        kind = message["type"]
        if kind == "moved":
            if self._execution is None:
                raise ProtocolError("it moved while it ran nothing")
            self._poll.unregister(child.pidfd)
            child.move(message["pid"])
            self._poll.register(child.pidfd, select.POLLIN)
        elif self._execution is None:
            # A timer or a thread of former code; whoever waits for the answer goes on.
            self._acknowledge(child, kind)
        elif kind == "begun":
            self._begun_at = time.monotonic()
            self._pass_interrupt_on()
        elif kind == "done":
            self._finish(message)
        else:
            self._send(message)
            self._acknowledge(child, kind)

    # --- interrupts ---------------------------------------------------------------------------

    def _pass_interrupt_on(self) -> None:
        """Have the interpreter interrupted, at once unless it must be let begin in peace."""
        if self._begun_at is not None and self._is_interrupted:
            self._is_interrupted = False
            self._due = self._begun_at + self._interpreter.interrupts_after
            self._interrupt_if_due()

    def _interrupt_if_due(self) -> None:
        now = time.monotonic()
        if self._due is None or now < self._due or self._child is None:
            return
        self._child.interrupt()
        again = self._interpreter.interrupts_again
        self._due = None if again is None else now + again

    def _patience(self) -> float | None:
        """Give how many milliseconds to wait for a message; None for as long as it takes."""
        if self._due is None:
            return None
        return max(0.0, self._due - time.monotonic()) * 1000 + 1

    def _acknowledge(self, child: Child, kind: str) -> None:
        if kind == "result":
            self._fence.before_child()
            child.tell(b"ack\n")

    def _finish(self, message: dict[str, Any]) -> None:
        self._send(message)
        self._execution = self._due = None

    def _send(self, message: dict[str, Any]) -> None:
        for fitting in _shortened({**message, "execution": self._execution}):
            try:
                encode_frame(fitting, MAX_GUEST_FRAME)
            except ProtocolError:
                continue
            self._events.send(fitting)
            return


def _shortened(message: dict[str, Any]) -> "list[dict[str, Any]]":
    """Give the message, and what to send instead if it is too long for a frame."""
    if message["type"] == "error":
        return [{**message, **shorten_texts(message, limit)} for limit in TEXT_LIMITS]
    if message["type"] == "result":
        bundle = message["bundle"]
        text = {key: value for key, value in bundle.items() if key == "text/plain"}
        rest = {key: len(str(value)) for key, value in bundle.items() if key not in text}
        omitted = {**message["omitted"], **rest}
        return [message, {**message, "bundle": text, "omitted": omitted}]
    return [message]


def _end_like(status: int) -> NoReturn:
    """End as the interpreter did, so that the host sees its exit code or signal."""
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        os._exit(code)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        signal.signal(-code, signal.SIG_DFL)
    os.kill(os.getpid(), -code)
    os._exit(128 - code)
