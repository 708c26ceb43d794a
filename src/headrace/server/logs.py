"""The log lines of the service: structlog through the standard logging, on standard error."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import orjson
import structlog

from headrace.server.settings import LogsTopic

_NOISY = ("asyncio", "uvicorn", "uvicorn.error", "uvicorn.access", "websockets", "httpcore")
"""Below a warning these write headers, frames and query strings, which may hold keys."""


def configure(topic: LogsTopic, stream: TextIO | None = None) -> None:
    """Send all log lines of this process to ``stream``."""
    renderer = _as_json if topic.format == "json" else _as_text
    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                *shared,
                structlog.stdlib.ExtraAdder(allow={"request_id"}),
                structlog.processors.format_exc_info,
            ],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(topic.level.upper())
    for name in _NOISY:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    logging.getLogger("uvicorn.error").addFilter(is_worth_a_line)


def is_worth_a_line(record: logging.LogRecord) -> bool:
    """Say whether uvicorn's line is news: not the one that a guest could fill the log with.

    A body that a server in a sandbox breaks off is broken off by us, too, which is no defect.
    """
    return record.msg != "ASGI callable returned without completing response."


def _as_json(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> str:
    return orjson.dumps(fields, default=str).decode("utf-8", "replace")


def _as_text(_logger: object, _method: str, fields: MutableMapping[str, Any]) -> str:
    head = f"{fields.pop('timestamp')} {fields.pop('level'):7} {fields.pop('event')}"
    trace = fields.pop("exception", None)
    words = " ".join(f"{name}={_plain(value)}" for name, value in fields.items() if value != "")
    line = f"{head}  {words}" if words else head
    return f"{line}\n{trace}" if trace else line


def _plain(value: object) -> str:
    text = str(value)
    is_plain = text.isascii() and text.isprintable() and " " not in text and '"' not in text
    return text if is_plain else orjson.dumps(text, default=str).decode("utf-8", "replace")
