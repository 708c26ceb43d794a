"""Figures of plotly as results: its own MIME type, HTML and text, also from ``figure.show()``.

Left alone, plotly takes us for a notebook, asks for a package that only notebooks have, and first
shows megabytes of scripts. It is not there when the kernel starts; so we wait for its import.
"""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MIME = "application/vnd.plotly.v1+json"
RENDERER = "headrace"
_RENDERERS = "plotly.io._renderers"

Bundle = dict[str, Any]


def is_plotly_figure(value: object) -> bool:
    """Say whether a value is a figure of plotly, without importing it or asking the value."""
    kind = getattr(sys.modules.get("plotly.basedatatypes"), "BaseFigure", None)
    return isinstance(kind, type) and issubclass(type(value), kind)


def bundle_of(figure: Any) -> Bundle:  # noqa: ANN401 - a figure of plotly, or its dict
    """Give the forms of a figure; its HTML loads plotly's script from the network."""
    plotly = importlib.import_module("plotly.io")
    fields = json.loads(plotly.to_json(figure, validate=False))
    html = plotly.to_html(figure, include_plotlyjs="cdn", full_html=False, validate=False)
    return {"text/html": html, MIME: {"config": {}, **fields}}


class PlotlyHook(MetaPathFinder):
    """Waits for plotly's import and then has it show its figures with ``display``.

    It leaves plotly alone where PLOTLY_RENDERER says what it is to do.
    """

    def __init__(self, display: Callable[[Bundle], None]) -> None:
        self._display = display
        self._is_searching = False

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Give the module's own spec, with a loader that calls us when it is loaded."""
        if name != _RENDERERS or self._is_searching or "PLOTLY_RENDERER" in os.environ:
            return None
        self._is_searching = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._is_searching = False
        if spec is not None and spec.loader is not None:
            spec.loader = _LoaderWithEnd(spec.loader, self.register)
        return spec

    def register(self, renderers: Any) -> None:  # noqa: ANN401 - a module of plotly
        """Make our way of showing figures the default one."""
        display = self._display

        class Renderer(renderers.ExternalRenderer):  # type: ignore[misc]  # plotly has no types
            def render(self, fig: Any) -> None:  # noqa: ANN401 - a dict
                __tracebackhide__ = True
                display({"text/plain": "<plotly figure>", **bundle_of(fig)})

        renderers.renderers[RENDERER] = Renderer()
        renderers.renderers.default = RENDERER


class _LoaderWithEnd(Loader):
    """Loads like another loader, and then tells."""

    def __init__(self, loader: Any, loaded: Callable[[ModuleType], None]) -> None:  # noqa: ANN401
        self._loader = loader
        self._loaded = loaded

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self._loader.create_module(spec)
        return created

    def exec_module(self, module: ModuleType) -> None:
        self._loader.exec_module(module)
        try:
            self._loaded(module)
        except Exception as error:  # noqa: BLE001 - another version of plotly goes its own way
            sys.stderr.write(f"plotly shows figures in its own way here: {error!r}\n")
