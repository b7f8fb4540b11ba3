"""One element of a data set: from an image's index to what the model takes of it.

Everything here consists of TensorFlow's operations, for tf.data's functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.datasets import other_formats
from spml_tf.datasets.images import crop, decode_crop, decode_image, kept_apart, resize
from spml_tf.datasets.readers.examples import Examples

# Bytes read at once from a TFRecord file: most photos in one go.
_RECORD_BUFFER = 1 << 18
# The first two bytes of the formats that can be decoded: JPEG, PNG, GIF, BMP.
_KNOWN_STARTS = (b"\xff\xd8", b"\x89P", b"GI", b"BM")
# Those of TIFF and WebP, which Pillow decodes; AVIF and HEIC have a name at byte 4.
_OTHER_STARTS, _OTHER_NAME = (b"II", b"MM", b"RI"), b"ftyp"
# What is drawn for an image: numbers for its crop, and one for its flip.
_FOR_CROP, _DRAWN = 4, 5


def read_record(path: tf.Tensor, offset: tf.Tensor) -> tf.Tensor:
    """Reads the feature "image" of one tf.train.Example of a TFRecord file.

    tf.data.TFRecordDataset reads from the beginning only; the operation under it takes offsets.

    Args:
        path: scalar string, the file.
        offset: scalar int64, the byte at which the record begins.

    Returns:
        Scalar string, the encoded image.

    Raises:
        tf.errors.OpError: no record begins there, or it is damaged.
    """
    variant = tf.raw_ops.TFRecordDatasetV2(
        filenames=[path],
        compression_type="",
        buffer_size=tf.constant(_RECORD_BUFFER, tf.int64),
        byte_offsets=[offset],
    )
    records = tf.data.experimental.from_variant(variant, tf.TensorSpec([], tf.string))
    record = records.take(1).get_single_element()
    return tf.io.parse_single_example(record, {"image": tf.io.FixedLenFeature([], tf.string)})[
        "image"
    ]


class Source:
    """Turns an image's index into one element of a dataset, inside tf.data's functions."""

    def __init__(self, examples: Examples, labels: NDArray[np.int8], image_size: int) -> None:
        # Placed on the CPU, where tf.data runs; gathering there copies one image at a time.
        with tf.device("CPU:0"):
            self._labels = tf.constant(labels)
            self._images = None if examples.images is None else tf.constant(examples.images)
            self._paths = None if examples.paths is None else tf.constant(list(examples.paths))
            self._offsets = None if examples.offsets is None else tf.constant(examples.offsets)
        self._image_size = image_size
        self._max_megapixels = examples.max_megapixels
        self._scaled = examples.scaled_decoding

    def whole_image(self, index: tf.Tensor) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        if self._images is not None:
            image = tf.gather(self._images, index)
        else:
            image = decode_image(self.contents(index), self._max_megapixels)
        return self._element(image, tf.constant([0.0, 0.0, 1.0, 1.0]), tf.constant(False), index)

    def random_crop(
        self,
        index: tf.Tensor,
        drawn: tf.Tensor,
        area: tuple[float, float],
        horizontal_flip: bool,
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        """A crop, resized, and mirrored where that is drawn; drawn is a row of `draw`."""
        if self._images is not None:
            picture, box = draw_crop(tf.gather(self._images, index), drawn, area)
        else:
            picture, box = decode_crop(
                self.contents(index), drawn[:_FOR_CROP], area, self._max_megapixels,
                self._image_size if self._scaled else None,
            )  # fmt: skip
        return self._element(picture, box, draw_flip(drawn, horizontal_flip), index)

    def contents(self, index: tf.Tensor) -> tf.Tensor:
        """The bytes of an encoded image; an error where they are of no format we decode.

        Of a format that Pillow decodes they are those of a bitmap.
        """
        path = tf.gather(self._paths, index)
        if self._offsets is None:
            contents = tf.io.read_file(path)
        else:
            contents = read_record(path, tf.gather(self._offsets, index))
        unusual = kept_apart(self._checked)
        return tf.cond(
            tf.io.is_jpeg(contents),
            lambda: tf.identity(contents),
            lambda: unusual(contents, path),
        )

    def _checked(self, contents: tf.Tensor, path: tf.Tensor) -> tf.Tensor:
        start = tf.strings.substr(contents, 0, 2)
        known = tf.reduce_any(start == tf.constant(_KNOWN_STARTS))
        padded = tf.strings.join([tf.strings.substr(contents, 0, 8), b"\0" * 8])
        other = tf.reduce_any(start == tf.constant(_OTHER_STARTS))
        other |= tf.strings.substr(padded, 4, 4) == _OTHER_NAME
        check = tf.debugging.Assert(known | other, [path, "is no image of a known format"])
        with tf.control_dependencies([check]):
            return tf.cond(known, lambda: tf.identity(contents), lambda: self._bitmap(contents))

    def _bitmap(self, contents: tf.Tensor) -> tf.Tensor:
        def convert(data: Any) -> bytes:
            # Bytes in a graph, an array of no dimensions elsewhere.
            return other_formats.as_bitmap(np.asarray(data, object).item(), self._max_megapixels)

        return tf.ensure_shape(
            tf.numpy_function(convert, [contents], tf.string, stateful=False), []
        )

    def _element(
        self, image: tf.Tensor, box: tf.Tensor, flip: tf.Tensor, index: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        inputs = model_inputs(image, box, flip, index, self._image_size)
        return inputs, tf.gather(self._labels, index)


def draw(seed: tf.Tensor, count: int | None = None) -> tf.Tensor:
    """Numbers for the random crop and flip of each of `count` images, or of one.

    Args:
        seed: int32 [2].
        count: N; row i of [N, 5] is the same for every N above i.

    Returns:
        float32 [N, 5] in [0, 1), or [5] for one.
    """
    shape = [_DRAWN] if count is None else [count, _DRAWN]
    return tf.random.stateless_uniform(shape, seed, alg="philox")


def draw_flip(drawn: tf.Tensor, horizontal_flip: bool) -> tf.Tensor:
    """Whether a crop is mirrored: bool (), True for half of what `draw` gives, or never."""
    return drawn[_FOR_CROP] < 0.5 if horizontal_flip else tf.constant(False)


def draw_crop(
    image: tf.Tensor, drawn: tf.Tensor, area: tuple[float, float]
) -> tuple[tf.Tensor, tf.Tensor]:
    """A random crop of an image [H, W, 3] and its box [4] float32; drawn is [5], of `draw`."""
    return crop(image, drawn[:_FOR_CROP], area)


def model_inputs(
    image: tf.Tensor, box: tf.Tensor, flip: tf.Tensor, index: tf.Tensor, image_size: int
) -> dict[str, tf.Tensor]:
    """What `SPMLModel` takes of one image: mirrored where flip says so, and resized.

    Args:
        image: [h, w, 3], the crop.
        box: [4] float32, of the crop.
        flip: bool ().
        index: int64 ().
        image_size: S.

    Returns:
        {"image": float32 [S, S, 3] in 0..255, "box": ..., "flip": ..., "index": ...}.
    """
    # Mirrored before it is resized: a quarter of the bytes, and the same result.
    image = tf.cond(flip, lambda: tf.reverse(image, [1]), lambda: image)
    return {"image": resize(image, image_size), "box": box, "flip": flip, "index": index}
