"""The IPython shell of a kernel: results and errors as data, commands on the real descriptors."""

# IPython is typed only in parts.
# mypy: allow-untyped-calls

import asyncio
import codecs
import os
import subprocess
import sys
import traceback
from collections.abc import Coroutine, Mapping
from contextlib import AbstractContextManager, nullcontext, suppress
from types import TracebackType
from typing import Any, NoReturn

import IPython
from IPython.core import interactiveshell
from IPython.core.autocall import ExitAutocall
from IPython.core.error import InputRejected, UsageError
from IPython.utils.text import LSString, SList
from traitlets import Type
from traitlets.config import Config

from headrace_guest.capture import OutputStream
from headrace_guest.display import BoundedTextFormatter, ResultHook, ResultPublisher, Show
from headrace_guest.failure import format_without_shell, hide_own_frames, shorten_traceback
from headrace_guest.forms import ChartForm, add_forms
from headrace_guest.packages import PackageMagics, refresh_imports

_SHELL_FILE = interactiveshell.__file__

ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None]


class Exit(ExitAutocall):
    """``exit`` and ``quit`` of user code; typing the bare name is enough."""

    def __call__(self, *code: object) -> NoReturn:
        """End the execution like ``sys.exit``."""
        raise SystemExit(*code)


class KernelShell(interactiveshell.InteractiveShell):
    """One Python context. ``show`` is set by whoever can send results."""

    displayhook_class = Type(ResultHook)
    display_pub_class = Type(ResultPublisher)
    show: Show
    chart_form: ChartForm
    warm_modules: frozenset[str] = frozenset()
    """The top-level modules that every kernel has from the start."""
    has_host = True
    """False in processes that user code forked: they have nobody to show anything to."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - traitlets
        self.show = _drop
        self._depth = 0
        self._swallowed: BaseException | None = None
        self._event_loop: asyncio.AbstractEventLoop | None = None
        super().__init__(**kwargs)

    # --- running ----------------------------------------------------------------------------

    def run(self, code: str) -> BaseException | None:
        """Run a cell and give the exception that ended it, if any."""
        self._depth = 0
        self._swallowed = None
        if "_oh" not in self.user_ns:  # user code has cleared its globals()
            self.init_user_ns()
        error = _error_of(self.run_cell(code, store_history=True))
        return self._swallowed if error is None else error

    def run_cell(self, *args: Any, **options: Any) -> interactiveshell.ExecutionResult:  # noqa: ANN401 - IPython
        """Run a cell; the error of one inside another (``%%capture``) is not to get lost."""
        self._depth += 1
        try:
            result: interactiveshell.ExecutionResult = super().run_cell(*args, **options)
        finally:
            self._depth -= 1
        if self._depth > 0:
            error = _error_of(result)
            self._swallowed = self._swallowed if error is None else error
        return result

    def run_coroutine(self, coroutine: Coroutine[Any, Any, Any]) -> Any:  # noqa: ANN401 - IPython
        """Run a cell with top-level ``await``; an interrupt cancels it."""
        if self._event_loop is None or self._event_loop.is_closed():
            self._event_loop = asyncio.new_event_loop()
        loop = self._event_loop
        asyncio.set_event_loop(loop)
        task = loop.create_task(coroutine)
        try:
            return loop.run_until_complete(task)
        except BaseException as error:
            if task.done():
                raise
            task.cancel()
            with suppress(asyncio.CancelledError):
                loop.run_until_complete(task)
            if not isinstance(error, KeyboardInterrupt):
                raise
        return _turn_cancelled_into_interrupted(task)

    def _tee(self, channel: str) -> AbstractContextManager[None]:  # type: ignore[override]
        """Do not keep all output in memory, as the base class does for exporting a notebook."""
        return nullcontext()

    def _format_exception_for_storage(self, *_args: object, **_kwargs: object) -> dict[str, str]:
        """Do not format every exception a second time for exporting a notebook."""
        return {}

    # --- errors -----------------------------------------------------------------------------

    def showtraceback(
        self,
        exc_tuple: ExceptionInfo | None = None,
        filename: str | None = None,
        tb_offset: int | None = None,
        exception_only: bool = False,
        running_compiled_code: bool = False,
    ) -> None:
        """Remember what ends the execution; write what does not (a broken repr) to stderr."""
        handled = sys.exc_info()[1]
        try:
            _kind, value, _tb = self._get_exc_info(exc_tuple)
        except ValueError:
            sys.stderr.write("No traceback available to show.\n")
            return
        if isinstance(value, KeyboardInterrupt):
            self._swallowed = value
        failed_before = exc_tuple is not None and handled is None  # a transformer of the source
        if running_compiled_code or failed_before or self._is_outcome(value):
            return
        offset = self.InteractiveTB.tb_offset if tb_offset is None else tb_offset
        hide_own_frames(value)
        sys.stderr.write(self.render(value, tb_offset=offset) + "\n")

    def showsyntaxerror(
        self, filename: str | None = None, running_compiled_code: bool = False
    ) -> None:
        """Remember the error of a cell that does not compile; the kernel reports it."""
        self._get_exc_info()

    def show_usage_error(self, exc: UsageError) -> None:
        """Show nothing: the kernel reports it."""

    def _is_outcome(self, value: BaseException) -> bool:
        if isinstance(value, SystemExit | InputRejected):
            return True
        result = self.displayhook.exec_result
        return result is not None and (
            value is result.error_before_exec or value is result.error_in_exec
        )

    def render(self, error: BaseException, tb_offset: int = 1) -> str:
        """Make the text of a traceback in the style that ``%xmode`` chose, without colours."""
        if isinstance(error, SystemExit):
            lines = ["An exception has occurred, use %tb to see the full traceback.\n"]
            return "\n".join(lines + self.InteractiveTB.get_exception_only(type(error), error))
        if isinstance(error, UsageError):
            return f"UsageError: {error}"
        custom = getattr(error, "_render_traceback_", None)
        if custom is not None:
            return "\n".join(map(str, custom()))
        if isinstance(error, SyntaxError):
            return self._render_syntax_error(error)
        if _has_group(error):
            return format_without_shell(error, skip=tb_offset)
        tb, left_out = shorten_traceback(error.__traceback__)
        lines = self.InteractiveTB.structured_traceback(type(error), error, tb, tb_offset=tb_offset)
        if left_out:
            lines.insert(-1, f"[{left_out} calls in the middle are left out]\n")
        return "\n".join(lines)

    def _render_syntax_error(self, error: SyntaxError) -> str:
        # The annotation of IPython asks for a traceback, its code for a list of entries.
        frames: Any = [] if self._is_of_cell(error) else _frames_after_shell(error)
        return "\n".join(self.SyntaxTB.structured_traceback(type(error), error, frames))

    def _is_of_cell(self, error: SyntaxError) -> bool:
        result = self.last_execution_result
        return result is not None and error is result.error_before_exec

    def safe_execfile(self, fname: str, *where: Any, **options: Any) -> None:  # noqa: ANN401 - IPython
        """Let an exception of a ``%run`` script end the execution like any other."""
        options["raise_exceptions"] = True
        super().safe_execfile(fname, *where, **options)

    # --- commands ---------------------------------------------------------------------------

    def system(self, cmd: str) -> None:
        """Run ``!cmd`` with the real standard descriptors, so that its output is live."""
        __tracebackhide__ = True
        command = self.var_expand(cmd, depth=1)
        if type(sys.stdout) is OutputStream:
            code = subprocess.call(command, shell=True, executable=_shell())  # noqa: S602 - `!`
        else:
            code = _run_into(sys.stdout, command)
        refresh_imports()
        if code > 128:
            code = 128 - code
        self.user_ns["_exit_code"] = code
        if self.system_raise_on_error and code != 0:
            raise subprocess.CalledProcessError(code, command)

    system_raw = system
    system_piped = system

    def getoutput(self, cmd: str, split: bool = True, depth: int = 0) -> SList | LSString:
        """Run ``x = !cmd`` and give its output and error together."""
        __tracebackhide__ = True
        command = self.var_expand(cmd, depth=depth + 1)
        completed = subprocess.run(  # noqa: S602 - `!` is there to run shell commands
            command,
            shell=True,
            executable=_shell(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=self.system_raise_on_error,
        )
        refresh_imports()
        text = completed.stdout.decode("utf-8", "replace")
        return SList(text.splitlines()) if split else LSString(text)

    # --- what the base class would do and a kernel does not --------------------------------

    def init_virtualenv(self) -> None:
        """Stay with the prefix that the fork server was started from."""

    def init_display_formatter(self) -> None:
        """Bound the plain text, and add the forms of our own."""
        super().init_display_formatter()
        formatter: Any = self.display_formatter
        text = BoundedTextFormatter(parent=formatter)
        formatter.formatters[text.format_type] = text
        self.chart_form = add_forms(formatter)

    def init_user_ns(self) -> None:
        """Keep what every module has, and multiprocessing asks ``__main__`` for, over a reset."""
        super().init_user_ns()
        for name in ("__doc__", "__loader__", "__package__", "__spec__"):
            self.user_ns.setdefault(name, None)

    def enable_matplotlib(self, gui: str | None = None) -> tuple[str | None, str]:
        """Choose a backend, but let ``%run`` be: the base class makes it show an empty figure."""
        chosen: tuple[str | None, str] = super().enable_matplotlib(gui)
        self.magics_manager.registry["ExecutionMagics"].default_runner = None
        return chosen

    def enable_gui(self, gui: str | None = None) -> None:
        """Accept that there is no screen; only the inline backend shows anything."""
        if gui not in (None, "inline", "agg"):
            sys.stderr.write(f"There is no screen: the {gui} event loop cannot run.\n")


def make_shell() -> KernelShell:
    """Make the one shell of this process: no history file, no thread, no colours, no banner."""
    config = Config()
    config.HistoryManager.enabled = False
    is_new = IPython.version_info[0] >= 9
    config.InteractiveShell.colors = "nocolor" if is_new else "NoColor"
    config.InteractiveShell.display_page = True  # `name?` is a result, not a pager
    config.PlainTextFormatter.max_seq_length = 0
    shell = KernelShell.instance(config=config)
    shell.loop_runner = shell.run_coroutine
    shell.exiter = Exit(shell)
    shell.register_magics(PackageMagics)
    # Before the inline backend's own, which shows what is still open.
    shell.events.register("post_execute", shell.chart_form.close_shown)
    shell.init_user_ns()
    return shell


def _error_of(result: interactiveshell.ExecutionResult) -> BaseException | None:
    # A warning that IPython gives after SystemExit may itself be an error, if so configured.
    if isinstance(result.error_in_exec, SystemExit) or result.error_before_exec is None:
        return result.error_in_exec
    return result.error_before_exec


def _drop(
    data: Mapping[Any, Any],
    *,
    is_main: bool = False,
    display_id: str | None = None,
    is_update: bool = False,
) -> None:
    """Show nothing; there is nobody to show it to yet."""


def _turn_cancelled_into_interrupted(task: "asyncio.Task[Any]") -> Any:  # noqa: ANN401 - IPython
    """Give the cell's result, whose traceback then ends where the user's code waited."""
    result = task.result()
    cancelled = result.error_in_exec
    if isinstance(cancelled, asyncio.CancelledError):
        result.error_in_exec = KeyboardInterrupt().with_traceback(cancelled.__traceback__)
    return result


def _has_group(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, BaseExceptionGroup):
            return True
        seen.add(id(error))
        error = error.__context__ if error.__cause__ is None else error.__cause__
    return False


def _frames_after_shell(error: BaseException) -> list[traceback.FrameSummary]:
    frames = traceback.extract_tb(error.__traceback__)
    return [frame for frame in frames if frame.filename != _SHELL_FILE]


def _shell() -> str | None:
    """Give the shell for ``!cmd``: the user's, if it can run."""
    path = os.environ.get("SHELL", "")
    return path if os.access(path, os.X_OK) else None


def _run_into(stream: Any, command: str) -> int:  # noqa: ANN401 - whatever stdout was replaced by
    """Run a command while ``sys.stdout`` is captured, and write its output there."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with subprocess.Popen(  # noqa: S602 - `!` is there to run shell commands
        command,
        shell=True,
        executable=_shell(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        bufsize=0,
    ) as process:
        output: Any = process.stdout
        while data := output.read(64 * 1024):
            stream.write(decoder.decode(data))
        stream.write(decoder.decode(b"", final=True))
    return process.returncode
