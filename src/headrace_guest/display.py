"""Rich values as MIME bundles that fit a frame: bounded, JSON-safe, binary as base64."""

# IPython is typed only in parts.
# mypy: allow-untyped-calls

import base64
import io
import json
import math
from collections.abc import Mapping, Set
from typing import Any, Protocol

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.formatters import PlainTextFormatter, catch_format_error
from IPython.lib import pretty

from headrace_guest.protocol import MAX_GUEST_FRAME, Json

MAX_REPRESENTATION = 8 * 1024 * 1024
"""The largest JSON form, in bytes, that one representation may have."""
MAX_REPRESENTATIONS = 64
_MAX_BUNDLE = MAX_GUEST_FRAME - 64 * 1024
_MAX_DEPTH = 64
_MAX_MIME = 256
_VALUE_COST = 16
"""Bytes that a JSON value counts as at least: a host refuses frames of too many values."""
# No character takes more in ASCII JSON: two escaped halves of a surrogate pair.
_WORST_ESCAPE = 12
_MAX_INT_BITS = 4096


class TooLargeError(Exception):
    """A representation exceeds `MAX_REPRESENTATION`; ``size`` is what is known of its size."""

    def __init__(self, size: int) -> None:
        super().__init__(f"{size} bytes")
        self.size = size


class OmittedText(str):
    """Stands for a text that was too large to make; ``size`` is at least how large."""

    __slots__ = ("size",)
    size: int

    @classmethod
    def of(cls, size: int) -> "OmittedText":
        """Make the (empty) text that stands for one of ``size`` bytes."""
        text = cls()
        text.size = size
        return text


# --- bundles --------------------------------------------------------------------------------


def make_bundle(data: Mapping[Any, Any]) -> tuple[dict[str, Json], dict[str, int]]:
    """Make representations safe to send; give also those that were too large, with their size.

    What does not fit into one frame together is left out, largest first.
    """
    bundle: dict[str, Json] = {}
    sizes: dict[str, int] = {}
    omitted: dict[str, int] = {}
    for key, value in data.items():
        if value is None or len(bundle) + len(omitted) >= MAX_REPRESENTATIONS:
            continue
        mime = str(key)[:_MAX_MIME]
        try:
            bundle[mime], sizes[mime] = _represent(value)
        except TooLargeError as error:
            omitted[mime] = error.size
    while sum(sizes.values()) > _MAX_BUNDLE:
        largest = max(sizes, key=sizes.__getitem__)
        omitted[largest] = sizes.pop(largest)
        del bundle[largest]
    return bundle, omitted


def _represent(value: Any) -> tuple[Json, int]:  # noqa: ANN401 - user code gives anything
    if isinstance(value, OmittedText):
        raise TooLargeError(value.size)
    if isinstance(value, bytes | bytearray | memoryview):
        return _represent_bytes(value)
    if isinstance(value, str):
        return _represent_text(value)
    cleaned = to_json(value)
    size = len(json.dumps(cleaned, separators=(",", ":")))
    return cleaned, _check_size(size)


def _represent_text(text: str) -> tuple[str, int]:
    text = str(text)
    size = len(text) * _WORST_ESCAPE
    if size > MAX_REPRESENTATION // 8:  # worth the exact measure
        _check_size(len(text))
        size = len(json.dumps(text))
    return text, _check_size(size)


