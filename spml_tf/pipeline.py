"""From Examples to batches: decoding, random crops, flips, resizing.

Order, crops and flips depend only on (seed, epoch, image index), never on what was drawn before, so
that a run that resumes sees what an uninterrupted one would have seen. Training, evaluation and
export share `decode_image` and `resize`.
"""

from __future__ import annotations

import math

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

from spml_tf.labels import validate_labels
from spml_tf.readers.examples import Examples

# The usual interval of a crop's width / height.
ASPECT_RATIOS = (3 / 4, 4 / 3)
# The libjpeg method that gives the same pixels for a crop as for the whole image.
_DCT_METHOD = "INTEGER_ACCURATE"
# Columns decoded on either side of a window, see _decode_window.
_MARGIN = 2
# Distinguish the random numbers of one (seed, epoch, index).
_CROP, _FLIP = 0, 1
# The first two bytes of the formats that can be decoded: JPEG, PNG, GIF, BMP.
_KNOWN_STARTS = (b"\xff\xd8", b"\x89P", b"GI", b"BM")

Window = tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]


def decode_image(contents: tf.Tensor) -> tf.Tensor:
    """Decodes an image file's bytes.

    Args:
        contents: scalar string with a JPEG, PNG, BMP or GIF file (its first frame). Gray becomes
            RGB, an alpha channel is dropped, an EXIF orientation is not applied.

    Returns:
        uint8 [height, width, 3], RGB.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are no such image.
    """

    def jpeg() -> tf.Tensor:
        return tf.io.decode_jpeg(contents, channels=3, dct_method=_DCT_METHOD)

    def other() -> tf.Tensor:
        return tf.cond(tf.strings.substr(contents, 0, 2) == b"BM", bitmap, any_format)

    def bitmap() -> tf.Tensor:
        # Unlike PNG, a bitmap's channels are not converted by the decoder.
        image = tf.io.decode_bmp(contents)
        gray = tf.shape(image)[-1] == 1
        return tf.cond(gray, lambda: tf.repeat(image, 3, axis=-1), lambda: image[..., :3])

    def any_format() -> tf.Tensor:
        return tf.io.decode_image(contents, channels=3, expand_animations=False)

    image = tf.cond(tf.io.is_jpeg(contents), jpeg, other)
    return tf.ensure_shape(image, [None, None, 3])


def resize(image: tf.Tensor, size: int) -> tf.Tensor:
    """Resizes to a square, the aspect ratio ignored: bilinear, with antialiasing when shrinking.

    Args:
        image: [height, width, 3] in 0..255, uint8 or float.
        size: the new side in pixels.

    Returns:
        float32 [size, size, 3] in 0..255 up to rounding; unchanged if it has that size already.
    """

    def resized() -> tf.Tensor:
        return tf.image.resize(image, [size, size], method="bilinear", antialias=True)

    shape = tf.shape(image)
    fits = tf.logical_and(shape[0] == size, shape[1] == size)
    result = tf.cond(fits, lambda: tf.cast(image, tf.float32), resized)
    return tf.ensure_shape(result, [size, size, 3])


def sample_crop(
    height: tf.Tensor | int,
    width: tf.Tensor | int,
    seed2: tf.Tensor,
    area: tuple[float, float] = (0.25, 1.0),
) -> Window:
    """Draws a crop window of whole pixels.

    The area is uniform in the interval, the window's aspect ratio (width / height, in pixels)
    log-uniform in [3/4, 4/3], the position uniform. A window that would be wider or higher than the
    image gets the image's width or height, and the other side follows from the area, which is kept.

    Args:
        height: the image's height in pixels.
        width: the image's width in pixels.
        seed2: int32 [2], the seed of a stateless generator; the same seed gives the same window.
        area: lowest and highest area of the window, as a part of the image's, in (0, 1].

    Returns:
        (y, x, h, w): int32 scalars, the window's upper left pixel and its size, inside the image.
    """
    high, wide = tf.cast(height, tf.float64), tf.cast(width, tf.float64)
    drawn = tf.random.stateless_uniform([4], seed2, alg="philox")
    drawn = tf.unstack(tf.cast(drawn, tf.float64))
    pixels = (area[0] + (area[1] - area[0]) * drawn[0]) * high * wide
    log_aspect = tf.constant(np.log(ASPECT_RATIOS), tf.float64)
    aspect = tf.exp(log_aspect[0] + (log_aspect[1] - log_aspect[0]) * drawn[1])
    # A full-width window needs at least this height, hence both limits.
    crop_high = tf.clip_by_value(tf.sqrt(pixels / aspect), pixels / wide, high)
    crop_high = tf.clip_by_value(tf.round(crop_high), 1.0, high)
    crop_wide = tf.clip_by_value(tf.round(pixels / crop_high), 1.0, wide)
    y = tf.minimum(tf.floor(drawn[2] * (high - crop_high + 1)), high - crop_high)
    x = tf.minimum(tf.floor(drawn[3] * (wide - crop_wide + 1)), wide - crop_wide)
    window = tf.cast(tf.stack([y, x, crop_high, crop_wide]), tf.int32)
    return tuple(tf.unstack(window))  # type: ignore[return-value]


