"""Batches of whole images for a network, from whatever holds them.

`Images` are one of:

- `Examples`, files or arrays with names and labels;
- an array [N, H, W, 3] of RGB in 0..255, or a sequence of photos [H, W, 3], which may differ in
  size;
- a `tf.data.Dataset` or `keras.utils.PyDataset` of batches as `fit` takes them: the images, a dict
  with "image", or a tuple that begins with either. What stands under "index" are the images' rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from spml_tf.datasets import pipeline
from spml_tf.datasets.images import resize
from spml_tf.datasets.readers import Examples
from spml_tf.system.progress import progress

Images: TypeAlias = (
    Examples | NDArray[Any] | Sequence[NDArray[Any]] | tf.data.Dataset | keras.utils.PyDataset
)

_NO_IMAGES = "images: there are none; give at least one"


@dataclasses.dataclass(frozen=True)
class Batch:
    """Images at a time.

    Attributes:
        image: float32 [B, H, W, 3] in 0..255.
        index: int64 [B], the images' rows, or None where batches of a dataset do not tell.
    """

    image: tf.Tensor
    index: NDArray[np.int64] | None

    def rows(self, start: int) -> Sequence[int]:
        """The images' rows, counted on from `start` where they are not told."""
        if self.index is None:
            return range(start, start + len(self.image))
        return [int(row) for row in self.index]


def batches(images: Images, image_size: int | None, batch_size: int) -> Iterator[Batch]:
    """Every image once, in order, resized as in evaluation.

    Args:
        images: see the module.
        image_size: side of the network's input in pixels; None takes images as they are, which
            files and photos of different sizes are too different for.
        batch_size: images at a time; a dataset's batches stay as they are.

    Raises:
        ValueError: there are no images, `image_size` is needed, they have no shape [H, W, 3], or a
            dataset has no end.
        UserError: a file cannot be decoded.
    """
    if isinstance(images, Examples):
        yield from _of_examples(images, image_size, batch_size)
    elif isinstance(images, tf.data.Dataset | keras.utils.PyDataset):
        yield from _of_dataset(images, image_size)
    else:
        yield from _of_arrays(images, image_size, batch_size)


def _of_examples(examples: Examples, image_size: int | None, batch_size: int) -> Iterator[Batch]:
    if image_size is None:
        raise ValueError("image_size is missing: the network takes images of any size")
    data = pipeline.evaluation_dataset(
        examples, examples.labels, image_size=image_size, batch_size=batch_size
    )
    told = progress(data, len(examples), "images", lambda batch: len(batch[1]), lines=False)
    with pipeline.naming_broken_images(examples):
        for x, _ in told:
            yield Batch(x["image"], x["index"].numpy())


def _of_dataset(data: tf.data.Dataset | keras.utils.PyDataset, size: int | None) -> Iterator[Batch]:
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise ValueError("the dataset repeats without end; give every image once")
    elif data.num_batches is None:
        raise ValueError("the PyDataset has no end (num_batches is None); give every image once")
    parts = data if isinstance(data, tf.data.Dataset) else map(data.__getitem__, range(len(data)))
    empty = True
    for part in parts:
        x = part[0] if isinstance(part, tuple | list) else part
        index = None
        if isinstance(x, Mapping):
            if "index" in x:
                index = np.asarray(x["index"], np.int64)
            x = x["image"]
        image = _sized(x, size, rank=4)
        if len(image):
            empty = False
            yield Batch(image, index)
    if empty:
        raise ValueError(_NO_IMAGES)


def _of_arrays(
    images: NDArray[Any] | Sequence[NDArray[Any]], image_size: int | None, batch_size: int
) -> Iterator[Batch]:
    if not len(images):
        raise ValueError(_NO_IMAGES)
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        if isinstance(part, Sequence):
            shapes = {np.shape(image)[:2] for image in part}
            if image_size is None and len(shapes) > 1:
                raise ValueError("image_size is missing: the photos differ in size")
            image = tf.stack([_sized(image, image_size, rank=3) for image in part])
        else:
            image = _sized(part, image_size, rank=4)
        yield Batch(image, np.arange(start, start + len(part)))


def _sized(image: Any, image_size: int | None, rank: int) -> tf.Tensor:
    image = tf.convert_to_tensor(image)
    if image.shape.rank != rank or image.shape[-1] != 3:
        wanted = "[H, W, 3]" if rank == 3 else "[B, H, W, 3]"
        raise ValueError(f"expected images {wanted}, found shape {tuple(image.shape)}")
    return tf.cast(image, tf.float32) if image_size is None else resize(image, image_size)


def chosen(images: Images, rows: Sequence[int]) -> Examples | NDArray[Any] | list[NDArray[Any]]:
    """Some of the images, in the order of `rows`.

    Args:
        images: see the module; a dataset is gone through once.
        rows: the images' positions, or what a dataset's "index" says.

    Raises:
        ValueError: there is no image of that row.
    """
    if isinstance(images, Examples):
        return images.subset(rows)
    if not isinstance(images, tf.data.Dataset | keras.utils.PyDataset):
        return [np.asarray(images[row]) for row in rows]
    found, wanted, start = {}, set(rows), 0
    for batch in batches(images, None, 1):
        for row, image in zip(batch.rows(start), batch.image, strict=True):
            if row in wanted:
                found[row] = image.numpy()
        start += len(batch.image)
    missing = sorted(wanted - set(found))
    if missing:
        raise ValueError(f"the dataset has no image of row {missing[0]}")
    return [found[row] for row in rows]
