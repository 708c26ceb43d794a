"""Server-sent events, as the HTML standard has them (section 9.2, event stream interpretation)."""

HEARTBEAT = b": heartbeat\n\n"
"""A comment, which clients ignore and which keeps connections open."""


END = b"\n\n"
"""What follows the data of an event."""


def begin_event(name: str, event_id: int | None = None) -> bytes:
    """Give what precedes the data of an event; ``name`` is free of line breaks."""
    head = b"" if event_id is None else b"id: %d\n" % event_id
    return b"%sevent: %s\ndata: " % (head, name.encode("ascii"))


def encode_event(name: str, data: bytes, event_id: int | None = None) -> bytes:
    """Give one event. ``name`` and ``data`` must be free of line breaks, as JSON is."""
    return b"".join((begin_event(name, event_id), data, END))
