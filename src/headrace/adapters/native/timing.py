"""The Server-Timing header, which says where the time of a request went."""

from collections.abc import Iterable


def format_timings(timings: Iterable[tuple[str, float]]) -> tuple[bytes, bytes]:
    """Give the header; what was timed, and seconds."""
    parts = [f"{name};dur={seconds * 1000:.3f}" for name, seconds in timings]
    return b"server-timing", ", ".join(parts).encode("ascii")
