"""Your own files, arrays and datasets as the batches that `SPMLModel` takes.

Each function gives every image its number, draws crops and flips anew in each epoch, and tells the
model of them. What was drawn follows from the seed, so that a training that begins anew sees the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike, NDArray

from spml_tf.datasets import pipeline
from spml_tf.datasets.dataset_elements import draw, draw_crop, draw_flip, model_inputs
from spml_tf.datasets.picture_limits import MAX_MEGAPIXELS
from spml_tf.datasets.readers.examples import Examples
from spml_tf.labels import GIVEN, GIVEN_TEXT, POSITIVE, UNKNOWN, validate_labels
from spml_tf.system.tensor_checks import codes_of


class _Wanted(NamedTuple):
    """How batches are made; see `from_paths`."""

    image_size: int
    batch_size: int
    training: bool
    crop_area: tuple[float, float]
    horizontal_flip: bool
    seed: int
    shuffle_buffer: int


def from_paths(
    paths: Sequence[str],
    labels: ArrayLike,
    *,
    image_size: int,
    batch_size: int = 16,
    training: bool = True,
    crop_area: tuple[float, float] = (0.25, 1.0),
    horizontal_flip: bool = True,
    seed: int = 0,
    max_megapixels: float = MAX_MEGAPIXELS,
) -> tf.data.Dataset:
    """Batches of image files.

    Args:
        paths: N files, JPEG, PNG, GIF or BMP.
        labels: [N, L] in {1, 0, -1}.
        image_size: side S of the network's input in pixels.
        batch_size: images per batch B; the last batch holds the remainder.
        training: whether images are shuffled, cropped and flipped; else they come whole and in
            order.
        crop_area: lowest and highest area of a crop, a part of the image's, in (0, 1].
        horizontal_flip: whether every second crop, on average, is mirrored.
        seed: decides order, crops and flips.
        max_megapixels: files whose header tells of more pixels, in millions, are not decoded.

    Returns:
        Dataset of one epoch, drawn anew each time it is iterated, of batches
        ({"image": float32 [B, S, S, 3] in 0..255, "box": float32 [B, 4], "flip": bool [B],
        "index": int64 [B]}, labels: int8 [B, L]).

    Raises:
        ValueError: no images, a file that is missing, labels that do not fit, or numbers out of
            range.

    Examples:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/a.png"
        >>> tf.io.write_file(path, tf.io.encode_png(np.full([40, 60, 3], 7, np.uint8)))
        >>> inputs, labels = next(iter(from_paths([path], [[1, -1]], image_size=32)))
        >>> inputs["image"].shape, inputs["index"].numpy().tolist(), labels.numpy().tolist()
        (TensorShape([1, 32, 32, 3]), [0], [[1, -1]])
    """
    matrix = validate_labels(labels)
    names = tuple(str(path) for path in paths)
    missing = next((name for name in names if not tf.io.gfile.exists(name)), None)
    if missing is not None:
        raise ValueError(f"paths: there is no file {missing}")
    numbers = tuple(map(str, range(len(names))))
    classes = tuple(map(str, range(matrix.shape[1])))
    examples = Examples(numbers, matrix, classes, paths=names, max_megapixels=max_megapixels)
    sizes: dict[str, Any] = {"image_size": image_size, "batch_size": batch_size}
    if not training:
        return pipeline.evaluation_dataset(examples, matrix, **sizes)
    return pipeline.redrawn_dataset(
        examples, matrix, **sizes, seed=seed, crop_area=crop_area, horizontal_flip=horizontal_flip
    )


def with_index(
    data: Any,
    labels: ArrayLike | None = None,
    *,
    image_size: int,
    num_classes: int | None = None,
    zeros: str = "negative",
    batch_size: int = 16,
    training: bool = True,
    crop_area: tuple[float, float] = (0.25, 1.0),
    horizontal_flip: bool = True,
    seed: int = 0,
    shuffle_buffer: int = 1000,
) -> tf.data.Dataset:
    """Batches of arrays, or of a dataset that comes in the same order each time.

    Args:
        data: images, [N, H, W, 3] in 0..255; or a `tf.data.Dataset` of batches (images, labels), as
            `keras.utils.image_dataset_from_directory(..., shuffle=False)` returns. Others are read
            once here, to count them.
        labels: of arrays. [N, L] in {1, 0, -1}, or [N] integers: one class an image, the others
            unknown. A dataset brings its own, of either kind.
        image_size: side S of the network's input in pixels.
        num_classes: L, needed where labels are integers.
        zeros: what 0 in rows of labels means, "negative" or "unknown"; "unknown" is right for the
            one-hot rows of label_mode="categorical".
        batch_size: as for `from_paths`.
        training: as for `from_paths`.
        crop_area: as for `from_paths`.
        horizontal_flip: as for `from_paths`.
        seed: as for `from_paths`.
        shuffle_buffer: images that are in memory at a time, to be shuffled. A dataset made of a
            folder comes class by class: take as many as a few classes have, or `from_paths`, which
            shuffles names.

    Returns:
        Dataset as `from_paths` returns. The number of images, `num_images` of `SPMLModel`, is that
        of `data`.

    Raises:
        ValueError: labels that do not fit, numbers out of range, or a dataset whose order changes
            or that never ends. Of a dataset only the first batch is looked at here; labels of a
            later one that do not fit raise tf.errors.InvalidArgumentError as it is read.

    Examples:
        >>> batches = with_index(np.zeros([3, 8, 8, 3]), [1, 0, 1], num_classes=2, image_size=8)
        >>> inputs, labels = next(iter(batches))
        >>> order = np.argsort(inputs["index"])
        >>> labels.numpy()[order].tolist()
        [[-1, 1], [1, -1], [-1, 1]]
    """
    if zeros not in ("negative", "unknown"):
        raise ValueError(f'zeros must be "negative" or "unknown". Received: {zeros!r}')
    pipeline.check_sizes(image_size, batch_size)
    pipeline.check_crop_area(crop_area)
    wanted = _Wanted(
        image_size, batch_size, training, crop_area, horizontal_flip, seed, shuffle_buffer
    )
    if isinstance(data, tf.data.Dataset):
        if labels is not None:
            raise ValueError("labels: a dataset brings its own; give (images, labels) batches")
        return _from_dataset(_indexed(data, num_classes, zeros), wanted)
    images = np.asarray(data)
    if images.ndim != 4 or images.shape[-1] != 3:
        raise ValueError(f"images must be of shape [N, H, W, 3]. Received: {list(images.shape)}")
    if labels is None:
        raise ValueError("labels are missing: arrays of images bring none")
    matrix = _rows(np.asarray(labels), num_classes, zeros)
    if len(matrix) != len(images):
        raise ValueError(f"{len(matrix)} rows of labels for {len(images)} images")
    source = tf.data.Dataset.from_tensor_slices((images, matrix)).enumerate()
    return _from_dataset(source.map(lambda index, pair: (index, *pair)), wanted)


def _indexed(data: tf.data.Dataset, num_classes: int | None, zeros: str) -> tf.data.Dataset:
    """Elements (index, image, row of labels) of a dataset of batches."""
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"the dataset must hold (images, labels). Received: {spec}")
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "the dataset never ends, so that its images have no numbers; leave out "
            "repeat(), `fit` begins it anew in each epoch"
        )
    _, labels = _first_batch(data)
    _rows(labels, num_classes, zeros)  # raises ValueError for what cannot be meant

    def element(index: tf.Tensor, pair: Any) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        image, label = pair
        if label.shape.rank == 0:
            number = tf.cast(label, tf.float32)
            hits = tf.range(num_classes, dtype=tf.float32) == number
            tf.debugging.Assert(tf.reduce_any(hits), [f"{_classes(num_classes)}, found", number])
            return index, image, tf.cast(tf.where(hits, POSITIVE, UNKNOWN), tf.int8)
        row = codes_of(label, GIVEN, f"labels: expected {GIVEN_TEXT}, found")
        if zeros == "unknown":
            row = tf.where(row == 0, tf.constant(UNKNOWN, tf.int8), row)
        return index, image, row

    elements = data.unbatch().enumerate().map(element)
    return elements.apply(tf.data.experimental.assert_cardinality(_count(data)))


def _count(data: tf.data.Dataset) -> int:
    """Number of images; Keras warns of a dataset that does not tell its length."""
    paths = getattr(data, "file_paths", None)  # where Keras made it of a folder
    if paths is not None:
        return len(paths)
    return int(data.reduce(0, lambda count, batch: count + tf.shape(batch[1])[0]))


def _first_batch(data: tf.data.Dataset) -> tuple[NDArray[Any], NDArray[Any]]:
    """Images and labels; raises ValueError where there are none or two passes begin differently."""
    passes = [next(data.as_numpy_iterator(), None) for _ in range(2)]
    if passes[0] is None:
        raise ValueError("the dataset holds no images")
    for one, other in zip(*passes, strict=True):
        if not np.array_equal(one, other):
            raise ValueError(
                "the dataset comes in another order each time, so that its images have no numbers; "
                "give shuffle=False, they are shuffled here"
            )
    images, labels = passes[0]
    return images, labels


def _classes(num_classes: Any) -> str:
    return f"labels must be classes 0 to {num_classes - 1}"


def _rows(labels: NDArray[Any], num_classes: int | None, zeros: str) -> NDArray[np.int8]:
    """Rows of labels in {1, 0, -1}."""
    if labels.ndim == 1:
        if num_classes is None:
            raise ValueError("num_classes is missing: the labels are numbers of classes")
        if not np.isin(labels, np.arange(num_classes)).all():
            raise ValueError(_classes(num_classes))
        hits = labels[:, None] == np.arange(num_classes)
        return np.where(hits, POSITIVE, UNKNOWN).astype(np.int8)
    matrix = validate_labels(labels)
    if num_classes not in (None, matrix.shape[1]):
        raise ValueError(f"num_classes={num_classes}: the rows of labels have {matrix.shape[1]}")
    return np.where(matrix == 0, UNKNOWN, matrix).astype(np.int8) if zeros == "unknown" else matrix


def _from_dataset(indexed: tf.data.Dataset, wanted: _Wanted) -> tf.data.Dataset:
    def whole(
        index: tf.Tensor, image: tf.Tensor, label: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        box, flip = tf.constant([0.0, 0.0, 1.0, 1.0]), tf.constant(False)
        return model_inputs(image, box, flip, index, wanted.image_size), label

    def drawn(
        element: tuple[tf.Tensor, tf.Tensor, tf.Tensor], seed: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        index, image, label = element
        numbers = draw(tf.bitcast(seed, tf.int32))
        picture, box = draw_crop(image, numbers, wanted.crop_area)
        flip = draw_flip(numbers, wanted.horizontal_flip)
        return model_inputs(picture, box, flip, index, wanted.image_size), label

    if not wanted.training:
        elements = indexed.map(whole, num_parallel_calls=tf.data.AUTOTUNE)
    else:
        seeds = tf.data.Dataset.random(wanted.seed, rerandomize_each_iteration=True)
        shuffled = indexed.shuffle(
            wanted.shuffle_buffer, wanted.seed, reshuffle_each_iteration=True
        )
        pairs = tf.data.Dataset.zip((shuffled, seeds))
        elements = pairs.map(drawn, num_parallel_calls=tf.data.AUTOTUNE)
    return elements.batch(wanted.batch_size).prefetch(tf.data.AUTOTUNE)
