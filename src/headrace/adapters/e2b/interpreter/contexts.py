"""Contexts: made, listed, restarted, removed."""

from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.schemas.interpreter import ContextShape, CreateContext
from headrace.engine.context import Context
from headrace.model.errors import InvalidRequestError, PathNotFoundError


def describe(context: Context) -> ContextShape:
    """Give a context as clients see it."""
    return {"id": context.id, "language": context.language, "cwd": context.spec.cwd}


async def create(call: Call) -> None:
    """Answer ``POST /contexts``."""
    body = await call.exchange.read_body(CreateContext)
    spec = body.to_spec()
    try:
        context = await call.sandbox.create_context(spec)
    except PathNotFoundError as error:
        # 404 says here that a context is missing.
        raise InvalidRequestError(f"cwd {spec.cwd!r} does not exist", path=spec.cwd) from error
    await call.exchange.answer(describe(context))


async def list_all(call: Call) -> None:
    """Answer ``GET /contexts``: default ones first, then the others, each in order of making."""
    found = sorted(call.sandbox.contexts, key=lambda each: not call.sandbox.is_default(each.id))
    await call.exchange.answer([describe(context) for context in found])


async def restart(call: Call) -> None:
    """Answer ``POST /contexts/{context_id}/restart``."""
    context = call.sandbox.context(call.path["context_id"])
    await context.restart()
    await call.exchange.answer(describe(context))


async def remove(call: Call) -> None:
    """Answer ``DELETE /contexts/{context_id}``."""
    await call.sandbox.remove_context(call.path["context_id"])
    await call.exchange.answer({})
