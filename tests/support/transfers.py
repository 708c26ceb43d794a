"""Contents of files over E2B's plain HTTP, without a network."""

from typing import Any

from tests.support.native import Client, Reply

RAW = "application/octet-stream"
FORM = "multipart/form-data; boundary=b"


def part(content: bytes, filename: str | None = None, name: str = "file") -> bytes:
    """Give a part of a form, without what ends the form."""
    named = "" if filename is None else f'; filename="{filename}"'
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"{named}\r\n\r\n'
    return head.encode() + content + b"\r\n"


async def post(client: Client, query: str, body: Any, **headers: str) -> Reply:
    """Send a body, or the pieces of one, to ``/files``."""
    pieces = body if isinstance(body, list) else [body]
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await client.request("POST", f"/files{query}", content=pieces, **named)


def message_of(reply: Reply) -> str:
    """Give the message of an error, which must have its form."""
    value = reply.json()
    assert value["code"] == reply.status
    assert set(value) == {"code", "message"}
    message: str = value["message"]
    return message
