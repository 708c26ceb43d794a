"""Headrace: a self-hosted code interpreter with live, lossless, truthful streams.

    from headrace import Sandbox

    with Sandbox.create() as sandbox:
        print(sandbox.run_code("6 * 7").text)

`Sandbox` and `AsyncSandbox` are the two faces of the SDK. Every exception is a `HeadraceError`.
Names are imported when they are first used, so that this package costs next to nothing.
"""

__version__ = "0.1.0.dev0"

# Type checkers take it for true. Importing typing would be most of the cost of this package.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from headrace.client._async.commands import AsyncCommandHandle, AsyncCommandStream
    from headrace.client._async.executions import AsyncExecutionHandle, AsyncExecutionStream
    from headrace.client._async.files import AsyncFileReader
    from headrace.client._async.pty import AsyncPtyHandle
    from headrace.client._async.sandbox import AsyncSandbox
    from headrace.client._async.watch import AsyncWatch
    from headrace.client._shared.values import (
        CommandResult,
        Context,
        Ending,
        Execution,
        ExecutionInfo,
        Isolation,
        Limits,
        ProcessInfo,
        SandboxInfo,
        SandboxMetrics,
    )
    from headrace.client._sync.commands import CommandHandle, CommandStream
    from headrace.client._sync.executions import ExecutionHandle, ExecutionStream
    from headrace.client._sync.files import FileReader
    from headrace.client._sync.pty import PtyHandle
    from headrace.client._sync.sandbox import Sandbox
    from headrace.client._sync.watch import Watch
    from headrace.client.errors import ConnectionFailedError, StreamBrokenError
    from headrace.model.errors import (
        AgentProtocolError,
        AlreadyExistsError,
        ConflictError,
        ContextNotFoundError,
        DeadlineError,
        ExecutionNotFoundError,
        HeadraceError,
        InvalidRequestError,
        IsolationError,
        KernelDiedError,
        LanguageUnavailableError,
        LaunchError,
        LimitExceededError,
        NotFoundError,
        OutOfMemoryError,
        OutputTooLargeError,
        PathNotFoundError,
        PermissionDeniedError,
        PortUnreachableError,
        ProcessNotFoundError,
        QuotaError,
        SandboxFailedError,
        SandboxNotFoundError,
        TemplateNotFoundError,
        UnauthenticatedError,
        UnavailableError,
        WrongStateError,
    )
    from headrace.model.events import (
        ChangesDropped,
        CodeError,
        CodeRaised,
        ExecutionEvent,
        ExecutionFinished,
        ExecutionStarted,
        FileChange,
        FileChanged,
        FinishReason,
        InputRequested,
        OutputDropped,
        OutputWritten,
        ProcessEvent,
        ProcessExited,
        ProcessStarted,
        ResultDisplayed,
        Stream,
        WatchEnded,
        WatchEvent,
        WatchStarted,
    )
    from headrace.model.files import FileInfo, FileType
    from headrace.model.results import Result
    from headrace.model.specs import Language, PtySize

