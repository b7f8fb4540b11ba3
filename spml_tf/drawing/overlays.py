"""Heatmaps drawn over photos."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from spml_tf.drawing.contact_sheet import drawable

_COLOUR_MAP = "viridis"  # perceptually uniform
_OPACITY = 0.6
# Of an overlay, in pixels: a tile's width, a line of text, what lies between tiles, the scale.
_TILE, _TITLE, _MARGIN, _BAR = 240, 18, 10, 16
# Scaling all of a large photo down takes longer.
_LARGEST = 720
# zlib's fastest: photos hardly shrink more with others.
_COMPRESSION = 1
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


def reduced_to_draw(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Every other pixel of a large photo, or fewer: what `draw_overlays` needs of it."""
    step = -(-max(image.shape[:2]) // _LARGEST)
    down, across = (min(step // 2, (side - 1) // 2) for side in image.shape[:2])
    return image[down::step, across::step]


def draw_overlays(
    path: Path,
    image: NDArray[np.uint8],
    heatmaps: NDArray[np.floating],
    names: Sequence[str],
    probabilities: Sequence[float],
) -> None:
    """Writes a PNG with the photo and one tile per class: its heatmap over the photo.

    All tiles share one colour scale from 0 to 1, which is drawn beside them. Photos that are more
    than three times as long as wide are drawn shorter.

    Args:
        path: the PNG to write.
        image: uint8 [H, W, 3], RGB.
        heatmaps: [G, G, k] float in [0, 1].
        names: k class names.
        probabilities: k scores in [0, 1].
    """
    height, width = image.shape[:2]
    size = (_TILE, round(_TILE * float(np.clip(height / width, 0.3, 3.0))))
    titles = [
        f"{_fitting(name, f' {score:.2f}')} {score:.2f}"
        for name, score in zip(names, probabilities, strict=True)
    ]
    sheet = _sheet(reduced_to_draw(image), heatmaps, ["photo", *titles], size, _TITLE, _MARGIN)
    scale = _scale(size[1], sheet.height)
    whole = Image.new("RGB", (sheet.width + scale.width, sheet.height), "white")
    whole.paste(sheet, (0, 0))
    whole.paste(scale, (sheet.width, 0))
    whole.save(path, "PNG", compress_level=_COMPRESSION)


def _fitting(name: str, more: str) -> str:
    """A class's name, cut where it and more would be wider than a tile."""
    name, font = drawable(name), _font(_TITLE)
    if font.getlength(name + more) <= _TILE:
        return name
    while name and font.getlength(f"{name}...{more}") > _TILE:
        name = name[:-1]
    return f"{name}..."


def _scale(length: int, height: int) -> Image.Image:
    """The one scale of all tiles, as opaque as they are, at the height of the tiles."""
    colours = matplotlib.colormaps[_COLOUR_MAP](np.linspace(1, 0, length))[:, None, :3]
    bar = np.rint(255 * (_OPACITY * colours + 1 - _OPACITY)).astype(np.uint8).repeat(_BAR, axis=1)
    drawn = Image.new("RGB", (_MARGIN + _BAR + 3 * _TITLE, height), "white")
    top, left, pen = height - length, _MARGIN, ImageDraw.Draw(drawn)
    drawn.paste(Image.fromarray(bar), (left, top))
    pen.text((left, 1), "heatmap", fill="black", font=_font(_TITLE))
    for value in (0.0, 0.5, 1.0):
        row = top + (1 - value) * (length - _TITLE)
        pen.text((left + _BAR + _GAP, row), f"{value:.1f}", fill="black", font=_font(_TITLE))
    return drawn


def strip(
    image: NDArray[np.uint8], heatmaps: NDArray[np.floating], titles: Sequence[str]
) -> NDArray[np.uint8]:
    """The photo and a tile per class in a row, small.

    Args:
        image: uint8 [H, W, 3], RGB.
        heatmaps: [G, G, k] float in [0, 1]; cells of NaN show the bare photo.
        titles: k texts, cut where they are longer than a tile.

    Returns:
        uint8 [144, (k + 1) * width + k * 4, 3], RGB; width follows from the photo's shape, between
        half its height and twice it.
    """
    width = int(np.clip(round(_STRIP * image.shape[1] / image.shape[0]), _STRIP // 2, 2 * _STRIP))
    return np.asarray(_sheet(image, heatmaps, ["", *titles], (width, _STRIP), _LINE, _GAP))


def _sheet(
    image: NDArray[np.uint8],
    heatmaps: NDArray[np.floating],
    titles: Sequence[str],
    size: tuple[int, int],
    line: int,
    gap: int,
) -> Image.Image:
    """The photo and a tile per class in a row, without the cost of a figure.

    Args:
        image: uint8 [H, W, 3], RGB.
        heatmaps: [G, G, k] float in [0, 1]; cells of NaN show the bare photo.
        titles: k + 1 texts, of the photo and the tiles, cut where they are longer.
        size: width and height of a tile in pixels.
        line: height of a line of text above.
        gap: between tiles.
    """
    width, height = size
    photo = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    tiles = enlarge(heatmaps, height, width)
    sheet = Image.new("RGB", (len(titles) * (width + gap) - gap, line + height), "white")
    colours = matplotlib.colormaps[_COLOUR_MAP]
    for number, title in enumerate(titles):
        tile = Image.new("RGB", (width, line + height), "white")
        ImageDraw.Draw(tile).text((1, 1), drawable(title), fill="black", font=_font(line))
        mixed = photo
        if number:
            values = tiles[..., number - 1]
            opacity = np.where(np.isnan(values), 0.0, _OPACITY)[..., None]
            over = 255 * colours(values)[..., :3]
            mixed = np.rint(opacity * over + (1 - opacity) * photo).astype(np.uint8)
        tile.paste(Image.fromarray(mixed), (0, line))
        sheet.paste(tile, (number * (width + gap), 0))
    return sheet


@functools.cache
def _font(line: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont(font_manager.FontProperties()), line - 5)
