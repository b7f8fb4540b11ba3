"""Heatmaps drawn over photos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLOUR_MAP = "viridis"  # perceptually uniform
# A tile shows 240 pixels a side; drawing all of a large photo costs seconds.
_LARGEST = 720


def enlarge(heatmaps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resamples maps to a photo's pixels, bilinear between cell centres.

    Args:
        heatmaps: [G, G, k] float.
        height, width: the photo's size in pixels.

    Returns:
        [height, width, k] float64.
    """
    rows = _interpolation(heatmaps.shape[0], height)
    columns = _interpolation(heatmaps.shape[1], width)
    return np.einsum("yi,xj,ijk->yxk", rows, columns, heatmaps, optimize=True)


def _interpolation(cells: int, pixels: int) -> np.ndarray:
    """Matrix [pixels, cells] of linear interpolation, clamped at the outermost centres."""
    position = np.clip((np.arange(pixels) + 0.5) / pixels * cells - 0.5, 0, cells - 1)
    low = np.floor(position).astype(int)
    matrix = np.zeros((pixels, cells))
    matrix[np.arange(pixels), low] = 1 - (position - low)
    matrix[np.arange(pixels), np.minimum(low + 1, cells - 1)] += position - low
    return matrix


def draw_overlays(
    path: Path,
    image: np.ndarray,
    heatmaps: np.ndarray,
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
    tiles = enlarge(heatmaps, height, width)
    columns = len(names) + 1
    rise = 3.0 * float(np.clip(height / width, 0.3, 3.0))
    figure = Figure(figsize=(3.0 * columns + 0.8, rise + 0.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, columns, squeeze=False)[0]
    axes[0].imshow(image)
    axes[0].set_title("photo", fontsize=10)
    for number, axis in enumerate(axes[1:]):
        axis.imshow(image)
        shown = axis.imshow(tiles[..., number], cmap=_COLOUR_MAP, vmin=0, vmax=1, alpha=0.6)
        # A class name is shown as it is: no mathematical typesetting between dollar signs.
        title = f"{names[number]} {probabilities[number]:.2f}"
        axis.set_title(title, fontsize=10, parse_math=False)
    for axis in axes:
        axis.set_axis_off()
    figure.colorbar(shown, ax=list(axes), shrink=0.8, label="heatmap")
    figure.savefig(path, dpi=80, format="png")
