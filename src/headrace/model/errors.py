"""Every exception that we raise on purpose.

What the user's code raises is data (`headrace.model.events.CodeRaised`); these are for callers
who asked for something impossible and for failures of our own.
"""

from collections.abc import Mapping
from typing import ClassVar


class HeadraceError(Exception):
    """The base of all our errors.

    ``code`` is a stable string for programs, ``message`` a sentence for people and ``details``
    JSON-able facts such as the value that was refused.
    """

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.message = message
        self.details: Mapping[str, object] = details


class InvalidRequestError(HeadraceError):
    """The caller sent something that we cannot accept."""

    code = "invalid_request"


class UnauthenticatedError(HeadraceError):
    """No key, or a wrong one."""

    code = "unauthenticated"


class PermissionDeniedError(HeadraceError):
    """The caller, or the sandbox user it named, may not do this."""

    code = "permission_denied"


class NotFoundError(HeadraceError):
    """The thing that was named does not exist (or not for this caller)."""

    code = "not_found"


class SandboxNotFoundError(NotFoundError):
    """No such sandbox."""

    code = "sandbox_not_found"


class ContextNotFoundError(NotFoundError):
    """No such context in this sandbox."""

    code = "context_not_found"


class ExecutionNotFoundError(NotFoundError):
    """No such execution, or its log is past its retention."""

    code = "execution_not_found"


class ProcessNotFoundError(NotFoundError):
    """No such process in this sandbox."""

    code = "process_not_found"


class PathNotFoundError(NotFoundError):
    """No such file or directory inside the sandbox."""

    code = "path_not_found"


class PortUnreachableError(NotFoundError):
    """Nothing listens at that port in the sandbox."""

    code = "port_unreachable"


class TemplateNotFoundError(NotFoundError):
    """No such template."""

    code = "template_not_found"


class ConflictError(HeadraceError):
    """The request does not fit the present state."""

    code = "conflict"


class AlreadyExistsError(ConflictError):
    """The path or name is taken."""

    code = "already_exists"


class WrongStateError(ConflictError):
    """The sandbox, context or process is paused, killed or busy."""

    code = "wrong_state"


class LimitExceededError(HeadraceError):
    """A bound was hit."""

    code = "limit_exceeded"


class QuotaError(LimitExceededError):
    """No more sandboxes, contexts, processes or space may be had."""

    code = "quota"


class OutputTooLargeError(LimitExceededError):
    """More output than the caller, or the limit, accepts."""

    code = "output_too_large"


class DeadlineError(LimitExceededError):
    """Something did not answer in time."""

    code = "deadline"


class OutOfMemoryError(LimitExceededError):
    """The sandbox ran out of memory."""

    code = "out_of_memory"


class SandboxFailedError(HeadraceError):
    """The sandbox itself, not the code in it, failed."""

    code = "sandbox_failed"


class LaunchError(SandboxFailedError):
    """The launcher, a fork server or a new sandbox did not come up."""

    code = "launch_failed"


class KernelDiedError(SandboxFailedError):
    """A kernel ended and could not be replaced."""

    code = "kernel_died"


class AgentProtocolError(SandboxFailedError):
    """A guest sent something that the protocol does not allow."""

    code = "agent_protocol"


class UnavailableError(HeadraceError):
    """Draining or overloaded; the caller may try again."""

    code = "unavailable"


class IsolationError(HeadraceError):
    """This machine cannot enforce what was asked with ``require``."""

    code = "isolation_too_weak"


class LanguageUnavailableError(InvalidRequestError):
    """The language is known but its interpreter is not installed on this machine."""

    code = "language_unavailable"
