"""The Python kernel: takes code from the event socket and runs it in an IPython shell.

`prepare` runs once in the fork server; `WarmKernel.serve` runs in each forked child, after it has
locked itself down. User code shares this process: the worst that it can do is to end it, which
the host sees as the end of the event socket.
"""

import builtins
import contextlib
import faulthandler
import getpass
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from IPython.core.error import StdinNotImplementedError

from headrace_guest import capture, failure, linux, packages, warm
from headrace_guest.display import make_bundle
from headrace_guest.event_socket import EventSocket
from headrace_guest.interrupt import Interrupts
from headrace_guest.outcome import end_forked_child, judge, print_exit_message
from headrace_guest.protocol import MAX_TEXT, ProtocolError
from headrace_guest.randomness import reseed
from headrace_guest.shell import KernelShell
from headrace_guest.surroundings import Surroundings

# Below this the shell itself cannot run, so that user code could not raise it again.
_LEAST_RECURSION_LIMIT = 300

_exit = os._exit
_chdir = os.chdir


def prepare() -> "WarmKernel":
    """Import and warm up everything, once, in the fork server.

    Reads IPYTHONDIR and MPLCONFIGDIR from the environment, which must name writable directories.
    Raises RuntimeError if more than one thread is left: such a process must not be forked.
    """
    shell, missing = warm.warm_up()
    threads = linux.count_threads()
    if threads != 1:
        raise RuntimeError(f"{threads} threads after the warm-up, a fork server must have one")
    return WarmKernel(shell, missing, os.getpid())


@dataclass(frozen=True)
class WarmKernel:
    """A warm shell, ready to be forked by ``process``, the fork server.

    ``missing`` names libraries that are not installed.
    """

    shell: KernelShell
    missing: tuple[str, ...]
    process: int

    def serve(self, events: socket.socket) -> NoReturn:
        """Be a kernel: run what the host sends until it closes the socket; never returns.

        For a forked child with descriptor 0 on /dev/null and pipes at 1 and 2. Takes ``events``
        over. The process ends with code 0 when the host is gone and 1 after a failure of ours.
        """
        code = 1
        try:
            reseed(self.process)
            _Kernel(self.shell, events).run()
            code = 0
        except (EOFError, BrokenPipeError, ConnectionResetError):
            code = 0
        except BaseException:  # noqa: BLE001 - nothing may go on to run the fork server's code
            os.write(2, traceback.format_exc().encode("utf-8", "replace"))
        finally:
            _exit(code)


@dataclass(frozen=True)
class _Execution:
    """What the host asked to run."""

    id: str
    code: str
    env: Mapping[str, str]
    cwd: str | None
    accepts_input: bool


