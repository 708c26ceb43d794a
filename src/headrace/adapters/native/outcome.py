"""The whole outcome of an execution or a process in one object, collected within a bound; pure."""

from collections.abc import Iterable
from typing import Any

from headrace.adapters.native.codec import Event, describe, describe_bytes, describe_end
from headrace.model.errors import OutputTooLargeError
from headrace.model.events import (
    CodeRaised,
    ExecutionFinished,
    ExecutionStarted,
    InputRequested,
    OutputDropped,
    OutputWritten,
    ProcessExited,
    ProcessStarted,
    ResultDisplayed,
    Stream,
)
from headrace.wire.ndjson import encode_json


class Outcome:
    """Takes events one batch after the other and makes the object of them.

    Raises OutputTooLargeError, which names ``log_id``, when they become more than ``maximum``
    bytes. ``first_at`` is the time of the first event that the code itself caused.
    """

    def __init__(
        self,
        log_id: str,
        maximum: int,
        streams: tuple[Stream, ...] = (Stream.STDOUT, Stream.STDERR),
        *,
        is_process: bool = False,
    ) -> None:
        self.started_at: float | None = None
        self.first_at: float | None = None
        self.ended_at: float | None = None
        self._log_id = log_id
        self._is_process = is_process
        self._maximum = maximum
        self._size = 0
        self._seq = 0
        self._head: dict[str, Any] = {"id": log_id}
        self._end: dict[str, Any] = {}
        self._output: dict[Stream, list[bytes]] = {stream: [] for stream in streams}
        self._results: list[bytes] = []
        self._error: bytes = b"null"
        self._dropped: list[bytes] = []

    def take(self, events: Iterable[Event]) -> None:
        """Take the next events."""
        for event in events:
            self._take(event)

    def encode(self) -> bytes:
        """Give the object as JSON, when everything was taken."""
        record = {**self._head, **self._end}
        for stream, pieces in self._output.items():
            name = stream.value
            record.update(describe_bytes(name, f"{name}_base64", b"".join(pieces)))
        parts = [encode_json(record)[:-1]]
        if not self._is_process:
            parts += [b'"results":[%s]' % b",".join(self._results), b'"error":%s' % self._error]
        parts += [b'"dropped":[%s]' % b",".join(self._dropped), b'"last_seq":%d}' % self._seq]
        return b",".join(parts)

    def _take(self, event: Event) -> None:
        self._seq = event.seq
        match event:
            case ExecutionStarted():
                self.started_at = event.timestamp
                self._head["context_id"] = event.context_id
                self._head["execution_count"] = event.execution_count
                return
            case ProcessStarted():
                self.started_at = event.timestamp
                self._head["pid"] = event.pid
                return
            case ExecutionFinished() | ProcessExited():
                self.ended_at = event.timestamp
                self._end = describe_end(event)
                return
            case OutputWritten():
                self._grow(len(event.data))
                self._output[event.stream].append(event.data)
            case ResultDisplayed():
                self._results.append(self._encode(event))
            case CodeRaised():
                # The last one is the one that ended the code.
                self._error = self._encode(event)
            case OutputDropped():
                self._dropped.append(self._encode(event))
            case InputRequested():
                pass
            case _:
                raise TypeError(f"{type(event).__name__} is no event of an execution or a process")
        if self.first_at is None:
            self.first_at = event.timestamp

    def _encode(self, event: Event) -> bytes:
        data = encode_json(describe(event))
        self._grow(len(data))
        return data

    def _grow(self, size: int) -> None:
        self._size += size
        if self._size > self._maximum:
            raise OutputTooLargeError(
                f"the outcome of {self._log_id} has more than {self._maximum} bytes; "
                "read its events",
                id=self._log_id,
                maximum=self._maximum,
            )
