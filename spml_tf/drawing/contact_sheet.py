"""A sheet of example photos with their labels and boxes."""

from __future__ import annotations

import dataclasses
import functools
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ft2font import FT2Font
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image

_COLUMNS = 6
_COLOURS = matplotlib.color_sequences["tab10"]
# Characters that fit under a tile, per line, and lines of labels.
_WIDTH, _LINES = 30, 2
# Boxes are named up to this number in a photo: more names would hide it.
_NAMED_BOXES = 8


@dataclasses.dataclass(frozen=True)
class Tile:
    """One photo of the sheet.

    Attributes:
        name: the image's name.
        labels: names of its positive classes.
        image: uint8 [H, W, 3], RGB, or None where it cannot be read.
        reason: why it cannot be read.
        boxes: float32 [M, 5], as in Examples.
    """

    name: str
    labels: tuple[str, ...]
    image: NDArray[np.uint8] | None
    reason: str
    boxes: NDArray[np.float32]


def reduced(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """An image whose longer side has at most `side` pixels, smoothly reduced.

    Args:
        image: uint8 [H, W, 3].
        side: in pixels.

    Returns:
        uint8 [h, w, 3] of the same aspect ratio.
    """
    picture = Image.fromarray(image)
    picture.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(picture)


def draw(path: Path, tiles: Sequence[Tile], class_names: Sequence[str]) -> None:
    """Writes the sheet as a PNG, six photos a row.

    Args:
        path: the PNG to write.
        tiles: the photos.
        class_names: names of the boxes' classes.
    """
    rows = max(-(-len(tiles) // _COLUMNS), 1)
    figure = Figure(figsize=(2.2 * _COLUMNS, 2.75 * rows), facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    figure.subplots_adjust(0.01, 0.62 / (2.75 * rows), 0.99, 1 - 0.08 / rows, 0.08, 0.36)
    for axis in grid.flat:
        axis.set_axis_off()
    for axis, tile in zip(grid.flat, tiles, strict=False):
        _draw_tile(figure, axis, tile, class_names)
    figure.savefig(path, dpi=100, format="png")


def _draw_tile(figure: Figure, axis: Axes, tile: Tile, class_names: Sequence[str]) -> None:
    if tile.image is None:
        axis.set(xlim=(0, 1), ylim=(1, 0), aspect="equal")
        axis.add_patch(Rectangle((0, 0), 1, 1, facecolor="0.93", edgecolor="0.6"))
        reason = drawable("\n".join(textwrap.wrap(f"cannot be shown: {tile.reason}", 22)[:6]))
        axis.text(0.5, 0.5, reason, ha="center", va="center", fontsize=8, parse_math=False)
    else:
        axis.imshow(tile.image, interpolation="antialiased")
        axis.set_anchor("S")  # next to its caption
        _draw_boxes(axis, tile.image.shape[:2], tile.boxes, class_names)
    # Below the cell and not below the photo, so that captions of a row are level.
    cell = axis.get_position(original=True)
    caption: dict[str, Any] = {"ha": "center", "va": "top", "parse_math": False}
    middle = (cell.x0 + cell.x1) / 2
    line = 0.16 / figure.get_figheight()
    figure.text(
        middle,
        cell.y0 - 0.4 * line,
        end_of(drawable(tile.name), _WIDTH),
        fontsize=7,
        color="0.4",
        **caption,
    )
    labels = _wrapped(drawable(", ".join(tile.labels))) if tile.labels else "(no positive label)"
    figure.text(middle, cell.y0 - 1.4 * line, labels, fontsize=8, **caption)


def _draw_boxes(
    axis: Axes, size: tuple[int, ...], boxes: NDArray[np.float32], class_names: Sequence[str]
) -> None:
    height, width = size
    for number, y1, x1, y2, x2 in boxes:
        colour = _COLOURS[int(number) % len(_COLOURS)]
        corner = (x1 * width - 0.5, y1 * height - 0.5)
        extent = ((x2 - x1) * width, (y2 - y1) * height)
        axis.add_patch(Rectangle(corner, *extent, fill=False, edgecolor=colour, linewidth=1.4))
        if len(boxes) <= _NAMED_BOXES:
            axis.text(
                *corner,
                drawable(class_names[int(number)])[:20],
                fontsize=6,
                color="white",
                va="top",
                parse_math=False,
                clip_on=True,
                bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
            )


def end_of(name: str, longest: int) -> str:
    """The end of an image's name, which tells more than its folders.

    Args:
        name: the image's.
        longest: how many characters there may be.

    Examples:
        >>> print(end_of("photos/street/12.jpg", 7), end_of("12.jpg", 6))
        …12.jpg 12.jpg
    """
    return name if len(name) <= longest else "\u2026" + name[1 - longest :]


def _wrapped(text: str) -> str:
    return "\n".join(
        textwrap.wrap(text, _WIDTH, max_lines=_LINES, placeholder=" \u2026", break_long_words=True)
    )


def drawable(text: str) -> str:
    """The text with a box for each character that matplotlib's font lacks, which would warn."""
    return "".join(char if char == "\n" or _drawable(char) else "\u25a1" for char in text)


@functools.cache
def _drawable(char: str) -> bool:
    return char.isprintable() and _font().get_char_index(ord(char)) != 0


@functools.cache
def _font() -> FT2Font:
    return font_manager.get_font(font_manager.findfont(font_manager.FontProperties()))