class _Kernel:
    """The state of one kernel process. Everything but `_show` is for the main thread only."""

    def __init__(self, shell: KernelShell, events: socket.socket) -> None:
        self._shell = shell
        self._descriptors = capture.StandardDescriptors()
        fd = capture.move_high(events.fileno())
        events.close()
        kept = self._descriptors.kept
        self._fence = capture.Fence(kept(1), kept(2), fd)
        self._events = EventSocket(fd, self._fence)
        self._interrupts = Interrupts(self._events.has_input)
        self._interrupts.install()
        self._c_output = capture.CStandardOutput()
        self._streams = capture.make_streams(self._fence)
        self._stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - stays open
        self._execution: _Execution | None = None
        self._directory: str | None = None
        self._has_run = False
        self._install()

    def _install(self) -> None:
        """Put our ends into the modules where user code looks for them."""
        capture.install(self._fence)
        os.register_at_fork(after_in_child=self._become_ordinary)
        self._restore_streams()
        originals = dict(zip(("__stdout__", "__stderr__"), self._streams, strict=True))
        vars(sys).update(originals, __stdin__=self._stdin)
        faulthandler.enable()
        builtins.input = _make_input(self._ask)
        getpass.getpass = _make_getpass(self._ask)
        sys.argv = [""]
        sys.path.insert(0, "")
        self._shell.show = self._show

    # --- the loop ---------------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the host says exit; raises EOFError when it closes the socket."""
        self._events.send({"type": "ready"})
        while True:
            frame = self._next_frame()
            kind = frame.get("type")
            if kind == "execute":
                self._execute(frame)
            elif kind == "configure":
                self._configure(frame)
            elif kind == "warm" and not self._has_run:
                warm.touch(self._shell)
            elif kind == "exit":
                return
            # Anything else is a late answer to an input() that no longer waits.

    def _next_frame(self) -> dict[str, Any]:
        while True:
            try:
                self._interrupts.wait(self._events.wait)
            except BaseException:  # noqa: BLE001 - a signal handler of user code raised
                if not self._events.is_intact:
                    _exit(1)
                traceback.print_exc(file=self._streams[1])
                continue
            frame = self._events.receive()
            if frame is not None:
                return frame

    def _configure(self, frame: Mapping[str, Any]) -> None:
        os.environ.update(frame["env"])
        if "TZ" in frame["env"]:
            time.tzset()
        packages.path_files.follow()
        self._directory = frame["cwd"]
        if self._enter_directory() is None:
            history: Any = self._shell.history_manager
            history.dir_hist[:] = [frame["cwd"]]

    def _enter_directory(self) -> OSError | None:
        """Go to the context's directory, once it exists."""
        if self._directory is not None:
            try:
                _chdir(self._directory)
            except OSError as error:
                return error
            self._directory = None
        return None

    # --- one execution ----------------------------------------------------------------------

    def _execute(self, frame: Mapping[str, Any]) -> None:
        self._has_run = True
        self._interrupts.expect()
        if frame.get("discard_interrupt"):
            self._interrupts.forget()
        self._execution = execution = _Execution(
            id=frame["execution"],
            code=frame["code"],
            env=frame["env"],
            cwd=frame["cwd"],
            accepts_input=frame["accepts_input"],
        )
        self._restore()
        surroundings = Surroundings(execution.env, execution.cwd)
        error = self._enter(surroundings, execution)
        if error is None:
            error = self._run(execution.code)
        message = None if error is None else self._describe(error)
        surroundings.leave()
        self._finish(execution, error, message)

    def _enter(self, surroundings: Surroundings, execution: _Execution) -> BaseException | None:
        failed = self._enter_directory()
        if failed is not None and execution.cwd is None:
            return failed.with_traceback(None)
        try:
            surroundings.enter()
        except (OSError, ValueError, TypeError) as error:
            return error.with_traceback(None)
        return None

    def _run(self, code: str) -> BaseException | None:
        ended: list[BaseException | None] = [None]

        def run() -> None:
            try:
                ended[0] = self._shell.run(code)
            finally:
                self._flush()
            print_exit_message(ended[0])

        escaped = self._interrupts.run(run)
        sys.settrace(None)
        sys.setprofile(None)
        error = ended[0] if escaped is None else escaped
        if not self._events.is_mine:
            end_forked_child(error)
        return error

    def _describe(self, error: BaseException) -> dict[str, Any]:
        message: dict[str, Any] = {}
        failed = self._interrupts.run(
            lambda: message.update(failure.describe(error, self._shell.render))
        )
        if failed is not None:
            name = type(failed).__name__
            return failure.describe_plainly(error, f"<describing it raised {name}>")
        return message

    def _finish(
        self, execution: _Execution, error: BaseException | None, message: dict[str, Any] | None
    ) -> None:
        """Send the error, wait until all output was read, and send the end."""
        if not self._events.is_intact:
            _exit(1)  # user code closed the socket; the host sees that it is gone
        status, exit_code = judge(error, self._interrupts.was_interrupted)
        with self._events.lock:
            self._execution = None
            if message is not None:
                self._send_error(execution.id, message)
            self._events.send(
                {
                    "type": "done",
                    "execution": execution.id,
                    "status": status,
                    "exit_code": exit_code,
                }
            )

    def _send_error(self, execution: str, message: dict[str, Any]) -> None:
        for limit in failure.TEXT_LIMITS:
            shortened = failure.shorten_texts(message, limit)
            try:
                self._events.send({"type": "error", "execution": execution, **shortened})
            except ProtocolError:  # the frame is too long
                continue
            return

    # --- what user code calls ---------------------------------------------------------------

    def _show(
        self,
        data: Mapping[Any, Any],
        *,
        is_main: bool = False,
        display_id: str | None = None,
        is_update: bool = False,
    ) -> None:
        """Send a result; from a forked child or between executions only its text, to stdout."""
        execution = self._execution
        if execution is None or not self._events.is_mine:
            text = data.get("text/plain")
            if isinstance(text, str):
                self._streams[0].write(text + "\n")
            return
        bundle, omitted = make_bundle(data)
        with self._events.lock:
            if self._execution is not execution:
                return  # a thread was too slow: its execution has ended
            self._send_or_end(
                {
                    "type": "result",
                    "execution": execution.id,
                    "bundle": bundle,
                    "is_main": is_main,
                    "omitted": omitted,
                    "display_id": display_id,
                    "is_update": is_update,
                }
            )

    def _ask(self, prompt: str, is_password: bool) -> str:
        """Ask the host for a line; raises EOFError when there will be none."""
        execution = self._execution
        if execution is None or not execution.accepts_input:
            raise StdinNotImplementedError(
                "this execution does not accept input (accepts_input is false)"
            )
        if not self._events.is_mine or threading.current_thread() is not threading.main_thread():
            raise StdinNotImplementedError("only the main thread of the kernel can ask for input")
        self._send_or_end(
            {
                "type": "input",
                "execution": execution.id,
                "prompt": failure.shorten(prompt, MAX_TEXT),
                "is_password": is_password,
            }
        )
        text = self._wait_for_answer(execution.id)
        if text is None:
            raise EOFError("EOF when reading a line")
        return text

    def _wait_for_answer(self, execution: str) -> str | None:
        while True:
            self._events.wait()
            with self._interrupts.held():
                frame = self._receive_or_end()
            if frame is None:
                continue
            if frame.get("type") != "input":
                _exit(0 if frame.get("type") == "exit" else 1)
            if frame["execution"] == execution:
                text = frame["text"]
                return text if isinstance(text, str) else None

    def _send_or_end(self, message: Mapping[str, Any]) -> None:
        try:
            self._events.send(message)
        except OSError:
            _exit(1)  # without the socket nothing can be told to anybody

    def _receive_or_end(self) -> dict[str, Any] | None:
        try:
            return self._events.receive()
        except (EOFError, OSError, ProtocolError):
            _exit(1)

    # --- order and repair -------------------------------------------------------------------

    def _restore(self) -> None:
        """Repair what earlier code may have broken and this one relies on."""
        self._descriptors.restore()
        self._restore_streams()
        if sys.getrecursionlimit() < _LEAST_RECURSION_LIMIT:
            sys.setrecursionlimit(_LEAST_RECURSION_LIMIT)

    def _restore_streams(self) -> None:
        sys.stdin = self._stdin
        sys.stdout, sys.stderr = self._streams

    def _flush(self) -> None:
        """Write out what user code's own wrappers and the C library still hold."""
        for stream in (sys.stdout, sys.stderr):
            if type(stream) is not capture.OutputStream:
                with contextlib.suppress(Exception):
                    stream.flush()
        self._c_output.flush()

    def _become_ordinary(self) -> None:
        """In a forked child: be a Python program that prints, and no kernel."""
        self._shell.has_host = False
        self._events.disown()
        self._descriptors.become_ordinary()
        self._fence.become_ordinary()
        self._interrupts.become_ordinary()


def _make_input(ask: Callable[[str, bool], str]) -> Callable[..., str]:
    def input(prompt: object = "", /) -> str:
        """Ask whoever started this execution for a line of text."""
        __tracebackhide__ = True
        return ask(str(prompt), False)

    return input


def _make_getpass(ask: Callable[[str, bool], str]) -> Callable[..., str]:
    def getpass(prompt: str = "Password: ", stream: object = None) -> str:
        """Ask whoever started this execution for a line that is not to be shown."""
        __tracebackhide__ = True
        return ask(prompt, True)

    return getpass
