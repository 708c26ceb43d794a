"""Server-sent events, as the HTML standard has them (section 9.2, event stream interpretation)."""

HEARTBEAT = b": heartbeat\n\n"
"""A comment, which clients ignore and which keeps connections open."""


def encode_event(name: str, data: bytes, event_id: int | None = None) -> bytes:
    """Give one event. ``name`` and ``data`` must be free of line breaks, as JSON is."""
    head = b"" if event_id is None else b"id: %d\n" % event_id
    return b"%sevent: %s\ndata: %s\n\n" % (head, name.encode("ascii"), data)