def steps_per_epoch(num_images: int, batch_size: int) -> int:
    """Number of batches of an epoch, the last, smaller one included."""
    return math.ceil(num_images / batch_size)


def training_dataset(
    examples: Examples,
    labels: ArrayLike,
    *,
    image_size: int,
    batch_size: int,
    seed: int,
    first_epoch: int = 1,
    epochs: int = 1,
    crop_area: tuple[float, float] = (0.25, 1.0),
    horizontal_flip: bool = True,
) -> tf.data.Dataset:
    """Shuffled batches of random crops for some epochs, one epoch after the other.

    Args:
        examples: the N images.
        labels: [N, L] of {1, 0, -1}, what the training may see.
        image_size: side S of the network's input in pixels.
        batch_size: images per batch B; the last batch of an epoch holds the remainder.
        seed: together with the epoch and the image's index it decides order, crops and flips.
        first_epoch: the number of the first epoch, counted from 1.
        epochs: how many epochs follow, this one included.
        crop_area: lowest and highest area of a crop as a part of the image, in (0, 1]; (1, 1) gives
            whole images.
        horizontal_flip: whether every second crop, on average, is mirrored.

    Returns:
        Dataset of `epochs * steps_per_epoch(N, B)` batches
        ({"image": float32 [B, S, S, 3] in 0..255, "box": float32 [B, 4] (y1, x1, y2, x2) of the
        crop in [0, 1] of the whole image, "flip": bool [B], "index": int64 [B] position in
        examples}, labels: int8 [B, L]). No batch crosses epochs.

    Raises:
        ValueError: no images, labels that do not fit, or numbers out of range.
    """
    labels = _checked_labels(examples, labels, image_size, batch_size)
    if not 0 < crop_area[0] <= crop_area[1] <= 1:
        raise ValueError(f"crop_area: expected 0 < low <= high <= 1, found {crop_area}")
    if first_epoch < 1 or epochs < 0:
        raise ValueError("first_epoch must be at least 1 and epochs at least 0")
    source = _Source(examples, labels, image_size)
    count = len(examples)

    def epoch_batches(epoch: tf.Tensor) -> tf.data.Dataset:
        epoch_seed = _fold_in(_base_seed(seed), epoch)
        order = tf.random.experimental.stateless_shuffle(
            tf.range(count, dtype=tf.int64), epoch_seed, alg="philox"
        )

        def example(index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
            return source.random_crop(
                index, _fold_in(epoch_seed, index), crop_area, horizontal_flip
            )

        dataset = tf.data.Dataset.from_tensor_slices(order)
        return dataset.map(example, num_parallel_calls=tf.data.AUTOTUNE).batch(batch_size)

    dataset = tf.data.Dataset.range(first_epoch, first_epoch + epochs).flat_map(epoch_batches)
    steps = epochs * steps_per_epoch(count, batch_size)
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(steps))
    return dataset.prefetch(tf.data.AUTOTUNE)


def evaluation_dataset(
    examples: Examples, labels: ArrayLike, *, image_size: int, batch_size: int
) -> tf.data.Dataset:
    """Every image once, whole and in order.

    Args:
        examples: the N images.
        labels: [N, L] of {1, 0, -1}.
        image_size: side of the network's input in pixels.
        batch_size: images per batch; the last batch holds the remainder.

    Returns:
        Dataset of batches as in `training_dataset`, with the box (0, 0, 1, 1) and no flip.

    Raises:
        ValueError: no images, labels that do not fit, or numbers out of range.
    """
    labels = _checked_labels(examples, labels, image_size, batch_size)
    source = _Source(examples, labels, image_size)
    dataset = tf.data.Dataset.range(len(examples))
    dataset = dataset.map(source.whole_image, num_parallel_calls=tf.data.AUTOTUNE)
    return dataset.batch(batch_size).prefetch(tf.data.AUTOTUNE)


def first_broken_image(examples: Examples) -> tuple[str, str] | None:
    """Looks for a file that cannot be decoded, after an epoch failed: decoders name no file.

    Args:
        examples: images to decode one by one; those in memory are never broken.

    Returns:
        (path, the decoder's message) of the first broken file, or None.
    """
    for path in examples.paths or ():
        try:
            decode_image(tf.io.read_file(path))
        except tf.errors.OpError as error:
            return path, error.message
    return None


