"""Running code: its events as lines, and its end when nobody listens any more."""

import anyio

from headrace.adapters.base import note
from headrace.adapters.e2b.answers import HeaderList
from headrace.adapters.e2b.call import Call
from headrace.adapters.e2b.codec.execution import ExecutionEncoder
from headrace.adapters.e2b.following import Following, Form
from headrace.adapters.e2b.schemas.interpreter import Execute

_HEADERS: HeaderList = (
    (b"content-type", b"application/x-ndjson"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)


async def execute(call: Call) -> None:
    """Answer ``POST /execute``; the answer begins at once, whatever the kernel does."""
    exchange = call.exchange
    body = await exchange.read_body(Execute)
    execution = await call.sandbox.execute(body.to_request())
    note(exchange.scope, execution_id=execution.id)
    encoder = ExecutionEncoder(call.sandbox.context(execution.context_id).language)
    form = Form(encoder.encode, encoder.keepalive, holds=encoder.holds)
    try:
        await exchange.start(200, _HEADERS)
        following = Following(exchange, call.sandbox, execution.log, form)
        await following.run(interval=exchange.settings.keepalive)
    finally:
        # Clients tell that their time is over by closing the connection, and by nothing else.
        if not execution.is_finished:
            with anyio.CancelScope(shield=True):
                await execution.interrupt()
