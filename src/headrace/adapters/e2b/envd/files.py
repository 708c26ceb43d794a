"""Contents of files over plain HTTP: downloads and uploads, by token or by signature."""

from headrace.adapters.e2b.access import SignedUrl
from headrace.adapters.e2b.call import Call


async def serve_files(call: Call, *, is_trusted: bool) -> None:
    """Answer ``/files`` of a sandbox that the headers name."""


async def serve_signed(call: Call, url: SignedUrl) -> None:
    """Answer ``/files`` of a sandbox that was found by a signature, which is good."""
