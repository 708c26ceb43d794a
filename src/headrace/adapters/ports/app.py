"""The proxy as an ASGI app: for a port that the service has found, whatever dialect named it."""

from collections.abc import Callable

from headrace.adapters.base import Access, ASGIApp, Message, Receive, Scope, Send, note
from headrace.adapters.ports.exchange import Exchange
from headrace.adapters.ports.route import find_route
from headrace.adapters.ports.settings import PortSettings
from headrace.adapters.ports.upgrade import Upgrade
from headrace.model.errors import HeadraceError

RenderError = Callable[[HeadraceError, Scope], ASGIApp]
"""Gives the answer that tells of an error, in the shape of whoever was asked."""


def make_app(
    access: Access, render_error: RenderError, settings: PortSettings | None = None
) -> ASGIApp:
    """Give an app that passes HTTP and WebSocket on to a server in a sandbox.

    It reads ``headrace.sandbox``, ``headrace.port``, ``headrace.port_path`` (and
    ``headrace.port_raw_path``, the same before it was unescaped) and ``headrace.is_main_origin``
    from the scope, and the ``Host`` for the server from ``headrace.port_host`` if that is there;
    ``headrace.port_has_tls`` says that the server is spoken to with TLS. Whoever calls it has
    checked that the client may.
    """
    bounds = settings or PortSettings()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        kind = Upgrade if scope["type"] == "websocket" else Exchange
        passing: Upgrade | Exchange | None = None
        if scope["type"] == "websocket" and (await receive())["type"] != "websocket.connect":
            return
        try:
            route = find_route(scope)
            note(scope, port=str(route.port))
            passing = kind(scope, receive, send, route, access.is_key, bounds)
            await passing.run()
        except HeadraceError as error:
            note(scope, port_error=error.code)
            if passing is None or not passing.has_started:
                await _render(render_error(error, scope), scope, receive, send)
            # Otherwise the answer is left without its end, so that it does not look complete.

    return app


async def _render(response: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "websocket" and "websocket.http.response" not in scope.get(
        "extensions", {}
    ):
        await send({"type": "websocket.close", "code": 1011})
        return
    if scope["type"] == "websocket":
        receive = _connect_again
    await response(scope, receive, send)


async def _connect_again() -> Message:
    """Give the first message of a WebSocket, which was read already, to whoever answers it."""
    return {"type": "websocket.connect"}
