"""Port 49999 of a sandbox: contexts and the execution of code."""

from headrace.adapters.e2b.call import Call


async def serve(call: Call, *, is_trusted: bool) -> None:
    """Answer a request; ``is_trusted`` says that it needs no token."""
