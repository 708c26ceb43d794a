"""What an interpreter says on its channel, checked: its code shares the process with the user's.

Each line is a JSON object with a ``type``:

- ``begun``: from here on an interrupt is for the code that was handed over
- ``result``: ``bundle``, and if wanted ``omitted`` (sizes of forms that were too large to send),
  ``is_main``, ``display_id``, ``is_update``; the interpreter waits for the line ``ack`` before it
  goes on, so that later output comes later
- ``error``: ``name``, ``value``, ``traceback``
- ``done``: ``status`` (``ok``, ``error``, ``interrupted``), ``exit_code``
- ``moved``: ``pid``, a descendant of the interpreter that goes on with its state in its place
"""

from collections.abc import Iterator, Mapping
from typing import Any

from headrace_guest.protocol import (
    DONE_STATUSES,
    MAX_GUEST_FRAME,
    MAX_TEXT,
    ProtocolError,
    clean_text,
    decode_body,
    take,
    take_int,
    take_optional_int,
    take_optional_text,
    take_text,
)

MAX_LINE = MAX_GUEST_FRAME
MAX_REPRESENTATION = 8 * 1024 * 1024
MAX_REPRESENTATIONS = 64
_MAX_NAME = 1024
_MAX_DISPLAY_ID = 1024


class LineReader:
    """Cuts a stream of bytes into lines; memory is bounded by `MAX_LINE` and what is fed."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes in and give the lines that are now complete, without their ends."""
        while data:
            head, end, data = data.partition(b"\n")
            self._parts.append(head)
            self._size += len(head)
            if self._size > MAX_LINE:
                raise ProtocolError(f"a line of {self._size} bytes and more exceeds {MAX_LINE}")
            if end:
                line = b"".join(self._parts)
                self._parts.clear()
                self._size = 0
                yield line


def read_message(line: bytes) -> dict[str, Any]:
    """Check one line and give it with all its fields; raises ProtocolError."""
    message = decode_body(line)
    kind = message.get("type")
    reader = _READERS.get(kind) if isinstance(kind, str) else None
    if reader is None:
        raise ProtocolError(f"unknown message {kind!r:.80} of an interpreter")
    return {"type": kind, **reader(message)}


def _read_begun(_message: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _read_result(message: Mapping[str, Any]) -> dict[str, Any]:
    bundle: dict[str, Any] = {}
    omitted = _read_omitted(message)
    for mime, value in take(message, "bundle", dict).items():
        if len(bundle) + len(omitted) >= MAX_REPRESENTATIONS:
            break
        size = len(value) if isinstance(value, str) else 0
        if size > MAX_REPRESENTATION:
            omitted[mime] = size
        else:
            bundle[mime] = value
    return {
        "bundle": bundle,
        "omitted": omitted,
        "is_main": message.get("is_main") is True,
        "display_id": take_optional_text(message, "display_id", _MAX_DISPLAY_ID),
        "is_update": message.get("is_update") is True,
    }


def _read_omitted(message: Mapping[str, Any]) -> dict[str, int]:
    if "omitted" not in message:
        return {}
    sizes = take(message, "omitted", dict)
    return {mime: take_int(sizes, mime) for mime in list(sizes)[:MAX_REPRESENTATIONS]}


def _read_error(message: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": take_text(message, "name", _MAX_NAME),
        "value": clean_text(take(message, "value", str)[:MAX_TEXT]),
        "traceback": clean_text(take(message, "traceback", str)[:MAX_TEXT]),
    }


def _read_done(message: Mapping[str, Any]) -> dict[str, Any]:
    status = take_text(message, "status", 32)
    if status not in DONE_STATUSES:
        raise ProtocolError(f"unknown status {status!r}, expected one of {DONE_STATUSES}")
    return {"status": status, "exit_code": take_optional_int(message, "exit_code")}


def _read_moved(message: Mapping[str, Any]) -> dict[str, Any]:
    return {"pid": take_int(message, "pid")}


_READERS = {
    "begun": _read_begun,
    "result": _read_result,
    "error": _read_error,
    "done": _read_done,
    "moved": _read_moved,
}
