"""Heatmaps drawn over photos."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from spml_tf.drawing.contact_sheet import drawable

_COLOUR_MAP = "viridis"  # perceptually uniform
_OPACITY = 0.6
# A tile shows 240 pixels a side; drawing all of a large photo costs seconds.
_LARGEST = 720
# A strip's photo and tiles are this high, with a line of text above; in pixels.
_STRIP, _LINE, _GAP = 128, 16, 4


def enlarge(heatmaps: NDArray[np.floating], height: int, width: int) -> NDArray[np.float64]:
    """Resamples maps to a photo's pixels, bilinear between cell centres.

    Args:
        heatmaps: [G, G, k] float; NaN in cells without a value.
        height: the photo's, in pixels.
        width: the photo's, in pixels.

    Returns:
        [height, width, k] float64, NaN where cells without a value have more weight than others,
        as SCL leaves such samples out.
    """
    rows = _interpolation(heatmaps.shape[0], height)
    columns = _interpolation(heatmaps.shape[1], width)
    known = ~np.isnan(heatmaps)
    values = _resampled(np.where(known, heatmaps, 0.0), rows, columns)
    if known.all():
        return values
    weights = _resampled(known.astype(float), rows, columns)
    return np.divide(values, weights, out=np.full_like(values, np.nan), where=weights >= 0.5)


def _resampled(
    maps: NDArray[np.floating], rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.einsum("yi,xj,ijk->yxk", rows, columns, maps, optimize=True)
    return values


def _interpolation(cells: int, pixels: int) -> NDArray[np.float64]:
    """Matrix [pixels, cells] of linear interpolation, clamped at the outermost centres."""
    position = np.clip((np.arange(pixels) + 0.5) / pixels * cells - 0.5, 0, cells - 1)
    low = np.floor(position).astype(int)
    matrix = np.zeros((pixels, cells))
    matrix[np.arange(pixels), low] = 1 - (position - low)
    matrix[np.arange(pixels), np.minimum(low + 1, cells - 1)] += position - low
    return matrix


def draw_tile(
    axis: Axes,
    image: NDArray[np.uint8],
    title: str,
    heatmap: NDArray[np.floating] | None = None,
    boxes: NDArray[np.floating] | Sequence[Sequence[float]] = (),
    fontsize: float = 10,
) -> None:
    """Draws a photo, with a heatmap over it where there is one.

    Args:
        axis: where; its frame is switched off.
        image: uint8 [H, W, 3], RGB.
        title: above the photo, shown as it is.
        heatmap: [G, G] float in [0, 1]; cells of NaN show the bare photo.
        boxes: (y1, x1, y2, x2) each, in [0, 1] of the image.
        fontsize: of the title, in points.
    """
    height, width = image.shape[:2]
    axis.imshow(image)
    if heatmap is not None:
        tile = enlarge(heatmap[..., None], height, width)[..., 0]
        axis.imshow(tile, cmap=_COLOUR_MAP, vmin=0, vmax=1, alpha=_OPACITY)
    for y1, x1, y2, x2 in boxes:
        corner = (x1 * width - 0.5, y1 * height - 0.5)
        size = ((x2 - x1) * width, (y2 - y1) * height)
        axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="white", linewidth=2.2))
        axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor="black", linewidth=1.0))
    # A class name is shown as it is: no mathematical typesetting between dollar signs.
    axis.set_title(drawable(title), fontsize=fontsize, parse_math=False)
    axis.set_axis_off()


def draw_scale(
    figure: Figure, axes: Sequence[Axes], shrink: float = 0.8, fraction: float = 0.15
) -> None:
    """Draws the one scale of all tiles, from 0 to 1 and as opaque as they are, beside them.

    Args:
        figure: the figure.
        axes: its tiles.
        shrink: the scale's height, a part of theirs.
        fraction: the width it gets, a part of theirs.
    """
    scale = ScalarMappable(Normalize(0, 1), _COLOUR_MAP)
    figure.colorbar(
        scale, ax=list(axes), shrink=shrink, fraction=fraction, label="heatmap", alpha=_OPACITY
    )


def draw_overlays(
    path: Path,
    image: NDArray[np.uint8],
    heatmaps: NDArray[np.floating],
    names: Sequence[str],
    probabilities: Sequence[float],
) -> None:
    """Writes a PNG with the photo and one tile per class: its heatmap over the photo.

    All tiles share one colour scale from 0 to 1. Of a large photo every other pixel is drawn, or
    fewer.

    Args:
        path: the PNG to write.
        image: uint8 [H, W, 3], RGB.
        heatmaps: [G, G, k] float in [0, 1].
        names: k class names.
        probabilities: k scores in [0, 1].
    """
    step = -(-max(image.shape[:2]) // _LARGEST)
    image = image[step // 2 :: step, step // 2 :: step]
    height, width = image.shape[:2]
    columns = len(names) + 1
    rise = 3.0 * float(np.clip(height / width, 0.3, 3.0))
    figure = Figure(figsize=(3.0 * columns + 0.8, rise + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    draw_tile(axes[0], image, "photo")
    for number, axis in enumerate(axes[1:]):
        title = f"{names[number]} {probabilities[number]:.2f}"
        draw_tile(axis, image, title, heatmaps[..., number])
    draw_scale(figure, axes)
    figure.savefig(path, dpi=80, format="png")


def strip(
    image: NDArray[np.uint8], heatmaps: NDArray[np.floating], titles: Sequence[str]
) -> NDArray[np.uint8]:
    """The photo and a tile per class in a row, without the cost of a figure.

    Args:
        image: uint8 [H, W, 3], RGB.
        heatmaps: [G, G, k] float in [0, 1]; cells of NaN show the bare photo.
        titles: k texts, cut where they are longer than a tile.

    Returns:
        uint8 [144, (k + 1) * width + k * 4, 3], RGB; width follows from the photo's shape, between
        half its height and twice it.
    """
    width = int(np.clip(round(_STRIP * image.shape[1] / image.shape[0]), _STRIP // 2, 2 * _STRIP))
    photo = np.asarray(Image.fromarray(image).resize((width, _STRIP), Image.Resampling.LANCZOS))
    tiles = enlarge(heatmaps, _STRIP, width)
    sheet = Image.new("RGB", ((len(titles) + 1) * (width + _GAP) - _GAP, _LINE + _STRIP), "white")
    sheet.paste(Image.fromarray(photo), (0, _LINE))
    colours = matplotlib.colormaps[_COLOUR_MAP]
    for number, title in enumerate(titles):
        tile = Image.new("RGB", (width, _LINE + _STRIP), "white")
        ImageDraw.Draw(tile).text((1, 1), drawable(title), fill="black", font=_font())
        over = 255 * colours(tiles[..., number])[..., :3]
        opacity = np.where(np.isnan(tiles[..., number]), 0.0, _OPACITY)[..., None]
        mixed = np.rint(opacity * over + (1 - opacity) * photo).astype(np.uint8)
        tile.paste(Image.fromarray(mixed), (0, _LINE))
        sheet.paste(tile, ((number + 1) * (width + _GAP), 0))
    return np.asarray(sheet)


@functools.cache
def _font() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont(font_manager.FontProperties()), _LINE - 5)