class _Source:
    """Turns an image's index into one element of a dataset, inside tf.data's functions."""

    def __init__(self, examples: Examples, labels: np.ndarray, image_size: int) -> None:
        # Placed on the CPU, where tf.data runs; gathering there copies one image at a time.
        with tf.device("CPU:0"):
            self._labels = tf.constant(labels)
            self._images = None if examples.images is None else tf.constant(examples.images)
            self._paths = None if examples.paths is None else tf.constant(list(examples.paths))
        self._image_size = image_size

    def whole_image(self, index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        if self._images is not None:
            image = tf.gather(self._images, index)
        else:
            image = decode_image(self._read(index))
        return self._element(image, tf.constant([0.0, 0.0, 1.0, 1.0]), tf.constant(False), index)

    def random_crop(
        self,
        index: tf.Tensor,
        seed: tf.Tensor,
        area: tuple[float, float],
        horizontal_flip: bool,
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        crop_seed = _fold_in(seed, _CROP)
        if self._images is not None:
            crop, box = _crop(tf.gather(self._images, index), crop_seed, area)
        else:
            crop, box = _decode_crop(self._read(index), crop_seed, area)
        flip = tf.constant(False)
        if horizontal_flip:
            drawn = tf.random.stateless_uniform([], _fold_in(seed, _FLIP), alg="philox")
            flip = drawn < 0.5
        return self._element(crop, box, flip, index)

    def _read(self, index: tf.Tensor) -> tf.Tensor:
        path = tf.gather(self._paths, index)
        contents = tf.io.read_file(path)
        known = tf.reduce_any(tf.strings.substr(contents, 0, 2) == tf.constant(_KNOWN_STARTS))
        check = tf.debugging.Assert(known, [path, "is no JPEG, PNG, GIF or BMP image"])
        with tf.control_dependencies([check]):
            return tf.identity(contents)

    def _element(
        self, image: tf.Tensor, box: tf.Tensor, flip: tf.Tensor, index: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        image = resize(image, self._image_size)
        image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
        inputs = {"image": image, "box": box, "flip": flip, "index": index}
        return inputs, tf.gather(self._labels, index)


def _decode_crop(
    contents: tf.Tensor, seed: tf.Tensor, area: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random crop of a file and its box; of a JPEG only the crop is decoded."""

    def jpeg() -> tuple[tf.Tensor, tf.Tensor]:
        shape = tf.io.extract_jpeg_shape(contents)
        window = sample_crop(shape[0], shape[1], seed, area)
        return _decode_window(contents, window, shape), _box(window, shape[0], shape[1])

    def other() -> tuple[tf.Tensor, tf.Tensor]:
        return _crop(decode_image(contents), seed, area)

    return tf.cond(tf.io.is_jpeg(contents), jpeg, other)


def _decode_window(contents: tf.Tensor, window: Window, shape: tf.Tensor) -> tf.Tensor:
    """Decodes a window of a JPEG to exactly the pixels that the whole image has there.

    The decoder interpolates colour between neighbouring columns, which it lacks at a window's edge:
    a margin is decoded too and cut off again.
    """
    y, x, h, w = window
    left = tf.maximum(x - _MARGIN, 0)
    right = tf.minimum(x + w + _MARGIN, shape[1])
    wider = tf.image.decode_and_crop_jpeg(
        contents, tf.stack([y, left, h, right - left]), channels=3, dct_method=_DCT_METHOD
    )
    return wider[:, x - left : x - left + w]


def _crop(
    image: tf.Tensor, seed: tf.Tensor, area: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.shape(image)
    window = sample_crop(shape[0], shape[1], seed, area)
    y, x, h, w = window
    return image[y : y + h, x : x + w], _box(window, shape[0], shape[1])


def _box(window: Window, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
    y, x, h, w = window
    edges = tf.cast(tf.stack([y, x, y + h, x + w]), tf.float32)
    return edges / tf.cast(tf.stack([height, width, height, width]), tf.float32)


def _base_seed(seed: int) -> tf.Tensor:
    """Both halves of a Python integer, as the int32 pair the stateless generators take."""
    low, high = seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF
    return tf.constant(np.array([low, high], np.uint32).view(np.int32))


def _fold_in(seed: tf.Tensor, number: tf.Tensor | int) -> tf.Tensor:
    return tf.random.fold_in(seed, tf.cast(number, tf.int32), alg="philox")


def _checked_labels(
    examples: Examples, labels: ArrayLike, image_size: int, batch_size: int
) -> np.ndarray:
    matrix = validate_labels(labels)
    if not len(examples):
        raise ValueError("there are no images")
    if len(matrix) != len(examples):
        raise ValueError(f"{len(matrix)} rows of labels for {len(examples)} images")
    if image_size < 1 or batch_size < 1:
        raise ValueError("image_size and batch_size must be at least 1")
    return matrix
