"""Recorded exchanges: compared byte for byte, rewritten only on demand."""

import os
import struct
from pathlib import Path

REWRITE_VARIABLE = "HEADRACE_REWRITE_GOLDEN"
"""Set to 1 to rewrite the records. The tests fail then, so that nobody does it by accident."""


def check_golden(path: Path, found: str) -> None:
    """Assert that this is what was recorded there."""
    if os.environ.get(REWRITE_VARIABLE) == "1":
        path.write_text(found, encoding="utf-8")
        raise AssertionError(f"{path.name} was rewritten: look at the difference")
    assert path.exists(), f"{path.name} is missing; {REWRITE_VARIABLE}=1 records it"
    assert found == path.read_text(encoding="utf-8")


def show_envelopes(body: bytes) -> str:
    """Give the body of a stream of Connect for people: a line each, with its header in hex.

    Every byte of the body is in it, once.
    """
    lines = []
    while body:
        length: int = struct.unpack_from(">BI", body)[1]
        header, message, body = body[:5], body[5 : 5 + length], body[5 + length :]
        assert len(message) == length, "the last envelope is incomplete"
        lines.append(f"{header.hex()} {message.decode('utf-8')}\n")
    return "".join(lines)
