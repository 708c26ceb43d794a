"""Pictures of Pillow: what code saves to a file is shown, too."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from headrace_guest.display import OmittedText

MAX_PIXELS = 32 * 1024 * 1024
"""The most pixels of a picture that saving it shows, too: another encoding of it takes time."""
_LIBRARIES = ("PIL", "matplotlib")


def show_saved(images: Any, show: Callable[[Any], None]) -> None:  # noqa: ANN401 - PIL.Image
    """Have each picture that code saves under a name be shown after that.

    Saving to memory shows nothing, nor do libraries that save for themselves: matplotlib shows
    its figures in its own way.
    """
    save_only = images.Image.save

    @functools.wraps(save_only)
    def save(self: Any, fp: Any, *args: Any, **params: Any) -> None:  # noqa: ANN401 - of Pillow
        __tracebackhide__ = True
        save_only(self, fp, *args, **params)
        if isinstance(fp, str | bytes | os.PathLike) and not _is_library(sys._getframe(1)):
            show(self)

    images.Image.save = save


def _is_library(frame: Any) -> bool:  # noqa: ANN401 - a frame
    name = str(frame.f_globals.get("__name__"))
    return name.partition(".")[0] in _LIBRARIES


def outline(image: Any) -> dict[str, Any] | None:  # noqa: ANN401 - of Pillow
    """Give the bundle of a picture that is too large to show beside saving it, or None."""
    width, height = image.size
    if width * height <= MAX_PIXELS:
        return None
    size = width * height * len(image.getbands())
    return {"text/plain": repr(image), "image/png": OmittedText.of(size)}
