"""Which errors a group of operations may meet, for the table of routes."""

from headrace.model import errors

IN_SANDBOX = (errors.SandboxNotFoundError, errors.WrongStateError)
"""What may be wrong with the sandbox that a request names."""

IN_LOG = (errors.ExecutionNotFoundError,)
"""What may be wrong with the log that a request names."""

BY_LAUNCHER = (errors.DeadlineError, errors.QuotaError)
"""What may happen when the launcher is asked."""

BY_AGENT = (
    *IN_SANDBOX,
    errors.PermissionDeniedError,
    errors.LimitExceededError,
    errors.QuotaError,
    errors.DeadlineError,
)
"""What may happen when the agent of a sandbox is asked."""
