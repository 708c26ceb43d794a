"""Contexts: made, listed, restarted, interrupted, removed."""

from headrace.adapters.native import failures, sandboxes
from headrace.adapters.native.exchange import Exchange
from headrace.adapters.native.forms import JSON
from headrace.adapters.native.routing import Reply, Route
from headrace.adapters.native.schemas import CreateContext
from headrace.adapters.native.shapes import ContextList, ContextShape, Interrupted
from headrace.engine.context import Context
from headrace.engine.sandbox import Sandbox
from headrace.model.errors import (
    ContextNotFoundError,
    KernelDiedError,
    LanguageUnavailableError,
    PathNotFoundError,
)


def describe(sandbox: Sandbox, context: Context) -> ContextShape:
    """Give a context as clients see it."""
    return {
        "id": context.id,
        "language": context.language,
        "cwd": context.spec.cwd,
        "state": context.state.value,
        "is_default": sandbox.is_default(context.id),
    }


async def create(exchange: Exchange) -> None:
    """Answer ``POST /v1/sandboxes/{sandbox_id}/contexts``."""
    sandbox = sandboxes.find(exchange)
    body = await exchange.read_body(CreateContext, is_optional=True)
    context = await sandbox.create_context(body.to_spec())
    await exchange.answer(describe(sandbox, context), 201)


async def list_all(exchange: Exchange) -> None:
    """Answer ``GET /v1/sandboxes/{sandbox_id}/contexts``."""
    sandbox = sandboxes.find(exchange)
    answer: ContextList = {"contexts": [describe(sandbox, each) for each in sandbox.contexts]}
    await exchange.answer(answer)


async def show(exchange: Exchange) -> None:
    """Answer ``GET …/contexts/{context_id}``."""
    sandbox = sandboxes.find(exchange)
    await exchange.answer(describe(sandbox, sandbox.context(exchange.path["context_id"])))


async def remove(exchange: Exchange) -> None:
    """Answer ``DELETE …/contexts/{context_id}``."""
    await sandboxes.find(exchange).remove_context(exchange.path["context_id"])
    await exchange.answer_nothing()


async def restart(exchange: Exchange) -> None:
    """Answer ``POST …/contexts/{context_id}/restart``."""
    sandbox = sandboxes.find(exchange)
    context = sandbox.context(exchange.path["context_id"])
    await context.restart()
    await exchange.answer(describe(sandbox, context))


async def interrupt(exchange: Exchange) -> None:
    """Answer ``POST …/contexts/{context_id}/interrupt``."""
    context = sandboxes.find(exchange).context(exchange.path["context_id"])
    answer: Interrupted = {"interrupted": await context.interrupt()}
    await exchange.answer(answer)


_ALL = "/v1/sandboxes/{sandbox_id}/contexts"
_ONE = f"{_ALL}/{{context_id}}"
_CONTEXT = {200: Reply("The context.", {JSON: ContextShape})}
_IN_CONTEXT = (*failures.IN_SANDBOX, ContextNotFoundError)

ROUTES = (
    Route(
        "POST",
        _ALL,
        "createContext",
        "Make a context",
        create,
        {201: Reply("The new context.", {JSON: ContextShape})},
        failures=(
            *failures.BY_AGENT,
            LanguageUnavailableError,
            PathNotFoundError,
            KernelDiedError,
        ),
        body=CreateContext,
        body_is_optional=True,
    ),
    Route(
        "GET",
        _ALL,
        "listContexts",
        "List the contexts of a sandbox",
        list_all,
        {200: Reply("The contexts.", {JSON: ContextList})},
        failures=failures.IN_SANDBOX,
    ),
    Route("GET", _ONE, "getContext", "Show a context", show, _CONTEXT, failures=_IN_CONTEXT),
    Route(
        "DELETE",
        _ONE,
        "removeContext",
        "End a context; what it runs ends as killed",
        remove,
        {204: Reply("It has ended.")},
        failures=(*_IN_CONTEXT, *failures.BY_LAUNCHER),
    ),
    Route(
        "POST",
        f"{_ONE}/restart",
        "restartContext",
        "Give a context a fresh kernel",
        restart,
        _CONTEXT,
        failures=(*_IN_CONTEXT, *failures.BY_LAUNCHER, KernelDiedError),
    ),
    Route(
        "POST",
        f"{_ONE}/interrupt",
        "interruptContext",
        "Interrupt what a context runs",
        interrupt,
        {200: Reply("Whether something ran.", {JSON: Interrupted})},
        failures=_IN_CONTEXT,
    ),
)
