"""Images from bytes: decoding, random windows, resizing, inside tf.data and inside exports.

Training, evaluation and export share `decode_image` and `resize`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from spml_tf.datasets import image_headers
from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS

# The usual interval of a crop's width / height.
ASPECT_RATIOS = (3 / 4, 4 / 3)
# The libjpeg method that gives the same pixels for a crop as for the whole image.
_DCT_METHOD = "INTEGER_ACCURATE"
# A side that is larger than this many times the new one is antialiased.
_ANTIALIAS_FROM = 1.5
# JPEGs of more pixels may be decoded at a part of their size; usual data sets have smaller ones.
SCALED_FROM = 2e6
# EXIF orientations whose rows go from bottom to top, whose columns go from right to left, and from
# which on rows and columns change places before that.
DOWN, ACROSS, SWAPPED_FROM = (3, 4, 7, 8), (2, 3, 6, 7), 5
# Columns decoded on either side of a window, see _decode_window.
_MARGIN = 2

Window = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]
_Function = TypeVar("_Function", bound=Callable[..., Any])


def decode_image(contents: tf.Tensor, max_megapixels: float = MAX_MEGAPIXELS) -> tf.Tensor:
    """Decodes an image file's bytes.

    Args:
        contents: scalar string with a JPEG, PNG, BMP or GIF file (its first frame). Gray becomes
            RGB, an alpha channel is dropped, an EXIF orientation is applied.
        max_megapixels: the most pixels, in millions, that its header may tell of.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such image, or one that is larger.
    """
    plain, _ = _plain_jpeg(contents, max_megapixels * 1e6)
    # Outside graphs an error has the decoder's own words, which commands print.
    other = _any_image if tf.executing_eagerly() else _any_image_apart
    image = tf.cond(plain, lambda: _decode_jpeg(contents), lambda: other(contents, max_megapixels))
    return tf.ensure_shape(image, [None, None, 3])


def _plain_jpeg(contents: tf.Tensor, max_pixels: float) -> tuple[tf.Tensor, tf.Tensor]:
    """Whether a file is a JPEG without EXIF data that is no larger, and its height and width.

    Returns:
        (bool (), int32 [2]): zeros where it is no JPEG.
    """
    is_jpeg = tf.io.is_jpeg(contents)
    stored = tf.cond(
        is_jpeg, lambda: tf.io.extract_jpeg_shape(contents)[:2], lambda: tf.zeros([2], tf.int32)
    )
    small = tf.reduce_prod(tf.cast(stored, tf.float64)) <= max_pixels
    return is_jpeg & small & ~image_headers.has_exif(contents), stored


def _decode_jpeg(contents: tf.Tensor) -> tf.Tensor:
    return tf.io.decode_jpeg(contents, channels=3, dct_method=_DCT_METHOD)


def _any_image(contents: tf.Tensor, max_megapixels: float) -> tf.Tensor:
    """`decode_image` of a file of any kind, size and orientation."""
    contents = image_headers.limited(contents, max_megapixels)

    def other() -> tf.Tensor:
        return tf.cond(image_headers.is_bmp(contents), bitmap, any_format)

    def bitmap() -> tf.Tensor:
        # Unlike PNG, a bitmap's channels are not converted by the decoder.
        image = tf.io.decode_bmp(contents)
        gray = tf.shape(image)[-1] == 1
        return tf.cond(gray, lambda: tf.repeat(image, 3, axis=-1), lambda: image[..., :3])

    def any_format() -> tf.Tensor:
        return tf.io.decode_image(contents, channels=3, expand_animations=False)

    image = tf.cond(tf.io.is_jpeg(contents), lambda: _decode_jpeg(contents), other)
    image = tf.ensure_shape(image, [None, None, 3])
    return upright(image, image_headers.orientation(contents))


def kept_apart(function: _Function) -> _Function:
    """A branch that is seldom taken, as one operation of the graph around it.

    The operations of a branch that is not taken cost a third of what they do when it is, where they
    stand in the graph themselves.
    """
    apart: _Function = tf.function(
        function, autograph=False, experimental_attributes={"_noinline": True}
    )
    return apart


_any_image_apart = kept_apart(_any_image)


def upright(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    """Turns an image as its EXIF orientation says.

    Args:
        image: [H, W, 3], as stored.
        orientation: int32 () in 1 to 8.

    Returns:
        [H, W, 3], or [W, H, 3] with the orientations 5 to 8, of the same values.
    """

    def turned() -> tf.Tensor:
        swapped, down, across = _turn(orientation)
        whole = tf.cond(swapped, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
        return tf.raw_ops.Reverse(tensor=whole, dims=tf.stack([down, across, False]))

    return tf.ensure_shape(tf.cond(orientation > 1, turned, lambda: image), [None, None, 3])


def _turn(orientation: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Whether rows and columns change places, and then go from bottom to top, right to left."""
    down = tf.reduce_any(orientation == list(DOWN))
    return orientation >= SWAPPED_FROM, down, tf.reduce_any(orientation == list(ACROSS))


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes to a square, the aspect ratio ignored: bilinear, antialiased when much shrinks.

    Antialiasing begins where a side shrinks to less than two thirds. Short of that, bilinear
    interpolation hardly skips a pixel, and takes half the time.

    Args:
        image: [height, width, 3] or a batch of these, in 0..255, uint8 or float.
        size: the new side in pixels.

    Returns:
        float32 [size, size, 3] or a batch of these, in 0..255 up to rounding; an image that has
        the size already is unchanged.
    """

    def close() -> tf.Tensor:
        fits = tf.reduce_all(shape == size)
        same = functools.partial(tf.cast, image, tf.float32)
        return tf.cond(fits, same, lambda: tf.image.resize(image, [size, size]))

    def shrunk() -> tf.Tensor:
        if image.shape.rank == 4:
            return tf.image.resize(image, [size, size], antialias=True)
        upright = _resize_height(tf.transpose(_resize_height(image, size), [1, 0, 2]), size)
        return tf.transpose(upright, [1, 0, 2])

    shape = tf.shape(image)[-3:-1]
    coarser = tf.cast(shape, tf.float32) > _ANTIALIAS_FROM * tf.cast(size, tf.float32)
    result = tf.cond(tf.reduce_any(coarser), shrunk, close)
    return tf.ensure_shape(result, [*image.shape[:-3], size, size, 3])


def _resize_height(image: tf.Tensor, size: int) -> tf.Tensor:
    """What `tf.image.resize` with antialiasing does along the height, to the same bits.

    Its operation is slow where the last axis is short. Taken for an image of one column whose
    channels are all the numbers of a row, a photo is resized twice as fast, transposing included.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    scale = tf.cast(size, tf.float32) / tf.cast(height, tf.float32)
    rows = tf.raw_ops.ScaleAndTranslate(
        images=tf.reshape(image, [1, height, 1, width * 3]),
        size=[size, 1],
        scale=tf.stack([scale, 1.0]),
        translation=[0.0, 0.0],
        kernel_type="triangle",
        antialias=True,
    )
    return tf.reshape(rows, [size, width, 3])