# Where each name comes from; the imports above say the same to type checkers.
_MODULES = {
    "headrace.client._async.commands": (
        "AsyncCommandHandle",
        "AsyncCommandStream",
    ),
    "headrace.client._async.executions": (
        "AsyncExecutionHandle",
        "AsyncExecutionStream",
    ),
    "headrace.client._async.files": ("AsyncFileReader",),
    "headrace.client._async.pty": ("AsyncPtyHandle",),
    "headrace.client._async.sandbox": ("AsyncSandbox",),
    "headrace.client._async.watch": ("AsyncWatch",),
    "headrace.client._shared.values": (
        "CommandResult",
        "Context",
        "Ending",
        "Execution",
        "ExecutionInfo",
        "Isolation",
        "Limits",
        "ProcessInfo",
        "SandboxInfo",
        "SandboxMetrics",
    ),
    "headrace.client._sync.commands": (
        "CommandHandle",
        "CommandStream",
    ),
    "headrace.client._sync.executions": (
        "ExecutionHandle",
        "ExecutionStream",
    ),
    "headrace.client._sync.files": ("FileReader",),
    "headrace.client._sync.pty": ("PtyHandle",),
    "headrace.client._sync.sandbox": ("Sandbox",),
    "headrace.client._sync.watch": ("Watch",),
    "headrace.client.errors": (
        "ConnectionFailedError",
        "StreamBrokenError",
    ),
    "headrace.model.errors": (
        "AgentProtocolError",
        "AlreadyExistsError",
        "ConflictError",
        "ContextNotFoundError",
        "DeadlineError",
        "ExecutionNotFoundError",
        "HeadraceError",
        "InvalidRequestError",
        "IsolationError",
        "KernelDiedError",
        "LanguageUnavailableError",
        "LaunchError",
        "LimitExceededError",
        "NotFoundError",
        "OutOfMemoryError",
        "OutputTooLargeError",
        "PathNotFoundError",
        "PermissionDeniedError",
        "PortUnreachableError",
        "ProcessNotFoundError",
        "QuotaError",
        "SandboxFailedError",
        "SandboxNotFoundError",
        "TemplateNotFoundError",
        "UnauthenticatedError",
        "UnavailableError",
        "WrongStateError",
    ),
    "headrace.model.events": (
        "ChangesDropped",
        "CodeError",
        "CodeRaised",
        "ExecutionEvent",
        "ExecutionFinished",
        "ExecutionStarted",
        "FileChange",
        "FileChanged",
        "FinishReason",
        "InputRequested",
        "OutputDropped",
        "OutputWritten",
        "ProcessEvent",
        "ProcessExited",
        "ProcessStarted",
        "ResultDisplayed",
        "Stream",
        "WatchEnded",
        "WatchEvent",
        "WatchStarted",
    ),
    "headrace.model.files": (
        "FileInfo",
        "FileType",
    ),
    "headrace.model.results": ("Result",),
    "headrace.model.specs": (
        "Language",
        "PtySize",
    ),
}

_HOME = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AgentProtocolError",
    "AlreadyExistsError",
    "AsyncCommandHandle",
    "AsyncCommandStream",
    "AsyncExecutionHandle",
    "AsyncExecutionStream",
    "AsyncFileReader",
    "AsyncPtyHandle",
    "AsyncSandbox",
    "AsyncWatch",
    "ChangesDropped",
    "CodeError",
    "CodeRaised",
    "CommandHandle",
    "CommandResult",
    "CommandStream",
    "ConflictError",
    "ConnectionFailedError",
    "Context",
    "ContextNotFoundError",
    "DeadlineError",
    "Ending",
    "Execution",
    "ExecutionEvent",
    "ExecutionFinished",
    "ExecutionHandle",
    "ExecutionInfo",
    "ExecutionNotFoundError",
    "ExecutionStarted",
    "ExecutionStream",
    "FileChange",
    "FileChanged",
    "FileInfo",
    "FileReader",
    "FileType",
    "FinishReason",
    "HeadraceError",
    "InputRequested",
    "InvalidRequestError",
    "Isolation",
    "IsolationError",
    "KernelDiedError",
    "Language",
    "LanguageUnavailableError",
    "LaunchError",
    "LimitExceededError",
    "Limits",
    "NotFoundError",
    "OutOfMemoryError",
    "OutputDropped",
    "OutputTooLargeError",
    "OutputWritten",
    "PathNotFoundError",
    "PermissionDeniedError",
    "PortUnreachableError",
    "ProcessEvent",
    "ProcessExited",
    "ProcessInfo",
    "ProcessNotFoundError",
    "ProcessStarted",
    "PtyHandle",
    "PtySize",
    "QuotaError",
    "Result",
    "ResultDisplayed",
    "Sandbox",
    "SandboxFailedError",
    "SandboxInfo",
    "SandboxMetrics",
    "SandboxNotFoundError",
    "Stream",
    "StreamBrokenError",
    "TemplateNotFoundError",
    "UnauthenticatedError",
    "UnavailableError",
    "Watch",
    "WatchEnded",
    "WatchEvent",
    "WatchStarted",
    "WrongStateError",
    "__version__",
]

if not TYPE_CHECKING:  # a checker would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used."""
        module = _HOME.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(module), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """Give the public names, imported or not."""
        return sorted(__all__)
