"""Contexts: made, listed, restarted, removed."""

from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.schemas.interpreter import ContextShape, CreateContext
from headrace.engine.context import Context
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import (
    InvalidRequestError,
    NotFoundError,
    PathNotFoundError,
    PermissionDeniedError,
)
from headrace.model.specs import ContextSpec


def describe(context: Context) -> ContextShape:
    """Give a context as clients see it."""
    return {"id": context.id, "language": context.language, "cwd": context.spec.cwd}


async def create(call: Call) -> None:
    """Answer ``POST /contexts``; a directory that is missing is made.

    The vendor answers that the context is there, though its code runs elsewhere then.
    """
    body = await call.exchange.read_body(CreateContext)
    await call.exchange.answer(describe(await _make(call.sandbox, body.to_spec())))


async def _make(sandbox: Sandbox, spec: ContextSpec) -> Context:
    try:
        try:
            return await sandbox.create_context(spec)
        except PathNotFoundError:
            await sandbox.files.make_dir(spec.cwd, parents=True, exist_ok=True)
            return await sandbox.create_context(spec)
    except (PermissionDeniedError, NotFoundError) as error:
        # 403 and 404 say here that a token or a context is missing.
        raise InvalidRequestError(f"cwd: {error.message}", path=spec.cwd) from error


async def list_all(call: Call) -> None:
    """Answer ``GET /contexts``: the default ones first, then the others as they were made."""
    await call.exchange.answer([describe(context) for context in call.sandbox.contexts])


async def restart(call: Call) -> None:
    """Answer ``POST /contexts/{context_id}/restart``."""
    context = call.sandbox.context(call.path["context_id"])
    await context.restart()
    await call.exchange.answer(describe(context))


async def remove(call: Call) -> None:
    """Answer ``DELETE /contexts/{context_id}``."""
    await call.sandbox.remove_context(call.path["context_id"])
    await call.exchange.answer({})
