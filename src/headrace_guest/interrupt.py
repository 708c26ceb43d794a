"""Signals and user code: an interrupt reaches the code that it was meant for, and nothing else.

The host interrupts with SIGINT. What the signal does depends on where the kernel is:

    closed ──input has come──▶ kept ──▶ open: user code runs ──▶ closed
    ignored                    raised   raised at once
                               in open

An interrupt in ``closed`` while input waits to be read belongs to the code in that input, because
the host writes the code before it sends the signal: it is raised in open, too. Handlers of user
code for other signals run only in `wait` and in ``open``: elsewhere they could do harm.

A signal that comes in the microsecond between Python's last look and a blocking system call wakes
nothing, so the host may have to send an interrupt again. What follows shortly after one that was
raised is taken for such a repetition, so that it does not hit the code's own cleaning up.
"""

import _signal  # type: ignore[import-not-found]  # typeshed knows only its wrapper
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum
from time import monotonic
from types import FrameType

# The functions of `signal` turn every number into an enum, which costs more than the call.
_set_mask = _signal.pthread_sigmask
_get_handler = _signal.getsignal
_set_handler = _signal.signal

_SIGINT = int(signal.SIGINT)
_REPEAT_SECONDS = 0.5
_NEVER = float("-inf")
_SETMASK = int(signal.SIG_SETMASK)
_NO_SIGNALS: frozenset[int] = frozenset()
_SIGNALS = frozenset(map(int, signal.valid_signals()))
_IGNORED_BY_PYTHON = frozenset(map(int, (signal.SIGPIPE, signal.SIGXFSZ)))
# Blocking a fault would only hide its place; SIGINT has its own states.
_BLOCKABLE = _SIGNALS - {
    _SIGINT,
    *map(int, (signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGBUS)),
    *map(int, (signal.SIGFPE, signal.SIGILL, signal.SIGABRT, signal.SIGTRAP, signal.SIGSYS)),
}


class _State(Enum):
    CLOSED = "closed"
    KEPT = "kept"
    OPEN = "open"


# Looked up in the handler and around every execution; an enum's own lookup is slow.
_CLOSED, _KEPT, _OPEN = _State


class Interrupts:
    """The handler of SIGINT and the signal mask of the main thread.

    ``has_input`` tells whether bytes of the host wait to be read. ``was_interrupted`` says
    whether an interrupt was raised since `expect`, or may have been by a handler of user code.
    """

    def __init__(self, has_input: Callable[[], bool]) -> None:
        self._has_input = has_input
        self._state = _CLOSED
        self._is_pending = False
        self._handler = self._on_signal
        self._clock = monotonic  # not by its global name, which libraries that fake time replace
        self._raised_at = _NEVER
        self.was_interrupted = False

    def install(self) -> None:
        """Take SIGINT over; what the fork server handled or ignored gets its default back."""
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS - _IGNORED_BY_PYTHON:
            if _get_handler(number) != _signal.SIG_DFL:
                _set_handler(number, _signal.SIG_DFL)
        _set_handler(_SIGINT, self._handler)
        _set_mask(_SETMASK, _BLOCKABLE)

    def become_ordinary(self) -> None:
        """In a forked child, take SIGINT as any Python program does."""
        if _get_handler(_SIGINT) is self._handler:
            _set_handler(_SIGINT, signal.default_int_handler)

    def wait(self, for_input: Callable[[], object]) -> None:
        """Do nothing until ``for_input`` returns; what a handler of user code raises comes out."""
        if self._is_pending and not self._has_input():
            self._is_pending = False  # what came with it was no code
        self._state = _CLOSED
        try:
            _set_mask(_SETMASK, _NO_SIGNALS)
            for_input()
        finally:
            self._state = _KEPT
            _set_mask(_SETMASK, _BLOCKABLE)

    def expect(self) -> None:
        """Begin an execution: an interrupt from now on is for it."""
        self.was_interrupted = False
        self._raised_at = _NEVER

    def forget(self) -> None:
        """Drop an interrupt that was meant for an earlier execution."""
        self._is_pending = False

    def run(self, code: Callable[[], object]) -> BaseException | None:
        """Run user code with open signals and give what it raised, instead of raising it."""
        error: BaseException | None = None
        try:
            try:
                self._state = _OPEN
                _set_mask(_SETMASK, _NO_SIGNALS)
                self._raise_pending()
                code()
            finally:
                # No call stands between the end of the code and this line, and only calls let
                # Python run a handler: an interrupt is raised above or ignored below.
                self._state = _CLOSED
        except BaseException as raised:  # noqa: BLE001 - whatever user code raises is a result
            error = raised
        self._close()
        return error

    @contextmanager
    def held(self) -> Iterator[None]:
        """Inside `run`, put an interrupt off until the end of this block."""
        self._state = _KEPT
        try:
            yield
        finally:
            self._state = _OPEN
        self._raise_pending()

    def _raise_pending(self) -> None:
        if self._is_pending:
            self._is_pending = False
            self._interrupt()

    def _interrupt(self) -> None:
        now = self._clock()
        if now - self._raised_at > _REPEAT_SECONDS:
            self._raised_at = now
            self.was_interrupted = True
            raise KeyboardInterrupt

    def _close(self) -> None:
        while True:
            try:
                _set_mask(_SETMASK, _BLOCKABLE)
                if _get_handler(_SIGINT) is not self._handler:
                    self.was_interrupted = True  # perhaps: user code has taken that over
                    _set_handler(_SIGINT, self._handler)
            except BaseException:  # noqa: BLE001, S112 - a handler of user code raised
                continue
            return

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        if self._state is _OPEN:
            self._interrupt()
        elif self._state is _KEPT or self._has_input():
            self._is_pending = True
