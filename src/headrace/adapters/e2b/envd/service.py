"""Port 49983 of a sandbox: RPC for processes and files, plain HTTP for contents and health."""

from collections.abc import Mapping

from headrace.adapters.e2b.answers import Answer, json_answer
from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.envd import filesystem, processes, status, watchers
from headrace.adapters.e2b.envd.files import serve_compose, serve_files
from headrace.adapters.e2b.envd.rpc import Method, call_method
from headrace.model.errors import NotFoundError, UnauthenticatedError

METHODS: Mapping[str, Method] = {
    **processes.METHODS,
    **filesystem.METHODS,
    **watchers.METHODS,
}
"""Every RPC method by its path."""


async def serve(call: Call, *, is_trusted: bool) -> None:
    """Answer a request; ``is_trusted`` says that it needs no token."""
    exchange = call.exchange
    if exchange.path == "/health" and exchange.method in ("GET", "HEAD"):
        await exchange.give(Answer(204))
        return
    if exchange.path == "/files":
        await serve_files(call, is_trusted=is_trusted)
        return
    if not is_trusted:
        try:
            call.registry.check_agent_token(call.sandbox, exchange.scope)
        except UnauthenticatedError as error:
            await exchange.give(json_answer({"code": 401, "message": error.message}, 401))
            return
    method = METHODS.get(exchange.path)
    page = status.PAGES.get(exchange.path)
    if method is not None:
        await call_method(call, method)
    elif exchange.path == "/files/compose":
        await serve_compose(call)
    elif page is not None and exchange.method == "GET":
        await page(call)
    else:
        raise NotFoundError(f"there is nothing at {exchange.path[:100]!r}")
