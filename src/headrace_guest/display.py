"""Rich values as MIME bundles that fit a frame: bounded, JSON-safe, binary as base64."""

# IPython is typed only in parts.
# mypy: allow-untyped-calls

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from IPython.core.displayhook import DisplayHook
from IPython.core.displaypub import DisplayPublisher
from IPython.core.formatters import PlainTextFormatter, catch_format_error
from IPython.lib import pretty

from headrace_guest.json_form import MAX_REPRESENTATION, TooLargeError, check_size, to_json
from headrace_guest.protocol import MAX_GUEST_FRAME, MAX_VALUES, Json

MAX_REPRESENTATIONS = 64
_MAX_BUNDLE = MAX_GUEST_FRAME - 64 * 1024
_VALUE_WEIGHT = MAX_GUEST_FRAME // MAX_VALUES + 1
_MAX_MIME = 256
# No character takes more in ASCII JSON: two escaped halves of a surrogate pair.
_WORST_ESCAPE = 12


@dataclass(frozen=True, slots=True)
class CleanJson:
    """A value that is JSON already and need not be walked over again."""

    value: Json


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
    cleaned = value.value if isinstance(value, CleanJson) else to_json(value)
    text = json.dumps(cleaned, separators=(",", ":"))
    return cleaned, max(check_size(len(text)), _weigh_values(text))


def _weigh_values(text: str) -> int:
    """Give what JSON counts for its values, so that a frame never has more than a host takes."""
    return (text.count(",") + text.count("[") + text.count("{")) * _VALUE_WEIGHT


def _represent_text(text: str) -> tuple[str, int]:
    text = str(text)
    size = len(text) * _WORST_ESCAPE
    if size > MAX_REPRESENTATION // 8:  # worth the exact measure
        check_size(len(text))
        size = len(json.dumps(text))
    return text, check_size(size)


def _represent_bytes(data: bytes | bytearray | memoryview) -> tuple[str, int]:
    count = memoryview(data).nbytes
    size = check_size((count + 2) // 3 * 4)
    return base64.b64encode(data).decode("ascii"), size


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
        except RecursionError:  # pretty takes several calls for each level, repr takes none
            text = repr(obj)
            return text if len(text) <= MAX_REPRESENTATION else OmittedText.of(len(text))
        return stream.getvalue()


class _BoundedText(io.StringIO):
    def write(self, text: str, /) -> int:
        check_size(self.tell() + len(text))
        return super().write(text)