def sample_crop(
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    drawn: tf.Tensor,
    area: tuple[float, float] = (0.25, 1.0),
) -> Window:
    """A crop window of whole pixels, made of four numbers drawn at random.

    The area is uniform in the interval, the window's aspect ratio (width / height, in pixels)
    log-uniform in [3/4, 4/3], the position uniform. A window that would be wider or higher than the
    image gets the image's width or height, and the other side follows from the area, which is kept.

    Args:
        height: the image's height in pixels.
        width: the image's width in pixels.
        drawn: float32 [4] in [0, 1), for area, aspect ratio, row and column.
        area: lowest and highest area of the window, as a part of the image's, in (0, 1].

    Returns:
        (y, x, h, w): int32 scalars, the window's upper left pixel and its size, inside the image.

    Examples:
        >>> [int(x) for x in sample_crop(100, 60, tf.constant([0.0, 0.5, 0.5, 0.0]))]
        [31, 0, 39, 38]
    """
    high, wide = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    numbers = tf.unstack(tf.cast(drawn, tf.float64))
    pixels = (area[0] + (area[1] - area[0]) * numbers[0]) * high * wide
    log_aspect = tf.constant(np.log(ASPECT_RATIOS), tf.float64)
    aspect = tf.exp(log_aspect[0] + (log_aspect[1] - log_aspect[0]) * numbers[1])
    # A full-width window needs at least this height, hence both limits.
    crop_high = tf.clip_by_value(tf.sqrt(pixels / aspect), pixels / wide, high)
    crop_high = tf.clip_by_value(tf.round(crop_high), 1.0, high)
    crop_wide = tf.clip_by_value(tf.round(pixels / crop_high), 1.0, wide)
    y = tf.minimum(tf.floor(numbers[2] * (high - crop_high + 1)), high - crop_high)
    x = tf.minimum(tf.floor(numbers[3] * (wide - crop_wide + 1)), wide - crop_wide)
    window = tf.cast(tf.stack([y, x, crop_high, crop_wide]), tf.int32)
    y, x, crop_high, crop_wide = tf.unstack(window)
    return y, x, crop_high, crop_wide


