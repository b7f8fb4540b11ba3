"""Boxes and masks that were drawn on photos as they are stored, turned as the photos are shown.

Some tools show a photo as its EXIF data say, others as its pixels are stored. The sizes that they
write tell which: where these are those of a photo on its side, their numbers are too.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.datasets import encoded_images, image_headers, other_formats
from spml_tf.datasets.images import ACROSS, DOWN, SWAPPED_FROM
from spml_tf.datasets.readers.examples import Examples
from spml_tf.datasets.readers.objects import read_mask
from spml_tf.system.errors import UserError

# EXIF data begin in the first 8 KiB and have at most 64.
_BEGINNING = 1 << 17
# What a broken photo raises; whoever decodes it tells of it.
_UNREADABLE = (OSError, tf.errors.OpError, ValueError)


def with_upright_boxes(examples: Examples) -> Examples:
    """Turns the boxes of photos on their side that were drawn on the stored pixels.

    Orientations 2 to 4, and square photos, have one size either way: their boxes are taken as those
    of the photo as it is shown.

    Args:
        examples: images in files, with boxes and `sides`; others are returned as they are.

    Returns:
        The same with boxes of the upright photos, and without sides.
    """
    if examples.sides is None or examples.boxes is None or examples.paths is None:
        return examples
    boxes = []
    for path, sides, rows in zip(examples.paths, examples.sides, examples.boxes, strict=True):
        turn = _turn(path, *sides.tolist()) if len(rows) else 1
        boxes.append(_turned_boxes(rows, turn) if turn > 1 else rows)
    return dataclasses.replace(examples, boxes=tuple(boxes), sides=None)


def mask_of_photo(
    path: str, photo: str, num_classes: int, max_megapixels: float
) -> NDArray[np.uint16]:
    """A photo's mask, upright as the photo is shown.

    Args:
        path: of the mask.
        photo: path of the photo.
        num_classes: L, as for `read_mask`.
        max_megapixels: as for `read_mask`.

    Returns:
        The mask, [H, W], of the photo's size or smaller.

    Raises:
        UserError: naming the mask: what `read_mask` refuses, or its sides are not in the ratio of
            the photo's.
    """
    mask = upright_mask(read_mask(path, num_classes, max_megapixels), photo)
    try:
        orientation, (height, width) = _stored(photo)
    except _UNREADABLE:
        return mask
    if orientation >= SWAPPED_FROM:
        height, width = width, height
    rows, columns = mask.shape
    # Sides that were scaled and rounded are off by less than a pixel.
    if (height, width) != (1, 1) and abs(rows * width - columns * height) > max(height, width):
        raise UserError(
            f"{path}: {columns} x {rows} pixels, but {photo} has {width} x {height}; a mask is of "
            "its photo's size, or of a smaller one with the same ratio of its sides"
        )
    return mask


def upright_mask(mask: NDArray[np.uint16], path: str) -> NDArray[np.uint16]:
    """Turns a mask that was drawn on the stored pixels of a photo on its side.

    Args:
        mask: [H, W].
        path: the photo.

    Returns:
        The mask of the upright photo, [H, W] or [W, H].
    """
    turn = _turn(path, *mask.shape)
    if turn == 1:
        return mask
    down, across = _flips(turn)
    return mask.T[:: -1 if down else 1, :: -1 if across else 1]


def _turn(path: str, height: float, width: float) -> int:
    """The EXIF orientation, 5 to 8, of what was drawn on pixels of this size; 1: upright."""
    if height == width:
        return 1
    try:
        with open(path, "rb") as file:
            contents = file.read(_BEGINNING)
        if encoded_images.kind(contents) not in encoded_images.OTHERS:
            if int(image_headers.orientation(tf.constant(contents))) < SWAPPED_FROM:
                return 1
        found, stored = _stored(path)
    except _UNREADABLE:
        return 1
    aside = (stored[0] < stored[1]) == (height < width) and stored[0] != stored[1]
    return found if aside and found >= SWAPPED_FROM else 1


def _stored(path: str) -> tuple[int, tuple[int, int]]:
    """EXIF orientation, 1 to 8, and (height, width) of the stored pixels; (1, 1) of a HEIC file."""
    contents = Path(path).read_bytes()
    if encoded_images.kind(contents) in encoded_images.OTHERS:
        return other_formats.stored(contents)
    whole = tf.constant(contents)
    height, width = image_headers.size(whole).numpy().tolist()
    return int(image_headers.orientation(whole)), (height, width)


def _flips(orientation: int) -> tuple[bool, bool]:
    """Whether rows, and whether columns, change their order once they have changed places."""
    return orientation in DOWN, orientation in ACROSS


def _turned_boxes(rows: NDArray[np.float32], orientation: int) -> NDArray[np.float32]:
    """Rows (class index, y1, x1, y2, x2) after columns and rows have changed places."""
    number, x1, y1, x2, y2 = rows.T
    down, across = _flips(orientation)
    y1, y2 = (1 - y2, 1 - y1) if down else (y1, y2)
    x1, x2 = (1 - x2, 1 - x1) if across else (x1, x2)
    return np.stack([number, y1, x1, y2, x2], axis=1)
