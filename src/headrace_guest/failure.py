"""What the host is told about an exception of user code: name, value, traceback, parts.

Everything here may call user code (``__str__`` of an exception, source files), so it can raise
and can take long; `describe_plainly` is what remains then and calls nothing of the user's.
"""

import traceback
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

from headrace_guest.protocol import MAX_PARTS, MAX_TEXT

TEXT_LIMITS = (MAX_TEXT, 64 * 1024, 4 * 1024, 256)
"""Lengths to cut an error's texts to, tried in this order until its frame is small enough."""

_PART_LIMIT = 16 * 1024
_MAX_NAME = 1024
_KEPT_CALLS = 25
_OURS = str(Path(__file__).parent)

Render = Callable[[BaseException], str]


def describe(error: BaseException, render: Render) -> dict[str, Any]:
    """Make the fields of an error frame; ``render`` makes the traceback's text."""
    hide_own_frames(error)
    try:
        text = render(error)
    except Exception:  # noqa: BLE001 - IPython reads sources and calls methods of user code
        text = format_without_shell(error)
    message = _describe_one(error, text)
    if isinstance(error, BaseExceptionGroup):
        budget = [MAX_PARTS - 1]
        message["parts"] = _describe_parts(error, budget)
        if budget[0] < 0:
            message["traceback"] += f"\n[only {MAX_PARTS - 1} parts are described one by one]"
    return message


def shorten_texts(message: Mapping[str, Any], limit: int) -> dict[str, Any]:
    """Cut all texts of an error's description, and those of its parts."""
    texts = {key: shorten(message[key], limit) for key in ("name", "value", "traceback")}
    parts = [shorten_texts(part, min(limit, _PART_LIMIT)) for part in message.get("parts", ())]
    return {**texts, "parts": parts}


def describe_plainly(error: BaseException, reason: str) -> dict[str, Any]:
    """Make the fields of an error frame without calling any code of the user's."""
    name = type.__dict__["__name__"].__get__(type(error))[:_MAX_NAME]
    return {"name": name, "value": reason, "traceback": f"{name}: {reason}"}


def format_without_shell(error: BaseException, skip: int = 0) -> str:
    """Give a traceback as the interpreter prints it, without its first ``skip`` frames."""
    tb = error.__traceback__
    while skip > 0 and tb is not None:
        tb = tb.tb_next
        skip -= 1
    return "".join(traceback.format_exception(type(error), error, tb)).rstrip("\n")


def shorten(text: str, limit: int) -> str:
    """Cut a text in its middle, visibly: the head says where, the tail says what."""
    if len(text) <= limit:
        return text
    mark = f"\n[... {len(text) - limit} characters and more cut ...]\n"
    room = max(0, limit - len(mark))
    head = room // 2
    tail = room - head
    return f"{text[:head]}{mark}{text[len(text) - tail :]}"[:limit]


def hide_own_frames(error: BaseException) -> None:
    """Take the frames of this package out of the traceback: users look for their own lines.

    Of a function of ours that sets ``__tracebackhide__``, what it called is hidden as well.
    """
    kept = []
    entry = error.__traceback__
    while entry is not None:
        code = entry.tb_frame.f_code
        if not code.co_filename.startswith(_OURS):
            kept.append(entry)
        elif "__tracebackhide__" in code.co_varnames:
            break
        entry = entry.tb_next
    for former, following in pairwise(kept):
        if former.tb_next is not following:  # setting it walks the whole chain
            former.tb_next = following
    if kept:
        kept[-1].tb_next = None
    error.__traceback__ = kept[0] if kept else None


def shorten_traceback(tb: TracebackType | None) -> tuple[TracebackType | None, int]:
    """Leave calls in the middle out of a very long traceback; gives also how many.

    IPython takes most of a millisecond for each, so that an endless recursion took a second.
    """
    entries = []
    while tb is not None:
        entries.append(tb)
        tb = tb.tb_next
    left_out = len(entries) - 2 * _KEPT_CALLS
    if left_out <= 0:
        return (entries[0] if entries else None), 0
    shortened = entries[-_KEPT_CALLS]
    for entry in reversed(entries[:_KEPT_CALLS]):
        shortened = TracebackType(shortened, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return shortened, left_out


def _describe_one(error: BaseException, text: str) -> dict[str, Any]:
    return {
        "name": str(type(error).__name__)[:_MAX_NAME],
        "value": shorten(_value_of(error), MAX_TEXT),
        "traceback": shorten(text.rstrip("\n"), MAX_TEXT),
    }


def _value_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as failure:  # noqa: BLE001 - any __str__ may be broken in any way
        return f"<its __str__ raised {type(failure).__name__}>"


def _describe_parts(
    group: BaseExceptionGroup[BaseException], budget: list[int]
) -> list[dict[str, Any]]:
    described = []
    for part in group.exceptions:
        budget[0] -= 1
        if budget[0] < 0:
            break
        hide_own_frames(part)
        message = _describe_one(part, format_without_shell(part))
        if isinstance(part, BaseExceptionGroup):
            message["parts"] = _describe_parts(part, budget)
        described.append(message)
    return described