def decode_crop(
    contents: tf.Tensor,
    drawn: tf.Tensor,
    area: tuple[float, float],
    max_megapixels: float = MAX_MEGAPIXELS,
    needed: int | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random crop of a file, upright, and its box; of a JPEG only the crop is decoded.

    Args:
        contents: as for `decode_image`.
        drawn: as for `sample_crop`.
        area: as for `sample_crop`.
        max_megapixels: as for `decode_image`.
        needed: the side in pixels to which the crop will be resized. Of a JPEG of more than
            SCALED_FROM pixels the crop is decoded at 1/2, 1/4 or 1/8 of its size, the smallest
            that has no side below `needed`. None: never.

    Returns:
        (uint8 [h, w, 3], box [4] float32 (y1, x1, y2, x2) in [0, 1] of the upright image).
    """
    plain, stored = _plain_jpeg(contents, min(max_megapixels * 1e6, SCALED_FROM))

    def usual() -> tuple[tf.Tensor, tf.Tensor]:
        window = sample_crop(stored[0], stored[1], drawn, area)
        image, _ = _decode_window(contents, window, stored, 1)
        return image, _box(window, stored[0], stored[1])

    @kept_apart
    def unusual(contents: tf.Tensor, drawn: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        image, box = tf.cond(
            tf.io.is_jpeg(contents),
            lambda: _decode_jpeg_crop(contents, drawn, area, max_megapixels, needed),
            lambda: crop(decode_image(contents, max_megapixels), drawn, area),
        )
        return image, box

    image, box = tf.cond(plain, usual, lambda: unusual(contents, drawn))
    return image, box


def _decode_jpeg_crop(
    contents: tf.Tensor,
    drawn: tf.Tensor,
    area: tuple[float, float],
    max_megapixels: float,
    needed: int | None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """`decode_crop` of a JPEG of any size and orientation."""
    whole = image_headers.limited(contents, max_megapixels)
    stored = tf.io.extract_jpeg_shape(whole)[:2]
    orientation = image_headers.orientation(whole)
    swapped = orientation >= SWAPPED_FROM
    shape = tf.where(swapped, stored[::-1], stored)
    window = _mirror(sample_crop(shape[0], shape[1], drawn, area), shape, orientation)
    window = _swap(window, swapped)
    ratios = (1,) if needed is None else (1, 2, 4, 8)
    ways = [functools.partial(_decode_window, whole, window, stored, x) for x in ratios]
    image, window = tf.switch_case(_halvings(window, stored, needed), ways)
    seen = _mirror(_swap(window, swapped), shape, orientation)
    return upright(image, orientation), _box(seen, shape[0], shape[1])


def _swap(window: Window, swapped: tf.Tensor) -> Window:
    """A window where rows and columns have changed places, or have not."""
    y, x, h, w = window
    pairs = ((y, x), (x, y), (h, w), (w, h))
    y, x, h, w = (tf.where(swapped, other, same) for same, other in pairs)
    return y, x, h, w


def _mirror(window: Window, shape: tf.Tensor, orientation: tf.Tensor) -> Window:
    """Where a window of the upright image lies before it is mirrored, and the other way round."""
    y, x, h, w = window
    _, down, across = _turn(orientation)
    return tf.where(down, shape[0] - y - h, y), tf.where(across, shape[1] - x - w, x), h, w


def _halvings(window: Window, shape: tf.Tensor, needed: int | None) -> tf.Tensor:
    """How often a JPEG's window is halved in decoding, int32 () in 0 to 3."""
    if needed is None:
        return tf.constant(0)
    shorter = tf.minimum(window[2], window[3])
    enough = tf.reduce_sum(tf.cast(shorter >= [needed << k for k in (1, 2, 3)], tf.int32))
    return tf.where(tf.reduce_prod(tf.cast(shape, tf.float32)) > SCALED_FROM, enough, 0)


def _decode_window(
    contents: tf.Tensor, window: Window, shape: tf.Tensor, ratio: int
) -> tuple[tf.Tensor, Window]:
    """Decodes a window of a JPEG to exactly the pixels that the whole image has there.

    The decoder interpolates colour between neighbouring columns, which it lacks at a window's edge:
    a margin is decoded too and cut off again.

    Returns:
        The pixels, at 1 / ratio of their number on each side, and their window: of whole blocks of
        ratio x ratio pixels, from the one on in which the given window begins.
    """
    y, x, h, w = (number // ratio for number in window)
    left = tf.maximum(x - _MARGIN, 0)
    right = tf.minimum(x + w + _MARGIN, -(-shape[1] // ratio))
    wider = tf.image.decode_and_crop_jpeg(
        contents, tf.stack([y, left, h, right - left]), channels=3, ratio=ratio,
        dct_method=_DCT_METHOD,
    )  # fmt: skip
    return wider[:, x - left : x - left + w], (y * ratio, x * ratio, h * ratio, w * ratio)


def crop(
    image: tf.Tensor, drawn: tf.Tensor, area: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random crop of an image [H, W, 3] and its box; drawn and area as for `sample_crop`."""
    shape = tf.shape(image)
    window = sample_crop(shape[0], shape[1], drawn, area)
    y, x, h, w = window
    return image[y : y + h, x : x + w], _box(window, shape[0], shape[1])


def _box(window: Window, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    y, x, h, w = window
    edges = tf.cast(tf.stack([y, x, y + h, x + w]), tf.float32)
    return edges / tf.cast(tf.stack([height, width, height, width]), tf.float32)
