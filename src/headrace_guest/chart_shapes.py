"""Bars and box plots of a figure, read from what matplotlib drew."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch

from headrace_guest.chart_axis import label_positions

_CAPS = 2
"""Flat lines before that of the median, unless caps are left out."""
_CORNERS = 5
"""Points of the line around a box that has no notches: the first is also the last."""
_NO_LINE = "None"


@dataclass(frozen=True)
class Shapes:
    """What was read of one axes, in the form that chart data has."""

    elements: list[dict[str, Any]]
    is_horizontal: bool


def is_of_data(line: Line2D) -> bool:
    """Say whether a line is where its data says, and not a mark across the whole axes."""
    axes = line.axes
    if axes is None:
        return False
    along_x, along_y = line.get_transform().contains_branch_seperately(axes.transData)
    return along_x and along_y


# --- bars -----------------------------------------------------------------------------------


def read_bars(axes: Axes) -> Shapes | None:
    """Give the bars, if there are some and nothing else but error bars, texts and marks."""
    groups = [each for each in axes.containers if isinstance(each, BarContainer) and each.patches]
    if not groups or not _has_only_bars(axes, groups):
        return None
    is_horizontal = groups[0].orientation == "horizontal"
    elements: list[dict[str, Any]] = []
    for number, group in enumerate(groups):
        name = str(group.get_label())
        name = f"Group {number}" if name.startswith("_") else name
        elements += _read_group(axes, group, name)
    return Shapes(elements, is_horizontal)


def _read_group(axes: Axes, group: BarContainer, name: str) -> Iterator[dict[str, Any]]:
    if group.orientation == "horizontal":
        centres = [bar.get_y() + bar.get_height() / 2 for bar in group.patches]
        values = [bar.get_width() for bar in group.patches]
        labels = label_positions(axes.yaxis, centres)
    else:
        centres = [bar.get_x() + bar.get_width() / 2 for bar in group.patches]
        values = [bar.get_height() for bar in group.patches]
        labels = label_positions(axes.xaxis, centres)
    for label, value in zip(labels, values, strict=True):
        yield {"label": label, "group": name, "value": float(value)}


def _has_only_bars(axes: Axes, groups: Sequence[BarContainer]) -> bool:
    known: set[Artist] = {bar for group in groups for bar in group.patches}
    for container in axes.containers:
        if isinstance(container, ErrorbarContainer):
            known.update(container.get_children())
    others = {*axes.patches, *axes.collections, *axes.images, *axes.lines} - known
    return all(isinstance(other, Line2D) and _is_mark(other) for other in others)


def _is_mark(line: Line2D) -> bool:
    """Say whether a line beside bars is no data: it crosses the axes, or runs along one."""
    points = _points_of(line)
    points = points[np.isfinite(points).all(axis=1)]
    return not is_of_data(line) or bool((points == points[:1]).all(axis=0).any())


# --- boxes ----------------------------------------------------------------------------------


def read_boxes(axes: Axes) -> Shapes | None:
    """Give the boxes of a box plot, or None if there is none.

    A box is followed by its two whiskers, which begin at the quartiles in the middle of the box,
    by their caps, the line of the median, and points: the mean and the outliers.
    """
    drawn = [artist for artist in axes.get_children() if isinstance(artist, Line2D | PathPatch)]
    drawn = [each for each in drawn if isinstance(each, PathPatch) or is_of_data(each)]
    found = [box for start in range(len(drawn)) if (box := _read_box(drawn, start)) is not None]
    if not found:
        return None
    found = list(dict.fromkeys(found))  # drawn twice, in another style, they are the same boxes
    is_horizontal = found[0].is_horizontal
    axis = axes.yaxis if is_horizontal else axes.xaxis
    labels = label_positions(axis, [box.position for box in found])
    elements = [box.describe(label) for box, label in zip(found, labels, strict=True)]
    return Shapes(elements, is_horizontal)


@dataclass(frozen=True)
class _Box:
    position: float
    is_horizontal: bool
    quartiles: tuple[float, float]
    whiskers: tuple[float, float]
    median: float
    outliers: tuple[float, ...]

    def describe(self, label: str) -> dict[str, Any]:
        return {
            "label": label,
            "min": self.whiskers[0],
            "first_quartile": self.quartiles[0],
            "median": self.median,
            "third_quartile": self.quartiles[1],
            "max": self.whiskers[1],
            "outliers": list(self.outliers),
        }


def _read_box(drawn: Sequence[Artist], start: int) -> _Box | None:
    """Read a box that begins with that artist, if one does."""
    outline = _outline_of(drawn[start])
    whiskers = drawn[start + 1 : start + 3]
    lines = [_points_of(artist) for artist in whiskers if isinstance(artist, Line2D)]
    if outline is None or [len(line) for line in lines] != [2, 2]:
        return None
    lower, upper = lines
    for along in (1, 0):
        positions = {*lower[:, 1 - along], *upper[:, 1 - along]}
        edges = outline[:, along]
        if len(positions) == 1 and lower[0, along] in edges and upper[0, along] in edges:
            flat, spots = _read_parts(islice(drawn, start + 3, None), along)
            if flat:
                ends = (float(lower[1, along]), float(upper[1, along]))
                return _Box(
                    position=float(positions.pop()),
                    is_horizontal=along == 0,
                    quartiles=(float(lower[0, along]), float(upper[0, along])),
                    whiskers=ends,
                    median=flat[_CAPS] if len(flat) > _CAPS else flat[0],
                    outliers=tuple(spot for spot in spots if not ends[0] <= spot <= ends[1]),
                )
    return None


def _outline_of(artist: Artist) -> np.ndarray[Any, Any] | None:
    """Give the corners of what may be a box, notched or not."""
    if isinstance(artist, PathPatch):
        return np.asarray(artist.get_path().vertices, dtype=float)
    if isinstance(artist, Line2D) and artist.get_linestyle() != _NO_LINE:
        points = _points_of(artist)
        if len(points) >= _CORNERS and (points[0] == points[-1]).all():
            return points
    return None


def _points_of(line: Line2D) -> np.ndarray[Any, Any]:
    return np.asarray(line.get_xydata(), dtype=float)


def _read_parts(artists: Iterable[Artist], along: int) -> tuple[list[float], list[float]]:
    """Give where the flat lines of a box are, and its points, up to the next box."""
    flat: list[float] = []
    spots: list[float] = []
    for artist in artists:
        if not isinstance(artist, Line2D) or _outline_of(artist) is not None:
            break
        values = _points_of(artist)[:, along]
        if artist.get_linestyle() == _NO_LINE:
            spots += values.tolist()
        elif len(values) == 2 and values[0] == values[1]:
            flat.append(float(values[0]))
        else:
            break
    return flat, spots
