"""Forms of our own beside IPython's: JSON of lists and dicts, data of frames, charts of figures.

The forms are extra: where one cannot be made it is left out, and the others are shown.
"""

# IPython is typed only in parts.
# mypy: allow-untyped-calls

import sys
import weakref
from collections.abc import Callable
from typing import Any

from IPython.core.formatters import BaseFormatter, IPythonDisplayFormatter, JSONFormatter
from traitlets import Unicode

from headrace_guest.data_frame import columns_of, is_data_frame
from headrace_guest.display import CleanJson, OmittedText
from headrace_guest.json_form import TooLargeError, to_json, to_strict_json
from headrace_guest.plotly_figures import bundle_of, is_plotly_figure

DATA = "application/vnd.headrace.data+json"
"""A data frame: an object with a list for each column."""
CHART = "application/vnd.headrace.chart+json"
"""What a figure shows, see `headrace_guest.charts`; empty if nothing could be read from it."""

Form = CleanJson | OmittedText | None
ChartReader = Callable[[Any], dict[str, Any]]


class JsonForm(JSONFormatter):
    """Gives lists and dicts as JSON, too, if all that they hold has a place there."""

    def __call__(self, obj: object) -> Any:  # noqa: ANN401 - whatever a `_repr_json_` gives
        """Make the form; None if there is none."""
        given = super().__call__(obj)
        if given is None and issubclass(type(obj), (list, dict)):
            return _try(to_strict_json, obj)
        return given


class DataForm(BaseFormatter):
    """Gives the columns of data frames."""

    format_type = Unicode(DATA)

    def __call__(self, obj: object) -> Form:
        """Make the form; None if there is none."""
        return _try(columns_of, obj) if is_data_frame(obj) else None


class ChartForm(BaseFormatter):
    """Gives the charts of figures, and remembers which figures were shown."""

    format_type = Unicode(CHART)

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - traitlets
        super().__init__(**kwargs)
        self.chart_of: ChartReader | None = None
        self._shown: weakref.WeakSet[Any] = weakref.WeakSet()

    def __call__(self, obj: object) -> Form:
        """Make the form; None if there is none."""
        if not _is_figure(obj):
            return None
        self._shown.add(obj)
        try:
            return self._read(obj)
        finally:
            _note_drawn(obj)

    def _read(self, figure: object) -> Form:
        if self.chart_of is None:
            return None
        read = self.chart_of
        chart = _try(lambda shown: to_json(read(shown)), figure)
        return CleanJson({}) if chart is None else chart

    def close_shown(self) -> None:
        """Close the figures that were shown and have not changed since; they need no second show.

        For the end of a cell, before the inline backend shows all figures that are still open.
        """
        if not self._shown:
            return
        figures, self._shown = list(self._shown), weakref.WeakSet()
        pyplot = sys.modules.get("matplotlib.pyplot")
        if pyplot is None or not _closes_figures():
            return
        for figure in figures:
            if not figure.stale:
                pyplot.close(figure)


class SelfDisplay(IPythonDisplayFormatter):
    """Lets objects display themselves, except figures of plotly: those are results."""

    def __call__(self, obj: object) -> Any:  # noqa: ANN401 - IPython
        """Say whether the object has displayed itself."""
        return False if is_plotly_figure(obj) else super().__call__(obj)


def add_forms(formatter: Any) -> ChartForm:  # noqa: ANN401 - IPython
    """Add the forms to the display formatter of a shell; they come after those that draw."""
    chart = ChartForm(parent=formatter)
    for form in (JsonForm(parent=formatter), DataForm(parent=formatter), chart):
        formatter.formatters[form.format_type] = form
    formatter.ipython_display_formatter = SelfDisplay(parent=formatter)
    formatter.mimebundle_formatter.for_type_by_name(
        "plotly.basedatatypes", "BaseFigure", lambda figure, **_options: bundle_of(figure)
    )
    return chart


def _try(make: Callable[[Any], Any], value: object) -> Form:
    try:
        return CleanJson(make(value))
    except TooLargeError as error:
        return OmittedText.of(error.size)
    except Exception:  # noqa: BLE001 - objects of user code raise anything; the form is extra
        return None


def _is_figure(value: object) -> bool:
    kind = getattr(sys.modules.get("matplotlib.figure"), "Figure", None)
    return isinstance(kind, type) and issubclass(type(value), kind)


def _note_drawn(figure: Any) -> None:  # noqa: ANN401 - of matplotlib
    """Have the figure tell apart what changes from now on: drawing it touches it, too."""
    figure.stale = False


def _closes_figures() -> bool:
    backend = sys.modules.get("matplotlib_inline.config")
    return backend is not None and bool(backend.InlineBackend.instance().close_figures)
