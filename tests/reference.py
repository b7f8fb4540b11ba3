"""Warping and bank updates in NumPy, written without regard to the package's own way."""

from __future__ import annotations

import numpy as np


def _resample(image: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Linear samples along axis 0 at positions in 0..1 of its length, clamped at the ends."""
    size = len(image)
    cell = np.clip(positions * size - 0.5, 0, size - 1)
    low = np.floor(cell).astype(int)
    high = np.minimum(low + 1, size - 1)
    part = (cell - low).reshape((-1,) + (1,) * (image.ndim - 1))
    return image[low] * (1 - part) + image[high] * part


def numpy_warp(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Samples [H, W, C] at the cell centres of a size x size grid over the box."""
    y1, x1, y2, x2 = box
    centres = (np.arange(size) + 0.5) / size
    rows = _resample(image, y1 + centres * (y2 - y1))
    return _resample(rows.swapaxes(0, 1), x1 + centres * (x2 - x1)).swapaxes(0, 1)


def moved_heatmap(before, visited, maps, box, flip, momentum):
    """One image's row of the heatmap bank, and its marks, after maps [G, G, L] were written."""
    size = len(before)
    y1, x1, y2, x2 = box
    inverse = (-y1 / (y2 - y1), -x1 / (x2 - x1), (1 - y1) / (y2 - y1), (1 - x1) / (x2 - x1))
    value = numpy_warp(maps[:, ::-1] if flip else maps, inverse, size)
    centres = (np.arange(size) + 0.5) / size
    inside = ((centres >= y1) & (centres <= y2))[:, None] & ((centres >= x1) & (centres <= x2))
    average = np.where(visited[..., None], momentum * before + (1 - momentum) * value, value)
    return np.where(inside[..., None], average, before), visited | inside