def _represent_bytes(data: bytes | bytearray | memoryview) -> tuple[str, int]:
    count = memoryview(data).nbytes
    size = _check_size((count + 2) // 3 * 4)
    return base64.b64encode(data).decode("ascii"), size


def _check_size(size: int) -> int:
    if size > MAX_REPRESENTATION:
        raise TooLargeError(size)
    return size


# --- JSON -----------------------------------------------------------------------------------


def to_json(value: Any) -> Json:  # noqa: ANN401 - user code gives anything
    """Turn a value into what JSON can hold: no NaN, text keys, bounded size and depth.

    Numbers and arrays of numpy become numbers and lists, dates ISO text, bytes base64, anything
    else its ``str``. Raises TooLargeError.
    """
    return _Cleaner().clean(value, 0)


class _Cleaner:
    """One walk over a value; counts roughly what the JSON form will take."""

    def __init__(self) -> None:
        self._spent = 0

    def clean(self, value: Any, depth: int) -> Json:  # noqa: ANN401 - user code gives anything
        self._spend(_VALUE_COST)
        if value is None or value is True or value is False:
            return value
        if depth > _MAX_DEPTH:
            return "..."
        if isinstance(value, str):
            self._spend(len(value))
            return str(value)
        if isinstance(value, int):
            return _clean_int(int(value))
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else None
        if isinstance(value, Mapping):
            return {self._key(key): self.clean(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple | Set):
            return [self.clean(item, depth + 1) for item in value]
        return self._clean_object(value, depth)

    def _clean_object(self, value: Any, depth: int) -> Json:  # noqa: ANN401 - see clean
        if isinstance(value, bytes | bytearray | memoryview):
            self._spend(memoryview(value).nbytes)
            return base64.b64encode(value).decode("ascii")
        self._spend(_size_of_array(value))
        for method in ("tolist", "isoformat"):  # numpy and pandas; dates
            convert = getattr(value, method, None)
            if callable(convert):
                return self.clean(convert(), depth + 1)
        text = str(value)
        self._spend(len(text))
        return text

    def _key(self, key: object) -> str:
        if isinstance(key, bool) or key is None:
            return json.dumps(key)
        text = str(key)
        self._spend(len(text))
        return text

    def _spend(self, size: int) -> None:
        self._spent += size
        _check_size(self._spent)


def _clean_int(value: int) -> Json:
    bits = value.bit_length()
    return value if bits <= _MAX_INT_BITS else f"an integer of {bits} bits"


def _size_of_array(value: object) -> int:
    size = getattr(value, "size", 0)
    return 2 * size if isinstance(size, int) else 0


# --- IPython's places for it ----------------------------------------------------------------


class Show(Protocol):
    """Sends one result to the host."""

    def __call__(
        self,
        data: Mapping[Any, Any],
        *,
        is_main: bool = False,
        display_id: str | None = None,
        is_update: bool = False,
    ) -> None: ...


class ResultHook(DisplayHook):
    """Sends the value of the last expression; `Out`, `_` and `;` work as in IPython."""

    def quiet(self) -> bool:
        """Say whether a trailing semicolon hides the value."""
        shell: Any = self.shell
        history = shell.history_manager.input_hist_parsed
        # Tokenizing the whole cell is what the base class does; most cells need it not.
        return bool(history) and ";" in history[-1] and bool(super().quiet())

    def write_output_prompt(self) -> None:
        """Write nothing: results are no text."""

    def write_format_data(
        self, format_dict: Mapping[str, Any], md_dict: Mapping[str, Any] | None = None
    ) -> None:
        """Send the value."""
        shell: Any = self.shell
        shell.show(format_dict, is_main=True)

    def log_output(self, format_dict: Mapping[str, Any]) -> None:
        """Keep nothing: the base class would hold every picture in memory."""

    def finish_displayhook(self) -> None:
        """End the display; there is nothing to flush."""
        self._is_active = False


class ResultPublisher(DisplayPublisher):
    """Sends what `display()` is given."""

    def publish(
        self,
        data: Mapping[Any, Any],
        metadata: Mapping[str, Any] | None = None,
        source: object = None,
        *,
        transient: Mapping[str, Any] | None = None,
        update: bool = False,
        **_options: object,
    ) -> None:
        """Send a bundle as a result that is not the main one."""
        self._validate_data(data, metadata)
        display_id = (transient or {}).get("display_id")
        self.shell.show(
            data,
            display_id=None if display_id is None else str(display_id)[:1024],
            is_update=bool(update),
        )

    def clear_output(self, wait: bool = False) -> None:
        """Do nothing: what was sent stays sent."""


class BoundedTextFormatter(PlainTextFormatter):
    """Makes text/plain of whole containers, but gives up when it becomes too large to send."""

    @catch_format_error  # type: ignore[untyped-decorator]  # IPython is untyped
    def __call__(self, obj: Any) -> str:  # noqa: ANN401 - any value is displayed
        """Make the text, or an `OmittedText`."""
        if isinstance(obj, str | bytes | bytearray) and len(obj) > MAX_REPRESENTATION:
            return OmittedText.of(len(obj))
        if not self.pprint:
            return repr(obj)
        stream = _BoundedText()
        printer = pretty.RepresentationPrinter(
            stream,
            self.verbose,
            self.max_width,
            self.newline,
            max_seq_length=self.max_seq_length,
            singleton_pprinters=self.singleton_printers,
            type_pprinters=self.type_printers,
            deferred_pprinters=self.deferred_printers,
        )
        try:
            printer.pretty(obj)
            printer.flush()
        except TooLargeError as error:
            return OmittedText.of(error.size)
        return stream.getvalue()


class _BoundedText(io.StringIO):
    def write(self, text: str, /) -> int:
        _check_size(self.tell() + len(text))
        return super().write(text)
