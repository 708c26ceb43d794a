"""Everything a Python kernel imports and does once, before any sandbox exists.

Runs in the fork server. What it leaves behind is shared by all kernels forked from it: it must be
one thread, must hold nothing of the warm-up that user code could see, and must not draw from
OpenSSL's random numbers, which children with equal process ids would then repeat.
"""

# IPython is typed only in parts.
# mypy: allow-untyped-calls

import contextlib
import functools
import importlib
import io
import linecache
import sys
import warnings
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from IPython.display import display

from headrace_guest import pictures
from headrace_guest.display import make_bundle
from headrace_guest.failure import describe
from headrace_guest.forms import ChartReader
from headrace_guest.plotly_figures import PlotlyHook
from headrace_guest.protocol import encode_frame
from headrace_guest.shell import KernelShell, make_shell

_LIBRARIES = ("numpy", "pandas", "matplotlib", "matplotlib.pyplot", "PIL.Image", "PIL.ImageShow")
_CHARTS = "headrace_guest.charts"
_PRIVATE = frozenset(
    {
        "annotated_types",
        "e2b_charts",
        "pydantic",
        "pydantic_core",
        "typing_extensions",
        "typing_inspection",
    }
)
# What user code needs most often and IPython or the library imports only then: in a sandbox
# that would cost every kernel the time again, from a file system that user code can change.
_LAZY = (
    "asyncio",
    "concurrent.futures.process",
    "IPython.core.magics.basic",
    "IPython.core.magics.execution",
    "IPython.core.magics.namespace",
    "IPython.core.magics.osm",
    "IPython.core.magics.packaging",
    "IPython.core.magics.script",
    "multiprocessing.pool",
    "numpy.random",
    "pandas.io.formats.html",
    "pandas.io.formats.string",
    "PIL.PngImagePlugin",
    "PIL.JpegImagePlugin",
)

_CELLS = (
    "1 + 1",
    "import pandas as pd, numpy as np\npd.DataFrame({'a': np.arange(3), 'b': list('xyz')})",
    "def fail():\n    raise ValueError('warm')\nfail()",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2], [3, 4])\nplt.title('warm')\nplt.show()",
    "def broken(:",
)
_FIRST_STEPS = (_CELLS[0], "import pandas as pd\npd.DataFrame({'a': [1]}).sum()")


def import_libraries() -> tuple[str, ...]:
    """Import what is installed and give the names of what is not."""
    missing = []
    for name in _LIBRARIES:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    for name in _LAZY:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)
    if _CHARTS not in sys.modules:
        missing.append("e2b_charts")
    return tuple(missing)


def warm_up() -> tuple[KernelShell, tuple[str, ...]]:
    """Make the shell, run through the usual paths and forget it; see `python_kernel.prepare`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        known = set(sys.modules)
        # First: what its import leaves free in memory is then filled by the others, and not
        # page by page in each kernel.
        chart_of = _import_charts()
        missing = import_libraries()
        shell = make_shell()
        shell.chart_form.chart_of = chart_of
        _configure_libraries(shell)
        _run_cells(shell, _CELLS)
        _hide_modules(known)
    _forget(shell)
    shell.warm_modules = frozenset(name.partition(".")[0] for name in sys.modules)
    # IPython says after every sys.exit() how to leave a terminal.
    warnings.filterwarnings("ignore", message="To exit: use 'exit'")
    return shell, missing


def _configure_libraries(shell: KernelShell) -> None:
    if "matplotlib.pyplot" in sys.modules:
        shell.enable_matplotlib("inline")
    if pandas := sys.modules.get("pandas"):
        # As in Jupyter; pandas would otherwise ask a terminal that is not there.
        pandas.set_option("display.max_columns", 20)
    if viewers := sys.modules.get("PIL.ImageShow"):
        viewers.register(viewers.IPythonViewer(), 0)
    if images := sys.modules.get("PIL.Image"):
        pictures.show_saved(images, functools.partial(_show_saved, shell))
    sys.meta_path.insert(0, PlotlyHook(functools.partial(display, raw=True)))


def _import_charts() -> ChartReader | None:
    """Give what reads charts, unless a library is missing."""
    try:
        reader: ChartReader = importlib.import_module(_CHARTS).chart_of
    except ImportError:
        return None
    return reader


def _hide_modules(known: Collection[str]) -> None:
    """Take what only charts need out of the modules that user code can import.

    Its own use goes on. User code may install another pydantic, which it must then get; so it
    imports one of its own.
    """
    for name in set(sys.modules).difference(known):
        top = name.partition(".")[0]
        if top in _PRIVATE:
            del sys.modules[name]


def _show_saved(shell: KernelShell, image: Any) -> None:  # noqa: ANN401 - of Pillow
    if not shell.has_host:
        return
    outline = pictures.outline(image)
    if outline is None:
        display(image)
    else:
        display(outline, raw=True)


def touch(shell: KernelShell) -> None:
    """Take the usual first steps in a forked kernel, so that user code need not wait for them.

    A forked process copies each page of memory that it writes to, and the first cells write to
    many. They come back to nothing that user code could see.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _run_cells(shell, _FIRST_STEPS)
    _forget(shell)


def _run_cells(shell: KernelShell, cells: Sequence[str]) -> None:
    idle = shell.show
    shell.show = _encode_only
    sink = io.StringIO()
    try:
        with contextlib.redirect_stdout(sink), contextlib.redirect_stderr(sink):
            for cell in cells:
                error = shell.run(cell)
                if error is not None:
                    encode_frame(describe(error, shell.render))
    finally:
        shell.show = idle


def _encode_only(data: Mapping[Any, Any], **_options: object) -> None:
    bundle, omitted = make_bundle(data)
    encode_frame({"bundle": bundle, "omitted": omitted})


def _forget(shell: KernelShell) -> None:
    for name in list(linecache.cache):
        if shell.compile.format_code_name(name) is not None:
            del linecache.cache[name]
    shell.compile = shell.compiler_class()
    shell.reset(new_session=True)
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    if pyplot := sys.modules.get("matplotlib.pyplot"):
        pyplot.close("all")
