"""What figures share: their rows, a title of plain text, how they are saved with their numbers."""

from __future__ import annotations

import math
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from spml_tf.drawing.contact_sheet import drawable
from spml_tf.system.files import Way, replaced, write_table

# A line of the CSV behind a figure, cells by column.
Row = dict[str, Any]

# Of lines, in turn: told apart in print.
MARKERS = "osD^vP*X"
_PER_INCH = 12  # characters of a title


def spread(name: str, values: Sequence[float]) -> Row:
    """Cells of the mean, NAME, and of the sample standard deviation, NAME_std, empty for one value.

    >>> spread("map", [50.0, 54.0])
    {'map': 52.0, 'map_std': 2.8284271247461903}
    """
    deviation: float | str = statistics.stdev(values) if len(values) > 1 else ""
    return {name: statistics.mean(values), f"{name}_std": deviation}


def set_title(figure: Figure, title: str) -> None:
    """Sets a figure's title, in as many lines as its width asks for, shown as it is.

    Matplotlib's own wrapping would typeset what stands between dollar signs.
    """
    wrapped = textwrap.fill(drawable(title), int(_PER_INCH * figure.get_figwidth()))
    figure.suptitle(wrapped, fontsize=10, parse_math=False)


def write(
    folder: Path,
    stem: str,
    rows: Sequence[Mapping[str, Any]],
    figure: Figure,
    into: Way = replaced,
) -> None:
    """Writes STEM.png, STEM.svg and STEM.csv.

    Args:
        folder: an existing folder.
        stem: file name without ending.
        rows: at least one, of equal keys; NaN becomes an empty cell.
        figure: drawn from them.
        into: how the CSV comes to its place.
    """
    cells = [{key: _cell(value) for key, value in row.items()} for row in rows]
    write_table(folder / f"{stem}.csv", cells, into)
    with matplotlib.rc_context({"svg.hashsalt": "spml_tf"}):
        figure.savefig(folder / f"{stem}.png", dpi=150)
        figure.savefig(folder / f"{stem}.svg", metadata={"Date": None})


def _cell(value: object) -> object:
    if not isinstance(value, float):
        return value
    return "" if math.isnan(value) else f"{value:.6g}"
