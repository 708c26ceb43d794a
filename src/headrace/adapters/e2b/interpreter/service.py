"""Port 49999 of a sandbox: contexts and the execution of code.

Errors are plain text. A language that is not there is 500 here, because clients know it as that.
"""

from dataclasses import replace

from headrace.adapters.e2b.answers import TEXT, Answer
from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.errors import sandbox_gone, text_error, traffic_refused
from headrace.adapters.e2b.interpreter import contexts
from headrace.adapters.e2b.interpreter.execute import execute
from headrace.adapters.e2b.routing import Route, Router
from headrace.engine.sandbox import Sandbox
from headrace.engine.sandbox_state import SandboxState
from headrace.model.errors import ContextNotFoundError, HeadraceError, LanguageUnavailableError

_SHOWN = 200

ROUTES: tuple[Route[Call], ...] = (
    Route("POST", "/execute", execute),
    Route("POST", "/contexts", contexts.create),
    Route("GET", "/contexts", contexts.list_all),
    Route("DELETE", "/contexts/{context_id}", contexts.remove),
    Route("POST", "/contexts/{context_id}/restart", contexts.restart),
)
_ROUTER: Router[Call] = Router(ROUTES)


async def serve(call: Call, *, is_trusted: bool) -> None:
    """Answer a request; ``is_trusted`` says that it needs no token."""
    exchange, sandbox = call.exchange, call.sandbox
    method = "GET" if exchange.method == "HEAD" else exchange.method
    if exchange.path == "/health" and method == "GET":
        await exchange.give(Answer(200, b'"OK"'))
        return
    if not (is_trusted or call.registry.has_any_token(sandbox, exchange.scope)):
        await exchange.give(traffic_refused(sandbox.id))
        return
    try:
        route, path = _ROUTER.find(method, exchange.scope["raw_path"])
        await route.handler(Call(exchange, sandbox, call.registry, path))
    except HeadraceError as error:
        if exchange.status:
            raise
        await exchange.give(_refuse(error, sandbox))


def _refuse(error: HeadraceError, sandbox: Sandbox) -> Answer:
    if sandbox.state is not SandboxState.RUNNING:
        return sandbox_gone(sandbox.id)
    if isinstance(error, ContextNotFoundError):
        name = str(error.details.get("context"))[:_SHOWN]
        return Answer(404, f"Context {name} not found".encode("utf-8", "replace"), (), TEXT)
    answer = text_error(error)
    return replace(answer, status=500) if isinstance(error, LanguageUnavailableError) else answer
